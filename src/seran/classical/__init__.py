"""Methods without a network: stacks of slices -> stacks of slices."""

from collections.abc import Callable

from jaxtyping import Float
from numpy import ndarray

from seran.classical.bicubic import bicubic
from seran.classical.zerofill import zerofill

__all__ = ["CLASSICAL", "VOLUMETRIC", "bicubic", "zerofill"]

Stacks = Callable[[Float[ndarray, "n h w"]], ndarray]


def _nlm(scale: int) -> Stacks:
    """See `seran.classical.nlm.nlm`; its compiler is imported when it is asked for."""
    from seran.classical.nlm import nlm

    return nlm(scale)


CLASSICAL: dict[str, Callable[[int], Stacks]] = {"bicubic": bicubic, "zerofill": zerofill, "nlm": _nlm}
VOLUMETRIC = ("nlm",)
"""Methods that look across slices and so need a stack whole."""
