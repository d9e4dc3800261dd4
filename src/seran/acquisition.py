"""What a scanner does to a slice, and the undoing of what is known of it exactly.

``s = | F⁻¹[ Z W P (F x + ε) ] |``: the central block of k-space, the acquired grid, is measured (P), of a
partial Fourier scan not all of it, with complex noise (ε); it is filtered (W) and filled with zeros (Z) up to
the given grid. `Acquisition.linear` is the part without noise and magnitude. `canonical` takes a given image
back to the acquired grid and divides by the window, regularised: what is left is an unfiltered truncated
image with white noise. Spectra are centred and of whole slices; the centre of voxel 0 stays on every grid.

>>> scanner = Acquisition((3, 4), Window("hamming", 0.46), given=(6, 8))
>>> scanner(np.full((5, 6), 7.0)).round(4).tolist()[0][:2]
[7.0, 7.0]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, Inexact
from numpy import ndarray

from seran import kspace
from seran.errors import BadInput

Kind = Literal["none", "tukey", "hamming", "fermi"]
FLOOR = 0.07
"""Of `inverse`: attenuation about which little is left to restore, because the magnitude has filled it."""
EDGE = 0.8
"""The edge of the band: from this fraction of its largest frequency on."""


def frequencies(n: int) -> Float[ndarray, " n"]:
    """|k| of a centred spectrum of n samples, 1 at the edge of the band."""
    return np.abs(np.arange(n) - n // 2).astype(np.float32) / max(1, n // 2)


@dataclass(frozen=True)
class Window:
    """A scanner's filter.

    Attributes:
        kind: none; tukey: flat to 1-a, cosine to the edge; hamming: (1-a) + a cos(π k); fermi:
            1/(1 + exp((k-a)/b)), 1 at k = 0.
        a: see kind.
        b: of fermi, its width.
        elliptical: a function of the radius, instead of the product of both axes.
    """

    kind: Kind = "none"
    a: float = 0.0
    b: float = 0.05
    elliptical: bool = False

    def __str__(self) -> str:
        """As the option ``--window`` states it."""
        numbers = {"none": [], "fermi": [self.a, self.b]}.get(self.kind, [self.a])
        return ":".join([self.kind, *(f"{n:.3g}" for n in numbers), *["elliptical"] * self.elliptical])

    def curve(self, k: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Attenuation at |k|; beyond the band as at its edge (Tukey: 0, Fermi: on)."""
        if self.kind == "tukey" and self.a > 0:
            t = np.clip((k - (1 - self.a)) / self.a, 0, 1)
            return 0.5 + 0.5 * np.cos(np.pi * t)
        if self.kind == "hamming":
            return 1 - self.a + self.a * np.cos(np.pi * np.minimum(k, 1))
        if self.kind == "fermi":
            return (1 + np.exp(-self.a / self.b)) / (1 + np.exp(np.minimum((k - self.a) / self.b, 60)))
        return np.ones_like(k)

    def at(self, rows: Float[ndarray, " a"], columns: Float[ndarray, " b"]) -> Float[ndarray, "a b"]:
        """Attenuation at every pair of |k| along rows and columns."""
        if self.elliptical:
            return self.curve(np.hypot(rows[:, None], columns))
        return self.curve(rows)[:, None] * self.curve(columns)

    def on(self, shape: tuple[int, int]) -> Float[ndarray, "h w"]:
        """On the centred spectrum of a grid."""
        return self.at(*(frequencies(n) for n in shape)).astype(np.float32)

    @property
    def passed(self) -> float:
        """Mean power that it lets pass."""
        return float((self.on((64, 64)) ** 2).mean(dtype=np.float64))


NONE = Window()
NARROWEST = 1e-3
"""Part of the band over which a filter falls, at least: less is between two samples of any slice."""
_LEAST = f"from {NARROWEST:g}"
WORDS = f"tukey:A ({_LEAST} to 1), hamming:A (0 to 0.5) or fermi:A:B (0 to 1.5, {_LEAST} to 0.5)"
SMALLEST = 8
"""Pixels a side that an acquired grid has at least."""


