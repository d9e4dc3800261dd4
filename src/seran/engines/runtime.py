"""OpenVINO, imported so that it tells nobody: the one place that imports it.

It reports every import to Google Analytics, unless ``openvino_telemetry`` cannot be imported. That is so
while it is imported here, and no longer: whoever else uses that package in this process still can.
"""

from typing import Any

from seran import machine

__all__ = ["hint", "opset", "ov", "properties", "setting", "words"]

with machine.without("openvino_telemetry"):
    import openvino as ov
    from openvino import opset15 as opset
    from openvino import properties
    from openvino.properties import hint


def setting(half: bool, threads: int) -> dict[Any, Any]:
    """How a network is compiled for the CPU.

    Args:
        half: whether convolutions compute in bf16.
        threads: of the CPU.
    """
    kind = ov.Type.bf16 if half else ov.Type.f32
    return {hint.inference_precision: kind, properties.inference_num_threads: threads}


def words(threads: int) -> str:
    """What runs a network, in words."""
    return f"OpenVINO {ov.__version__.split('-')[0]} CPU, {threads} threads"
