"""FreeSurfer's MGH and MGZ: big-endian, one affine (vox2ras), up to four axes, times at the end."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver, Writer, packed, readable
from seran.volume import Volume

FORM = "MGH", voxels.UNREADABLE
DTYPES = ("uint8", "int16", "int32", "float32")  # of a voxel that MGH has
TIMES = "tr", "te", "ti", "flip_angle"
CORONAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # where a scan without directions lies


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    with readable(path, FORM), np.errstate(over="ignore", invalid="ignore"):  # in a damaged header
        with voxels.opened(path) as file:
            block = file.read(MGHHeader._hdrdtype.itemsize)
        header = MGHHeader(block)
        dtype, shape, matrix = header.get_data_dtype(), header.get_data_shape(), header.get_affine()
    x, y, z, count = voxels.shaped(path, tuple(map(int, shape)), dtype, packed(path))
    need, start = x * y * z * count * dtype.itemsize, header.get_data_offset()
    with readable(path, FORM):
        with voxels.opened(path) as file:
            file.seek(start + need)
            header = MGHHeader(block + file.read(MGHHeader._ftrdtype.itemsize))
            voxels.refuse_cut(path, need, voxels.length(file, need) - start)
        proxy = voxels.proxy(path, (x, y, z, count), dtype, start)
    if int.from_bytes(block[28:30], "big", signed=True) <= 0:  # goodRASFlag: whether what follows counts
        # FreeSurfer lays it about the origin, 1 mm a voxel; nibabel turns it about
        matrix[:3, :3], matrix[:3, 3] = CORONAL, -CORONAL @ np.array([x, y, z]) / 2
    matrix = voxels.usable_affine(path, matrix)
    return count, lambda t: Volume(voxels.filled(path, proxy, t, how, FORM), matrix, header.copy())


def receive(out: Writer) -> Receiver:
    """Write volumes with the times of the header that the first came with."""
    if out.dtype.name not in DTYPES:
        raise BadInput(
            f"{out.path}: MGH has voxels of {', '.join(DTYPES)}, not {out.dtype.name}; "
            "choose another type (upscale --dtype) or format"
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


def labelled(labels: Volume, like: Volume) -> MGHHeader:
    """The header of labels on the grid of another volume, see `seran.io.relabelled`."""
    source = labels.header if isinstance(labels.header, MGHHeader) else MGHHeader()
    header = like.header.copy() if isinstance(like.header, MGHHeader) else source.copy()
    for name in TIMES:
        header[name] = source[name]
    return header
