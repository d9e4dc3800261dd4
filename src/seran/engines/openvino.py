"""OpenVINO on the CPU: the default engine."""

import functools
import os
from collections.abc import Callable
from typing import Literal

import numpy as np
import openvino as ov
from jaxtyping import Float
from numpy import ndarray
from openvino import opset15 as opset
from openvino import properties
from openvino.properties import hint

from seran import int8
from seran.engines import in_turn
from seran.errors import BadInput
from seran.machine import cpus
from seran.weights import tensors

Precision = Literal["auto", "bf16", "f32", "int8"]
Part = Callable[[Float[ndarray, "1 1 h w"]], Float[ndarray, "1 c h w"]]
"""What of a network has the size of its input."""

PIXELS = 1 << 20
"""High-resolution pixels in work at a time, over all requests; one takes about 256 bytes in bf16."""
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""oneDNN's names of instruction sets that lack bf16."""
TRUNK_PIXELS = 400 * 400
"""Low-resolution pixels of the largest slice that ``trunk`` gets; MNN takes 2.5 kB for one."""
UPSAMPLING = "up.0.weight"
"""End of the name of the weights with which a network leaves the grid of its input."""
SPARE = 8
"""Low-resolution rows beside a strip: more than the upsampling and the bicubic enlargement look at."""


def device() -> tuple[str, str]:
    """The CPU's name, and the precision that it computes natively."""
    core = ov.Core()
    return core.get_property("CPU", "FULL_DEVICE_NAME").strip(), native(core)


def native(core: ov.Core | None = None) -> str:
    """bf16 where the CPU computes it natively and ``ONEDNN_MAX_CPU_ISA`` lets it, f32 elsewhere."""
    core = core or ov.Core()
    capped = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BF16  # OpenVINO forgets to say so
    return "bf16" if not capped and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class Request:
    """One slice at a time, on a thread of its own.

    Without Python callbacks: those need the interpreter's lock and can deadlock with a destructor.
    """

    def __init__(self, network: ov.CompiledModel) -> None:
        self.request = network.create_infer_request()

    def start(self, low: Float[ndarray, "1 h w"]) -> None:
        """Give it a slice; returns at once."""
        self.request.start_async({"low": low[:, None]})

    def result(self) -> Float[ndarray, "1 sh sw"]:
        """What it made of it, valid until the next start."""
        self.request.wait()
        return self.request.get_output_tensor().data[:, 0]


def load(
    data: bytes,
    scale: int,
    precision: Precision = "auto",
    threads: int = 0,
    ranges: int8.Ranges | None = None,
    trunk: Callable[[bytes, str, int], tuple[Part, str]] | None = None,
) -> tuple[Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]], str, str]:
    """A weights file on this CPU.

    Slices run in parallel requests, one thread each: convolutions then stay within a core's own cache. Large
    slices get fewer requests of more threads, because each request has memory of its own, and the largest are
    upsampled strip by strip (`split`).

    Args:
        data: an ONNX model low (n, 1, h, w) -> high (n, 1, s·h, s·w).
        scale: s.
        precision: of the convolutions; ``auto`` is bf16 where the CPU has it. Bicubic and sums stay float32.
        threads: 0 for every CPU this process may use.
        ranges: what ``int8`` needs, see `seran.calibrate`.
        trunk: what runs the network up to its upsampling, in place of OpenVINO, if float32 is computed: made
            from the model, the name of what it ends with, and the number of threads; with its name in words.
            Its result is used before it is called again.

    Returns:
        The predictor, the engine in words, and the precision.

    Raises:
        BadInput: for ``int8`` without ranges.
    """
    core = ov.Core()
    threads = threads or cpus()
    kind = native(core) if precision == "auto" else precision
    if kind == "int8" and not ranges:
        raise BadInput(
            "these weights were not calibrated for int8; run `seran calibrate`, or choose another --precision"
        )
    wide = native(core) if kind == "int8" else kind  # of what does not compute in 8 bits

    model = core.read_model(data)
    if kind == "int8" and ranges:
        model = int8.quantized(model, ranges, tensors(data))
    setting = {
        hint.inference_precision: ov.Type.bf16 if wide == "bf16" else ov.Type.f32,
        properties.inference_num_threads: threads,
    }

    @functools.cache
    def requests(parallel: int) -> list[Request]:
        network = core.compile_model(model, "CPU", setting | {properties.streams.num: parallel})
        return [Request(network) for _ in range(parallel)]

    @functools.cache
    def parts() -> list[ov.Model]:
        return split(model.clone())

    @functools.cache
    def compiled(part: int) -> ov.CompiledModel:
        return core.compile_model(parts()[part], "CPU", setting | {properties.streams.num: 1})

    def body(low: Float[ndarray, "1 1 h w"]) -> Float[ndarray, "1 c h w"]:
        return compiled(0)({"low": low})[0]

    what, first = f"OpenVINO {ov.__version__.split('-')[0]} CPU, {threads} threads", None
    if kind == "f32" and trunk and parts():
        first, name = trunk(data, parts()[0].output(0).get_any_name(), threads)
        what = f"{name} and {what}"

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        n, h, w = low.shape
        if first and h * w <= TRUNK_PIXELS:
            return np.stack([_in_strips(first, compiled(1), one, scale) for one in low])
        if scale**2 * h * w > PIXELS and parts():
            return np.stack([_in_strips(body, compiled(1), one, scale) for one in low])
        high = np.empty((n, scale * h, scale * w), np.float32)
        parallel = max(1, min(threads, PIXELS // (scale**2 * h * w)))
        in_turn(low, high, requests(parallel), 1)
        return high

    return predict, what, kind


def split(model: ov.Model) -> list[ov.Model]:
    """A network as two: low -> features, and low and features -> high; none if its upsampling is not its end.

    The first ends before the convolution of `UPSAMPLING`, where the slice has its own size. What follows
    looks at a few pixels around each, so it can be run on strips, whose memory does not grow with the slice.
    """

    def upsampling(of: ov.Model) -> ov.Node | None:
        for op in of.get_ordered_ops():
            if op.get_type_name() == "Convolution" and any(
                name.endswith(UPSAMPLING) for name in op.input_value(1).get_names()
            ):
                return op
        return None

    convolution, rest = upsampling(model), model.clone()
    if convolution is None:
        return []
    features = opset.parameter(convolution.input_value(0).get_partial_shape(), np.float32, "features")
    features.output(0).set_names({"features"})
    last = upsampling(rest)
    assert last is not None
    last.input(0).replace_source_output(features.output(0))
    body = ov.Model([convolution.input_value(0)], model.get_parameters(), "body")
    return [body, ov.Model(rest.get_results(), [*rest.get_parameters(), features], "tail")]


def _in_strips(
    body: Part, tail: ov.CompiledModel, low: Float[ndarray, "h w"], scale: int
) -> Float[ndarray, "sh sw"]:
    """One slice: its features at once, the rest strip by strip, each with rows to spare."""
    h, w = low.shape
    whole = np.ascontiguousarray(low, np.float32)[None, None]
    features, high = body(whole), np.empty((scale * h, scale * w), np.float32)
    step = max(SPARE, PIXELS // (4 * scale**2 * w))
    for row in range(0, h, step):
        end = min(row + step, h)
        first, last = max(0, row - SPARE), min(h, end + SPARE)
        made = tail({"low": whole[:, :, first:last], "features": features[:, :, first:last]})[0]
        high[scale * row : scale * end] = made[0, 0, scale * (row - first) : scale * (end - first)]
    return high
