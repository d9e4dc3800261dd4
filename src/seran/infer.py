"""From a predictor on stacks of slices to a scan on its finer grid.

A predictor is a function ``low (n, h, w) -> high (n, s·h, s·w)``: a network on any engine, bicubic
interpolation, and every wrapper around either, are this one thing.
"""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid
from seran.errors import BadInput
from seran.grid import Anchor, Plane
from seran.volume import Volume

Predict = Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]
Progress = Callable[[int], None]
"""Called with the number of slices that have just been finished."""

CHUNK_PIXELS = 1 << 21
"""Low-resolution pixels given to a predictor at a time: bounds memory for any number of slices."""
SMALLEST = 4
"""Slices below this many pixels a side carry no plane to sharpen."""


def unit(stack: Float[ndarray, "n h w"]) -> tuple[float, float]:
    """Offset and gain that take a scan's intensities to about [0, 1]: ``(stack - offset) / gain``.

    The offset is 0, or the 0.1st percentile where that is negative; the gain is the 99.9th percentile above
    it (the maximum, where nearly everything is background). A few extreme voxels move neither.
    """
    offset = min(0.0, float(np.percentile(stack, 0.1)))
    gain = float(np.percentile(stack, 99.9)) - offset
    return offset, gain if gain > 0 else float(stack.max()) - offset


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
) -> Float[ndarray, "n sh sw"]:
    """Apply a predictor to a stack in its own intensity units: a few slices at a time, or all for ``whole``.

    The result is never negative where the input is not.
    """
    n, h, w = stack.shape
    offset, gain = unit(stack)
    high = np.empty((n, scale * h, scale * w), np.float32)
    step = n if whole else max(1, CHUNK_PIXELS // (h * w))
    for start in range(0, n, step):
        low = stack[start : start + step]
        result = predict(np.ascontiguousarray((low - offset) / gain, np.float32)) * gain + offset
        negative = (low < 0).repeat(scale, 1).repeat(scale, 2)
        high[start : start + step] = np.where(negative, result, np.maximum(result, 0))
        progress(len(low))
    return high


def upscale(
    volume: Volume,
    predict: Predict,
    scale: int,
    anchor: Anchor,
    plane: Plane = "auto",
    progress: Progress = lambda _: None,
    whole: bool = False,
) -> Volume:
    """Super-resolve a scan in the plane of its slices.

    Args:
        volume: the scan; every voxel finite.
        predict: the predictor, for this ``scale``.
        scale: 2, 3 or 4.
        anchor: the convention of the degradation that the predictor undoes.
        plane: which slices; see `seran.grid.slice_axis`.
        progress: called as slices are finished.
        whole: give the predictor every slice at once, because it looks across them.

    Raises:
        BadInput: if the scan is constant or its slices are too small.
    """
    axis = grid.slice_axis(volume.affine, volume.data.shape, plane)
    stack = np.moveaxis(volume.data, axis, 0)
    if min(stack.shape[1:]) < SMALLEST:
        raise BadInput(
            f"expected slices of at least {SMALLEST}x{SMALLEST} pixels, got {stack.shape[1]}x"
            f"{stack.shape[2]} (slices along array axis {axis}); choose another --plane"
        )
    if stack.min() == stack.max():
        raise BadInput(f"expected an image, but every voxel is {stack.flat[0]:g}")
    high = np.moveaxis(sharpen(stack, predict, scale, progress, whole), 0, axis)
    factors = tuple(1.0 if i == axis else float(scale) for i in range(3))
    return volume.on(high, grid.rescale(volume.affine, factors, anchor))  # type: ignore[arg-type]
