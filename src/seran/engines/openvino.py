"""OpenVINO on the CPU: the default engine."""

import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import openvino as ov
from jaxtyping import Float
from numpy import ndarray
from openvino import opset15 as opset
from openvino import properties
from openvino.properties import hint

from seran import subpixel
from seran.engines import in_turn, int8
from seran.errors import BadInput
from seran.machine import cpus
from seran.subpixel import WINDOWS
from seran.weights import tensors

Precision = Literal["auto", "bf16", "f32", "int8"]
Part = Callable[[Float[ndarray, "1 1 h w"]], Float[ndarray, "1 c h w"]]
"""What of a network has the size of its input."""

MEMORY = 400 << 20
"""Bytes of features in work at a time, over all requests."""
WIDE, FINE = 800, 256
"""Bytes in bf16 for a pixel of the input (SERAN); of the result, where features are that fine (VDSR)."""
UPSAMPLING, TAIL = "up.0.weight", "tail.weight"
"""Ends of the names of the weights of the first and the last convolution behind a network's features."""
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""oneDNN's names of instruction sets that lack bf16."""
TRUNK_PIXELS = 400 * 400
"""Low-resolution pixels of the largest slice that ``trunk`` gets; MNN takes 2.5 kB for one."""


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
    """One slice at a time, beside other requests.

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
    slices get fewer requests of more threads, because each request has memory of its own. What upsamples at
    the end is one convolution, where the network allows (`seran.subpixel`).

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
        The predictor, the engine in words, and the precision. Of threads that call it at once, one waits.

    Raises:
        BadInput: for ``int8`` without ranges; from the predictor, for slices below 3x3 pixels.
    """
    core = ov.Core()
    threads = threads or cpus()
    kind = native(core) if precision == "auto" else precision
    if kind == "int8" and not ranges:
        raise BadInput(
            "these weights were not calibrated for int8; run `seran calibrate`, or choose another --precision"
        )
    wide = native(core) if kind == "int8" else kind  # of what does not compute in 8 bits

    model, parameters = core.read_model(data), tensors(data)
    if kind == "int8" and ranges:
        model = int8.quantized(model, ranges, parameters)
    features = fold(model, parameters)
    setting = {
        hint.inference_precision: ov.Type.bf16 if wide == "bf16" else ov.Type.f32,
        properties.inference_num_threads: threads,
    }

    @functools.cache
    def requests(parallel: int) -> list[Request]:
        network = core.compile_model(model, "CPU", setting | {properties.streams.num: parallel})
        return [Request(network) for _ in range(parallel)]

    @functools.cache
    def ending() -> ov.CompiledModel:
        return core.compile_model(tail(model, name), "CPU", setting | {properties.streams.num: 1})

    what, body = f"OpenVINO {ov.__version__.split('-')[0]} CPU, {threads} threads", None
    if kind == "f32" and trunk and features is not None:
        name = features.get_any_name()
        body, by = trunk(data, name, threads)
        what = f"{by} and {what}"

    turn = threading.Lock()

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        n, h, w = low.shape
        if features is not None and min(h, w) <= subpixel.REACH:
            raise BadInput(f"expected slices of at least 3x3 pixels, got {h}x{w}")
        high = np.empty((n, scale * h, scale * w), np.float32)
        with turn:  # requests, and MNN's network, serve one caller at a time
            if body and h * w <= TRUNK_PIXELS:
                for i in range(n):
                    one = np.ascontiguousarray(low[i : i + 1, None], np.float32)
                    high[i] = ending()({"low": one, "features": body(one)})[0][0, 0]
            else:
                size = h * w * (WIDE if features is not None else FINE * scale**2)
                parallel = MEMORY // (size if wide == "bf16" else 2 * size)
                in_turn(low, high, requests(max(1, min(threads, parallel))), 1)
        return high

    return predict, what, kind


