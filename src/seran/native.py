"""From what is known of a scan's acquisition to a predictor: the native network on the acquired grid.

A stack on the given grid goes to its acquired grid and loses its window (`seran.acquisition.canonical`); the
network is told the noise and what is left of the window, and enlarges it by the next whole factor; k-space
takes the result to the grid that is wanted. Where the scan has a constant background, so has the result.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage

from seran import kspace
from seran.acquisition import Acquisition, Window, block, canonical, leftover
from seran.kspace import nearest
from seran.measure import Measured
from seran.progress import unseen
from seran.quality.measures import NOISIEST, measures
from seran.sharpen import Estimate, Method, Normalisation, Predict, Progress, ensembled, sharpen

HEADS = (1, 2, 3, 4)
SHORT = 0.1  # a head may stay so much below what is wanted: the rest is filled with zeros
ISLAND = 25  # pixels that a part of a slice's constant background has at least
TRIED = 4  # slices
QUIET = 0.97  # of the scan's noise in flat tissue, that may be left
MOST = 2.0  # times the noise of air
LOUDER, LEAST = 1.5, 0.003  # a step of what is told; its first one, of the gain
BEYOND = 0.02  # of the gain, by which a pixel beside the background may be above the scan around it


def told(sigma: float, window: Window, undone: bool = True) -> Float[ndarray, "4"]:
    """What the network is told: the noise (0 to about 1), and what is left of the window near the edge.

    Args:
        sigma: standard deviation of the noise, as a part of the scan's range.
        window: the scanner's filter.
        undone: whether `seran.acquisition.canonical` has taken it away.
    """
    return np.array([np.sqrt(20 * sigma), *leftover(window, undone)], np.float32)


def joined(x: Float[ndarray, "n c h w"], said: Float[ndarray, " t"]) -> Float[ndarray, "n m h w"]:
    """A network's input: slices, and what it is told as constant maps."""
    maps = np.broadcast_to(said[:, None, None], (len(x), *said.shape, *x.shape[2:]))
    return np.concatenate([x, maps], 1)


