"""A small picture of a scan before and after, for a list of many."""

import base64
from io import BytesIO

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, resample
from seran.grid import Affine, Grid
from seran.quality.window import Window
from seran.sharpen import Normalisation
from seran.volume import Volume

SIDE = 128  # pixels of after that it is wide and high at most
GAP = 2  # pixels between before and after
QUALITY = 80  # of the JPEG, whose 5 to 10 kB are what a page of many scans holds for each


def thumbnail(before: Volume, after: Volume, norm: Normalisation, shown: Window) -> str:
    """A JPEG as a data URI: a part of the middle slice, before on the left, on the pixels of after.

    Args:
        before: the scan.
        after: what became of it.
        norm: of the scan.
        shown: what is black and what is white.
    """
    from matplotlib.image import imsave

    axis = grid.slice_axis(after.affine, after.data.shape, named=after.slices)
    at, affine = _part(after, norm, axis), after.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [each.start for each in at]
    second = after.data[at]
    first = resample.onto(before, Grid(second.shape, affine)).data
    left, right = (upright(one.squeeze(axis), affine, axis) for one in (first, second))
    gap, stream = np.full((left.shape[0], GAP), shown.high, np.float32), BytesIO()
    image, how = np.hstack([left, gap, right]), {"quality": QUALITY}
    imsave(stream, image, shown.low, shown.high, cmap="gray", format="jpg", pil_kwargs=how)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _part(after: Volume, norm: Normalisation, axis: int) -> tuple[slice, ...]:
    """One slice across an axis, and in it what lies about the middle of what is bright."""
    middle = after.data.shape[axis] // 2
    bright = np.clip(after.data.take([middle], axis) - norm.offset, 0, norm.gain or 1.0)
    at = []
    for i, count in enumerate(after.data.shape):
        profile = bright.sum(tuple(np.delete(range(3), i)), dtype=float)
        centre = np.average(np.arange(profile.size), weights=profile) if profile.any() else count / 2
        start = int(np.clip(round(centre - SIDE / 2), 0, max(0, count - SIDE)))
        at.append(slice(middle, middle + 1) if i == axis else slice(start, min(count, start + SIDE)))
    return tuple(at)


def turned(affine: Affine, axis: int) -> bool:
    """Whether `upright` makes columns of the rows of a slice across an axis."""
    i, j = np.delete(range(3), axis).tolist()
    world = grid.world_axes(affine)
    return world[i] < world[j]


def upright(slab: Float[ndarray, "h w"], affine: Affine, axis: int) -> Float[ndarray, "a b"]:
    """A slice as the viewer shows it: what is superior, or anterior, is up; left, or posterior, is right.

    Args:
        slab: the slice, along the other two axes of the array.
        affine: of the volume.
        axis: across the slice.
    """
    i, j = np.delete(range(3), axis).tolist()
    world = grid.world_axes(affine)
    if turned(affine, axis):
        slab, i, j = slab.T, j, i  # rows go along the later axis of the world
    return slab[:: -1 if affine[world[i], i] > 0 else 1, :: -1 if affine[world[j], j] > 0 else 1]
