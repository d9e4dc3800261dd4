"""Methods without a network: stacks of slices -> stacks of slices."""

from collections.abc import Callable

from jaxtyping import Float
from numpy import ndarray

from seran.classical.bicubic import bicubic
from seran.classical.zerofill import zerofill

__all__ = ["CLASSICAL", "VOLUMETRIC", "bicubic", "zerofill"]

Stacks = Callable[[Float[ndarray, "n h w"]], ndarray]


def _nlm(scale: int, threads: int) -> Stacks:
    from seran.classical.nlm import nlm  # with numba, which takes long to import

    return nlm(scale, threads)


CLASSICAL: dict[str, Callable[[int, int], Stacks]] = {
    "bicubic": lambda scale, threads: bicubic(scale),
    "zerofill": lambda scale, threads: zerofill(scale),
    "nlm": _nlm,
}
"""By name: a predictor of a scale, on so many threads where it uses more than one."""
VOLUMETRIC = ("nlm",)
"""Methods that look across slices and so need a stack whole."""