def tail(model: ov.Model, name: str) -> ov.Model:
    """What follows a value of a network: low (n, 1, h, w) and features (n, c, h, w), the value, -> high."""
    rest = model.clone()
    [value] = [v for op in rest.get_ordered_ops() for v in op.outputs() if name in v.get_names()]
    features = opset.parameter(value.get_partial_shape(), np.float32, "features")
    features.output(0).set_names({"features"})
    for user in value.get_target_inputs():
        user.replace_source_output(features.output(0))
    return ov.Model(rest.get_results(), [*rest.get_parameters(), features], "tail")


def fold(model: ov.Model, parameters: Mapping[str, ndarray]) -> ov.Output | None:
    """Put the one convolution in place of a model's ending; its slices are 3x3 pixels or larger from here on.

    Args:
        model: the network, changed in place; `seran.engines.int8` leaves these convolutions as they are.
        parameters: of the model, float32, by the names that `seran.weights.tensors` gives.

    Returns:
        The features E; none, and the model as it was, if it has no such ending.
    """
    chain = _ending(model)
    if not chain:
        return None
    prefix = next(n for n in parameters if n.endswith(TAIL)).removesuffix(TAIL)
    own = {n.removeprefix(prefix): v for n, v in parameters.items()}
    kernels, biases = subpixel.folded({n: v for n, v in own.items() if n.startswith(("up.", "tail."))})
    features, s = chain[0].input_value(0), kernels.shape[2]
    rows = [[_part(features, kernels[y, x], biases[y, x], y, x) for x in range(3)] for y in range(3)]
    low = opset.concat([opset.concat(parts, 3) for parts in rows], 2)
    high = opset.depth_to_space(low, "blocks_first", s)
    for user in chain[-1].output(0).get_target_inputs():
        user.replace_source_output(high.output(0))
    model.validate_nodes_and_infer_types()
    return features


def _ending(model: ov.Model) -> list[ov.Node]:
    """The nodes from the first convolution of the ending to the sum with the last one's bias, or none."""
    chain = [op for op in model.get_ordered_ops() if _weighs(op, UPSAMPLING)]
    while chain and not any(_weighs(op, TAIL) for op in chain[:-1]):
        users = {user.get_node() for user in chain[-1].output(0).get_target_inputs()}
        linear = [u for u in users if u.get_type_name() in ("Convolution", "DepthToSpace") or _adds_bias(u)]
        others = [u for u in users if u not in linear and u.get_type_name() != "ShapeOf"]
        if len(linear) != 1 or others:
            return []
        chain += linear
    return chain


def _adds_bias(op: ov.Node) -> bool:
    """Whether one summand has a value for each map, and none for each pixel."""
    shapes = [value.get_partial_shape() for value in op.input_values()]
    return op.get_type_name() == "Add" and any(s.is_static and list(s)[2:] == [1, 1] for s in shapes)


def _weighs(op: ov.Node, name: str) -> bool:
    return op.get_type_name() == "Convolution" and any(
        n.endswith(name) for n in op.input_value(1).get_names()
    )


def _part(
    features: ov.Output, kernels: Float[ndarray, "s s c k k"], biases: Float[ndarray, "s s"], y: int, x: int
) -> ov.Node:
    """The pixels at one place along both axes: s² maps of one row or column, or of all inside."""
    (rows, _, above), (columns, _, beside) = WINDOWS[y], WINDOWS[x]
    for axis, window in ((2, rows), (3, columns)):
        if window != slice(None):
            start, stop = window.start or 0, window.stop or np.iinfo(np.int64).max
            ends = [opset.constant(np.array([v], np.int64)) for v in (start, stop, 1, axis)]
            features = opset.slice(features, *ends).output(0)
    near = kernels[..., WINDOWS[y][1], WINDOWS[x][1]]
    maps, pads = near.shape[0] ** 2, [above, beside]
    weight = np.ascontiguousarray(near.reshape(maps, *near.shape[2:]))
    made = opset.convolution(features, opset.constant(weight), [1, 1], pads, pads, [1, 1])
    return opset.add(made, opset.constant(biases.reshape(1, maps, 1, 1)))
