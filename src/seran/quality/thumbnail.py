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

SIDE = 128  # pixels that before, and after, is wide or high at most
GAP = 2  # pixels between before and after
QUALITY = 60  # of the JPEG, whose 3 to 9 kB are what a page of many scans holds for each
LETTERS = {
    "R": ("110", "101", "110", "101", "101"),
    "L": ("100", "100", "100", "100", "111"),
    "A": ("010", "101", "111", "101", "101"),
    "P": ("110", "101", "110", "100", "100"),
}
"""Of 3x5 dots, which become `DOT` pixels wide: which side of the patient an edge of the picture is."""
DOT = 2


def thumbnail(before: Volume, after: Volume, norm: Normalisation, shown: Window) -> str:
    """A JPEG as a data URI: the whole middle slice, before on the left, on one grid of square pixels.

    Args:
        before: the scan.
        after: what became of it.
        norm: of the scan.
        shown: what is black and what is white.
    """
    from matplotlib.image import imsave

    axis = grid.slice_axis(after.affine, after.data.shape, named=after.slices)
    middle, affine = after.data.shape[axis] // 2, after.affine.copy()
    affine[:3, 3] += affine[:3, axis] * middle
    slab = after.on(after.data.take([middle], axis), affine)
    target = _small(slab.grid, axis)
    flat = [resample.onto(one, target).data.squeeze(axis) for one in (before, slab)]
    halves = [_marked(upright(one, affine, axis), affine, axis, shown) for one in flat]
    gap, stream = np.full((len(halves[0]), GAP), shown.high, np.float32), BytesIO()
    image = np.hstack([halves[0], gap, halves[1]])
    how = {"quality": QUALITY, "optimize": True, "progressive": True}
    imsave(stream, image, shown.low, shown.high, cmap="gray", format="jpg", pil_kwargs=how)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _small(slab: Grid, axis: int) -> Grid:
    """The grid of a picture of one slice across an axis, in its field of view and no finer than it."""
    spacing = grid.spacing(slab.affine)
    sizes, plane = spacing * slab.shape, np.delete(np.arange(3), axis)
    step = max(sizes[plane].max() / SIDE, spacing[plane].min())
    return grid.with_counts(slab, np.where(np.arange(3) == axis, 1, np.maximum(1, np.rint(sizes / step))))


def _marked(flat: Float[ndarray, "a b"], affine: Affine, axis: int, shown: Window) -> Float[ndarray, "a b"]:
    """A picture with letters at its edges, left and right: R and L, or of sagittal slices A and P."""
    marked = np.array(flat)
    across = "AP" if grid.world_axes(affine)[axis] == 0 else "RL"
    high, wide = len(LETTERS["R"]) * DOT, len(LETTERS["R"][0]) * DOT
    top = max(0, (len(flat) - high) // 2)
    for name, left in zip(across, (2, flat.shape[1] - wide - 2), strict=True):
        dots = np.kron([[float(dot) for dot in row] for row in LETTERS[name]], np.ones((DOT, DOT)))
        place = marked[top : top + high, max(0, left) : left + wide]
        held = dots[: place.shape[0], : place.shape[1]]
        place[:] = np.where(held > 0, shown.high, np.minimum(place, (shown.low + shown.high) / 3))
    return marked


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
