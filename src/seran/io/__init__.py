"""Reading and writing scans: one module per format, each with ``read`` and ``write``."""

from pathlib import Path
from types import ModuleType

from seran import scratch
from seran.errors import BadInput
from seran.io import nifti
from seran.scratch import Room
from seran.volume import Volume

__all__ = ["FORMATS", "format_of", "read", "write"]

FORMATS: dict[str, ModuleType] = {".nii": nifti, ".nii.gz": nifti}


def format_of(path: Path) -> str | None:
    """The key of `FORMATS` that ``path`` ends with, or None."""
    return next((end for end in FORMATS if path.name.lower().endswith(end)), None)


def _module(path: Path) -> ModuleType:
    end = format_of(path)
    if end is None:
        raise BadInput(f"{path}: expected a name ending in {' or '.join(FORMATS)}")
    return FORMATS[end]


def read(path: Path, affine: str = "auto", fill: float | None = None, room: Room = scratch.memory) -> Volume:
    """Read a 3-D scan as float32 in its own units.

    Args:
        path: the file.
        affine: which transform of the header to trust when they disagree (NIfTI: sform or qform);
            ``auto`` refuses such a file, ``either`` is for callers to whom only the spacing matters.
        fill: value for voxels that are NaN or infinite; without it such a file is refused.
        room: where the voxels lie.

    Raises:
        BadInput: if the file is missing, unreadable, or not one 3-D real-valued scan.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
    return _module(path).read(path, affine, fill, room)


def write(volume: Volume, path: Path) -> None:
    """Write float32 intensities with the header's conventions; ``path`` is written as it is named.

    Wrap it in `seran.files.atomic` to keep half-written files from ever being seen.
    """
    _module(path).write(volume, path)
