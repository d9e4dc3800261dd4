"""k-space of real slices: centred truncation, and how much of it a scanner really measured.

Scanners often fill k-space with zeros before they reconstruct, so that a 0.9 mm matrix may hold 1.3 mm of
information. Used as ground truth such an image flatters every super-resolution method: its "lost" high
frequencies were never there. `support` measures the filled fraction per axis and `crop` takes the image back
to the grid that was acquired.
"""

from math import prod
from types import EllipsisType

import numpy as np
from jaxtyping import Complex, Float, Inexact, Shaped
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft

STEP_DB = 2.0  # a band edge is a drop of the power spectrum this much steeper than its own trend
WIDTH = 0.06  # of Nyquist: what is averaged on either side of a candidate edge
LOWEST = 0.4  # of Nyquist: below it no edge is looked for, because anatomy itself is steep there
SPIKE = 10.0
"""Times the 99th percentile of the brightest slice above which a lone voxel is damage: scans reach 5."""
LONE = 4  # of the 5x5 pixels around a spike, itself among them, fewer have a tenth of it


def spectrum(image: Inexact[ndarray, "*n h w"]) -> Complex[ndarray, "*n h w"]:
    """Centred spectrum of slices, in their precision."""
    return fft.fftshift(fft.fft2(image), axes=(-2, -1))


def image(spectrum: Complex[ndarray, "*n h w"]) -> Complex[ndarray, "*n h w"]:
    """Slices of a centred spectrum."""
    return fft.ifft2(fft.ifftshift(spectrum, axes=(-2, -1)))


def fitted(spectrum: Complex[ndarray, "*n h w"], shape: tuple[int, int]) -> Complex[ndarray, "*n a b"]:
    """A centred spectrum on another grid of the same field of view; mean intensity and voxel 0 stay.

    Along each axis it is the central block, or has zeros around it.
    """
    size = spectrum.shape[-2:]
    made = np.zeros((*spectrum.shape[:-2], *shape), spectrum.dtype)
    common = min(size[0], shape[0]), min(size[1], shape[1])
    made[_central(shape, common)] = spectrum[_central(size, common)]
    made *= made.real.dtype.type(prod(shape) / prod(size))
    return made


def regridded(stack: Float[ndarray, "*n h w"], shape: tuple[int, int]) -> Float[ndarray, "*n a b"]:
    """Real slices on another grid of the same field of view: k-space cropped or filled with zeros.

    One after the other: the spectra of all of them would take ten times their memory.
    """
    if stack.shape[-2:] == tuple(shape):
        return stack
    made = np.empty((*stack.shape[:-2], *shape), stack.dtype)
    for at in np.ndindex(stack.shape[:-2]):
        made[at] = image(fitted(spectrum(stack[at]), shape)).real
    return made


def nearest(values: Shaped[ndarray, "*n h w"], shape: tuple[int, int]) -> Shaped[ndarray, "*n a b"]:
    """Values on another grid that shares the centre of voxel 0: each that of the nearest voxel."""
    rows, columns = (
        np.minimum(np.rint(np.arange(m) * n / m).astype(int), n - 1)
        for n, m in zip(values.shape[-2:], shape, strict=True)
    )
    return values[..., rows[:, None], columns]


def truncate(stack: Inexact[ndarray, "*n h w"], shape: tuple[int, int]) -> Complex[ndarray, "*n a b"]:
    """Keep the central ``shape`` block of k-space; complex result, mean intensity preserved.

    The new grid shares the centre of its first voxel with the old one. `ValueError` if ``shape`` is larger.

    >>> truncate(np.full((6, 8), 7.0), (3, 4)).real.mean().round(6).item()
    7.0
    """
    size = stack.shape[-2:]
    if shape[0] > size[0] or shape[1] > size[1]:
        raise ValueError(f"expected a block of at most {size}, got {shape}: truncation only shrinks")
    return image(fitted(spectrum(_double(stack)), shape))


