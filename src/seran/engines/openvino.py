"""OpenVINO on the CPU: the default engine."""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
import openvino as ov
from jaxtyping import Float
from numpy import ndarray
from openvino import properties
from openvino.properties import hint

from seran.machine import cpus

Precision = Literal["auto", "bf16", "f32"]

PIXELS = 1 << 21
"""High-resolution pixels in work at a time, over all requests; one takes about 256 bytes in bf16."""


def device() -> str:
    """The CPU's name, and the precision that it computes natively."""
    core = ov.Core()
    return f"{core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}, {native(core)}"


def native(core: ov.Core) -> str:
    """bf16 where the CPU computes it natively, f32 elsewhere."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def load(
    data: bytes, scale: int, precision: Precision = "auto", threads: int = 0
) -> tuple[Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]], str, str]:
    """A weights file on this CPU.

    Slices run in parallel requests, one thread each: convolutions then stay within a core's own cache. Large
    slices get fewer requests of more threads, because each request has memory of its own.

    Args:
        data: an ONNX model low (n, 1, h, w) -> high (n, 1, s·h, s·w).
        scale: s.
        precision: of the convolutions; ``auto`` is bf16 where the CPU has it. Bicubic and sums stay float32.
        threads: 0 for every CPU this process may use.

    Returns:
        The predictor, the engine in words, and the precision.
    """
    core = ov.Core()
    threads = threads or cpus()
    kind = native(core) if precision == "auto" else precision
    model = core.read_model(data)

    @functools.cache
    def compiled(parallel: int) -> list[ov.InferRequest]:
        network = core.compile_model(
            model,
            "CPU",
            {
                hint.inference_precision: ov.Type.bf16 if kind == "bf16" else ov.Type.f32,
                properties.inference_num_threads: threads,
                properties.streams.num: parallel,
            },
        )
        # Without Python callbacks: those need the interpreter's lock and can deadlock with a destructor.
        return [network.create_infer_request() for _ in range(parallel)]

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        n, h, w = low.shape
        parallel = max(1, min(threads, PIXELS // (scale**2 * h * w)))
        requests = compiled(parallel)
        high = np.empty((n, scale * h, scale * w), np.float32)
        for i in range(n + parallel):
            request = requests[i % parallel]
            if i >= parallel:  # what this request was given one round ago
                request.wait()
                high[i - parallel] = request.get_output_tensor().data[0, 0]
            if i < n:
                request.start_async({"low": np.ascontiguousarray(low[i][None, None], np.float32)})
        return high

    return predict, f"OpenVINO {ov.__version__.split('-')[0]} CPU, {threads} threads", kind
