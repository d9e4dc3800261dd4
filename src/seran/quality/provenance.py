"""How a result came from its scan, and how the two are made comparable again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from seran import grid, kspace, resample, resize, scratch
from seran.acquisition import Acquisition, Window, block
from seran.consistency import averaged, seen
from seran.degrade import DEGRADATIONS
from seran.grid import Anchor
from seran.kspace import nearest
from seran.profiles import Profile, selection, unseen
from seran.scratch import Allocator, memory
from seran.volume import Volume

COVERED = 0.999  # of a voxel, from which it is compared


@dataclass(frozen=True)
class Acquired:
    """What is known of a scan's acquisition."""

    fraction: tuple[float, ...]  # of k-space along rows and columns
    window: Window
    noise: float | None  # standard deviation as a part of the `seran.sharpen.Normalisation`'s gain
    background: float | None  # the value of a constant one
    undone: bool  # by native weights, and not merely known
    sharpened: bool  # the scan was a result of seran's


@dataclass(frozen=True)
class Off:
    """How far a result may be off, see `seran.uncertainty`."""

    half_width: float | None  # mean over the tissue, as a part of the scan's range; None without any
    most: float  # the greatest on scans of the calibration
    psnr: float  # dB; a bound that nine of ten subjects exceed
    subjects: int  # of the calibration
    contrast: str  # of that: T1 or other


@dataclass(frozen=True)
class Provenance:
    """How a result came from its scan."""

    factors: tuple[int, int]  # of the network, along rows and columns
    axis: int  # along which the slices are stacked
    degradation: str  # that the result is to undo
    resampled: bool  # it was put on another grid than the network's
    weights: bool  # weights made it; else a classical method did
    acquired: Acquired
    across: Profile | None = None  # of thick slices that became thin ones
    off: Off | None = None  # where half-widths were asked for

    def enlarged(self, scan: grid.Grid) -> grid.Grid:
        """The network's grid."""
        anchor = DEGRADATIONS[self.degradation].anchor
        return grid.Plan(scan, self.axis, self.factors, anchor).enlarged

    def scanner(self, scan: grid.Grid) -> Acquisition:
        """What the scanner did to the slices."""
        h, w = np.delete(scan.shape, self.axis).tolist()
        return Acquisition(block(self.acquired.fraction, (h, w)), self.acquired.window, (h, w))

    def undone(self, scan: grid.Grid) -> Acquisition | None:
        """The same, if the result is without it."""
        return self.scanner(scan) if self.acquired.undone else None


def plane(before: Volume, after: Volume, made: Provenance) -> grid.Grid | None:
    """The grid of a scan with the pixels of its thin slices, where it was merely resampled to them first."""
    counts = np.where(np.arange(3) == made.axis, before.data.shape, after.data.shape)
    if made.across is None or made.acquired.undone or (counts == before.data.shape).all():
        return None
    return grid.with_counts(before.grid, counts)


def in_plane(
    before: Volume, after: Volume, made: Provenance, allocate: Allocator = memory
) -> tuple[Volume, Provenance]:
    """The scan on the grid of `plane`, if there is one, and how the result came from that.

    The result holds no more than resampling has left of the scan and of its noise: what was given up is not
    missing.

    Args:
        before: the scan.
        after: the result.
        made: how.
        allocate: makes the arrays.
    """
    if (kept := plane(before, after, made)) is None:
        return before, made
    noise = made.acquired.noise
    if noise is not None:
        rows, columns = np.delete(kept.shape, made.axis).tolist()
        noise *= averaged(made.scanner(before.grid), (rows, columns))
    made = replace(made, acquired=replace(made.acquired, noise=noise))
    return resample.onto(before, kept, allocate), made


def side_by_side(
    before: Volume, after: Volume, made: Provenance, magnitude: bool, allocate: Allocator = memory
) -> Iterator[tuple[Float[ndarray, "*n"], Float[ndarray, "*n"]]]:
    """Parts of the result, made what the scan is, and of the scan.

    Where the result is coarser in the plane of the slices, both are seen at its resolution: what was given
    up is not missing.

    Args:
        before: the scan.
        after: the result.
        made: how.
        magnitude: the scan is one; else the real part is meant, where there is an imaginary one.
        allocate: makes the arrays that are as large as the result.
    """
    undone = made.undone(before.grid)
    degrade = undone or DEGRADATIONS[made.degradation](made.factors)

    if made.across is not None:
        after = selected(before, after, made.axis, made.across)
    coarse, fine = (np.moveaxis(v.data, made.axis, 0) for v in (before, after))
    if not made.resampled:
        for low, high in zip(coarse, fine, strict=True):
            yield seen(degrade, high, magnitude), low
            scratch.release(after.data)
        return
    kept = tuple(np.delete(shared(before.grid, after.grid), made.axis).tolist())
    exact = undone is not None and kept == coarse.shape[1:]
    covers = after.on(np.broadcast_to(np.float32(1), after.data.shape), after.affine)
    there = np.moveaxis(resample.onto(covers, before.grid, allocate).data, made.axis, 0)
    target = made.enlarged(before.grid) if exact else before.grid  # else a coarser result is compared
    back = np.moveaxis(resample.onto(after, target, allocate).data, made.axis, 0)
    for low, cover, high in zip(coarse, there, back, strict=True):
        again = high
        if undone:
            known, given = nearest(cover > COVERED, high.shape), kspace.regridded(low, high.shape)
            again = seen(degrade, np.where(known, high, given), magnitude)
        if kept != low.shape:
            again, low, cover = (resize.imresize(x, kept) for x in (again, low, cover))
        part = cover > COVERED
        yield again[part], low[part]


