"""Reading and writing scans: one module per format, each with ``read``, ``receive`` and ``labelled``."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from seran import scratch
from seran.errors import BadInput
from seran.files import GONE
from seran.io import dicom, metaimage, mgh, nifti, nrrd
from seran.io.voxels import Reading, Writer, cast, files_of
from seran.scratch import Allocator
from seran.volume import Series, Volume

FORMATS: dict[str, ModuleType] = {  # by the end of a file's name; a folder is a DICOM series
    ".nii": nifti, ".nii.gz": nifti, ".hdr": nifti, ".img": nifti,
    ".mgh": mgh, ".mgz": mgh, ".nrrd": nrrd, ".nhdr": nrrd, ".mha": metaimage, ".mhd": metaimage,
}  # fmt: skip
ONE_FILE = {
    ".nhdr": ".nrrd",
    ".mhd": ".mha",
}  # headers with the voxels beside them, and what is written instead


@dataclass(frozen=True)
class Source:
    """What a path turned out to be; looked up once, because a folder of DICOM files takes long."""

    path: Path
    files: tuple[Path, ...]  # all that reading it reads
    series: dicom.Listed | None = None  # of a folder


def format_of(path: Path) -> str | None:
    """The key of `FORMATS` that ``path`` ends with; empty for a folder or a name without an end; or None."""
    if path.is_dir() or not path.suffix:
        return ""
    return next((end for end in FORMATS if path.name.lower().endswith(end)), None)


def stem(path: Path) -> str:
    """The name of ``path`` without the ending of its format."""
    return path.name[: len(path.name) - len(format_of(path) or "")]


def result_name(path: Path) -> str:
    """The name of a result in the format of a file: its own, unless its voxels lie beside it."""
    return path.with_suffix(ONE_FILE.get(path.suffix.lower(), path.suffix)).name


def _module(path: Path) -> ModuleType:
    end = format_of(path)
    if not end and path.is_file() and dicom.is_dicom(path):
        raise BadInput(f"{path}: a DICOM image is read with its series; name its folder, {path.parent}")
    if end is None or (end == "" and path.is_file()):
        raise BadInput(f"{path}: must end in {', '.join(FORMATS)}, or be a folder of DICOM files")
    return FORMATS[end] if end else dicom


def refuse_irregular(path: Path) -> None:
    """Raise `BadInput` for a pipe or a device, which may never end and cannot be read twice."""
    if not path.is_file():
        raise BadInput(
            f"{path}: expected a file or a folder, got a pipe or a device; save it as a file first"
        )


def resolve(path: Path, pick: str | None = None) -> Source:
    """Find what there is to read at ``path``; ``pick`` chooses a series of a folder, by number or UID."""
    if not path.exists():
        raise BadInput(f"{path}: {GONE if path.is_symlink() else 'no such file or folder'}")
    if path.is_dir():
        series = dicom.picked(path, pick)
        return Source(path, tuple(series.paths), series)
    if pick is not None:
        raise BadInput(f"{path}: a series is chosen in a folder of DICOM files; leave --series out")
    refuse_irregular(path)
    apart = path.suffix.lower() in ONE_FILE
    files = (path, _module(path).beside(path)) if apart else tuple(written(path))
    for file in files:
        if not file.exists():
            raise BadInput(f"{path}: expected {file.name} beside it, which is not there")
        refuse_irregular(file)
    return Source(path, files)


def read_series(
    scan: Path | Source,
    affine: str = "auto",
    fill: float | None = None,
    allocate: Allocator = scratch.memory,
    only: int | None = None,
    pick: str | None = None,
    voxels: bool = True,
    labels: bool = False,
) -> Series:
    """Read a scan, or a series of volumes on one grid (4-D), as float32 in its own units; else `BadInput`.

    Args:
        scan: the file, or the folder of a DICOM series; or what `resolve` found there.
        affine: which transform of the header to trust when they disagree (NIfTI: sform or qform);
            ``auto`` refuses such a file, ``either`` is for callers to whom only the spacing matters.
        fill: value for voxels that are NaN, infinite or beyond 1e30; without it such a file is refused.
        allocate: where the voxels lie.
        only: which volume of a series, counted from 0; all without it.
        pick: which series of a folder, by number or UID, where ``scan`` is a path.
        voxels: else only the grid is wanted, and voxels of files are 0.
        labels: whether voxels are names: whole numbers, which stay as they are, in the type that they have.
    """
    if fill is not None and not np.isfinite(np.float32(fill)):
        raise BadInput(f"--fill {fill}: must be finite")
    if labels and isinstance(scan, Path) and scan.is_dir():
        raise BadInput(f"{scan}: labels are read from a file, not from DICOM; save them as NIfTI or NRRD")
    source = scan if isinstance(scan, Source) else resolve(scan, pick)
    if source.series:
        count, volume = dicom.read(source.series, only)
    else:
        how = Reading(affine, fill, allocate, voxels, labels)
        count, volume = _module(source.path).read(source.path, how)
    if only is None:
        return Series(count, map(volume, range(count)))
    if not 0 <= only < count:
        has = f"must be from 0 to {count - 1}; {source.path} has {count} volumes"
        has = f"{source.path} has one volume; leave --volume out" if count == 1 else has
        raise BadInput(f"--volume {only}: {has}")
    return Series(1, map(volume, [only]))


def read(path: Path, affine: str = "auto") -> Volume:
    """Read a scan of one volume, as `read_series` does; a series of several is refused."""
    found = read_series(path, affine)
    if found.count > 1:
        raise BadInput(f"{path}: expected a 3-D scan, got a series of {found.count} volumes")
    return next(found.volumes)


def written(path: Path) -> list[Path]:
    """The files that writing ``path`` makes: itself, or header and voxels (.hdr, .img)."""
    _module(path)  # refuses other names
    if one := ONE_FILE.get(path.suffix.lower()):
        raise BadInput(f"{path}: expected header and voxels in one file; name it {one}")
    return files_of(path)


@contextmanager
def writer(path: Path, count: int, dtype: str = "float32", nth: int = 0) -> Iterator[Writer]:
    """Write volumes on one grid as they are added, with the conventions of the header that they came with.

    Args:
        path: the file, or the folder of a derived DICOM series; take the name from `seran.files.together`.
        count: how many volumes there will be, at least one.
        dtype: numpy's name of the type of a voxel; integers are rounded and held at their limits.
        nth: 0 for an image, else which of the maps beside it this is.

    Raises:
        BadInput: if the format has no such type, or needs what the volumes do not bring.
        ValueError: if the block ends before all volumes were added.
    """
    made = Writer(path, count, np.dtype(dtype), nth=nth)
    with closing(_module(path).receive(made)) as made.receiver:
        next(made.receiver)
        yield made
        if made.added != count:
            raise ValueError(f"{path}: expected {count} volumes, got {made.added}")


def relabelled(path: Path, labels: Volume, like: Volume) -> Volume:
    """Labels as they are written to a file on the grid of another volume, on which they lie.

    Both NIfTI transforms and their codes are the other volume's; what else a header says is the labels' own.

    Args:
        path: the file; its format decides which of both headers says what.
        labels: on the grid, with the header that they came with.
        like: whose grid it is.
    """
    return replace(labels, header=_module(path).labelled(labels, like))


def as_written(volume: Volume, path: Path, dtype: str = "float32") -> Volume:
    """A volume with the intensities that reading it again will give, once it is written.

    Args:
        volume: what will be written.
        path: where; its format decides what is rounded.
        dtype: numpy's name of the type of a voxel, see `writer`.
    """
    if _module(path) is dicom:
        return dicom.as_written(volume)
    kind = np.dtype(dtype)
    exact = kind.kind == "f" and kind.itemsize >= volume.data.itemsize
    return volume if exact else volume.on(cast(volume.data, kind).astype(np.float32), volume.affine)


def write(volume: Volume, path: Path) -> None:
    """Write one volume in float32, as `writer` does."""
    with writer(path, 1) as made:
        made.add(volume)
