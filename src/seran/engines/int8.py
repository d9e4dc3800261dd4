"""A network whose large convolutions compute in 8 bits, for processors with dot products of bytes.

A convolution's input becomes one of 256 levels between bounds that are measured beforehand (`spans`), its
weights one of 255 levels between ± their largest magnitude in each output channel (Jacob et al., CVPR 2018,
§3). Convolutions of few channels, 1x1 ones (attention) and the upsampling at the end take little time and
would cost accuracy: they are left alone, as are sums, activations and the bicubic path.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import subpixel
from seran.engines.runtime import hint, opset, ov

FEWEST = 16  # channels in and out below which a convolution is left alone
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
    for one in chain.from_iterable(stacks):
        made = probe({"low": np.ascontiguousarray(one[None, None], np.float32)})
        least = np.minimum(least, [made[i].min() for i in range(len(found))])
        greatest = np.maximum(greatest, [made[i].max() for i in range(len(found))])
    return {name: [float(a), float(b)] for name, a, b in zip(found, least, greatest, strict=True)}


def quantize(model: ov.Model, ranges: Mapping[str, list[float]]) -> None:
    """Make convolutions of a model compute in 8 bits, those that have `spans`: an input beyond saturates."""
    found = dict(convolutions(model))
    for name, (least, greatest) in ranges.items():
        op, step = found[name], (max(greatest, 0.0) - min(least, 0.0)) / (LEVELS - 1)
        low = step * round(min(least, 0.0) / step)  # 0, with which slices are padded, is a level
        bounds = [np.full((1, 1, 1, 1), b, np.float32) for b in (low, low + (LEVELS - 1) * step)]
        op.input(0).replace_source_output(_rounded(op.input_value(0), bounds, LEVELS))
        constant = op.input_value(1).get_node()
        while constant.get_type_name() == "Convert":  # from float16
            constant = constant.input_value(0).get_node()
        weights = np.asarray(constant.data, np.float32)
        most = np.maximum(np.abs(weights).max((1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
        op.input(1).replace_source_output(_rounded(opset.constant(weights), [-most, most], SYMMETRIC))


def _rounded(value: ov.Output | ov.Node, bounds: list[ndarray], levels: int) -> ov.Output:
    limits = [opset.constant(b) for b in bounds]
    return opset.fake_quantize(value, *limits, *limits, levels).output(0)
