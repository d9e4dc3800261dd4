"""FreeSurfer's MGH and MGZ: big-endian, one affine (vox2ras), up to four axes, times at the end."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from seran.errors import BadInput
from seran.scratch import Allocator
from seran.volume import (
    Series,
    Volume,
    filled,
    packing,
    refuse_oversized,
    series,
    shaped,
    stream,
    usable_affine,
)

DTYPES = ("uint8", "int16", "int32", "float32")
"""Types of a voxel that MGH has."""

UNREADABLE = (
    OSError, EOFError, isal_zlib.IsalError, MGHError, HeaderDataError, WrapStructError, ValueError, TypeError,
    KeyError, OverflowError, MemoryError, np.linalg.LinAlgError,
)  # fmt: skip
"""What nibabel raises on damaged files and impossible headers."""


@contextmanager
def _image(path: Path) -> Iterator[nib.MGHImage]:
    """The open image: given a name instead, nibabel would leave its file open.

    Raises:
        BadInput: for what goes wrong while it is open.
    """
    try:
        # a damaged header may overflow in nibabel: what comes of it is refused
        with (
            np.errstate(over="ignore", invalid="ignore"),
            igzip.IGzipFile(path, "rb") if _packed(path) else path.open("rb") as file,
        ):
            yield nib.MGHImage.from_file_map({"image": FileHolder(fileobj=file)})
    except BadInput:
        raise
    except UNREADABLE as error:  # type: ignore[misc]  # isal does not type its exception
        text = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path}: cannot be read as MGH ({text})") from error


CORONAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""Where FreeSurfer lays a scan without directions, 1 mm a voxel about the origin; nibabel turns it about."""


def _unplaced(path: Path) -> bool:
    """Whether its goodRASFlag says that spacing, directions and centre mean nothing."""
    with igzip.IGzipFile(path, "rb") if _packed(path) else path.open("rb") as file:
        return file.read(30)[28:] != b"\x00\x01"


def read(path: Path, affine: str, fill: float | None, allocate: Allocator, only: int | None) -> Series:
    """Read a scan or a series; see `seran.io.read_series`."""
    with _image(path) as image:
        x, y, z, count = shaped(path, tuple(map(int, image.shape)), image.get_data_dtype())
        refuse_oversized(path, x * y * z * count, image.get_data_dtype().itemsize, _packed(path))
        matrix = np.array(image.affine, float)
        if _unplaced(path):
            matrix[:3, :3], matrix[:3, 3] = CORONAL, -CORONAL @ np.array([x, y, z]) / 2
        matrix = usable_affine(path, matrix)

    def volume(t: int) -> Volume:
        with _image(path) as image:
            proxy = image.dataobj.reshape((x, y, z, count))
            data = filled(path, proxy, t, (x, y, z), fill, allocate)
            return Volume(data, matrix, image.header.copy())

    return series(path, count, volume, only)


def _packed(path: Path) -> bool:
    return path.suffix.lower() == ".mgz"


def written(path: Path) -> list[Path]:
    """The file."""
    return [path]


def write(volumes: Iterable[Volume], count: int, path: Path, dtype: np.dtype) -> None:
    """Write volumes on their grid, with the times of the header they came with."""
    if dtype.name not in DTYPES:  # before the first volume is made
        raise BadInput(
            f"{path}: MGH has voxels of {', '.join(DTYPES)}, not {dtype.name}; choose another --dtype"
        )
    stack = iter(volumes)
    first = next(stack)
    known = first.header.copy() if isinstance(first.header, MGHHeader) else MGHHeader()
    known.set_data_dtype(dtype)
    shape = (*first.data.shape, count)[: 4 if count > 1 else 3]
    header = nib.MGHImage(np.broadcast_to(np.zeros((), dtype), shape), first.affine, known).header
    with path.open("wb") as plain, packing(plain, _packed(path)) as file:
        header.writehdr_to(file)
        file.write(bytes(header.get_data_offset() - file.tell()))
        stream(itertools.chain([first], stack), dtype.newbyteorder(">"), file.write)
        header.writeftr_to(file)
