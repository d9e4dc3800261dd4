"""From a predictor on stacks of slices to a scan on its finer grid.

A predictor is a function ``low (n, h, w) -> high (n, s·h, s·w)``: a network on any engine, bicubic
interpolation, and every wrapper around either, are this one thing.
"""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, scratch
from seran.errors import BadInput
from seran.grid import Anchor, Plane
from seran.scratch import Allocator
from seran.volume import Volume

Predict = Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]
Progress = Callable[[int], None]
"""Called with the number of slices that have just been finished."""

CHUNK_PIXELS = 1 << 23
"""High-resolution pixels asked of a predictor at a time: bounds memory for any number of slices."""
TAIL = 0.001
"""Part of the voxels beyond the percentiles that bound a scan's intensities."""
SMALLEST = 4
"""Slices below this many pixels a side carry no plane to sharpen."""


def tails(stack: Float[ndarray, "n h w"]) -> tuple[ndarray, ndarray]:
    """The least intensities, ascending, and the greatest, descending: `TAIL` of all voxels, and one more."""
    keep = int(TAIL * (stack.size - 1)) + 2
    ends = {sign: np.empty(0, np.float32) for sign in (1, -1)}
    for at in scratch.blocks(stack):
        voxels = stack[at].ravel()
        for sign, kept in ends.items():
            part = sign * voxels
            if kept.size == keep:
                part = part[part < kept.max()]
            kept = np.concatenate([kept, part])
            ends[sign] = np.partition(kept, keep)[:keep] if kept.size > keep else kept
        scratch.release(stack)
    return np.sort(ends[1]), -np.sort(ends[-1])


def unit(stack: Float[ndarray, "n h w"]) -> tuple[float, float]:
    """Offset and gain that take a scan's intensities to about [0, 1]: ``(stack - offset) / gain``.

    The offset is 0, or the 0.1st percentile where that is negative; the gain is the 99.9th percentile above
    it (the maximum, where nearly everything is background). A few extreme voxels move neither. Where all
    voxels are alike, the offset is their value and the gain 0.
    """
    least, greatest = tails(stack)
    if least[0] == greatest[0]:
        return float(least[0]), 0.0
    at = TAIL * (stack.size - 1)
    low, high = (float(np.interp(at, np.arange(len(end)), end)) for end in (least, greatest))
    offset = min(0.0, low)
    gain = high - offset
    return offset, gain if gain > 0 else float(greatest[0]) - offset


def ensembled(predict: Predict, anchor: Anchor) -> Predict:
    """Geometric self-ensemble ("+"): the mean over the eight symmetries of the slice (EDSR §3.4).

    Where voxel 0 keeps its centre (``anchor`` is ``center``), the fine grid is not symmetric about the coarse
    one: s - 1 fine voxels follow the last coarse one, none precede the first. What a mirrored slice became
    then lies s - 1 fine voxels off along the mirrored axis; it is moved back, and the voxels at the end that
    it does not reach are the mean of the others.
    """

    def mean(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        total, count = np.zeros((0, 0, 0), np.float32), np.zeros((0, 0))
        for swap, *mirrored in itertools.product((False, True), repeat=3):
            turn = (slice(None), *(slice(None, None, -1 if m else 1) for m in mirrored))
            view = low[turn].swapaxes(1, 2) if swap else low[turn]
            high = predict(np.ascontiguousarray(view))
            high = (high.swapaxes(1, 2) if swap else high)[turn]
            if not total.size:
                total, count = np.zeros_like(high), np.zeros(high.shape[1:], high.dtype)
            off = (high.shape[1] // low.shape[1] - 1) * (anchor == "center")
            high = high[:, off * mirrored[0] :, off * mirrored[1] :]
            total[:, : high.shape[1], : high.shape[2]] += high
            count[: high.shape[1], : high.shape[2]] += 1
        return total / count

    return mean


def sharpen(
    stack: Float[ndarray, "n h w"],
    predict: Predict,
    scale: int,
    progress: Progress = lambda _: None,
    whole: bool = False,
    allocate: Allocator = scratch.memory,
) -> Float[ndarray, "n sh sw"]:
    """Apply a predictor to a stack in its own intensity units: a few slices at a time, or all for ``whole``.

    The result is never negative where the input is not. It lies in an array of ``allocator``.
    """
    n, h, w = stack.shape
    offset, gain = unit(stack)
    high = allocate((n, scale * h, scale * w))
    if gain == 0:  # an empty frame of a series
        high[:] = offset
        progress(n)
        return high
    step = n if whole else max(1, CHUNK_PIXELS // (scale**2 * h * w))
    for start in range(0, n, step):
        low = stack[start : start + step]
        result = predict(np.ascontiguousarray((low - offset) / gain, np.float32))
        result *= gain
        result += offset
        where = True if offset == 0 and low.min() >= 0 else (low >= 0).repeat(scale, 1).repeat(scale, 2)
        np.maximum(result, 0, out=result, where=where)
        high[start : start + step] = result
        scratch.release(stack)
        scratch.release(high)
        progress(len(low))
    return high


def upscale(
    volume: Volume,
    predict: Predict,
    scale: int,
    anchor: Anchor,
    plane: Plane | int = "auto",
    progress: Progress = lambda _: None,
    whole: bool = False,
    allocate: Allocator = scratch.memory,
) -> Volume:
    """Super-resolve a scan in the plane of its slices.

    Args:
        volume: the scan; every voxel finite.
        predict: the predictor, for this ``scale``.
        scale: 2, 3 or 4.
        anchor: the convention of the degradation that the predictor undoes.
        plane: which slices, see `seran.grid.slice_axis`; or the array axis along which they are stacked.
        progress: called as slices are finished.
        whole: give the predictor every slice at once, because it looks across them.
        allocate: where the result lies.

    Raises:
        BadInput: if its slices are too small.
    """
    axis = plane if isinstance(plane, int) else grid.slice_axis(volume.affine, volume.data.shape, plane)
    stack = np.moveaxis(volume.data, axis, 0)
    if min(stack.shape[1:]) < SMALLEST:
        raise BadInput(
            f"expected slices of at least {SMALLEST}x{SMALLEST} pixels, got {stack.shape[1]}x"
            f"{stack.shape[2]} (slices along array axis {axis}); choose another --plane"
        )

    def turned(shape: tuple[int, ...]) -> Float[ndarray, "n sh sw"]:
        n, h, w = shape  # in a file the first axis varies fastest
        return allocate((n, w, h)).swapaxes(1, 2)

    high = np.moveaxis(sharpen(stack, predict, scale, progress, whole, turned), 0, axis)
    factors = tuple(1.0 if i == axis else float(scale) for i in range(3))
    return volume.on(high, grid.rescale(volume.affine, factors, anchor))  # type: ignore[arg-type]
