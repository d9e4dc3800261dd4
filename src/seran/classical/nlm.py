r"""NLM upsampling in 3-D, by (1, s, s) in (slice, row, column): the paper's baseline that denoises.

0. Intensities are scaled so that the largest of the low stack y is 256, the unit of all constants below.
1. Start: cubic spline through y, low voxel i lying at high coordinate i·s + (s - 1)/2; high rows and columns
   outside of the outermost of these centres copy the nearest that is not. Then mean correction D: to every
   s×s block a constant is added that makes its mean the low voxel.
2. h(p): the local standard deviation of the start (3x3x3, n - 1), averaged over 3x3x3 and halved.
3. Sweep, F <- D(N(F)). With μ the mean of F over 3x3x3 and d(p, q) the mean squared difference of the 3x3x3
   patches around p and q,

       N(F)(p) = Σ_q w(p, q) F(q) / Σ_q w(p, q),   w(p, q) = exp(-max(0, d(p, q) / (2 h(p)²) - 1)),

   over the q of the 7x7x7 window around p with |μ(p) - μ(q)| <= 0.6 h(p); w(p, p) = 1. Where h(p) < 1,
   N(F)(p) = F(p).
4. With δ_k = mean |F_k - F_{k+1}|: if δ_{k-1} / δ_k < 1.2 and h was not halved after the previous sweep, h
   is halved and Δ_j, the mean change since the last halving (first: since the start), is taken. The end is
   where Δ_{j-1} / Δ_j < 1.2 or δ_k <= 0.001.
5. Intensities are scaled back.

Manjón, Coupé, Buades, Fonov, Collins, Robles, "Non-local MRI upsampling", Medical Image Analysis 14 (2010).
Left open there, chosen here: the spline ends not-a-knot; patches and local moments see the volume mirrored
about its outer edge (numpy's "symmetric"), while q stays inside; plain gather form (every p weighs with its
own h, instead of visiting pairs once); |μ(p) - μ(q)| is not truncated to an integer; h is always that of the
start; where a stack has negative values, step 0 takes the largest magnitude.
"""

import inspect
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit
from numpy import ndarray
from scipy.interpolate import CubicSpline
from scipy.ndimage import find_objects, uniform_filter

from seran import machine, progress

PEAK, RATIO, TOLERANCE = 256.0, 1.2, 0.001  # of steps 0 and 4
REACH = 3  # of the search window, to either side
PAD = REACH + 1  # voxels that a patch in the search window reaches beyond the voxel that is estimated
TILE = (8, 8, 128)  # voxels that a thread works on: its buffers, about half a MiB, stay in the L2 cache
BLOCK = 2 * TILE[0]  # slices between two reports of progress
FAR = np.float32(1e30)  # the local mean outside of the volume: never selected
# Numba keeps float32 only where no Python number, a float64, takes part.
ZERO, ONE, HALF, LIMIT, CAP, HALF_MEAN = map(np.float32, (0, 1, 0.5, 0.6, 80, 1 / 54))
LOG2E, LN2, C2, C3, C4, C5, C6 = map(
    np.float32, (1 / np.log(2), np.log(2), 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720)
)


def nlm(scale: int, threads: int = 0) -> Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]:
    """A predictor of a scale on so many threads (0: `machine.threads`); corners of the field of view stay."""

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        low = np.asarray(low, np.float64)
        if low.min() == low.max():
            return low.repeat(scale, 1).repeat(scale, 2).astype(np.float32)
        gain = PEAK / np.abs(low).max()
        high = deque(estimates(low * gain, scale, threads or machine.threads()), maxlen=1).pop()
        return (high / gain).astype(np.float32)

    return predict


