"""What a report draws of two volumes, in 256 steps and, if they are large, every n-th slice."""

import base64
import gzip
from dataclasses import dataclass
from typing import Literal

import nibabel as nib
import numpy as np

from seran import grid, resample
from seran.quality.checks import apart
from seran.quality.provenance import Provenance, estimated
from seran.volume import Volume

SHOWN = 32 << 20  # voxels that a page holds at most, about 35 MB; beyond, it holds every n-th slice
SHOWN_OF_MANY = 4 << 20  # the same of one of many pages, which has 2 to 6 MB
ANCHORED = 0.51  # voxels of before that fields of view lie apart where the first voxels have one centre
SAME = 1e-3  # voxels by which corners may differ for two grids to be drawn as they are, one over the other


@dataclass(frozen=True)
class Shown:
    """What the page draws, and what must be said of it."""

    before: Volume
    after: Volume
    over: dict[str, Volume]  # what may be drawn over after, see `report.OVER`
    notes: list[str]
    voxels: Literal["same", "other", "none"]  # before has its own, on the field of view of after or another


def _every(volume: Volume, axis: int, step: int) -> Volume:
    """Every ``step``-th slice along ``axis``, from the middle of the first ``step``, where it lies."""
    first = (min(step, volume.data.shape[axis]) - 1) // 2
    at = tuple(slice(first, None, step) if i == axis else slice(None) for i in range(3))
    change = np.eye(4)
    change[axis, axis], change[axis, 3] = step, first
    return volume.on(volume.data[at], volume.affine @ change)


def shown(
    before: Volume,
    after: Volume,
    made: Provenance | None = None,
    off: Volume | None = None,
    many: bool = False,
) -> Shown:
    """What is drawn of two volumes: both on one field of view, and what the second adds, on its grid.

    Args:
        before: the scan.
        after: what became of it.
        made: how, if that is known.
        off: half-widths of ``after``, if there are any (`seran.uncertainty`).
        many: this is one of many pages, which hold less each.
    """
    notes, most = [], SHOWN_OF_MANY if many else SHOWN
    axis = grid.slice_axis(after.affine, after.data.shape, named=after.slices)
    step = -(-after.data.size // most)
    old, new = (grid.corners(v.data.shape, v.affine) for v in (before, after))
    together = np.linalg.norm(old - new, axis=1).max() <= SAME * grid.spacing(after.affine).min()
    second = _every(after, axis, step)
    lies: Literal["same", "other", "none"] = "same" if together else "other"
    if step == 1 or (together and before.data.shape[axis] == after.data.shape[axis]):
        first = _every(before, axis, step)
    else:
        first, lies = _every(resample.onto(before, after.grid), axis, step), "none"
        notes.append("Before is drawn, interpolated, on the grid of after.")
    voxels = np.linalg.solve(before.affine[:3, :3], (new - old).T)
    if resample.turned(before.grid, after.grid) or np.abs(voxels).max() > ANCHORED:
        off_by = f"{apart(old, new):.2g} mm off"
        notes.append(f"The field of view of after is up to {off_by} that of before; outside, before is 0.")
    if step > 1:
        nth, count = {2: "2nd", 3: "3rd"}.get(step, f"{step}th"), second.data.shape[axis]
        held = f"The page holds every {nth} slice, {count} of {after.data.shape[axis]}"
        why = "one of many pages; `seran compare` makes one that holds more" if many else "a browser"
        notes.append(f"{held}: all would be too many for {why}. Checks and spectrum are of all.")
    added = second.data - resample.onto(first, second.grid).data
    known = made is not None and made.weights and not resample.turned(before.grid, after.grid)
    over = {"difference": second.on(added, second.affine)}
    if made is not None and known:
        over["estimated"] = _every(estimated(before, after, made), axis, step)
    if off is not None and off.data.shape == after.data.shape:
        over["uncertainty"] = _every(off, axis, step)
    return Shown(first, second, over, notes, lies)


def packed(volume: Volume, low: float, step: float, dtype: type) -> str:
    """A NIfTI file in base64 of gzip, numbers from ``low`` on by ``step``; nothing of the old header."""
    limit = np.iinfo(dtype)
    steps = np.clip(np.rint((volume.data - np.float32(low)) / np.float32(step)), limit.min, limit.max)
    image = nib.Nifti1Image(steps.astype(dtype), volume.affine)
    image.header.set_slope_inter(step, low)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
