"""What a result did to the noise and the fine structure of its scan, and how far it leaves what that shows.

Noise: standard deviation in flat blocks, each less its own plane, after divided by before. Blocks are chosen
on the scan, by its smoothed slices, so that the noise itself does not choose them.

Overshoot: pixels more than a part of the range above the greatest or below the least of the 3x3 pixels of the
scan around them, beside those of zero-filling, which invents nothing; at the rim: of those alone that lie
beside a constant background. Where a scanner's filter and zeros were undone, the scan is what was measured.
Denoising must not count: the magnitude lifts the noise of air, so the least is lowered by that.
Nor must noise, which widens the range of 3x3 pixels, hide white rims: the result must not leave 3x3 pixels of
its own, either, on the measured grid.

Height: of local maxima over the mean of 7x7 pixels around, on the measured grid, after divided by before.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy import ndimage

from seran import kspace
from seran.acquisition import Acquisition, canonical
from seran.grid import Anchor

NOISIEST = 0.06  # of the range: native weights were not trained for more noise
BLOCK = 6  # pixels of the scan a side
MARGIN = 2  # pixels around a block that should be as flat
FLATTEST = 0.2  # of the tissue's blocks
STEEP = 0.02  # of the range: structure in a block, beyond which none counts as flat
TISSUE, AIR = 0.15, 0.05  # of the range: mean of a block of tissue, at least, and of air, at most
SLICES = 16  # of the scan, evenly apart, are looked at
FEWEST, FEWEST_MAXIMA = 8, 30  # blocks, and local maxima, that a ratio needs
SMALL, LARGE = 0.02, 0.1  # parts of the range that count as overshoot, and the least height of a maximum
CLEAR = 4.0  # times the noise by which a maximum stands out
AROUND = 7  # pixels a side, over whose mean a maximum is high
HELD = 1e6  # times the range: what is beyond is held there


@dataclass(frozen=True)
class Measures:
    """Of a result against its scan; None where there is nothing to measure it on."""

    tissue: float | None  # noise after ÷ before
    air: float | None
    overshoot: float  # share of pixels beyond `SMALL`
    filled: float  # the same of the measured grid's zero-filling
    most: float  # the largest, as a part of the range; beyond a peak that zero-filling shows there, too
    rim: float | None  # share of pixels beside a constant background that are beyond `LARGE`
    height: float | None  # of local maxima, after ÷ before; only where something was undone


def measures(
    before: Float[ndarray, "n h w"],
    after: Float[ndarray, "n sh sw"],
    gain: float,
    anchor: Anchor,
    background: float | None = None,
    offset: float = 0.0,
    undone: Acquisition | None = None,
    sigma: float = 0.0,
) -> Measures:
    """Of slices and what became of them.

    Args:
        before: the scan.
        after: the result, on a grid that is a whole factor finer along each axis.
        gain: the scan's range.
        anchor: what the two grids have in common.
        background: the value of the scan's constant background, if it has one.
        offset: the lower end of the range.
        undone: what the scanner did, where the result is without it.
        sigma: of the scan's noise, in its units.
    """
    chosen = np.linspace(0, len(before) - 1, min(len(before), SLICES)).round().astype(int)
    found: dict[str, list[tuple[float, float]]] = {"tissue": [], "air": [], "maxima": []}
    small = filled = rim = near = 0
    most = 0.0
    for i in chosen:
        low, high = (_scaled(part[i], offset, gain) for part in (before, after))
        empty = before[i] == np.float32(np.nan if background is None else background)
        for kind, pairs in _blocks(low, high, empty).items():
            found[kind] += pairs
        beyond = over = _beyond(low, high, anchor)
        own, peaks = low, np.zeros_like(over)
        if undone is not None:
            shown = canonical(low, undone.acquired, undone.window)
            own = kspace.regridded(high, undone.acquired)
            lifted = sigma / gain if before[i].min() >= 0 else 0.0
            over = _beyond(shown, high, anchor, low.shape, lifted, offset / gain)
            over = np.maximum(over, _beyond(own, high, "center"))
            if anchor == "center":
                found["maxima"] += _maxima(shown, own, sigma / gain)
                peaks = _beyond(shown, kspace.regridded(shown, high.shape), anchor, low.shape)
        small, most = small + int((over > SMALL).sum()), max(most, float((over - np.maximum(peaks, 0)).max()))
        fill = kspace.regridded(own, high.shape)
        filled += int((_beyond(own, fill, "center") > SMALL).sum())
        if background is not None:
            beside = _fine(_beside(empty), high.shape, anchor)
            near, rim = near + int(beside.sum()), rim + int((beside & (beyond > LARGE)).sum())
    size = max(1, sum(after[i].size for i in chosen))
    heights = np.array(found["maxima"]).reshape(-1, 2).sum(0)
    return Measures(
        _ratio(found["tissue"]),
        _ratio(found["air"]),
        small / size,
        filled / size,
        most,
        rim / near if near else None,
        float(heights[1] / heights[0]) if len(found["maxima"]) >= FEWEST_MAXIMA else None,
    )


def _scaled(image: Float[ndarray, "h w"], offset: float, gain: float) -> Float[ndarray, "h w"]:
    return np.clip((np.asarray(image, np.float64) - offset) / gain, -HELD, HELD).astype(np.float32)


def _blocks(
    low: Float[ndarray, "h w"], high: Float[ndarray, "sh sw"], empty: Bool[ndarray, "h w"]
) -> dict[str, list[tuple[float, float]]]:
    """Variances before and after of the flattest blocks of tissue, and of the blocks of air."""
    factors = high.shape[0] // low.shape[0], high.shape[1] // low.shape[1]
    old = _tiles(low, (BLOCK, BLOCK))
    new = _tiles(high, (BLOCK * factors[0], BLOCK * factors[1]))
    mean, middle = old.mean((2, 3)), (slice(BLOCK // 2, None, BLOCK),) * 2
    flat = _deviation(ndimage.gaussian_filter(low, 1.5))[middle][: mean.shape[0], : mean.shape[1]]
    constant = (old.max((2, 3)) == old.min((2, 3))) | _tiles(empty, (BLOCK, BLOCK)).any((2, 3))
    tissue = (mean > TISSUE) & ~constant
    if tissue.any():
        tissue &= flat <= min(np.quantile(flat[tissue], FLATTEST), STEEP)
    a, b = _variance(old), _variance(new)
    air = (mean < AIR) & ~constant & (flat < np.sqrt(a) / 2)  # not the slope of something bright
    return {
        k: list(zip(a[m].tolist(), b[m].tolist(), strict=True)) for k, m in (("tissue", tissue), ("air", air))
    }


def _deviation(image: Float[ndarray, "h w"]) -> Float[ndarray, "h w"]:
    """Local standard deviation, over a block and what an interpolation sees around it."""
    size, wide = BLOCK + 2 * MARGIN, image.astype(np.float64)
    mean = ndimage.uniform_filter(wide, size)
    return np.sqrt(np.maximum(ndimage.uniform_filter(wide**2, size) - mean**2, 0))


def _tiles(image: Shaped[ndarray, "h w"], size: tuple[int, int]) -> Shaped[ndarray, "r c a b"]:
    """Whole blocks of a slice."""
    rows, columns = image.shape[0] // size[0], image.shape[1] // size[1]
    cut = image[: rows * size[0], : columns * size[1]]
    return cut.reshape(rows, size[0], columns, size[1]).swapaxes(1, 2)


def _variance(tiles: Float[ndarray, "r c a b"]) -> Float[ndarray, "r c"]:
    """Of each block less its plane."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in tiles.shape[2:])
    rest = tiles - tiles.mean((2, 3), keepdims=True)
    for slope in (y[:, None] * np.ones_like(x), np.ones_like(y)[:, None] * x):
        rest = rest - ((rest * slope).sum((2, 3), keepdims=True) / (slope**2).sum()) * slope
    return (rest**2).mean((2, 3))