def extend(stack: Inexact[ndarray, "*n a b"], shape: tuple[int, int]) -> Complex[ndarray, "*n h w"]:
    """Zeros around k-space up to ``shape``: the adjoint of `truncate`; means shrink as the pixels do."""
    return image(fitted(spectrum(_double(stack)), shape)) * (prod(stack.shape[-2:]) / prod(shape))


def _double(stack: Inexact[ndarray, "*n h w"]) -> Inexact[ndarray, "*n h w"]:
    return stack.astype(np.complex128 if np.iscomplexobj(stack) else np.float64)


def _central(size: tuple[int, ...], shape: tuple[int, ...]) -> tuple[EllipsisType | slice, ...]:
    """The block of ``shape`` about the zero frequency of a shifted spectrum of ``size``."""
    return ..., *(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(size, shape, strict=True))


def crop(stack: Float[ndarray, "*n h w"], shape: tuple[int, int]) -> Float[ndarray, "*n a b"]:
    """Real image on the smaller grid ``shape``; never negative where no voxel of the input was."""
    low = truncate(stack, shape).real.astype(stack.dtype)
    return np.maximum(low, 0) if stack.min() >= 0 else low


def despiked(stack: Float[ndarray, "n h w"]) -> tuple[Float[ndarray, "n h w"], int]:
    """Slices in which the median around replaces each spike, and how many there were.

    A spike is a voxel far above all of the scan, or one of two or three: it spoils the spectrum of its slice.

    >>> scan = np.random.default_rng(0).random((3, 20, 24))
    >>> scan[1, 7, 9] = 1e20
    >>> mended, count = despiked(scan)
    >>> count, bool(mended.max() < 1)
    (1, True)
    """
    most, count = _most(stack), 0
    made = stack
    for i, part in enumerate(stack):
        mended = _mended(part, most)
        if mended is not part:
            made = stack.copy() if made is stack else made
            made[i], count = mended, count + int((mended != part).sum())
    return made, count


def _most(stack: Float[ndarray, "n h w"]) -> float:
    """What no voxel of a sound scan exceeds; infinite where nearly all is 0."""
    tops, level = np.array([np.abs(part).max() for part in stack]), 0.0
    for i in np.argsort(tops)[::-1]:
        level = max(level, float(np.percentile(np.abs(stack[i]), 99, method="lower")))
        if tops.max() <= SPIKE * level:
            break
    return SPIKE * level or np.inf


def _mended(part: Float[ndarray, "h w"], most: float) -> Float[ndarray, "h w"]:
    """A slice without its spikes; itself if it has none."""
    at = np.nonzero(np.abs(part) > most)
    if not at[0].size:
        return part
    around = sliding_window_view(np.pad(part, 2, constant_values=np.nan), (5, 5))[at]
    lone = (np.abs(around) >= np.abs(part[at])[:, None, None] / 10).sum((1, 2)) < LONE
    if not lone.any():
        return part
    made = part.copy()
    made[at[0][lone], at[1][lone]] = np.nanmedian(around[lone], (1, 2))
    return made


def support(stack: Float[ndarray, "n h w"]) -> tuple[float, float]:
    """Measured in-plane k-space support of a stack of slices, as fractions of Nyquist per axis."""
    chosen = strong(stack)
    if not np.ptp(chosen, (1, 2)).any():
        return 1.0, 1.0
    chosen = chosen / np.abs(chosen).max()  # the power of very small or large intensities is out of range
    return _edge(chosen, 0), _edge(chosen, 1)


def strong(stack: Float[ndarray, "n h w"]) -> Float[ndarray, "m h w"]:
    """At most 24 slices, evenly apart, of those with a tenth of the strongest one's energy; no spikes."""
    most = _most(stack)
    energy = np.array([_mended(part, most).std(dtype=np.float64) for part in stack])
    able = np.flatnonzero(energy >= 0.1 * energy.max())
    chosen = able[np.linspace(0, len(able) - 1, min(len(able), 24)).round().astype(int)]
    return np.stack([_mended(stack[i], most) for i in chosen])


