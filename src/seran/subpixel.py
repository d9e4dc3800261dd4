"""The end of a network as one sub-pixel convolution on the grid of its input.

Behind the last features E (C maps) EDSR, SERAN and their kin only compose linear maps: a convolution to s²·C
maps and a shuffle (Shi et al., CVPR 2016), at x4 two of each, and a convolution to one map. Their product is
one 5x5 convolution of E to s² maps and one shuffle: structural re-parameterization (Ding et al., CVPR 2021).
What the finer grids hold beyond the edges of a slice is zero, not a function of E: along each axis the first
pixel, those inside and the last have kernels of their own.

Parameters say by their names that a network ends so: the convolutions of the upsampling are ``up.0`` and, at
x4, ``up.2`` (`seran.models.layers.upsampler`), the last one is ``tail``, and nothing but shuffles is between.
Any network may have parameters that begin with ``up.`` or ``tail.``, and only their shapes depend on the
scale. Where a network corrects bicubic, all names have `PREFIX` before them.
"""

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

PREFIX = "network."  # of the names, where a network is wrapped in `seran.models.layers.OverBicubic`
UPSAMPLING, TAIL = "up.0.weight", "tail.weight"  # of the first and of the last convolution of an ending
FIRST, INSIDE, LAST = range(3)  # where a pixel lies along an axis: its place
REACH = 2  # pixels to either side that the one convolution looks at
# By place, along an axis: the pixels of E that kernels look at, the part of the kernels that does, and zeros
# to either side. They make one pixel, or all but the first and the last.
WINDOWS = (
    (slice(0, REACH + 1), slice(REACH, None), 0),
    (slice(None), slice(None), REACH - 1),
    (slice(-REACH - 1, None), slice(0, REACH + 1), 0),
)
# By place along both axes and by sub-pixel, the weights of c maps on k x k pixels, and what is added.
Kernels = Float[ndarray, "3 3 s s c k k"]
Biases = Float[ndarray, "3 3 s s"]
# Einstein sums of kernels, and of biases, between what `phases` gives for rows and for columns.
BY_PHASE, REPEATED = "YAiuyap,yxabcpq,XBjvxbq->YXABcijuv", "YAya,yxab,XBxb->YXAB"


def own(name: str) -> str:
    """The name of a parameter in the network itself."""
    return name.removeprefix(PREFIX)


def in_ending(name: str) -> bool:
    """Whether a parameter belongs to the end of a network, and may differ between scales."""
    return own(name).startswith(("up.", "tail."))


def folds(names: Iterable[str]) -> bool:
    """Whether a network with parameters of these names ends in what `folded` makes one convolution of."""
    return {UPSAMPLING, TAIL} <= {own(name) for name in names}


def folded(parameters: Mapping[str, ndarray]) -> tuple[Kernels, Biases]:
    """The kernels of the one convolution, and what is added, from the parameters of a network that `folds`.

    These are ``tail.weight`` (1, C, 3, 3), ``up.0.weight`` (s²·C, C, 3, 3), at x4 also ``up.2.weight``, and
    the ``bias`` of each.
    """
    values = {own(n): value.astype(np.float64) for n, value in parameters.items() if in_ending(n)}
    kernels = np.tile(values[TAIL][0], (3, 3, 1, 1, 1, 1, 1))
    biases = np.full((3, 3, 1, 1), values["tail.bias"][0])
    for layer in ("up.2", "up.0"):
        if f"{layer}.weight" in values:
            kernels, biases = _through(kernels, biases, values[f"{layer}.weight"], values[f"{layer}.bias"])
    return kernels.astype(np.float32), biases.astype(np.float32)


def _through(
    kernels: Kernels, biases: Biases, weight: Float[ndarray, "m d 3 3"], bias: Float[ndarray, "m"]
) -> tuple[Float[ndarray, "3 3 t t d 5 5"], Float[ndarray, "3 3 t t"]]:
    """Kernels on a grid that a convolution to s²·C maps and a shuffle lead to, as kernels before these."""
    fine, maps = kernels.shape[2], kernels.shape[4]
    s = round((len(weight) / maps) ** 0.5)
    taps, outputs = phases(s, fine)
    by_phase = np.einsum(BY_PHASE, taps, kernels, taps, optimize=True)
    weight, bias = weight.reshape(maps, s, s, -1, 3, 3), bias.reshape(maps, s, s)
    made = np.zeros((3, 3, s * fine, s * fine, weight.shape[3], 2 * REACH + 1, 2 * REACH + 1))
    for y, x in np.ndindex(3, 3):
        made[..., y : y + 3, x : x + 3] += np.tensordot(by_phase[..., y, x], weight, 3)
    constant = np.tensordot(by_phase.sum((7, 8)), bias, 3)
    return made, constant + np.einsum(REPEATED, outputs, biases, outputs)


@cache
def phases(s: int, fine: int) -> tuple[Float[ndarray, "3 t s 3 3 r k"], Float[ndarray, "3 t 3 r"]]:
    """What a pixel looks at along an axis through kernels on an s times finer grid, as ones and zeros.

    These make ``fine`` sub-pixels each. For each place of a pixel, sub-pixel, phase and pixel from -1 to 1
    that is met: the place and the sub-pixel on the finer grid and the tap that meet it, none beyond the edge.
    Then the first two for each place and sub-pixel.
    """
    reach = 1 if fine == 1 else REACH  # of the last convolution alone, of one that is folded already
    taps, outputs = np.zeros((3, s * fine, s, 3, 3, fine, 2 * reach + 1)), np.zeros((3, s * fine, 3, fine))
    for place, sub, output in np.ndindex(3, s, fine):
        at = {(FIRST, 0): FIRST, (LAST, s - 1): LAST}.get((place, sub), INSIDE)
        outputs[place, sub * fine + output, at, output] = 1
        for tap in range(2 * reach + 1):
            pixel, phase = divmod(sub + tap - reach, s)
            if (place, pixel) not in ((FIRST, -1), (LAST, 1)):
                taps[place, sub * fine + output, phase, pixel + 1, at, output, tap] = 1
    return taps, outputs