def acquired(known: Measured, shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the acquired grid of slices of this shape."""
    return block(known.fraction, shape)


def scanner(known: Measured, shape: tuple[int, int]) -> Acquisition:
    """What made slices of this shape."""
    return Acquisition(acquired(known, shape), known.window, shape)


def factor(grid: tuple[int, int], shape: tuple[int, int], scale: int) -> int:
    """The head that takes an acquired grid to ``scale`` times the given one, or next to it, of `HEADS`."""
    wanted = max(scale * n / a for a, n in zip(grid, shape, strict=True))
    return next((k for k in HEADS if k >= wanted - SHORT), HEADS[-1])


def background(stack: Float[ndarray, "n h w"], value: float) -> Bool[ndarray, "n h w"]:
    """Where slices are constant: all but small islands of this value."""
    mask = stack == np.float32(value)
    for one in mask:
        labels, _ = ndimage.label(one)
        one &= (np.bincount(labels.ravel()) >= ISLAND)[labels]
    return mask


def bound(method: Method, known: Measured, shape: tuple[int, int]) -> Method:
    """A method of native weights made for a scan.

    Args:
        method: with the factors that are wanted.
        known: of the scan.
        shape: rows and columns of its slices.
    """
    assert method.heads is not None
    grid = acquired(known, shape)
    k = factor(grid, shape, method.scale)
    running, widths = method.heads(k), method.widths

    def adapt(norm: Normalisation) -> Predict:
        said = told(min(known.sigma / norm.gain, NOISIEST), known.window)

        def network(low: Float[ndarray, "n a b"]) -> Float[ndarray, "n ka kb"]:
            return running.predict(joined(low[:, None], said))

        one = Method(method.name, (k, k), network, method.degradation, method.anchor)
        enlarge = (
            ensembled(one, swap=bool(said[1] == said[2])).predict if method.name.endswith("+") else network
        )
        empty = None if known.background is None else float(norm.apply(np.array([known.background]))[0])
        off = None
        if widths is not None:
            off = partial(widths.logarithm, told=np.append(said, np.float32(k / HEADS[-1])), ending=f"x{k}")
        return lambda low: _enlarged(low, enlarge, grid, known.window, method.scale, empty, off)

    how = replace(method, engine=running.engine, precision=running.precision)
    return replace(how, adapt=adapt, half_width=widths is not None)


def quieted(
    method: Method, known: Measured, stack: Float[ndarray, "n h w"], progress: Progress = unseen
) -> Measured:
    """What is known, with so much noise that flat tissue does not become noisier than it is in the scan.

    Air is not everywhere as noisy as tissue (parallel imaging, surface coils), so some slices are tried.

    Args:
        method: of native weights, with the factors that are wanted.
        known: of the scan.
        stack: its slices.
        progress: called as a network finishes each of those that are tried.
    """
    energy = np.array([part.std(dtype=np.float64) for part in stack])
    tried = np.sort(np.argsort(energy)[-len(energy) // 2 :])
    low = stack[tried[np.linspace(0, len(tried) - 1, min(TRIED, len(tried))).round().astype(int)]]
    gain, found, method = Normalisation.of(stack).gain, known, replace(method, widths=None)
    most = MOST * known.sigma if known.by == "air" else NOISIEST * gain
    while found.sigma < max(most, LEAST * gain):
        high = sharpen(low, bound(method, found, stack.shape[1:]), progress).image
        tissue = measures(low, high, gain, method.anchor, known.background).tissue
        if tissue is None or tissue <= QUIET:
            break
        found = replace(found, sigma=max(min(LOUDER * found.sigma, most), LEAST * gain), by="tissue")
    return found


def _enlarged(
    low: Float[ndarray, "n h w"],
    enlarge: Predict,
    grid: tuple[int, int],
    window: Window,
    scale: int,
    empty: float | None,
    off: Callable[[Float[ndarray, "n ka kb"]], Float[ndarray, "n ka kb"]] | None = None,
) -> Float[ndarray, "n sh sw"] | Estimate:
    """Normalised slices ``scale`` times as fine.

    Args:
        low: on the given grid.
        enlarge: from the acquired grid on.
        grid: the acquired one.
        window: that is undone.
        scale: of the result, against the given grid.
        empty: the value of the constant background, if there is one.
        off: gives the logarithm of the half-widths of what the network made, see `seran.uncertainty`.
    """
    wanted = scale * low.shape[1], scale * low.shape[2]
    x, mask = canonical(low, grid, window), None
    if empty is not None:
        mask = background(low, empty)
        x = np.where(nearest(mask, grid), np.float32(empty), x)
    made = enlarge(x)
    assert isinstance(made, np.ndarray)
    high = kspace.regridded(made, wanted)
    if mask is not None:
        _emptied(high, low, mask, np.float32(empty))
    if off is None:
        return high
    half = np.exp(kspace.regridded(off(made), wanted))
    for width, m in zip(half, mask if mask is not None else (), strict=False):
        width[_all_around(m, wanted)] = 0
    return Estimate(high, half)


def _emptied(
    high: Float[ndarray, "n sh sw"],
    low: Float[ndarray, "n h w"],
    mask: Bool[ndarray, "n h w"],
    empty: np.float32,
) -> None:
    """Hold fine slices, in place, to what the scan has in and beside its constant background.

    Args:
        high: the fine slices.
        low: those of the scan.
        mask: where these are constant.
        empty: the value there.
    """
    wanted, near = high.shape[1:], ndimage.binary_dilation(mask, np.ones((1, 3, 3), bool), iterations=2)
    size = (1, 3, 3)
    least, most = ndimage.minimum_filter(low, size), ndimage.maximum_filter(low, size)
    for fine, there, a, b, m in zip(high, near, least, most, mask, strict=True):
        held = np.clip(fine, nearest(a, wanted), nearest(b, wanted) + BEYOND)
        fine[...] = np.where(nearest(there, wanted), held, fine)
        fine[_all_around(m, wanted)] = empty
        if m.any() and a.min() >= empty:  # nothing is darker than the background
            np.maximum(fine, empty, out=fine)


def _all_around(mask: Bool[ndarray, "h w"], shape: tuple[int, int]) -> Bool[ndarray, "sh sw"]:
    """Fine pixels all of whose nearest pixels along both axes, one or two, are in a mask."""
    for axis, m in enumerate(shape):
        n = mask.shape[axis]
        at = np.arange(m) * n / m
        below, above = np.floor(at).astype(int), np.minimum(np.ceil(at).astype(int), n - 1)
        mask = mask.take(below, axis) & mask.take(above, axis)
    return mask
