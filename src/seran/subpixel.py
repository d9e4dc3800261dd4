"""The end of a network as one sub-pixel convolution on the grid of its input.

Behind the last features E (C maps) EDSR, SERAN and their kin only compose linear maps: a convolution to s²·C
maps and a shuffle (Shi et al., CVPR 2016), at x4 two of each, and a convolution to one map. Their product is
one 5x5 convolution of E to s² maps and one shuffle, with the same result and a thirtieth of the
multiplications: structural re-parameterization (Ding et al., CVPR 2021) of an ending.

What the finer grids hold beyond the edges of a slice is zero, not a function of E. So the outermost pixels
have kernels of their own: along each axis one for the first pixel, one for those inside, one for the last.
"""

from collections.abc import Mapping

import numpy as np
import openvino as ov
from jaxtyping import Float
from numpy import ndarray
from openvino import opset15 as opset

UPSAMPLING, TAIL = "up.0.weight", "tail.weight"
"""Ends of the names of the weights of the first and the last convolution of such an ending."""
FIRST, INSIDE, LAST = range(3)
"""Where a pixel lies along an axis."""
REACH = 2
"""Pixels to either side that the one convolution looks at."""

Kernels = Float[ndarray, "3 3 s s c k k"]
"""By place along both axes and by sub-pixel, the weights of c maps on k x k pixels."""
Biases = Float[ndarray, "3 3 s s"]


def folded(parameters: Mapping[str, ndarray]) -> tuple[Kernels, Biases]:
    """The kernels of the one convolution, and what is added.

    Args:
        parameters: of the ending, by their names in it: ``tail.weight`` (1, C, 3, 3), ``up.0.weight``
            (s²·C, C, 3, 3), at x4 also ``up.2.weight``, and the ``bias`` of each.
    """
    kernels = np.tile(parameters["tail.weight"].astype(np.float64)[0], (3, 3, 1, 1, 1, 1, 1))
    biases = np.full((3, 3, 1, 1), parameters["tail.bias"][0], np.float64)
    for name in sorted((n for n in parameters if n.startswith("up.") and n.endswith("weight")), reverse=True):
        bias = parameters[name.replace("weight", "bias")]
        kernels, biases = _through(kernels, biases, parameters[name], bias)
    return kernels.astype(np.float32), biases.astype(np.float32)


def _through(
    kernels: Kernels, biases: Biases, weight: Float[ndarray, "m d 3 3"], bias: Float[ndarray, "m"]
) -> tuple[Float[ndarray, "3 3 t t d 5 5"], Float[ndarray, "3 3 t t"]]:
    """Kernels on a grid that a convolution to s²·C maps and a shuffle lead to, as kernels before these."""
    fine, maps, reach = kernels.shape[2], kernels.shape[4], kernels.shape[-1] // 2
    s = round((len(weight) / maps) ** 0.5)
    shuffled = weight.astype(np.float64).reshape(maps, s, s, -1, 3, 3)  # map, sub-row, sub-column, ...
    products = np.tensordot(kernels, shuffled, (4, 0))  # place (2), output (2), tap (2), sub-pixel (2), ...
    constants = np.tensordot(kernels, bias.astype(np.float64).reshape(maps, s, s), (4, 0))
    size = 2 * REACH + 1
    made = np.zeros((3, 3, s * fine, s * fine, shuffled.shape[3], size, size))
    added = np.zeros((3, 3, s * fine, s * fine))
    taps = {place: _taps(place, s, reach) for place in (FIRST, INSIDE, LAST)}
    for y, x in np.ndindex(3, 3):
        for a, at_y, p, dy, sub_y in taps[y]:
            for b, at_x, q, dx, sub_x in taps[x]:
                to = (y, x, slice(a * fine, (a + 1) * fine), slice(b * fine, (b + 1) * fine))
                area = (slice(None), slice(dy + 1, dy + 4), slice(dx + 1, dx + 4))
                made[to + area] += products[at_y, at_x, :, :, p, q, sub_y, sub_x]
                added[to] += constants[at_y, at_x, :, :, p, q, sub_y, sub_x]
        for a, b in np.ndindex(s, s):
            to = (y, x, slice(a * fine, (a + 1) * fine), slice(b * fine, (b + 1) * fine))
            added[to] += biases[_finer(y, a, s), _finer(x, b, s)]
    return made, added


