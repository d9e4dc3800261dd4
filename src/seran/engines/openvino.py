"""OpenVINO on the CPU: the default engine."""

import functools
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import machine, subpixel
from seran.engines import Engine, Lane, Precision, Running, int8, mnn, predictor
from seran.engines.runtime import opset, ov, properties, setting, words
from seran.errors import BadInput
from seran.machine import may_use_bf16, short_of_memory
from seran.subpixel import WINDOWS
from seran.weights import Weights, tensors

MEMORY = 400 << 20  # bytes of features in work at a time, over all requests
WIDE = 800  # bytes in bf16 for a pixel of the input, where features are that coarse (SERAN)
FINE = 256  # the same for a pixel of the result, where features are that fine (VDSR)
MOST_VALUES = 1 << 28  # at one place in a network, whatever the slice
TRUNK_PIXELS = 400 * 400  # of the largest low-resolution slice that MNN gets, see `mnn.FEATURES`


def at_once(size: int, half: bool, threads: int) -> tuple[int, int]:
    """How many slices are in work at a time, and the bytes of features of each.

    Args:
        size: bytes in bf16 of the features of a slice.
        half: whether they are in bf16.
        threads: that may work.
    """
    each = size if half else 2 * size
    return max(1, min(threads, MEMORY // each)), each


def device() -> tuple[str, str]:
    """The CPU's name, and the precision that it computes natively."""
    core = ov.Core()
    return core.get_property("CPU", "FULL_DEVICE_NAME").strip(), native(core)


def native(core: ov.Core | None = None) -> Precision:
    """bf16 where the CPU computes it natively and may (OpenVINO forgets to say if it may not), else f32."""
    has = "BF16" in (core or ov.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if has and may_use_bf16() else "f32"


def load(weights: Weights, engine: Engine, direct: bool = False) -> Running:
    """Weights on this CPU, behind MNN up to their upsampling where that suits.

    Slices run in parallel requests, one thread each: convolutions then stay within a core's own cache. Large
    slices get fewer requests of more threads, because each request has memory of its own. What upsamples at
    the end is one convolution, where the network allows (`seran.subpixel`). Bicubic and sums are float32.

    Args:
        weights: the network; for ``int8`` they must have ranges.
        engine: its precision and threads.
        direct: without MNN, whose convolutions round otherwise: for what is compared with other runtimes.
    """
    core, factors, ranges = ov.Core(), weights.card.factors, weights.evidence.ranges
    threads, wide = engine.threads or machine.threads(), native(core)
    kind = wide if engine.precision == "auto" else engine.precision
    if kind != "int8":
        wide = kind  # otherwise that of what does not compute in 8 bits
    elif not ranges:
        raise BadInput(
            "these weights were not calibrated for int8; run `seran calibrate`, or choose another --precision"
        )
    try:
        model = core.read_model(weights.data)
        _refuse_strange(model)
        if kind == "int8":
            int8.quantize(model, ranges)
        features = fold(model, tensors(weights.data))
    except (RuntimeError, ValueError, KeyError, IndexError) as error:  # sealed, but by whom?
        if short_of_memory(error):
            raise
        why = " ".join(str(error).split())[-200:]
        raise BadInput(f"{weights.path}: its network cannot be run: {why}") from error

    def compiled(part: ov.Model, parallel: int) -> ov.CompiledModel:
        streams = {properties.streams.num: parallel}
        return core.compile_model(part, "CPU", setting(wide == "bf16", threads) | streams)

    @functools.cache
    def requests(parallel: int) -> list[Lane]:
        network = compiled(model, parallel)
        return [_request(network) for _ in range(parallel)]

    what, behind = words(threads), None
    coarse = features or _before_shuffle(model, math.prod(factors))
    if kind == "f32" and coarse is not None and not direct and mnn.suits(threads):
        name = coarse.get_any_name()
        trunk, by = mnn.trunk(weights.data, name, threads)
        what = f"{by} and {what}"
        rest = functools.cache(lambda: compiled(_tail(model, name), 1))
        behind = Lane(lambda low: low, lambda low: rest()({"low": low, "features": trunk(low)})[0][:, 0])

    def lanes(h: int, w: int) -> tuple[list[Lane], int]:
        if features is not None and min(h, w) <= subpixel.REACH:
            raise BadInput(f"slices of {h}x{w} pixels: must be at least 3x3")
        if behind and h * w <= TRUNK_PIXELS:
            return [behind], 1
        size = h * w * (WIDE if coarse is not None else FINE * math.prod(factors))
        return requests(at_once(size, wide == "bf16", threads)[0]), 1

    return Running(predictor(factors, lanes), what, kind)


def _refuse_strange(model: ov.Model) -> None:
    """Raise `ValueError` unless a model takes ``low`` alone, with no value of fixed size that is huge."""
    if [value.get_names() for value in model.inputs] != [{"low"}] or len(model.outputs) != 1:
        raise ValueError("its input is not low, or it has several results")
    shapes = (value.get_partial_shape() for op in model.get_ordered_ops() for value in op.outputs())
    if any(shape.is_static and math.prod(shape.to_shape()) > MOST_VALUES for shape in shapes):
        raise ValueError(f"it holds more than {MOST_VALUES:,} values at once")


def _request(network: ov.CompiledModel) -> Lane:
    """One slice at a time, without Python callbacks: those need the interpreter's lock and can deadlock."""
    request = network.create_infer_request()

    def result(_: None) -> Float[ndarray, "1 sh sw"]:
        request.wait()
        return request.get_output_tensor().data[:, 0]

    return Lane(lambda low: request.start_async({"low": low}), result)


def _tail(model: ov.Model, name: str) -> ov.Model:
    """What follows a value of a network: low (n, 1, h, w) and features (n, c, h, w), the value, -> high."""
    rest = model.clone()
    [value] = [v for op in rest.get_ordered_ops() for v in op.outputs() if name in v.get_names()]
    features = opset.parameter(value.get_partial_shape(), np.float32, "features")
    features.output(0).set_names({"features"})
    for user in value.get_target_inputs():
        user.replace_source_output(features.output(0))
    return ov.Model(rest.get_results(), [*rest.get_parameters(), features], "tail")


def fold(model: ov.Model, parameters: Mapping[str, ndarray]) -> ov.Output | None:
    """Put the one convolution in place of a model's ending, and return what goes into it: the features E.

    Slices must be 3x3 pixels or larger from here on. A model that has no such ending stays as it is.
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


def _before_shuffle(model: ov.Model, maps: int) -> ov.Output | None:
    """What goes into the last convolution, of a network whose last one makes a map for each fine pixel."""
    for op in model.get_ordered_ops():
        if _weighs(op, subpixel.TAIL) and op.input_value(1).get_partial_shape()[0].get_length() == maps:
            return op.input_value(0)
    return None


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
    (rows, tall, above), (columns, wide, beside) = WINDOWS[y], WINDOWS[x]
    for axis, window in ((2, rows), (3, columns)):
        if window != slice(None):
            start, stop = window.start or 0, window.stop or np.iinfo(np.int64).max
            ends = [opset.constant(np.array([v], np.int64)) for v in (start, stop, 1, axis)]
            features = opset.slice(features, *ends).output(0)
    near, pads = kernels[..., tall, wide], [above, beside]
    weight = np.ascontiguousarray(near.reshape(-1, *near.shape[2:]))
    made = opset.convolution(features, opset.constant(weight), [1, 1], pads, pads, [1, 1])
    return opset.add(made, opset.constant(biases.reshape(1, -1, 1, 1)))
