"""What a scanner does to a slice, and the undoing of what is known of it exactly.

``s = | F^-1[ Z W P (F x + eps) ] |``: the central block of k-space is measured (P) with complex noise (eps),
filtered (W) and filled with zeros (Z). `linear` is the part without noise and magnitude. `canonical` takes
a given image back to the acquired grid and divides by the window (regularised), so that a network sees an
unfiltered truncated image with white noise on the acquired grid. Spectra are centred (fftshift) and of whole
slices; voxel 0 keeps its centre on every grid (anchor "center").
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy import ndarray
from scipy import fft

FLOOR = 0.07
"""Of `inverse`: attenuation about which little is left to restore, because the magnitude has filled it."""
EDGE = 0.8
"""The edge of the band: from this fraction of its largest frequency on."""


def spectrum(image: ndarray) -> ndarray:
    """Centred spectrum of slices (..., h, w)."""
    return fft.fftshift(fft.fft2(image), axes=(-2, -1))


def image(spectrum: ndarray) -> ndarray:
    """Complex slices of a centred spectrum."""
    return fft.ifft2(fft.ifftshift(spectrum, axes=(-2, -1)))


def fitted(spectrum: ndarray, shape: tuple[int, int]) -> ndarray:
    """Spectrum on another grid: its central block, or zeros around it, per axis; the mean is preserved."""
    size = spectrum.shape[-2:]
    out = np.zeros((*spectrum.shape[:-2], *shape), spectrum.dtype)
    here, there = [], []
    for n, m in zip(size, shape, strict=True):
        k = min(n, m)
        here.append(slice(n // 2 - k // 2, n // 2 - k // 2 + k))
        there.append(slice(m // 2 - k // 2, m // 2 - k // 2 + k))
    out[..., there[0], there[1]] = spectrum[..., here[0], here[1]]
    out *= np.float32(shape[0] * shape[1] / (size[0] * size[1]))
    return out


def regridded(x: ndarray, shape: tuple[int, int]) -> ndarray:
    """Real slices on another grid of the same field of view: k-space cropped or filled with zeros."""
    return x if x.shape[-2:] == tuple(shape) else image(fitted(spectrum(x), shape)).real


def frequencies(n: int) -> ndarray:
    """|k| of a centred spectrum of n samples, 1 at the edge of the band."""
    return np.abs(np.arange(n) - n // 2).astype(np.float32) / max(1, n // 2)


@dataclass(frozen=True)
class Window:
    """A scanner's filter.

    Attributes:
        kind: none; tukey: flat to 1-a, cosine to the edge; hamming: (1-a) + a cos(pi k); fermi:
            1/(1 + exp((k-a)/b)), 1 at k = 0.
        a: see kind.
        b: of fermi, its width.
        elliptical: of the radius, instead of the product of both axes.
    """

    kind: Literal["none", "tukey", "hamming", "fermi"] = "none"
    a: float = 0.0
    b: float = 0.05
    elliptical: bool = False

    def curve(self, k: ndarray) -> ndarray:
        """Attenuation at |k|; beyond the band as at its edge (Tukey: 0, Fermi: on)."""
        if self.kind == "tukey" and self.a > 0:
            t = np.clip((k - (1 - self.a)) / self.a, 0, 1)
            return 0.5 + 0.5 * np.cos(np.pi * t)
        if self.kind == "hamming":
            return 1 - self.a + self.a * np.cos(np.pi * np.minimum(k, 1))
        if self.kind == "fermi":
            return (1 + np.exp(-self.a / self.b)) / (1 + np.exp(np.minimum((k - self.a) / self.b, 60)))
        return np.ones_like(k)

    def on(self, shape: tuple[int, int]) -> ndarray:
        """On the centred spectrum of a grid."""
        rows, columns = (frequencies(n) for n in shape)
        if self.elliptical:
            return self.curve(np.hypot(rows[:, None], columns)).astype(np.float32)
        return (self.curve(rows)[:, None] * self.curve(columns)).astype(np.float32)


NONE = Window()


def inverse(window: ndarray) -> ndarray:
    """1/window where it is well above FLOOR, 0 where the window is 0, at most 1/(2 FLOOR); 1 at 1.

    Against 1/max(window, floor) this loses nothing on Hamming's window and wins 1 to 2 dB on Tukey's, whose
    zeros the magnitude refills.
    """
    return window * (1 + FLOOR**2) / (window**2 + FLOOR**2)


def leftover(window: Window, undone: bool) -> tuple[float, float, float]:
    """Attenuation that is left near the edge of the band: along rows, along columns, and in the corners.

    0 for an unfiltered image. Said of the window one believes in, which need not be the true one.
    """
    n = 64
    w = window.on((2 * n, 2 * n))
    left = 1 - w * inverse(w) if undone else 1 - w
    edge = slice(round(EDGE * n), n)
    rows, columns, corner = left[n:, n][edge], left[n, n:][edge], left[n:, n:][edge, edge]
    return float(rows.mean()), float(columns.mean()), float(corner.mean())


def linear(x: ndarray, acquired: tuple[int, int], window: Window, given: tuple[int, int]) -> ndarray:
    """Z W P F of a slice, back in the image: complex, on the given grid. No noise, no magnitude."""
    return image(fitted(fitted(spectrum(x), acquired) * window.on(acquired), given))


def acquire(
    x: ndarray,
    acquired: tuple[int, int],
    window: Window = NONE,
    sigma: float = 0.0,
    given: tuple[int, int] | None = None,
    rng: np.random.Generator | None = None,
) -> ndarray:
    """The magnitude image that a scanner gives of slices x (..., h, w), float32.

    Args:
        x: on the target grid.
        acquired: size of the measured block.
        window: the scanner's filter.
        sigma: sd of the real and of the imaginary noise in image units of the acquired grid.
        given: the grid of the image, zero-filled; by default the acquired one.
        rng: of the noise.
    """
    k = fitted(spectrum(x), acquired)
    if sigma > 0:
        assert rng is not None
        sd = np.float32(sigma * np.sqrt(acquired[0] * acquired[1]))
        parts = rng.standard_normal((*k.shape, 2), dtype=np.float32)
        k = k + sd * parts.view(np.complex64)[..., 0]
    if window.kind != "none":
        k = k * window.on(acquired)
    return np.abs(image(fitted(k, given or acquired))).astype(np.float32)


def canonical(s: ndarray, acquired: tuple[int, int], window: Window = NONE) -> ndarray:
    """A given image on its acquired grid and without its window; real, float32, may be negative."""
    if s.shape[-2:] == tuple(acquired) and window.kind == "none":
        return s
    k = fitted(spectrum(s), acquired)
    if window.kind != "none":
        k = k * inverse(window.on(acquired))
    return image(k).real.astype(np.float32)


def told(sigma: float, left: tuple[float, float, float]) -> ndarray:
    """What the network is told, as constant maps: noise (0 … about 1) and `leftover`."""
    return np.array([np.sqrt(20 * sigma), *left], np.float32)