def block(fraction: Sequence[float], shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the part of k-space that was measured of slices of this shape."""
    rows, columns = (min(n, max(SMALLEST, round(f * n))) for f, n in zip(fraction, shape, strict=True))
    return rows, columns


def window(words: str) -> Window:
    """From what `Window.__str__` gives, ``hamming:0.46`` for example; a `ValueError` if it is none.

    >>> window("fermi:0.9:0.06:elliptical")
    Window(kind='fermi', a=0.9, b=0.06, elliptical=True)
    """
    kind, *rest = words.split(":")
    elliptical = rest[-1:] == ["elliptical"]
    numbers = [float(n) for n in (rest[:-1] if elliptical else rest)]
    if len(numbers) != {"none": 0, "tukey": 1, "hamming": 1, "fermi": 2}.get(kind):
        raise ValueError(f"expected none, {WORDS}, got {words}")
    a, b = (numbers + [0.0, 0.05][len(numbers) :])[:2]
    least, most = {"hamming": (0, 0.5), "tukey": (NARROWEST, 1)}.get(kind, (0, 1.5))
    if not ((a == 0 or least <= a <= most) and NARROWEST <= b <= 0.5):
        raise ValueError(f"expected none, {WORDS}, got {words}")
    return Window(cast("Kind", kind), a, b, elliptical)


@dataclass(frozen=True)
class Acquisition:
    """What a scanner does to slices.

    Attributes:
        acquired: rows and columns of the measured block of k-space, which is also a grid.
        window: the scanner's filter.
        given: the grid of the image, filled with zeros; by default the acquired one.
        partial: part of the rows of the block that is measured, from one side on, above 0.5: partial Fourier.
    """

    acquired: tuple[int, int]
    window: Window = NONE
    given: tuple[int, int] | None = None
    partial: float = 1.0

    def __post_init__(self) -> None:
        given = self.given or self.acquired
        if min(self.acquired) < 1 or any(g < a for a, g in zip(self.acquired, given, strict=True)):
            raise BadInput(f"expected a given grid of at least {self.acquired}, got {given}")
        if not 0.5 < self.partial <= 1:
            raise BadInput(f"expected a partial Fourier fraction above 0.5 and at most 1, got {self.partial}")

    @property
    def filter(self) -> Float[ndarray, "a b"]:
        """What a spectrum on the acquired grid is multiplied by: the window, 0 where nothing is measured."""
        made = self.window.on(self.acquired)
        made[: self.acquired[0] - round(self.partial * self.acquired[0])] = 0
        return made

    def linear(self, x: Inexact[ndarray, "*n h w"]) -> Inexact[ndarray, "*n g k"]:
        """The complex image of slices x without noise."""
        block = kspace.fitted(kspace.spectrum(x), self.acquired) * self.filter
        return kspace.image(kspace.fitted(block, self.given or self.acquired))

    def adjoint(self, y: Inexact[ndarray, "*n g k"], shape: tuple[int, int]) -> Inexact[ndarray, "*n h w"]:
        """The adjoint of `linear` for slices of this shape: ⟨A x, y⟩ = ⟨x, Aᴴ y⟩."""
        block = kspace.fitted(kspace.spectrum(y), self.acquired) * self.filter
        back = kspace.image(kspace.fitted(block, shape))
        return back * back.real.dtype.type(prod(y.shape[-2:]) / prod(shape))

    def pseudoinverse(
        self, y: Inexact[ndarray, "*n g k"], shape: tuple[int, int]
    ) -> Inexact[ndarray, "*n h w"]:
        """A⁺ y on slices of this shape: what was measured without its window, and nothing else.

        Where the window leaves less than a thousandth, nothing is brought back.
        """
        kept = self.filter > 1e-3
        whole = np.divide(1, self.filter, where=kept, out=np.zeros(kept.shape, np.float32))
        return kspace.image(kspace.fitted(kspace.fitted(kspace.spectrum(y), self.acquired) * whole, shape))

    def __call__(
        self, x: Inexact[ndarray, "*n h w"], sigma: float = 0.0, rng: np.random.Generator | None = None
    ) -> Float[ndarray, "*n g k"]:
        """The magnitude image that a scanner gives of slices.

        Args:
            x: slices, on any grid of the same field of view.
            sigma: standard deviation of the real and of the imaginary noise in image units of the acquired
                grid without the window.
            rng: draws the noise.
        """
        block = kspace.fitted(kspace.spectrum(x), self.acquired)
        if sigma > 0:
            rng = rng or np.random.default_rng()
            sd = block.real.dtype.type(sigma * np.sqrt(prod(self.acquired)))
            parts = rng.standard_normal((*block.shape, 2), dtype=block.real.dtype)
            block = block + sd * parts.view(block.dtype)[..., 0]
        return np.abs(kspace.image(kspace.fitted(block * self.filter, self.given or self.acquired)))


def inverse(window: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
    """1/window where it is well above `FLOOR`, 0 where the window is 0, at most 1/(2 `FLOOR`); 1 at 1.

    Against 1/max(window, floor) this loses nothing on Hamming's window and wins 1 to 2 dB on Tukey's, whose
    zeros the magnitude refills.
    """
    return window * (1 + FLOOR**2) / (window**2 + FLOOR**2)


def leftover(window: Window, undone: bool = True) -> tuple[float, float, float]:
    """Attenuation that is left near the edge of the band: along rows, along columns, and in the corners.

    0 for an unfiltered image.

    Args:
        window: the one that is believed in, which need not be the true one.
        undone: whether `canonical` was given it.
    """
    n = 64
    w = window.on((2 * n, 2 * n))
    left = 1 - w * inverse(w) if undone else 1 - w
    edge = slice(round(EDGE * n), n)
    rows, columns, corner = left[n:, n][edge], left[n, n:][edge], left[n:, n:][edge, edge]
    return float(rows.mean()), float(columns.mean()), float(corner.mean())


def canonical(
    given: Float[ndarray, "*n g k"], acquired: tuple[int, int], window: Window = NONE
) -> Float[ndarray, "*n a b"]:
    """Given slices on their acquired grid and without their window; may be negative."""
    if given.shape[-2:] == tuple(acquired) and window.kind == "none":
        return given
    block = kspace.fitted(kspace.spectrum(given), acquired)
    if window.kind != "none":
        block = block * inverse(window.on(acquired))
    return kspace.image(block).real


HOW = {
    "air": "measured in air",
    "k-space": "an upper bound, by the flattest tissue",
    "tissue": "an upper bound, so that flat tissue stays as quiet as it is",
    "stated": "as stated",
}
"""What noise is known by."""


def words(
    fraction: Sequence[float], window: Window, noise: Sequence[float], by: str, background: str
) -> dict[str, str]:
    """What is known of a scan, each in a sentence.

    Args:
        fraction: of k-space along rows and columns that was measured.
        window: the scanner's filter.
        noise: standard deviation as a part of the range, of several volumes the least and the greatest; or
            nothing.
        by: what it is known by, of `HOW`; several with commas between.
        background: the value of a constant one, or empty.
    """
    ends = [f"{f:.0%} along {axis}" for f, axis in zip(fraction, ("rows", "columns"), strict=True) if f < 1]
    left = window.curve(np.ones(1, np.float32)).item()
    amount = " to ".join(dict.fromkeys(f"{part:.1%}" for part in noise))
    how = "; ".join(HOW[one] for one in by.split(", ") if one in HOW)
    return {
        "k-space": f"k-space is filled with zeros beyond {' and '.join(ends)}"
        if ends
        else "no end of k-space is seen (taken as all of it measured)",
        "filter": "no filter is seen"
        if window.kind == "none"
        else f"a filter ({window}) leaves {left:.0%} of the signal at the edge of what was measured",
        "noise": ("no noise, as stated" if by == "stated" and not any(noise) else "")
        or (f"noise of {amount} of the range ({how})" if noise else "the noise could not be measured"),
        "background": f"a constant background of {background}, which the result keeps"
        if background
        else "no constant background",
    }
