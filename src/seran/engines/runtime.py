"""OpenVINO, imported so that it tells nobody: the one place that imports it.

It reports every import to Google Analytics, unless ``openvino_telemetry`` cannot be imported. That is so
while it is imported here, and no longer: whoever else uses that package in this process still can.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hint", "opset", "ov", "properties"]

TELEMETRY = "openvino_telemetry"


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Within, a module cannot be imported; afterwards it is as it was."""
    before = {n: module for n, module in sys.modules.items() if n == name}
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


with _without(TELEMETRY):
    import openvino as ov
    from openvino import opset15 as opset
    from openvino import properties
    from openvino.properties import hint
