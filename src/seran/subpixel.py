"""The end of a network as one sub-pixel convolution on the grid of its input.

Behind the last features E (C maps) EDSR, SERAN and their kin only compose linear maps: a convolution to s²·C
maps and a shuffle (Shi et al., CVPR 2016), at x4 two of each, and a convolution to one map. Their product is
one 5x5 convolution of E to s² maps and one shuffle, with the same result and a small part of the
multiplications: structural re-parameterization (Ding et al., CVPR 2021) of an ending.

What the finer grids hold beyond the edges of a slice is zero, not a function of E. So the outermost pixels
have kernels of their own: along each axis one for the first pixel, one for those inside, one for the last.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

FIRST, INSIDE, LAST = range(3)
"""Where a pixel lies along an axis: its place."""
REACH = 2
"""Pixels to either side that the one convolution looks at."""
WINDOWS = (
    (slice(0, REACH + 1), slice(REACH, None), 0),
    (slice(None), slice(None), REACH - 1),
    (slice(-REACH - 1, None), slice(0, REACH + 1), 0),
)
"""By place, along an axis: the pixels of E that kernels look at, the part of the kernels that does, and zeros
to either side. They make one pixel, or all but the first and the last."""

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
    fine, maps = kernels.shape[2], kernels.shape[4]
    s = round((len(weight) / maps) ** 0.5)
    at = phases(s, fine, kernels.shape[-1] // 2)
    by_phase = np.pad(kernels, [(0, 0)] * 5 + [(0, 1)] * 2)[at]
    own = weight.astype(np.float64).reshape(maps, s, s, -1, 3, 3)
    axes = ((4, 5, 6), (1, 2, 0))
    made = np.zeros((3, 3, s * fine, s * fine, own.shape[3], 2 * REACH + 1, 2 * REACH + 1))
    for y, x in np.ndindex(3, 3):
        made[..., y : y + 3, x : x + 3] += np.tensordot(by_phase[..., y, x, :], own, axes)
    constant = np.tensordot(by_phase.sum((6, 7)), bias.reshape(maps, s, s), axes)
    return made, constant + biases[at[:4]][..., 0, 0, 0, 0]


@cache
def phases(s: int, fine: int, reach: int) -> tuple[Any, ...]:
    """The index that sorts kernels on an s times finer grid by the pixels and sub-pixels that they look at.

    Applied to kernels (place, place, fine, fine, c, k, k) with a zero behind each row and column of weights,
    it gives (place, place, s·fine, s·fine, s, s, 3, 3, c): per axis the place of a pixel, its sub-pixel, the
    sub-pixel that is looked at, and the pixel of that one, from -1 to 1. Zero is what is beyond the edge.
    """
    sub, output = np.divmod(np.arange(s * fine), fine)
    places = np.full((3, s * fine), INSIDE)
    places[FIRST, sub == 0], places[LAST, sub == s - 1] = FIRST, LAST
    met, pixel = np.arange(s)[:, None], np.arange(-1, 2)
    taps = s * pixel + met - sub[:, None, None] + reach
    taps = np.tile(np.where((taps < 0) | (taps > 2 * reach), 2 * reach + 1, taps), (3, 1, 1, 1))
    taps[FIRST, ..., 0] = taps[LAST, ..., 2] = 2 * reach + 1
    rows = (slice(None), None, slice(None), None, slice(None), None, slice(None), None)
    columns = (None, *rows[:-1])
    by_row, by_column = (a[:, :, None, None][i] for a, i in ((places, rows), (places, columns)))
    out_row, out_column = (output[None, :, None, None][i] for i in (rows, columns))
    return by_row, by_column, out_row, out_column, slice(None), taps[rows], taps[columns]
