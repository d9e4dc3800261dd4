"""The noise of magnitude images: its power in air, its correlation there, its least power in tissue.

In air the magnitude is that of complex noise alone: one coil gives Rayleigh's law, E s² = 2 σ²; several give
its kin (Constantinides 1997). There s² has the correlation |ρ|² of the noise: that tells the scanner's filter
from an anatomy that falls as if it were filtered. Without air, the flattest tissue bounds the noise.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage, special

from seran.acquisition import NONE, Window

BLOCK = 8  # pixels a side, of air
LAGS = (
    1,
    2,
)  # pixels, at which correlation is compared; at the far end of a block it is that of other things
AVERAGED = 2.5  # mean over standard deviation of air: several coils, or an image that was resampled
FEWEST = 40  # blocks that are evidence
DIAGONAL = np.outer([1, -2, 1], [1, -2, 1]) / 6  # unit gain for white noise (Immerkær 1996)
FLAT = 6  # pixels a side, of tissue
QUANTILE, BIAS = 0.02, 0.37  # of blocks of tissue; what it is of the mean in white noise


def in_air(
    stack: Float[ndarray, "n h w"], outside: Bool[ndarray, "n h w"]
) -> tuple[float, Float[ndarray, "m b b"]]:
    """Variance of the given image's noise, of its real part, by air, and blocks of air; 0 and none without.

    There are no blocks either where the magnitude may have been averaged, which filters it, too.

    Args:
        stack: magnitude images, 99.9th percentile 1.
        outside: a masked background, which is no air.
    """
    size = BLOCK if min(stack.shape[1:]) >= 96 else 5
    tiles = _tiles(stack, size)
    none = 0.0, tiles[:0, 0, 0]
    mean, square = tiles.mean((3, 4), dtype=np.float64), (tiles**2).mean((3, 4), dtype=np.float64)
    free = ~_tiles(outside, size).any((3, 4))
    low = free & (square < 0.15**2) & (square > 0)
    if low.sum() < FEWEST:
        return none
    level = np.log(square[low])
    steps = np.arange(level.min() - 1, level.max() + 1, 0.02)
    count = np.histogram(level, steps)[0].astype(np.float64)
    smooth = ndimage.gaussian_filter1d(count, 0.12 / 0.02)
    peaks = np.flatnonzero((smooth[1:-1] >= smooth[:-2]) & (smooth[1:-1] > smooth[2:])) + 1
    around = np.array([count[max(0, p - 20) : p + 20].sum() for p in peaks])
    peaks = peaks[around >= max(30, 0.2 * around.max(initial=0))]
    least, largest = (1.7, 2.2) if outside.any() else (1.3, 6)  # a masked scan has dark tissue, rarely air
    for peak in peaks:
        near = np.abs(level - steps[peak]) < 0.5
        s, s2 = mean[low][near].mean(), square[low][near].mean()
        ratio = s / np.sqrt(max(s2 - s**2, 1e-30))
        if least < ratio < largest:
            air = tiles[low][near]
            return float(s2 / (2 * _coils(ratio))), air if ratio < AVERAGED else air[:0]
    return none


def filtered(
    air: Float[ndarray, "m b b"],
    shape: tuple[int, int],
    fraction: tuple[float, float],
    windows: tuple[Window, ...],
) -> Window:
    """Which window the noise in air has passed; none if that explains it as well as any.

    Args:
        air: blocks of magnitude.
        shape: rows and columns of the slices.
        fraction: of the band.
        windows: that may be.
    """
    size = air.shape[1]
    if len(air) < FEWEST:
        return NONE
    power = air.astype(np.float64) ** 2
    power -= power.mean()
    seen = []
    for axis in (1, 2):
        lines = np.moveaxis(power, axis, 1)
        at = {lag: float((lines[:, lag:] * lines[:, : size - lag]).mean()) for lag in (0, *LAGS, size - 1)}
        seen.append([(at[lag] - at[size - 1]) / max(at[0] - at[size - 1], 1e-30) for lag in LAGS])
    sizes = tuple(max(2, round(f * n)) for f, n in zip(fraction, shape, strict=True))
    apart = [np.square(np.array(seen) - _correlation(w, sizes, shape)).sum() for w in (NONE, *windows)]
    best = int(np.argmin(apart))
    return (NONE, *windows)[best]


def _correlation(window: Window, sizes: tuple[int, ...], shape: tuple[int, int]) -> Float[ndarray, "2 lags"]:
    """|ρ|² of noise along rows' and columns' axis at `LAGS`."""
    passed = window.on((sizes[0], sizes[1])).astype(np.float64) ** 2
    rows = []
    for axis, (a, n) in enumerate(zip(sizes, shape, strict=True)):
        power = passed.sum(1 - axis)
        turn = np.cos(2 * np.pi * np.outer(LAGS, np.arange(a) - a // 2) / n)
        rows.append(((turn * power).sum(1) / power.sum()) ** 2)
    return np.array(rows)


def in_tissue(stack: Float[ndarray, "n h w"], inside: Bool[ndarray, "n h w"]) -> float:
    """Standard deviation of white noise by the flattest tissue: a bound, for tissue is not quite flat.

    Args:
        stack: slices on their acquired grid without their window.
        inside: where there is tissue.
    """
    rough = ndimage.convolve(stack, DIAGONAL[None].astype(np.float32)) ** 2
    whole = _tiles(inside, FLAT).all((3, 4))
    if whole.sum() < FEWEST:
        return 0.0
    blocks = _tiles(rough, FLAT).mean((3, 4))[whole]
    return float(np.sqrt(np.quantile(blocks, QUANTILE) / BIAS))


def in_band(
    power: Float[ndarray, "a b"], fraction: tuple[float, float], window: Window, energy: float
) -> float:
    """Standard deviation of noise by the least power in the band; an upper bound, for anatomy is there too.

    Args:
        power: of tissue.
        fraction: of the band.
        window: that is undone.
        energy: sum of the squared weight of tissue over a slice.
    """
    rows, columns = (np.arange(n) / (n - 1) / f for n, f in zip(power.shape, fraction, strict=True))
    where = [np.flatnonzero((k > 0.25) & (k < 0.95)) for k in (rows, columns)]
    if min(map(len, where)) < 3:
        return 0.0
    beyond = power[np.ix_(rows > 1.1, columns > 1.1)]
    floor = float(np.median(beyond)) if beyond.size > 20 else 0.0
    r, c = rows[where[0]], columns[where[1]]
    passed = window.at(r, c) ** 2
    data = power[np.ix_(*where)]
    levels = []
    for ring in np.array_split(np.argsort(np.hypot(r[:, None], c), axis=None), 10):
        through = passed.ravel()[ring]
        if through.mean() > 0.02:
            levels.append((data.ravel()[ring] - floor).sum() / through.sum())
    level = max(min(levels, default=0.0), 0.0)
    return float(np.sqrt(level * fraction[0] * fraction[1] / energy))


def _tiles(stack: ndarray, size: int) -> ndarray:
    """Blocks of slices (n, rows, columns, size, size)."""
    n, h, w = len(stack), stack.shape[1] // size, stack.shape[2] // size
    return stack[:, : h * size, : w * size].reshape(n, h, size, w, size).swapaxes(2, 3)


def _coils(ratio: float) -> float:
    """Coils of equal noise (1: Rayleigh) by the mean over the standard deviation of their sum of squares."""
    coils = np.arange(1, 13, 0.1)
    mean = np.sqrt(2) * np.exp(special.gammaln(coils + 0.5) - special.gammaln(coils))
    return float(np.interp(ratio, mean / np.sqrt(2 * coils - mean**2), coils))