def _finer(place: int, sub: int, s: int) -> int:
    """Where sub-pixel ``sub`` of s lies along an axis, if its pixel lies at ``place``."""
    if place == FIRST and sub == 0:
        return FIRST
    return LAST if place == LAST and sub == s - 1 else INSIDE


def _taps(place: int, s: int, reach: int) -> list[tuple[int, int, int, int, int]]:
    """What a pixel's sub-pixels look at along an axis, without what is beyond the edge.

    Each is: sub-pixel, its place on the fine grid, tap, and the pixel (-1 to 1) and sub-pixel that it meets.
    """
    found = []
    for sub in range(s):
        for tap in range(2 * reach + 1):
            pixel, met = divmod(sub + tap - reach, s)
            if not (place == FIRST and pixel < 0) and not (place == LAST and pixel > 0):
                found.append((sub, _finer(place, sub, s), tap, pixel, met))
    return found


def fold(model: ov.Model, parameters: Mapping[str, ndarray]) -> ov.Output | None:
    """Put the one convolution in place of a model's ending; its slices are 3x3 pixels or larger from here on.

    Args:
        model: the network, changed in place; `seran.int8` leaves these convolutions as they are.
        parameters: of the model, float32, by the names that `seran.weights.tensors` gives.

    Returns:
        The features E; none, and the model as it was, if it has no such ending.
    """
    chain = _ending(model)
    if not chain:
        return None
    prefix = next(n for n in parameters if n.endswith(TAIL)).removesuffix(TAIL)
    own = {n.removeprefix(prefix): v for n, v in parameters.items()}
    kernels, biases = folded({n: v for n, v in own.items() if n.startswith(("up.", "tail."))})
    features, s = chain[0].input_value(0), kernels.shape[2]
    rows = []
    for y in (FIRST, INSIDE, LAST):
        parts = [_part(features, kernels[y, x], biases[y, x], y, x) for x in (FIRST, INSIDE, LAST)]
        rows.append(opset.concat(parts, 3))
    high = opset.depth_to_space(opset.concat(rows, 2), "blocks_first", s)
    for user in chain[-1].output(0).get_target_inputs():
        user.replace_source_output(high.output(0))
    model.validate_nodes_and_infer_types()
    return features


def _ending(model: ov.Model) -> list[ov.Node]:
    """The nodes from the first convolution of the ending to the sum with the last one's bias, or none."""
    chain = [op for op in model.get_ordered_ops() if _weighs(op, UPSAMPLING)]
    while chain and not _weighs(chain[-2] if len(chain) > 1 else chain[0], TAIL):
        users = {user.get_node() for user in chain[-1].output(0).get_target_inputs()}
        linear = [u for u in users if u.get_type_name() in ("Convolution", "Add", "DepthToSpace")]
        others = [u for u in users if u not in linear and u.get_type_name() != "ShapeOf"]
        if len(linear) != 1 or others:
            return []
        chain += linear
    return chain


def _weighs(op: ov.Node, name: str) -> bool:
    return op.get_type_name() == "Convolution" and any(
        n.endswith(name) for n in op.input_value(1).get_names()
    )


def _part(
    features: ov.Output, kernels: Float[ndarray, "s s c k k"], biases: Float[ndarray, "s s"], y: int, x: int
) -> ov.Node:
    """The pixels at one place along both axes: s² maps of one row or column, or of all inside."""
    pads = []
    for axis, place in ((2, y), (3, x)):
        near = {FIRST: slice(REACH, None), INSIDE: slice(None), LAST: slice(REACH + 1)}[place]
        kernels = kernels[(slice(None),) * (axis + 1) + (near,)]
        pads.append(int(place == INSIDE))
        if place != INSIDE:
            start, stop = (0, REACH + 1) if place == FIRST else (-REACH - 1, np.iinfo(np.int64).max)
            ends = [opset.constant(np.array([v], np.int64)) for v in (start, stop, 1, axis)]
            features = opset.slice(features, *ends).output(0)
    maps = kernels.shape[0] ** 2
    weight = np.ascontiguousarray(kernels.reshape(maps, *kernels.shape[2:]))
    made = opset.convolution(features, opset.constant(weight), [1, 1], pads, pads, [1, 1])
    return opset.add(made, opset.constant(biases.reshape(1, maps, 1, 1)))
