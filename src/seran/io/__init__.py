"""Reading and writing scans: one module per format, each with ``read``, ``write`` and ``written``."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from seran import scratch
from seran.errors import BadInput
from seran.io import itk, mgh, nifti
from seran.scratch import Room
from seran.volume import Series, Volume

__all__ = ["FORMATS", "format_of", "read", "read_series", "write", "write_series", "written"]

FORMATS: dict[str, ModuleType] = {
    ".nii": nifti,
    ".nii.gz": nifti,
    ".hdr": nifti,
    ".img": nifti,
    ".mgh": mgh,
    ".mgz": mgh,
    ".nrrd": itk,
    ".mha": itk,
}


def format_of(path: Path) -> str | None:
    """The key of `FORMATS` that ``path`` ends with, or None."""
    return next((end for end in FORMATS if path.name.lower().endswith(end)), None)


def _module(path: Path) -> ModuleType:
    end = format_of(path)
    if end is None:
        raise BadInput(f"{path}: expected a name ending in {', '.join(FORMATS)}")
    return FORMATS[end]


def read_series(
    path: Path,
    affine: str = "auto",
    fill: float | None = None,
    room: Room = scratch.memory,
    only: int | None = None,
) -> Series:
    """Read a scan, or a series of volumes on one grid (4-D), as float32 in its own units.

    Args:
        path: the file.
        affine: which transform of the header to trust when they disagree (NIfTI: sform or qform);
            ``auto`` refuses such a file, ``either`` is for callers to whom only the spacing matters.
        fill: value for voxels that are NaN or infinite; without it such a file is refused.
        room: where the voxels lie.
        only: which volume of a series, counted from 0; all without it.

    Raises:
        BadInput: if the file is missing, unreadable, or does not hold real numbers on three or four axes.
            The volumes raise it too, as they are read.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    if fill is not None and not np.isfinite(np.float32(fill)):
        raise BadInput(f"expected a finite number for --fill, got {fill}")
    return _module(path).read(path, affine, fill, room, only)


def read(path: Path, affine: str = "auto", fill: float | None = None, room: Room = scratch.memory) -> Volume:
    """Read the one volume of a file; see `read_series`.

    Raises:
        BadInput: also for a series of several.
    """
    found = read_series(path, affine, fill, room)
    if found.count > 1:
        raise BadInput(f"{path}: expected a 3-D scan, got a series of {found.count} volumes")
    return next(found.volumes)


def written(path: Path) -> list[Path]:
    """The files that writing ``path`` makes: itself, or header and voxels (.hdr, .img)."""
    return _module(path).written(path)


def write_series(volumes: Iterable[Volume], count: int, path: Path) -> None:
    """Write ``count`` volumes on one grid, in float32, with the conventions of the header they came with.

    They are taken one by one, so that no more than one need be in memory. The files are written as they are
    named; wrap it in `seran.files.together` to keep half-written ones from ever being seen.
    """
    _module(path).write(volumes, count, path)


def write(volume: Volume, path: Path) -> None:
    """Write one volume; see `write_series`."""
    write_series([volume], 1, path)
