"""What makes a low-resolution slice out of a high-resolution one.

A degradation is a value with a ``factor``, an ``anchor`` (see `seran.grid`) and a call
``high (..., h, w) -> low (..., h/factor, w/factor)`` for h and w multiples of the factor. With
``integer`` the result is rounded and clipped at 0, as MATLAB does for unsigned integers and
as the slices of the CSN data set are.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import kspace
from seran.errors import BadInput
from seran.grid import Anchor
from seran.resize import imresize


class Degradation(Protocol):
    """High to low, in the plane of a slice."""

    @property
    def factor(self) -> int:
        """How many high-resolution samples one low-resolution sample spans, per axis."""

    @property
    def anchor(self) -> Anchor:
        """What the low and the high grid have in common."""

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade a slice or a stack of slices."""


def _low_shape(high: ndarray, factor: int) -> tuple[int, int]:
    h, w = high.shape[-2:]
    if h % factor or w % factor:
        raise BadInput(f"expected slices that {factor} divides, got {h}x{w}; crop them first")
    return h // factor, w // factor


def _integer(low: ndarray) -> ndarray:
    return np.maximum(np.floor(low + 0.5), 0)


@dataclass(frozen=True)
class Bicubic:
    """BD: MATLAB's antialiased bicubic ``imresize(high, 1/factor)``, the SERAN and CSN protocol."""

    factor: int
    integer: bool = False
    anchor: ClassVar[Anchor] = "corner"

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade a slice or a stack of slices."""
        low = imresize(high, _low_shape(high, self.factor))
        return _integer(low) if self.integer else low


@dataclass(frozen=True)
class Truncation:
    """TD: the magnitude of the image made from the central 1/factor of k-space per axis."""

    factor: int
    integer: bool = False
    anchor: ClassVar[Anchor] = "center"

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade a slice or a stack of slices."""
        low = np.abs(kspace.truncate(high, _low_shape(high, self.factor))).astype(high.dtype)
        return _integer(low) if self.integer else low


DEGRADATIONS: dict[str, type[Bicubic] | type[Truncation]] = {"bd": Bicubic, "td": Truncation}
