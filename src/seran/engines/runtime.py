"""OpenVINO, imported so that it tells nobody: the one place that imports it.

It reports every import to Google Analytics, unless ``openvino_telemetry`` cannot be imported. That is so
while it is imported here, and no longer: whoever else uses that package in this process still can.
"""

from seran import machine

__all__ = ["hint", "opset", "ov", "properties"]

with machine.without("openvino_telemetry"):
    import openvino as ov
    from openvino import opset15 as opset
    from openvino import properties
    from openvino.properties import hint