def _ratio(pairs: list[tuple[float, float]]) -> float | None:
    """Of the standard deviations; None for too few blocks."""
    if len(pairs) < FEWEST:
        return None
    old, new = np.median(np.array(pairs), 0)
    return float(np.sqrt(new / old)) if old > 0 else None


def _fine(
    values: Shaped[ndarray, "a b"],
    shape: tuple[int, ...],
    anchor: Anchor,
    given: tuple[int, ...] | None = None,
) -> Shaped[ndarray, "sh sw"]:
    """Each fine pixel that of the nearest pixel of the scan.

    Args:
        values: of the scan, or on its acquired grid.
        shape: of the fine pixels.
        anchor: what they have in common with the scan's pixels.
        given: rows and columns of the scan, where ``values`` are on its acquired grid.
    """
    at = []
    for n, m, g in zip(values.shape, shape, given or values.shape, strict=True):
        place = np.arange(m) * (g / m) if anchor == "center" else (np.arange(m) + 0.5) * (g / m) - 0.5
        at.append(np.clip(np.rint(place * (n / g)).astype(int), 0, n - 1))
    return values.take(at[0], 0).take(at[1], 1)


def _beyond(
    low: Float[ndarray, "a b"],
    high: Float[ndarray, "sh sw"],
    anchor: Anchor,
    given: tuple[int, ...] | None = None,
    lifted: float = 0.0,
    offset: float = 0.0,
) -> Float[ndarray, "sh sw"]:
    """How far each fine pixel leaves its neighbourhood in the scan.

    Args:
        low: the scan, or what it is on its acquired grid.
        high: the fine pixels.
        anchor: see `_fine`.
        given: see `_fine`.
        lifted: standard deviation of noise whose magnitude was taken: E s² is the square of the signal and
            twice that of the noise.
        offset: what was taken off the scan.
    """
    least, most = ndimage.minimum_filter(low, 3), ndimage.maximum_filter(low, 3)
    if lifted:
        whole = least + offset
        least = np.where(whole > 0, np.sqrt(np.maximum(whole**2 - 2 * lifted**2, 0)) - offset, least)
    return np.maximum(
        high - _fine(most, high.shape, anchor, given), _fine(least, high.shape, anchor, given) - high
    )


def _beside(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels within two of a mask."""
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=2) & ~mask


def _maxima(
    before: Float[ndarray, "a b"], after: Float[ndarray, "a b"], noise: float
) -> list[tuple[float, float]]:
    """Heights of the local maxima of tissue after: before, the noise would choose them, and lift them."""
    around = [ndimage.uniform_filter(part, AROUND) for part in (before, after)]
    at = (after == ndimage.maximum_filter(after, 3)) & (around[1] > TISSUE)
    at &= after - around[1] > max(LARGE, CLEAR * noise)
    heights = [(part - mean)[at].tolist() for part, mean in zip((before, after), around, strict=True)]
    return list(zip(*heights, strict=True))
