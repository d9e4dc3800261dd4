"""A network whose large convolutions compute in 8 bits, for processors with dot products of bytes.

A convolution's input becomes one of 256 levels between bounds that are measured beforehand (`spans`), its
weights one of 255 levels between ± their largest magnitude in each output channel (Jacob et al., CVPR 2018,
§3). Sums, activations and the bicubic path stay as they are. Left alone are convolutions of few channels,
1x1 ones (attention) and the upsampling at the end, which take little time and would cost accuracy.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import subpixel
from seran.engines.runtime import hint, opset, ov

FEWEST = 16
"""Channels in and out below which a convolution is left alone."""
LEVELS, SYMMETRIC = 256, 255


def convolutions(model: ov.Model) -> Iterator[tuple[str, ov.Node]]:
    """The convolutions that may be quantized, from the first to the last, with the names of their weights."""
    for op in model.get_ordered_ops():
        if op.get_type_name() != "Convolution":
            continue
        shape = op.input_value(1).get_partial_shape().to_shape()
        name = min(op.input_value(1).get_names(), key=len)
        large = len(shape) == 4 and min(shape[0], shape[1]) >= FEWEST and max(shape[2:]) > 1
        if large and not subpixel.in_ending(name):
            yield subpixel.own(name), op


def spans(model: ov.Model, stacks: Iterator[Float[ndarray, "n h w"]]) -> dict[str, list[float]]:
    """Least and greatest input of each convolution on stacks of slices, in float32."""
    found = dict(convolutions(model))
    results = [opset.result(op.input_value(0)) for op in found.values()]
    setting = {hint.inference_precision: ov.Type.f32}
    probe = ov.Core().compile_model(ov.Model(results, model.get_parameters()), "CPU", setting)
    least, greatest = np.full(len(found), np.inf), np.full(len(found), -np.inf)
    for stack in stacks:
        for one in stack:
            made = probe({"low": np.ascontiguousarray(one[None, None], np.float32)})
            least = np.minimum(least, [made[i].min() for i in range(len(found))])
            greatest = np.maximum(greatest, [made[i].max() for i in range(len(found))])
    return {name: [float(a), float(b)] for name, a, b in zip(found, least, greatest, strict=True)}


def quantize(model: ov.Model, ranges: Mapping[str, list[float]], parameters: Mapping[str, ndarray]) -> None:
    """Make a model's convolutions compute in 8 bits.

    Args:
        model: the network, changed in place.
        ranges: of `spans`, for the convolutions that are quantized; an input beyond them saturates.
        parameters: of the model, float32, by the names that `seran.weights.tensors` gives.

    Raises:
        KeyError: if the model has no such convolution.
    """
    found = dict(convolutions(model))
    values = {subpixel.own(name): value for name, value in parameters.items()}
    for name, (least, greatest) in ranges.items():
        op, weights = found[name], values[name]
        step = (max(greatest, 0.0) - min(least, 0.0)) / (LEVELS - 1)
        low = step * round(min(least, 0.0) / step)  # 0, with which slices are padded, is a level
        bounds = [np.full((1, 1, 1, 1), b, np.float32) for b in (low, low + (LEVELS - 1) * step)]
        most = np.maximum(np.abs(weights).max((1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
        op.input(0).replace_source_output(_rounded(op.input_value(0), bounds, LEVELS))
        op.input(1).replace_source_output(_rounded(opset.constant(weights), [-most, most], SYMMETRIC))


def _rounded(value: ov.Output | ov.Node, bounds: list[ndarray], levels: int) -> ov.Output:
    limits = [opset.constant(b) for b in bounds]
    return opset.fake_quantize(value, *limits, *limits, levels).output(0)
