"""OpenVINO on the CPU: the default engine."""

import functools
import threading
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import subpixel
from seran.engines import Engine, Precision, Running, in_turn, int8, mnn
from seran.engines.runtime import hint, opset, ov, properties
from seran.errors import BadInput
from seran.machine import cpus, may_use_bf16
from seran.subpixel import WINDOWS
from seran.weights import Weights, tensors

MEMORY = 400 << 20
"""Bytes of features in work at a time, over all requests."""
WIDE, FINE = 800, 256
"""Bytes in bf16 for a pixel of the input (SERAN); of the result, where features are that fine (VDSR)."""
TRUNK_PIXELS = 400 * 400
"""Low-resolution pixels of the largest slice that ``trunk`` gets; MNN takes 2.5 kB for one."""


def device() -> tuple[str, str]:
    """The CPU's name, and the precision that it computes natively."""
    core = ov.Core()
    return core.get_property("CPU", "FULL_DEVICE_NAME").strip(), native(core)


def native(core: ov.Core | None = None) -> Precision:
    """bf16 where the CPU computes it natively and may (OpenVINO forgets to say if it may not), else f32."""
    has = "BF16" in (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if has and may_use_bf16() else "f32"


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


def load(weights: Weights, engine: Engine) -> Running:
    """Weights on this CPU, behind MNN up to their upsampling where that suits.

    Slices run in parallel requests, one thread each: convolutions then stay within a core's own cache. Large
    slices get fewer requests of more threads, because each request has memory of its own. What upsamples at
    the end is one convolution, where the network allows (`seran.subpixel`). Bicubic and sums are float32.

    Raises:
        BadInput: for ``int8`` without ranges; from the predictor, for slices below 3x3 pixels.
    """
    threads = engine.threads or cpus()
    return _running(weights, engine.precision, threads, mnn.suits(threads))


def direct(weights: Weights, engine: Engine) -> Running:
    """`load` without MNN, whose convolutions round otherwise: for what is compared with other runtimes."""
    return _running(weights, engine.precision, engine.threads or cpus(), winograd=False)


def _running(weights: Weights, precision: Precision, threads: int, winograd: bool) -> Running:
    core, scale, ranges = ov.Core(), weights.card.scale, weights.evidence.ranges
    kind = native(core) if precision == "auto" else precision
    if kind == "int8" and not ranges:
        raise BadInput(
            "these weights were not calibrated for int8; run `seran calibrate`, or choose another --precision"
        )
    wide = native(core) if kind == "int8" else kind  # of what does not compute in 8 bits

    model, parameters = core.read_model(weights.data), tensors(weights.data)
    if kind == "int8":
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
    def ending(name: str) -> ov.CompiledModel:
        return core.compile_model(tail(model, name), "CPU", setting | {properties.streams.num: 1})

    what, name, body = f"OpenVINO {ov.__version__.split('-')[0]} CPU, {threads} threads", "", None
    if kind == "f32" and winograd and features is not None:
        name = features.get_any_name()
        body, by = mnn.trunk(weights.data, name, threads)
        what = f"{by} and {what}"

    turn = threading.Lock()

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        n, h, w = low.shape
        if features is not None and min(h, w) <= subpixel.REACH:
            raise BadInput(f"slices of {h}x{w} pixels: must be at least 3x3")
        high = np.empty((n, scale * h, scale * w), np.float32)
        with turn:  # requests, and MNN's network, serve one caller at a time
            if body and h * w <= TRUNK_PIXELS:
                for i in range(n):
                    one = np.ascontiguousarray(low[i : i + 1, None], np.float32)
                    high[i] = ending(name)({"low": one, "features": body(one)})[0][0, 0]
            else:
                size = h * w * (WIDE if features is not None else FINE * scale**2)
                parallel = MEMORY // (size if wide == "bf16" else 2 * size)
                in_turn(low, high, requests(max(1, min(threads, parallel))), 1)
        return high

    return Running(predict, what, kind)


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
        model: the network, changed in place; `int8.quantized` leaves these convolutions as they are.
        parameters: of the model, float32, by the names that `seran.weights.tensors` gives.

    Returns:
        The features E; none, and the model as it was, if it has no such ending.
    """
    chain = _ending(model) if subpixel.folds(parameters) else []
    if not chain:
        return None
    kernels, biases = subpixel.folded(parameters)
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
    chain = [op for op in model.get_ordered_ops() if _weighs(op, subpixel.UPSAMPLING)]
    while chain and not any(_weighs(op, subpixel.TAIL) for op in chain[:-1]):
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
    names = op.input_value(1).get_names() if op.get_type_name() == "Convolution" else ()
    return any(subpixel.own(n) == name for n in names)


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
