"""OpenVINO, imported so that it tells nobody: the one place that imports it.

It reports every import to Google Analytics, unless ``openvino_telemetry`` cannot be imported. That is so
while it is imported here, and no longer: whoever else uses that package in this process still can.
"""

import sys

__all__ = ["hint", "opset", "ov", "properties"]

TELEMETRY = "openvino_telemetry"
BEFORE = {name: module for name, module in sys.modules.items() if name == TELEMETRY}
sys.modules[TELEMETRY] = None  # type: ignore[assignment]
try:
    import openvino as ov
    from openvino import opset15 as opset
    from openvino import properties
    from openvino.properties import hint
finally:
    del sys.modules[TELEMETRY]
    sys.modules.update(BEFORE)