def shared(a: grid.Grid, b: grid.Grid) -> Int[ndarray, "3"]:
    """Voxels along each axis of a grid that has its field of view, and is as coarse as another along none."""
    steps = np.linalg.inv(a.affine) @ b.affine
    coarse = np.empty(3)
    coarse[list(grid.world_axes(steps))] = grid.spacing(steps)
    return np.maximum(1, np.rint(a.shape / np.maximum(1, coarse))).astype(int)


def selected(before: Volume, after: Volume, axis: int, profile: Profile) -> Volume:
    """Thin slices as the scanner's selection would see them again, where those of the scan are.

    Args:
        before: the scan.
        after: the result, of the same field of view.
        axis: along which the slices are stacked.
        profile: of the scan's slices.
    """
    n, m = before.data.shape[axis], after.data.shape[axis]
    weights = selection(m, m / n, profile).astype(np.float32)
    data = resize.along(after.data, axis, weights)
    counts = np.where(np.arange(3) == axis, n, after.data.shape)
    return after.on(data, grid.with_counts(after.grid, counts).affine)


def thin(before: Volume, after: Volume, axis: int) -> Volume:
    """The thin slices in the middle of those of the scan."""
    n, m = before.data.shape[axis], after.data.shape[axis]
    at = (np.arange(n) + 0.5) * m / n - 0.5
    data = resize.along(after.data, axis, resize.sampled(at, m, 1.0).astype(np.float32))
    counts = np.where(np.arange(3) == axis, n, after.data.shape)
    return after.on(data, grid.with_counts(after.grid, counts).affine)


def estimated(before: Volume, after: Volume, made: Provenance, allocate: Allocator = memory) -> Volume:
    """What of a result goes beyond the scan: the weights alone have put it there, and the scan cannot see it.

    In the plane of the slices, what lies beyond the measured band of k-space. Across thick slices that became
    thin, what goes beyond the smoothest image that they see alike (`seran.profiles.unseen`), too: flat tissue
    and slow changes, which any interpolation shows, are no part of it.

    Args:
        before: the scan.
        after: the result, on a grid that is not turned against the scan's.
        made: how.
        allocate: makes the arrays that are as large as the result.
    """
    order = grid.world_axes(np.linalg.inv(before.affine) @ after.affine)  # the scan's axes of the result's
    axis = order.index(made.axis)
    part = np.insert(np.array(made.acquired.fraction), made.axis, 1.0) / grid.spacing(before.affine)
    kept = np.rint(part[list(order)] * grid.spacing(after.affine) * after.data.shape).astype(int)
    shape = np.delete(after.data.shape, axis)
    band = tuple(np.minimum(np.maximum(1, np.delete(kept, axis)), shape).tolist())
    if made.across is not None:
        m, n = after.data.shape[axis], before.data.shape[made.axis]
        seen_alike = np.eye(m) - unseen(m, m / n, made.across)
        found = resample.along_blocks(after.data, axis, seen_alike, allocate)
    else:
        found = allocate(after.data.shape)
        found[:] = after.data
    stack, rest = (np.moveaxis(data, axis, 0) for data in (after.data, found))
    for one, whole in zip(rest, stack, strict=True):
        one[:] = whole - kspace.regridded(kspace.regridded(one, band), one.shape)
        scratch.release(found)
    return replace(after, data=found)


def placed(
    before: Volume, after: Volume, made: Provenance
) -> tuple[Float[ndarray, "n sh sw"], Anchor] | None:
    """The slices of a result on a whole factor of the scan's grid, and what the two grids have in common."""
    if not made.resampled:
        same = made.enlarged(before.grid).shape == after.data.shape
        anchor = DEGRADATIONS[made.degradation].anchor
        return (np.moveaxis(after.data, made.axis, 0), anchor) if same else None
    to = np.linalg.inv(before.affine) @ after.affine
    turn = nib.orientations.io_orientation(to)  # the grid that was asked for may be stored in another order
    to = to @ nib.orientations.inv_ornt_aff(turn, after.data.shape)
    data = nib.orientations.apply_orientation(after.data, turn)
    factors = np.rint(1 / grid.spacing(to))
    if data.shape != tuple(before.data.shape * factors) or factors[made.axis] != 1:
        return None
    a, b, c = factors.tolist()
    for name in sorted(get_args(Anchor)):  # center first: of a factor of 1 both are true
        due = grid.rescale(np.eye(4), (a, b, c), name)
        if np.abs(grid.corners(data.shape, to) - grid.corners(data.shape, due)).max() < resample.TURNED:
            return np.moveaxis(data, made.axis, 0), name
    return None
