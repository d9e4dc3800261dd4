"""What a result did to the noise of its scan, and how far it leaves what the scan shows around a pixel.

Noise: standard deviation in flat blocks, each less its own plane, after divided by before. Blocks are chosen
on the scan, by its smoothed slices, so that the noise itself does not choose them. Overshoot: pixels more
than a part of the range above the greatest or below the least of the 3x3 pixels of the scan around them; at
the rim: of those pixels alone that lie beside a constant background.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy import ndimage

from seran.grid import Anchor

BLOCK = 6  # pixels of the scan a side
MARGIN = 2  # pixels around a block that should be as flat
FLATTEST = 0.2  # of the tissue's blocks
STEEP = 0.02  # of the range: structure in a block, beyond which none counts as flat
TISSUE, AIR = 0.15, 0.05  # of the range: mean of a block of tissue, at least, and of air, at most
SLICES = 16  # of the scan, evenly apart, are looked at
FEWEST = 8  # blocks that a ratio needs
SMALL, LARGE = 0.02, 0.1  # parts of the range that count as overshoot


@dataclass(frozen=True)
class Measures:
    """Of a result against its scan; None where there is nothing to measure it on."""

    tissue: float | None  # noise after ÷ before
    air: float | None
    overshoot: float  # share of pixels beyond `SMALL`
    most: float  # the largest overshoot, as a part of the range
    rim: float | None  # share of pixels beside a constant background that are beyond `LARGE`


def measures(
    before: Float[ndarray, "n h w"],
    after: Float[ndarray, "n sh sw"],
    gain: float,
    anchor: Anchor,
    background: float | None = None,
) -> Measures:
    """Of slices and what became of them.

    Args:
        before: the scan.
        after: the result, on a grid that is a whole factor finer along each axis.
        gain: the scan's range.
        anchor: what the two grids have in common.
        background: the value of the scan's constant background, if it has one.
    """
    chosen = np.linspace(0, len(before) - 1, min(len(before), SLICES)).round().astype(int)
    found: dict[str, list[tuple[float, float]]] = {"tissue": [], "air": []}
    small = rim = near = 0
    most = 0.0
    for i in chosen:
        low, high = (np.asarray(part[i], np.float64) / gain for part in (before, after))
        empty = before[i] == np.float32(np.nan if background is None else background)
        for kind, pairs in _blocks(low, high, empty).items():
            found[kind] += pairs
        beyond = _beyond(low, high, anchor)
        small, most = small + int((beyond > SMALL).sum()), max(most, float(beyond.max()))
        if background is not None:
            beside = _fine(_beside(empty), high.shape, anchor)
            near, rim = near + int(beside.sum()), rim + int((beside & (beyond > LARGE)).sum())
    ratios = {kind: _ratio(pairs) for kind, pairs in found.items()}
    share = small / max(1, sum(after[i].size for i in chosen))
    return Measures(ratios["tissue"], ratios["air"], share, most, rim / near if near else None)


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


def _fine(values: ndarray, shape: tuple[int, int], anchor: Anchor) -> ndarray:
    """Each fine pixel that of the nearest pixel of the scan."""
    at = []
    for n, m in zip(values.shape, shape, strict=True):
        place = np.arange(m) * (n / m) if anchor == "center" else (np.arange(m) + 0.5) * (n / m) - 0.5
        at.append(np.clip(np.rint(place).astype(int), 0, n - 1))
    return values[np.ix_(*at)]


def _beyond(low: Float[ndarray, "h w"], high: Float[ndarray, "sh sw"], anchor: Anchor) -> ndarray:
    """How far each fine pixel leaves its neighbourhood in the scan."""
    least, most = ndimage.minimum_filter(low, 3), ndimage.maximum_filter(low, 3)
    return np.maximum(high - _fine(most, high.shape, anchor), _fine(least, high.shape, anchor) - high)


def _beside(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels within two of a mask."""
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=2) & ~mask
