"""A volume on another grid, in one step: from a network's whole factor to the grid that is wanted.

Parallel axes: Keys' cubic, stretched where the new grid is coarser (`seran.resize`); turned grids: cubic
B-splines after the same smoothing. Where the source has no negative voxel, the result has none. Labels, which
are names, are not interpolated: `nearest`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, kspace, scratch
from seran.errors import BadInput
from seran.grid import Affine, Grid
from seran.resize import Matrix, along, sampled
from seran.scratch import Allocator, memory
from seran.volume import Volume

Voxels = Float[ndarray, "_ _ _"]
TURNED = 0.01  # voxels by which a grid may leave the axes of another one and still count as parallel to it
TIE = 0.01  # voxels of labels: a point so near to the border of one counts as on it
APART = 0.02  # part of the smaller of two fields of view that is too little to share
LARGEST = 4.0  # the largest scale that there are networks for


def finer(scan: Grid, axis: int, spacing: tuple[float, float]) -> Grid:
    """A grid of exactly this spacing about the centre of another; its extent changes by less than a voxel.

    Args:
        scan: the grid that it is finer than.
        axis: along which the slices are stacked.
        spacing: in mm, of rows and columns.
    """
    size, found, change = grid.spacing(scan.affine), np.array(scan.shape), np.eye(4)
    for i, new in zip(np.delete(range(3), axis), spacing, strict=True):
        found[i] = max(1, round(scan.shape[i] * size[i] / new))
        change[i, i] = new / size[i]
        change[i, 3] = (scan.shape[i] - 1) / 2 - change[i, i] * (found[i] - 1) / 2
    x, y, z = found.tolist()
    return Grid((x, y, z), scan.affine @ change)


def factor(scan: Grid, axis: int, target: Grid, name: str) -> int:
    """The whole factor next above what a target grid asks for; `BadInput` if that is not from 1 to 4.

    Args:
        scan: the grid of the scan.
        axis: along which its slices are stacked.
        target: the grid that is wanted.
        name: what asks for it.
    """
    per = np.abs(np.linalg.inv(scan.affine[:3, :3]) @ target.affine[:3, :3])  # source voxels a target step
    asked = np.delete(1 / per.max(1), axis).tolist()
    refuse_beyond(asked, name)
    return max(1, int(np.ceil(max(asked) - 1e-6)))


def refuse_beyond(asked: Sequence[float], name: str) -> None:
    """Raise `BadInput` for rows and columns so many times as fine as the scan's as no network makes them.

    Args:
        asked: how many times.
        name: what asks for it.
    """
    if not max(asked) <= LARGEST + 1e-6 or min(asked) < 1 - 1e-6:
        times = f"{grid.dimensions(asked, '.6g', ' and ')} times as fine as the scan"
        raise BadInput(
            f"{name}: {times} in the plane of its slices; must be 1 or more and at most {LARGEST:g}"
        )


def refuse_apart(scan: Grid, other: Grid, name: str) -> None:
    """Raise `BadInput` if two fields of view share next to nothing of the smaller one.

    Args:
        scan: the grid of the scan.
        other: the grid that is wanted.
        name: what asks for it.
    """
    shared = max(grid.covered(scan, other), grid.covered(other, scan))
    if shared < APART:
        met = f"shares {shared:.1%} with the scan's" if shared else "does not meet the scan's"
        raise BadInput(f"{name}: its field of view {met}; name one that shows what the scan shows")


def acquired(volume: Volume, axis: int, band: tuple[float, float]) -> Volume:
    """The volume on the grid that was measured: k-space cropped to a part of its extent.

    Args:
        volume: a scan whose k-space the scanner filled with zeros.
        axis: along which its slices are stacked.
        band: the part that was measured, of rows and columns.
    """
    stack = np.moveaxis(volume.data, axis, 0)
    h, w = stack.shape[1:]
    rows, columns = round(h * band[0]), round(w * band[1])
    cropped = np.concatenate([kspace.crop(part[None], (rows, columns)) for part in stack])
    x, y, z = np.insert((rows / h, columns / w), axis, 1.0).tolist()
    return volume.on(np.moveaxis(cropped, 0, axis), grid.rescale(volume.affine, (x, y, z), "center"))


def turned(a: Grid, b: Grid) -> bool:
    """Whether the axes of one grid leave those of another by more than `TURNED`."""
    to = np.linalg.inv(a.affine) @ b.affine
    off = np.abs(to[:3, :3]) * (np.array(b.shape) - 1)
    off[grid.world_axes(to), range(3)] = 0
    return bool(off.sum(1).max() > TURNED)


def onto(volume: Volume, target: Grid, allocate: Allocator = memory) -> Volume:
    """The volume on another grid.

    Args:
        volume: any.
        target: where it goes.
        allocate: makes the arrays.
    """
    to = np.linalg.inv(volume.affine) @ target.affine  # index on the target -> index on the source
    change = _turned if turned(volume.grid, target) else _parallel
    data = change(volume.data, to, target.shape, allocate)
    if scratch.limits(volume.data)[0] >= 0:
        for part in scratch.parts(data):
            np.maximum(part, 0, out=part)
    return replace(volume.on(data, target.affine), slices=None, thickness=None)  # its axes may be others


def nearest(labels: Volume, target: Grid, allocate: Allocator = memory) -> tuple[Volume, int]:
    """Labels on another grid, and how many of its voxels lie outside their field of view, which are 0.

    A voxel takes the label of the voxel that its centre lies in. A centre on the border of two (to `TIE`)
    counts as lying in the one towards the target's first voxel, however the labels are stored: where the
    target is k times as fine and keeps the centre of the first voxel, every voxel of the labels between the
    ends becomes k along each axis.

    Args:
        labels: of any type, which stays.
        target: where they go.
        allocate: makes the array.
    """
    to = np.linalg.inv(labels.affine) @ target.affine  # index on the target -> index on the labels
    order = list(grid.world_axes(to))
    axes = np.zeros((3, 3))
    axes[order, range(3)] = np.sign(to[order, range(3)])
    offset = to[:3, 3] - TIE * axes.sum(1)
    if not turned(labels.grid, target):
        to[:3, :3] *= np.abs(axes)  # the rest is rounding
    made, outside = scratch.typed(allocate, target.shape, labels.data.dtype), 0
    for at in scratch.blocks(made, 100):  # indices, and what is compared with them
        cuts = zip((*at, slice(None), slice(None)), target.shape, strict=False)
        index = np.ogrid[tuple(slice(*cut.indices(n)) for cut, n in cuts)]
        u = [sum(to[i, j] * index[j] for j in range(3) if to[i, j]) + offset[i] for i in range(3)]
        voxel = [np.floor(one + 0.5).astype(int) for one in u]
        x, y, z = ((v >= 0) & (v < n) for v, n in zip(voxel, labels.data.shape, strict=True))
        inside = x & y & z
        held = [v.clip(0, n - 1) for v, n in zip(voxel, labels.data.shape, strict=True)]
        made[at] = np.where(inside, labels.data[tuple(held)], made.dtype.type(0))
        outside += inside.size - int(np.count_nonzero(inside))
        for array in (labels.data, made):
            scratch.release(array)
    return replace(labels.on(made, target.affine), slices=None, thickness=None), outside


def along_blocks(data: Voxels, i: int, weights: Matrix, allocate: Allocator) -> Voxels:
    """`seran.resize.along`, block by block, cut across another axis.

    Args:
        data: a volume, which may be larger than memory.
        i: the axis.
        weights: (m, n), of the n samples along it.
        allocate: makes the result.
    """
    shape = (*data.shape[:i], weights.shape[0], *data.shape[i + 1 :])
    made, weights = _laid(shape, data.strides, allocate), weights.astype(np.float32)
    for at in _across(data, i, made):
        made[at] = along(data[at], i, weights)
    return made


def _laid(shape: Sequence[int], strides: Sequence[int], allocate: Allocator) -> Voxels:
    """An array whose axes vary from slow to fast as those of an array with these strides."""
    order = np.argsort(-np.abs(strides), kind="stable")
    return allocate(tuple(shape[j] for j in order)).transpose(np.argsort(order))


def _across(data: Voxels, i: int, made: Voxels) -> Iterator[tuple[slice, ...]]:
    """Indices of blocks that hold whole lines along axis ``i`` of both; after each, memory is given back."""
    axis = max((j for j in range(3) if j != i), key=lambda j: abs(data.strides[j]))
    step = max(1, scratch.PART * made.shape[axis] // (4 * max(data.size, made.size)))
    for start in range(0, made.shape[axis], step):
        yield (*[slice(None)] * axis, slice(start, start + step))
        for array in (data, made):
            scratch.release(array)


def _parallel(data: Voxels, to: Affine, shape: tuple[int, int, int], allocate: Allocator) -> Voxels:
    """Axis by axis, a new array; target axis j follows source axis ``order[j]``."""
    given = data
    order = grid.world_axes(to)
    for j, i in enumerate(order):
        u = to[i, j] * np.arange(shape[j]) + to[i, 3]
        if shape[j] != data.shape[i] or not np.allclose(u, np.arange(shape[j]), atol=1e-9):
            weights = sampled(u, data.shape[i], min(1.0, 1 / abs(to[i, j])), beyond=False)
            data = along_blocks(data, i, weights, allocate)
    return np.transpose(data.copy() if data is given else data, order)


def _turned(data: Voxels, to: Affine, shape: tuple[int, int, int], allocate: Allocator) -> Voxels:
    from scipy.ndimage import affine_transform, spline_filter1d  # a tenth of a second, and rarely needed

    for i in range(3):
        step = np.abs(to[i, :3]).max()
        if step > 1:
            weights = sampled(np.arange(float(data.shape[i])), data.shape[i], 1 / step)
            data = along_blocks(data, i, weights, allocate)
    smooth = _laid(data.shape, data.strides, allocate)
    for i, source in enumerate((data, smooth, smooth)):
        for at in _across(source, i, smooth):
            smooth[at] = spline_filter1d(source[at], 3, i, np.float32, "nearest")
    made = _laid(shape, [smooth.strides[i] for i in grid.world_axes(to)], allocate)
    for at in scratch.blocks(made, 100):  # coordinates, and what is compared with them
        start, size = [s.start or 0 for s in (*at, slice(None), slice(None))[:3]], made[at].shape
        offset = to[:3, :3] @ start + to[:3, 3]
        u = np.tensordot(to[:3, :3], np.indices(size), 1) + offset[:, None, None, None]
        inside = ((u >= -0.5) & (u <= np.array(data.shape)[:, None, None, None] - 0.5)).all(0)
        part = affine_transform(smooth, to[:3, :3], offset, size, np.float32, 3, "nearest", prefilter=False)
        made[at] = np.where(inside, part, np.float32(0))
        for array in (smooth, made):
            scratch.release(array)
    return made
