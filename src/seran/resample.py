"""A volume on another grid, in one step: from a network's whole factor to the grid that is wanted.

Along parallel axes each sample is Keys' cubic over the source, stretched where the new grid is coarser, as
`seran.resize` does. Where the new grid is turned, the source is smoothed by the same kernels and then
interpolated by cubic B-splines. What lies outside the source is 0. Where no voxel of the source is negative,
none of the result is, though both kernels undershoot at edges.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, kspace, scratch
from seran.errors import BadInput
from seran.grid import Grid
from seran.resize import sampled
from seran.volume import Volume

TURNED = 0.01
"""Voxels by which a grid may leave the axes of another one and still count as parallel to it."""
LARGEST = 4.0
"""The largest scale that there are networks for."""


def finer(scan: Grid, axis: int, spacing: tuple[float, float]) -> Grid:
    """A grid with exactly this spacing in the plane across ``axis``, about the centre of the field of view.

    Its size is the nearest whole number of voxels: the field of view changes by less than one of them.

    Args:
        scan: the grid that it is finer than.
        axis: along which the slices are stacked.
        spacing: in mm, of rows and columns.
    """
    size, found = grid.spacing(scan.affine), list(scan.shape)
    change = np.eye(4)
    plane = [i for i in range(3) if i != axis]
    for i, new in zip(plane, spacing, strict=True):
        found[i] = max(1, round(scan.shape[i] * size[i] / new))
        change[i, i] = new / size[i]
        change[i, 3] = (scan.shape[i] - 1) / 2 - change[i, i] * (found[i] - 1) / 2
    return Grid((found[0], found[1], found[2]), scan.affine @ change)


def factor(scan: Grid, axis: int, target: Grid, name: str) -> int:
    """The whole factor, 2 to 4, from which a target grid is reached: the next above what its axes ask for.

    Args:
        scan: the grid of the scan.
        axis: along which its slices are stacked.
        target: the grid that is wanted.
        name: what asks for it.

    Raises:
        BadInput: if the target is not finer in the plane of the slices, or finer than 4 times.
    """
    per = np.abs(np.linalg.inv(scan.affine[:3, :3]) @ target.affine[:3, :3])  # source voxels a target step
    asked = [1 / per[i].max() for i in range(3) if i != axis]
    if not 1 + 1e-6 < max(asked) <= LARGEST + 1e-6 or min(asked) < 1 - 1e-6:
        raise BadInput(
            f"{name}: is {' and '.join(f'{a:.6g}' for a in asked)} times finer than the scan in the plane of "
            f"its slices; must be more than 1 and at most {LARGEST:g} times"
        )
    return max(2, int(np.ceil(max(asked) - 1e-6)))


def meets(scan: Grid, other: Grid) -> bool:
    """Whether the box of one grid's corners, along the other's axes, reaches into the other."""
    seen = grid.corners(other.shape, np.linalg.inv(scan.affine) @ other.affine)
    return bool(((seen.max(0) > -0.5) & (seen.min(0) < np.array(scan.shape) - 0.5)).all())


def acquired(volume: Volume, axis: int, band: tuple[float, float]) -> Volume:
    """The volume on the grid that was measured: k-space cropped to a part of its extent.

    Args:
        volume: a scan whose k-space the scanner filled with zeros.
        axis: along which its slices are stacked.
        band: the part that was measured, of rows and columns.
    """
    stack = np.moveaxis(volume.data, axis, 0)
    size = stack.shape[1:]
    rows, columns = (round(n * b) for n, b in zip(size, band, strict=True))
    cropped = np.concatenate([kspace.crop(part[None], (rows, columns)) for part in stack])
    plane = iter((rows / size[0], columns / size[1]))
    factors = [1.0 if i == axis else next(plane) for i in range(3)]
    affine = grid.rescale(volume.affine, (factors[0], factors[1], factors[2]), "center")
    return volume.on(np.moveaxis(cropped, 0, axis), affine)


def onto(volume: Volume, target: Grid) -> Volume:
    """The volume on another grid."""
    to = np.linalg.inv(volume.affine) @ target.affine  # index on the target -> index on the source
    order = grid.rows_of(to[:3, :3])
    off = np.abs(to[:3, :3]) * (np.array(target.shape) - 1)
    off[list(order), range(3)] = 0
    if off.sum(1).max() <= TURNED:
        data = _parallel(volume.data, to, target.shape, order)
    else:
        data = _turned(volume.data, to, target.shape)
    if volume.data.min() >= 0:
        data = np.maximum(data, 0)
    return volume.on(data, target.affine)


def _parallel(
    data: Float[ndarray, "x y z"],
    to: Float[ndarray, "4 4"],
    shape: tuple[int, int, int],
    order: tuple[int, ...],
) -> Float[ndarray, "a b c"]:
    """Axis by axis; target axis j follows source axis ``order[j]``."""
    for j, i in enumerate(order):
        u = to[i, j] * np.arange(shape[j]) + to[i, 3]
        weights = sampled(u, data.shape[i], min(1.0, 1 / abs(to[i, j])))
        weights[(u < -0.5) | (u > data.shape[i] - 0.5)] = 0
        if not (
            weights.shape[0] == weights.shape[1] and np.allclose(weights, np.eye(len(weights)), atol=1e-9)
        ):
            data = np.moveaxis(np.tensordot(weights.astype(np.float32), data, (1, i)), 0, i)
    return np.ascontiguousarray(np.transpose(data, order), np.float32)


def _turned(
    data: Float[ndarray, "x y z"], to: Float[ndarray, "4 4"], shape: tuple[int, int, int]
) -> Float[ndarray, "a b c"]:
    from scipy.ndimage import affine_transform, spline_filter  # a tenth of a second, and rarely needed

    for i in range(3):
        step = np.abs(to[i, :3]).max()
        if step > 1:
            weights = sampled(np.arange(float(data.shape[i])), data.shape[i], 1 / step).astype(np.float32)
            data = np.moveaxis(np.tensordot(weights, data, (1, i)), 0, i)
    smooth = spline_filter(data, 3, np.float32, "nearest")
    made = np.empty(shape, np.float32)
    for at in scratch.blocks(made):  # coordinates take 24 bytes for each voxel
        start = np.array([s.start or 0 for s in (*at, slice(None), slice(None))[:3]])
        offset = to[:3, :3] @ start + to[:3, 3]
        size = made[at].shape
        u = np.tensordot(to[:3, :3], np.indices(size, sparse=False), 1) + offset[:, None, None, None]
        inside = ((u >= -0.5) & (u <= np.array(data.shape)[:, None, None, None] - 0.5)).all(0)
        part = affine_transform(smooth, to[:3, :3], offset, size, np.float32, 3, "nearest", prefilter=False)
        made[at] = np.where(inside, part, np.float32(0))
    return made
