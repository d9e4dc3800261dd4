"""What makes a low-resolution slice out of a high-resolution one.

A degradation is a value with ``factors`` of (rows, columns) and a call ``high (…, h, w) -> low (…, a, b)``
for sizes that they divide. Its core is an operator A, `linear`, whose `adjoint` Aᴴ keeps
⟨A x, y⟩ = ⟨x, Aᴴ y⟩. With ``integer`` the result of the call is rounded and clipped at 0, as MATLAB does
for unsigned integers and as the slices of the CSN data set are.

A new degradation is a class with the facts of `Degradation` and an entry in `DEGRADATIONS`, no more.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray

from seran import kspace, resize
from seran.errors import BadInput
from seran.grid import Anchor


@runtime_checkable
class Degradation(Protocol):
    """High to low, in the plane of a slice.

    Attributes:
        name: what options, weights and records call it.
        words: what reports call it.
        baseline: the plain interpolation that gains over it are counted from, see `seran.methods`.
        anchor: what the low and the high grid have in common, see `seran.grid`.
        local: whether a patch may be degraded apart from its slice.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    baseline: ClassVar[str]
    anchor: ClassVar[Anchor]
    local: ClassVar[bool]

    def __init__(self, factors: tuple[int, int], integer: bool = False) -> None: ...

    @property
    def factors(self) -> tuple[int, int]:
        """High-resolution samples that one low-resolution sample spans, along (rows, columns)."""

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade a slice or a stack of slices; `BadInput` for sizes that the factors do not divide."""

    def linear(self, high: Inexact[ndarray, "*n h w"]) -> Inexact[ndarray, "*n a b"]:
        """The linear part, complex where it goes through k-space."""

    def adjoint(self, low: Inexact[ndarray, "*n a b"]) -> Inexact[ndarray, "*n h w"]:
        """The adjoint of the linear part."""


def _low_shape(high: ndarray, factors: tuple[int, int]) -> tuple[int, int]:
    h, w = high.shape[-2:]
    for size, factor in zip((h, w), factors, strict=True):
        if size % factor:
            raise BadInput(f"expected slices that {factor} divides, got {h}x{w}; crop them first")
    return h // factors[0], w // factors[1]


def _high_shape(low: ndarray, factors: tuple[int, int]) -> tuple[int, int]:
    return low.shape[-2] * factors[0], low.shape[-1] * factors[1]


def _stored(low: ndarray, integer: bool) -> ndarray:
    return np.maximum(np.floor(low + 0.5), 0) if integer else low


@dataclass(frozen=True)
class Bicubic:
    """BD: MATLAB's antialiased bicubic ``imresize(high, 1/factor)``, the SERAN and CSN protocol."""

    factors: tuple[int, int]
    integer: bool = False
    name: ClassVar[str] = "bd"
    words: ClassVar[str] = "MATLAB's antialiased bicubic"
    baseline: ClassVar[str] = "bicubic"
    anchor: ClassVar[Anchor] = "corner"
    local: ClassVar[bool] = True

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade a slice or a stack of slices."""
        return _stored(self.linear(high), self.integer)

    def linear(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """All of it but the rounding."""
        return resize.imresize(high, _low_shape(high, self.factors))

    def adjoint(self, low: Float[ndarray, "*n a b"]) -> Float[ndarray, "*n h w"]:
        """Every low sample spread by the weights that it was gathered with."""
        return resize.adjoint(low, _high_shape(low, self.factors))


@dataclass(frozen=True)
class Truncation:
    """TD: the magnitude of the image made from the central 1/factor of k-space per axis."""

    factors: tuple[int, int]
    integer: bool = False
    name: ClassVar[str] = "td"
    words: ClassVar[str] = "centred k-space truncation"
    baseline: ClassVar[str] = "zerofill"
    anchor: ClassVar[Anchor] = "center"
    local: ClassVar[bool] = False

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade a slice or a stack of slices."""
        return _stored(np.abs(self.linear(high)).astype(high.dtype), self.integer)

    def linear(self, high: Inexact[ndarray, "*n h w"]) -> Inexact[ndarray, "*n a b"]:
        """The complex image, before its magnitude is taken."""
        return kspace.truncate(high, _low_shape(high, self.factors))

    def adjoint(self, low: Inexact[ndarray, "*n a b"]) -> Inexact[ndarray, "*n h w"]:
        """Zeros around k-space."""
        return kspace.extend(low, _high_shape(low, self.factors))


DEGRADATIONS: dict[str, type[Degradation]] = {Bicubic.name: Bicubic, Truncation.name: Truncation}
"""Every degradation by name."""


def named(name: str, factors: tuple[int, int], integer: bool = False) -> Degradation:
    """A degradation by its name.

    Args:
        name: one of `DEGRADATIONS`; `BadInput` lists them.
        factors: along (rows, columns).
        integer: round and clip the result at 0.
    """
    if name not in DEGRADATIONS:
        raise BadInput(f"expected a degradation of {', '.join(DEGRADATIONS)}, got {name!r}")
    return DEGRADATIONS[name](factors, integer)
