"""FreeSurfer's MGH and MGZ: big-endian, one affine (vox2ras), up to four axes, times at the end."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.fileholders import FileHolder
from nibabel.freesurfer.mghformat import MGHHeader

from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver, Writer, packed, readable
from seran.volume import Volume

FORM = "MGH", voxels.UNREADABLE
DTYPES = ("uint8", "int16", "int32", "float32")  # of a voxel that MGH has
CORONAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # where a scan without directions lies


@contextmanager
def _opened(path: Path) -> Iterator[tuple[nib.MGHImage, bool]]:
    """The open image, and its goodRASFlag: whether spacing, directions and centre mean anything."""
    with ExitStack() as stack:
        with readable(path, FORM), np.errstate(over="ignore", invalid="ignore"):  # in a damaged header
            file = stack.enter_context(igzip.IGzipFile(path, "rb") if packed(path) else path.open("rb"))
            placed = file.read(30)[28:] == b"\x00\x01"
            # from a name instead of an open file, nibabel would leave it open
            image = nib.MGHImage.from_file_map({"image": FileHolder(fileobj=file)})
        yield image, placed


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    with _opened(path) as (image, placed):
        with readable(path, FORM):
            dtype, shape, matrix = image.get_data_dtype(), tuple(map(int, image.shape)), image.affine.copy()
        x, y, z, count = voxels.shaped(path, shape, dtype, packed(path))
    if not placed:  # FreeSurfer lays it about the origin, 1 mm a voxel; nibabel turns it about
        matrix[:3, :3], matrix[:3, 3] = CORONAL, -CORONAL @ np.array([x, y, z]) / 2
    matrix = voxels.usable_affine(path, matrix)

    def volume(t: int) -> Volume:
        with _opened(path) as (image, _):
            proxy = image.dataobj.reshape((x, y, z, count))
            return Volume(voxels.filled(path, proxy, t, how, FORM), matrix, image.header.copy())

    return count, volume


def receive(out: Writer) -> Receiver:
    """Write volumes with the times of the header that the first came with."""
    if out.dtype.name not in DTYPES:
        raise BadInput(
            f"{out.path}: MGH has voxels of {', '.join(DTYPES)}, not {out.dtype.name}; choose another --dtype"
        )
    with voxels.created(out.path) as file:
        first = yield
        known = first.header.copy() if isinstance(first.header, MGHHeader) else MGHHeader()
        known.set_data_dtype(out.dtype)
        header = nib.MGHImage(np.broadcast_to(out.dtype.type(0), out.shape), first.affine, known).header
        header.writehdr_to(file)
        file.write(bytes(header.get_data_offset() - file.tell()))
        yield from voxels.stream(first, out.count, out.dtype.newbyteorder(">"), file.write)
        header.writeftr_to(file)
