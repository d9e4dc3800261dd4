"""Methods without a network: stacks of slices -> stacks of slices."""

from collections.abc import Callable

from jaxtyping import Float
from numpy import ndarray

from seran.classical.bicubic import bicubic
from seran.classical.zerofill import zerofill

__all__ = ["CLASSICAL", "bicubic", "zerofill"]

CLASSICAL: dict[str, Callable[[int], Callable[[Float[ndarray, "n h w"]], ndarray]]] = {
    "bicubic": bicubic,
    "zerofill": zerofill,
}
