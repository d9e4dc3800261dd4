"""OpenVINO on the CPU: the default engine."""

import os
from collections.abc import Callable
from typing import Literal

import numpy as np
import openvino as ov
from jaxtyping import Float
from numpy import ndarray
from openvino import properties
from openvino.properties import hint

Precision = Literal["auto", "bf16", "f32"]


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native(core: ov.Core) -> str:
    """bf16 where the CPU computes it natively, f32 elsewhere."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def load(
    data: bytes, precision: Precision = "auto", threads: int = 0
) -> tuple[Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]], str, str]:
    """Compile a weights file for this CPU.

    Slices run in parallel requests, one thread each: convolutions then stay within a core's own cache.

    Args:
        data: an ONNX model low (n, 1, h, w) -> high (n, 1, s·h, s·w).
        precision: of the convolutions; ``auto`` is bf16 where the CPU has it. Bicubic and sums stay float32.
        threads: 0 for every CPU this process may use.

    Returns:
        The predictor, the engine in words, and the precision.
    """
    core = ov.Core()
    threads = threads or cpus()
    kind = native(core) if precision == "auto" else precision
    compiled = core.compile_model(
        core.read_model(data),
        "CPU",
        {
            hint.inference_precision: ov.Type.bf16 if kind == "bf16" else ov.Type.f32,
            properties.inference_num_threads: threads,
            properties.streams.num: threads,
        },
    )

    # Requests without Python callbacks: those need the interpreter's lock and can deadlock with a destructor.
    requests = [compiled.create_infer_request() for _ in range(threads)]

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        results = []
        for i in range(len(low) + threads):
            request = requests[i % threads]
            if i >= threads:  # what this request was given one round ago
                request.wait()
                results.append(request.get_output_tensor().data[0, 0].copy())
            if i < len(low):
                request.start_async({"low": np.ascontiguousarray(low[i][None, None], np.float32)})
        return np.stack(results)

    return predict, f"OpenVINO {ov.__version__.split('-')[0]} CPU, {threads} threads", kind