def estimates(
    low: Float[ndarray, "n h w"], scale: int, threads: int = 1
) -> Iterator[Float[ndarray, "n sh sw"]]:
    """The start and the result of every sweep, of a stack with intensities up to `PEAK`.

    This ends: between two halvings δ falls by `RATIO` a sweep (but for one) until it is below `TOLERANCE`,
    and after at most log2(max h) + 1 halvings h < 1 everywhere, so that nothing changes any more.
    """
    rows, columns = (_spline(size, scale) for size in low.shape[1:])
    high = _corrected((rows @ low @ columns.T).astype(np.float32), low)
    h = _bandwidth(high)
    mark, halved, change, shift = high, False, np.inf, np.inf
    yield high
    for k in itertools.count(1):
        before, change_before = high, change
        high = _corrected(_sweep(before, h, f"NLM sweep {k}", threads), low)
        yield high
        change = np.abs(high - before).mean(dtype=np.float64)
        if not change > TOLERANCE:
            return
        halved = not halved and change_before < RATIO * change
        if halved:
            shift_before, shift = shift, np.abs(high - mark).mean(dtype=np.float64)
            h, mark = h / 2, high
            if shift_before < RATIO * shift:
                return


def _spline(size: int, scale: int) -> Float[ndarray, "high size"]:
    """Step 1 along one axis, without the mean correction."""
    if size == 1:
        return np.ones((scale, 1))
    centres = np.arange(size) * scale + (scale - 1) / 2
    at = np.arange(size * scale).clip(scale // 2, size * scale - 1 - scale // 2)
    return CubicSpline(centres, np.eye(size))(at)


def _corrected(high: Float[ndarray, "n sh sw"], low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
    """D: every block of ``high`` shifted so that its mean is the low voxel."""
    n, h, w = low.shape
    blocks = high.reshape(n, h, high.shape[1] // h, w, high.shape[2] // w)
    shift = (low - blocks.mean((2, 4), dtype=np.float64)).astype(np.float32)
    return (blocks + shift[:, :, None, :, None]).reshape(high.shape)


def _bandwidth(start: Float[ndarray, "n h w"]) -> Float[ndarray, "n h w"]:
    """The h of every voxel."""
    mean = uniform_filter(start, 3, np.float64)
    variance = uniform_filter(np.square(start, dtype=np.float64), 3) - mean**2
    deviation = np.sqrt(27 / 26 * np.maximum(variance, 0))
    return (uniform_filter(deviation, 3) / 2).astype(np.float32)


def _sweep(
    image: Float[ndarray, "n h w"], h: Float[ndarray, "n h w"], name: str, threads: int
) -> Float[ndarray, "n h w"]:
    """N(image), on threads of Python's: those of numba may wait for ever where OpenVINO has its own."""
    mean = np.pad(uniform_filter(image, 3), PAD, constant_values=FAR)
    padded = np.pad(image, PAD, mode="symmetric")
    result = image.copy()
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(image), BLOCK):
            block = slice(first, first + BLOCK)
            wide = slice(first, first + BLOCK + 2 * PAD)
            estimate = partial(_estimate, padded[wide], mean[wide], h[block], result[block])
            deque(pool.map(estimate, _tiles(h[block] >= 1)), maxlen=0)
            progress.detail(f"{name}, {first + len(h[block])}/{len(image)}")
    return result


def _tiles(active: Bool[ndarray, "n h w"]) -> Int[ndarray, "tiles 6"]:
    """Boxes (from, to; per axis) of at most `TILE` that hold every active voxel."""
    at = [np.arange(n) // step for n, step in zip(active.shape, TILE, strict=True)]
    number = 1 + np.ravel_multi_index(np.ix_(*at), [a[-1] + 1 for a in at])
    boxes = [[(s.start, s.stop) for s in box] for box in find_objects(active * number) if box]
    return np.array(boxes, np.int64).reshape(-1, 6)


def _compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:  # noqa: ANN401
    """`njit` that keeps what it compiled beside this file or in the user's cache, if either is writable."""
    function = inspect.unwrap(function)  # under pytest jaxtyping wraps it
    try:
        return njit(function, cache=True, **options)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        return njit(function, **options)


def _estimate(padded: ndarray, mean: ndarray, h: ndarray, result: ndarray, tile: Int[ndarray, "6"]) -> None:
    """Write N(F) of a tile into ``result``, which holds F; ``padded`` and ``mean`` have a margin of `PAD`."""
    z0, z1, y0, y1, x0, x1 = tile.tolist()
    box = slice(z0, z1), slice(y0, y1), slice(x0, x1)
    wide = slice(z0, z1 + 2 * PAD), slice(y0, y1 + 2 * PAD), slice(x0, x1 + 2 * PAD)
    _tile(padded[wide], mean[wide], h[box], result[box])


@partial(_compiled, fastmath=True, nogil=True)
def _tile(padded: ndarray, mean: ndarray, h: ndarray, result: ndarray) -> None:
    """One tile: for each of the 342 offsets the distances of all its patches, then weights and sums.

    The tile is copied so that a slice of it is one run of voxels, margins included, in which every neighbour
    lies at a fixed distance: all inner loops are long and without branches. What they compute in the margins
    between two rows is never used.
    """
    depth, height, pitch = h.shape[0], h.shape[1], h.shape[2] + 2 * PAD
    image = padded.copy().reshape(depth + 2 * PAD, -1)
    level = mean.copy().reshape(depth + 2 * PAD, -1)
    run, start = height * pitch - 2 * PAD, PAD * pitch + PAD
    inverse = np.zeros((depth, height * pitch), np.float32)
    total, norm = np.zeros_like(inverse), np.zeros_like(inverse)
    for z, y, x in np.ndindex(h.shape):
        inverse[z, y * pitch + x] = ONE / max(h[z, y, x], ONE)
    square, along = np.empty(run + 2 * pitch + 2, np.float32), np.empty(run + 2 * pitch, np.float32)
    planes = np.empty((3, run), np.float32)
    for dz, dy, dx in np.ndindex((2 * REACH + 1, 2 * REACH + 1, 2 * REACH + 1)):
        if dz == dy == dx == REACH:
            continue
        at = (dy - REACH) * pitch + dx - REACH + start
        for k in range(depth + 2):
            here, there = image[PAD - 1 + k, start - pitch - 1 :], image[dz + k, at - pitch - 1 :]
            _squares(here, there, square, along, planes[k % 3])
            z = k - 2
            if z >= 0:
                p = image[z + PAD, start:], level[z + PAD, start:]
                q = image[z + dz + 1, at:], level[z + dz + 1, at:]
                _add(planes, inverse[z], p, q, total[z], norm[z])
    for z, y, x in np.ndindex(h.shape):
        if h[z, y, x] >= ONE:
            result[z, y, x] += total[z, y * pitch + x] / (ONE + norm[z, y * pitch + x])


@partial(_compiled, fastmath=True)
def _squares(here: ndarray, there: ndarray, square: ndarray, along: ndarray, plane: ndarray) -> None:
    """Squared differences, summed over three columns, then over three rows."""
    pitch = (along.size - plane.size) // 2
    right, far_right, below, far_below = square[1:], square[2:], along[pitch:], along[2 * pitch :]
    for i in range(square.size):
        square[i] = (here[i] - there[i]) * (here[i] - there[i])
    for i in range(along.size):
        along[i] = square[i] + right[i] + far_right[i]
    for i in range(plane.size):
        plane[i] = along[i] + below[i] + far_below[i]


@partial(_compiled, fastmath=True)
def _add(planes: ndarray, inverse: ndarray, p: tuple, q: tuple, total: ndarray, norm: ndarray) -> None:
    """Sums of w (F(q) - F(p)) and w: small numbers, which float32 adds without loss."""
    a, b, c = planes[0], planes[1], planes[2]
    (here, level), (there, other) = p, q
    for i in range(a.size):
        v = inverse[i]
        w = _exp((a[i] + b[i] + c[i]) * HALF_MEAN * v * v - ONE)
        w = w if abs(level[i] - other[i]) * v <= LIMIT else ZERO
        total[i] += w * (there[i] - here[i])
        norm[i] += w


@partial(_compiled, fastmath=True)
def _exp(t: float) -> float:
    """exp(-max(0, t)) in float32: 2^-k by its bits times a Taylor polynomial; relative error below 5e-7."""
    t = min(max(t, ZERO), CAP)
    k = np.int32(t * LOG2E + HALF)
    r = np.float32(k) * LN2 - t
    p = ONE + r * (ONE + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * C6)))))
    return p * np.int32((127 - k) << 23).view(np.float32)
