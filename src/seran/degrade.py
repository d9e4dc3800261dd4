"""What makes a low-resolution slice out of a high-resolution one.

A degradation is a value with ``factors`` of (rows, columns) and a call, high to low. Its core is an operator
A, `Degradation.linear`; `Degradation.adjoint` is Aᴴ: ⟨A x, y⟩ = ⟨x, Aᴴ y⟩. A new degradation is a class and
an entry in `DEGRADATIONS`, from which options, training, evaluation and reports take its facts.

>>> degrade, x, y = Truncation((2, 1)), np.eye(4), np.ones((2, 4))
>>> bool(np.isclose(np.vdot(y, degrade.linear(x)), np.vdot(degrade.adjoint(y), x)))
True
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray

from seran import kspace, resize
from seran.errors import BadInput
from seran.grid import Anchor, dimensions


@dataclass(frozen=True)
class Degradation(ABC):
    """High to low, in the plane of a slice."""

    factors: tuple[int, int]  # high samples that one low sample spans, along rows and columns
    integer: bool = False  # the call rounds and clips at 0, as MATLAB does for unsigned integers
    name: ClassVar[str]  # what options, weights and records call it
    words: ClassVar[str]  # what reports call it
    baseline: ClassVar[str]  # the plain interpolation that gains over it are counted from
    anchor: ClassVar[Anchor]  # what the low and the high grid have in common, see `seran.grid`
    local: ClassVar[bool]  # whether a patch may be degraded apart from its slice

    def __call__(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Degrade slices, which the factors must divide (`BadInput`); of a complex image the magnitude."""
        for size, factor in zip(high.shape[-2:], self.factors, strict=True):
            if size % factor:
                got = dimensions(high.shape[-2:])
                raise BadInput(f"expected slices that {factor} divides, got {got}; crop them first")
        low = self.linear(high)
        if np.iscomplexobj(low):
            low = np.abs(low).astype(high.dtype)
        return np.maximum(np.floor(low + 0.5), 0) if self.integer else low

    @abstractmethod
    def linear(self, high: Inexact[ndarray, "*n h w"]) -> Inexact[ndarray, "*n a b"]:
        """The linear part: without magnitude and rounding."""

    @abstractmethod
    def adjoint(self, low: Inexact[ndarray, "*n a b"]) -> Inexact[ndarray, "*n h w"]:
        """The adjoint of the linear part."""

    def pseudoinverse(
        self, low: Float[ndarray, "*n a b"], shape: tuple[int, int]
    ) -> Float[ndarray, "*n h w"]:
        """A⁺ y = Aᴴ (A Aᴴ)⁻¹ y, the least slices of which the linear part makes these.

        Args:
            low: the slices; real, where no class below says otherwise.
            shape: of the result, the factors times as many rows and columns.
        """
        if shape != self.high_shape(low):
            raise ValueError(f"expected {self.high_shape(low)}, got {shape}")
        from scipy.sparse.linalg import LinearOperator, cg  # only results that do not fit their scan need it

        def squared(y: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
            return self.linear(self.adjoint(y.reshape(low.shape))).ravel()

        solved, _ = cg(LinearOperator((low.size, low.size), squared, dtype=float), low.ravel(), rtol=1e-6)
        return self.adjoint(solved.reshape(low.shape))

    def low_shape(self, high: ndarray) -> tuple[int, int]:
        """Rows and columns of the result."""
        return high.shape[-2] // self.factors[0], high.shape[-1] // self.factors[1]

    def high_shape(self, low: ndarray) -> tuple[int, int]:
        """Rows and columns of what has this result."""
        return low.shape[-2] * self.factors[0], low.shape[-1] * self.factors[1]


class Bicubic(Degradation):
    """BD: MATLAB's antialiased bicubic ``imresize(high, 1/factor)``, the SERAN and CSN protocol."""

    name, words, baseline = "bd", "MATLAB's antialiased bicubic", "bicubic"
    anchor, local = "corner", True

    def linear(self, high: Float[ndarray, "*n h w"]) -> Float[ndarray, "*n a b"]:
        """Weighted means."""
        return resize.imresize(high, self.low_shape(high))

    def adjoint(self, low: Float[ndarray, "*n a b"]) -> Float[ndarray, "*n h w"]:
        """Every low sample spread by the weights that it was gathered with."""
        return resize.adjoint(low, self.high_shape(low))


class Truncation(Degradation):
    """TD: the magnitude of the image made from the central 1/factor of k-space per axis."""

    name, words, baseline = "td", "centred k-space truncation", "zerofill"
    anchor, local = "center", False

    def linear(self, high: Inexact[ndarray, "*n h w"]) -> Inexact[ndarray, "*n a b"]:
        """The complex image."""
        return kspace.truncate(high, self.low_shape(high))

    def adjoint(self, low: Inexact[ndarray, "*n a b"]) -> Inexact[ndarray, "*n h w"]:
        """Zeros around k-space."""
        return kspace.extend(low, self.high_shape(low))

    def pseudoinverse(
        self, low: Inexact[ndarray, "*n a b"], shape: tuple[int, int]
    ) -> Inexact[ndarray, "*n h w"]:
        """Zeros around k-space, and the same mean; complex."""
        return kspace.image(kspace.fitted(kspace.spectrum(low), shape))


DEGRADATIONS: dict[str, type[Degradation]] = {"bd": Bicubic, "td": Truncation}


def named(name: str) -> type[Degradation]:
    """An entry of `DEGRADATIONS`; `BadInput` lists them."""
    if name not in DEGRADATIONS:
        raise BadInput(f"--degradation {name}: expected {' or '.join(DEGRADATIONS)}")
    return DEGRADATIONS[name]
