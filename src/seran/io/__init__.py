"""Reading and writing scans: one module per format, each with ``read``, ``write`` and ``written``."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from seran import scratch
from seran.errors import BadInput
from seran.io import dicom, itk, mgh, nifti
from seran.scratch import Allocator
from seran.volume import Series, Volume

__all__ = ["FORMATS", "format_of", "read", "read_series", "sources", "write", "write_series", "written"]

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
"""By the end of a file's name. A folder is a DICOM series."""


def format_of(path: Path) -> str | None:
    """The key of `FORMATS` that ``path`` ends with; empty for a folder or a name without an end; or None."""
    if path.is_dir() or not path.suffix:
        return ""
    return next((end for end in FORMATS if path.name.lower().endswith(end)), None)


def _module(path: Path) -> ModuleType:
    end = format_of(path)
    if not end and path.is_file() and dicom.is_dicom(path):
        raise BadInput(f"{path}: a DICOM image is read with its series; name its folder, {path.parent}")
    if path.suffix.lower() in (".nhdr", ".mhd"):
        raise BadInput(f"{path}: expected header and voxels in one file; save it as .nrrd or .mha")
    if end is None or (end == "" and path.is_file()):
        raise BadInput(f"{path}: expected a name ending in {', '.join(FORMATS)}, or a folder of DICOM files")
    return FORMATS[end] if end else dicom


def sources(path: Path, pick: str | None = None) -> list[Path]:
    """The files that reading ``path`` reads; see `read_series`."""
    return list(dicom.picked(path, pick).paths) if path.is_dir() else _module(path).written(path)


def read_series(
    path: Path,
    affine: str = "auto",
    fill: float | None = None,
    allocate: Allocator = scratch.memory,
    only: int | None = None,
    pick: str | None = None,
) -> Series:
    """Read a scan, or a series of volumes on one grid (4-D), as float32 in its own units.

    Args:
        path: the file, or the folder of a DICOM series.
        affine: which transform of the header to trust when they disagree (NIfTI: sform or qform);
            ``auto`` refuses such a file, ``either`` is for callers to whom only the spacing matters.
        fill: value for voxels that are NaN, infinite or beyond 1e30; without it such a file is refused.
        allocate: where the voxels lie.
        only: which volume of a series, counted from 0; all without it.
        pick: which series of a folder, by number or UID.

    Raises:
        BadInput: if the file is missing, unreadable, or does not hold real numbers on three or four axes.
            The volumes raise it too, as they are read.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    if fill is not None and not np.isfinite(np.float32(fill)):
        raise BadInput(f"expected a finite number for --fill, got {fill}")
    if path.is_dir():
        return dicom.read(path, only, pick)
    if pick is not None:
        raise BadInput(f"{path}: a series is chosen in a folder of DICOM files; leave --series out")
    return _module(path).read(path, affine, fill, allocate, only)


def read(
    path: Path, affine: str = "auto", fill: float | None = None, allocate: Allocator = scratch.memory
) -> Volume:
    """Read the one volume of a file; see `read_series`.

    Raises:
        BadInput: also for a series of several.
    """
    found = read_series(path, affine, fill, allocate)
    if found.count > 1:
        raise BadInput(f"{path}: expected a 3-D scan, got a series of {found.count} volumes")
    return next(found.volumes)


def written(path: Path) -> list[Path]:
    """The files that writing ``path`` makes: itself, or header and voxels (.hdr, .img)."""
    return _module(path).written(path)


def write_series(volumes: Iterable[Volume], count: int, path: Path, dtype: str = "float32") -> None:
    """Write ``count`` volumes on one grid, with the conventions of the header they came with.

    They are taken one by one, so that no more than one need be in memory. The files are written as they are
    named; wrap it in `seran.files.together` to keep half-written ones from ever being seen.

    Args:
        volumes: the volumes.
        count: how many.
        path: the file, or the folder of a derived DICOM series.
        dtype: numpy's name of the type of a voxel; integers are rounded and held at their limits.

    Raises:
        BadInput: if the format has no such type, or needs what the volumes do not bring.
    """
    _module(path).write(volumes, count, path, np.dtype(dtype))


def write(volume: Volume, path: Path) -> None:
    """Write one volume; see `write_series`."""
    write_series([volume], 1, path)