def _edge(stack: Float[ndarray, "n h w"], axis: int) -> float:
    """Fraction of Nyquist at which the mean power along an in-plane axis falls off a cliff; else 1.0.

    The step at a frequency is the drop of the mean level from the `WIDTH` below it to the `WIDTH` above it,
    less what the slope from `LOWEST`/2 up to there explains.
    """
    spectrum = np.fft.fft(stack - stack.mean((-2, -1), keepdims=True), axis=axis - 2)
    power = (np.abs(spectrum) ** 2).mean(axis=(0, 2 - axis))
    half = power[: power.size // 2 + 1]
    decibel = 10 * np.log10(half / half.max() + 1e-12)
    n = decibel.size
    f = np.arange(n) / (n - 1)
    reach = max(2, round(WIDTH * (n - 1)))
    best, at = STEP_DB, 1.0
    for i in range(int(np.ceil(LOWEST * (n - 1))), n - reach):
        below, above = decibel[i - reach : i], decibel[i + 1 : i + 1 + reach]
        trusted = (f > LOWEST / 2) & (f < f[i] - WIDTH)
        slope = np.polyfit(f[trusted], decibel[trusted], 1)[0] if trusted.sum() > 2 else 0.0
        step = below.mean() - above.mean() + min(slope, 0.0) * (reach + 1) / (n - 1)
        if step > best and decibel[i + 1 + reach :].max(initial=-np.inf) < below.mean():
            best, at = step, float(f[i])
    return at


def radial(
    stack: Float[ndarray, "n h w"], spacing: tuple[float, float]
) -> tuple[Float[ndarray, " f"], Float[ndarray, " f"]]:
    """Radial power spectral density of slices, in a Hann window: frequencies in cycles per mm, power in dB.

    On one scale for all grids of a field of view, so that a scan can be compared with a finer one of it.
    They end at the Nyquist frequency of the coarser axis; ``spacing`` is in mm of (row, column).
    """
    stack = strong(stack)
    h, w = stack.shape[1:]
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
    power = np.zeros((h, w))
    for part in stack:
        power += np.abs(np.fft.fft2((part - part.mean(dtype=np.float64)) * window)) ** 2
    power *= spacing[0] * spacing[1] / ((window**2).sum() * max(1, len(stack)))
    f = np.hypot(np.fft.fftfreq(h, spacing[0])[:, None], np.fft.fftfreq(w, spacing[1]))
    step = 1 / min(h * spacing[0], w * spacing[1])
    ring = np.rint(f / step).astype(int).ravel()
    most = int(0.5 / max(spacing) / step + 1e-6)
    count, total = (np.bincount(ring, w, most + 1)[1 : most + 1] for w in (None, power.ravel()))
    return np.arange(1, most + 1) * step, 10 * np.log10(total / np.maximum(count, 1) + 1e-30)


def along(
    stack: Float[ndarray, "n h w"], spacing: float
) -> tuple[Float[ndarray, " f"], Float[ndarray, " f"]]:
    """Mean power spectral density along the axis through slices, on one scale for all grids, as `radial`.

    Args:
        stack: the slices, which a Hann window weights.
        spacing: between them, in mm.

    Returns:
        Frequencies in cycles per mm up to the Nyquist frequency, and power in dB.
    """
    n, rows, columns = stack.shape
    window = np.hanning(n + 2)[1:-1, None]
    power = np.zeros(n // 2 + 1)
    for row in range(rows):
        lines = stack[:, row].astype(np.float64)
        power += np.square(np.abs(np.fft.rfft((lines - lines.mean(0)) * window, axis=0))).sum(1)
    power *= spacing / ((window**2).sum() * rows * columns)
    return np.fft.rfftfreq(n, spacing)[1:], 10 * np.log10(power[1:] + 1e-30)
