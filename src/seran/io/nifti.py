"""NIfTI-1 and -2.

A NIfTI file may place its voxels twice: by the qform (rotation, scanner) and by the sform (any affine).
Readers differ in which they prefer, so both are written, each with the code the input had. Codes:
0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI.
"""

import logging
import math
import zlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy import ndarray

from seran import grid, scratch
from seran.errors import BadInput
from seran.scratch import Room
from seran.volume import Volume

TOLERANCE = 0.05
"""sform and qform agree when no corner of the field of view differs by more than this many voxels.

A qform is stored as a float32 quaternion, which alone can cost a few hundredths of a voxel.
"""

MOST = 1100
"""A byte of gzip holds at most about so many bytes."""

UNREADABLE = (
    OSError, EOFError, zlib.error, ImageFileError, WrapStructError, HeaderDataError,
    ValueError, OverflowError, MemoryError, np.linalg.LinAlgError,
)  # fmt: skip
"""What nibabel raises on damaged files and impossible headers."""


def _transform(
    header: nib.Nifti1Header, shape: tuple[int, int, int], choice: str, name: str
) -> Float[ndarray, "4 4"]:
    sform, s_code = header.get_sform(coded=True)
    qform, q_code = header.get_qform(coded=True)
    if choice in ("sform", "qform"):
        chosen = {"sform": sform, "qform": qform}[choice]
        if chosen is None:
            raise BadInput(f"{name}: its {choice} code is 0, so there is no {choice} to trust")
        return chosen
    if s_code and q_code and choice != "either":
        apart = np.linalg.norm(grid.corners(shape, sform) - grid.corners(shape, qform), axis=1)
        if not apart.max() <= TOLERANCE * grid.spacing(sform).min():
            raise BadInput(
                f"{name}: sform (code {s_code}) and qform (code {q_code}) place the scan up to "
                f"{apart.max():.3g} mm apart; say which is right with --affine sform or --affine qform"
            )
    return header.get_best_affine()


def read(path: Path, affine: str, fill: float | None, room: Room) -> Volume:
    """Read one 3-D scan; see `seran.io.read`."""
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it would say, the exception says
    if fill is not None and not np.isfinite(np.float32(fill)):
        raise BadInput(f"expected a finite number for --fill, got {fill}")
    try:
        image = nib.load(path, keep_file_open=True)  # a packed file is unpacked once, not once for each part
        if not isinstance(image, nib.Nifti1Image):
            raise BadInput(f"{path}: expected a single-file NIfTI, got {type(image).__name__}")
        if image.get_data_dtype().kind not in "iuf":
            raise BadInput(
                f"{path}: expected one real number per voxel, got {image.get_data_dtype()}; "
                "save magnitude and phase (or each channel) as scans of their own"
            )
        shape = image.shape
        if len(shape) > 3 and all(n == 1 for n in shape[3:]):
            shape = shape[:3]
        if len(shape) < 3 and 0 not in shape:
            shape = (*shape, *[1] * (3 - len(shape)))
        if len(shape) != 3:
            raise BadInput(
                f"{path}: expected a 3-D scan, got {len(shape)}-D {image.shape}; "
                "split it (fslsplit, or nibabel's four_to_three) and upscale each volume"
            )
        if 0 in shape:
            raise BadInput(f"{path}: expected voxels, got an empty image {image.shape}")
        _promised(image, path)
        voxels, data, bad = image.dataobj.reshape(shape), room(shape[::-1]).T, 0
        for at in scratch.parts(data):
            part = np.asarray(voxels[at], np.float32)
            wrong = ~np.isfinite(part)
            bad += int(wrong.sum())
            data[at] = np.where(wrong, np.float32(fill or 0), part)
            scratch.rest(data)
        matrix = _transform(image.header, shape, affine, str(path))
    except BadInput:
        raise
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read as NIfTI ({_line(error)})") from error
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise BadInput(f"{path}: expected an invertible affine in the header, got {matrix.tolist()}")
    if bad and fill is None:
        raise BadInput(f"{path}: {bad} voxels are NaN or infinite; give their value with --fill 0")
    header = image.header.copy()
    if affine in ("sform", "qform"):  # the user's choice replaces the other transform
        header.set_qform(matrix, int(header["qform_code"]), strip_shears=True)
        header.set_sform(matrix, int(header["sform_code"]))
    return Volume(data, matrix, header)


def _promised(image: nib.Nifti1Image, path: Path) -> None:
    """Refuse a header that promises more voxels than the file can hold, before there is room for them."""
    need = math.prod(image.shape) * image.get_data_dtype().itemsize
    packed = path.name.lower().endswith(".gz")
    if need > path.stat().st_size * (MOST if packed else 1):
        raise BadInput(
            f"{path}: its header promises {need:,} bytes of voxels, but the file has {path.stat().st_size:,}"
            f"{' packed ones' * packed}; it is damaged or cut off"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def write(volume: Volume, path: Path) -> None:
    """Write a scan on its grid, with both transforms under the codes of the header it came with."""
    source = nib.Nifti1Header() if volume.header is None else volume.header
    header = source.copy()
    if source.get_data_shape()[:3] != volume.data.shape:
        for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
            header[name] = 0  # the timing of slices that are no longer these
    header.set_data_dtype(np.float32)
    header.set_data_shape(volume.data.shape)
    header["cal_min"] = header["cal_max"] = 0
    rigid, q_code = source.get_qform(coded=True)
    s_code = int(source["sform_code"]) if volume.header is not None else 1
    header.set_sform(volume.affine, s_code)
    if rigid is not None and _same_axes(rigid, volume.affine):
        # The rotation is unchanged: keep its stored quaternion, which re-deriving would round again.
        moved = rigid @ np.linalg.inv(source.get_best_affine()) @ volume.affine
        header["pixdim"][1:4] = grid.spacing(moved)
        for name, value in zip("xyz", moved[:3, 3], strict=True):
            header[f"qoffset_{name}"] = value
    else:
        header.set_qform(volume.affine, int(q_code), strip_shears=True)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    header = kind(np.broadcast_to(np.float32(0), volume.data.shape), None, header).header
    header.set_slope_inter(1, 0)
    with path.open("wb") as plain, _packing(plain, path) as file:
        header.write_to(file)
        file.write(bytes(header.get_data_offset() - file.tell()))
        step = max(1, scratch.PART // max(1, 4 * math.prod(volume.data.shape[:2])))
        for z in range(0, volume.data.shape[2], step):
            part = volume.data[:, :, z : z + step]
            file.write(part.astype(header.get_data_dtype(), copy=False).tobytes("F"))
            scratch.rest(volume.data)


def _packing(file: BinaryIO, path: Path) -> AbstractContextManager[BinaryIO]:
    """What to write to: the file itself, or gzip into it without a name or a time."""
    if path.name.lower().endswith(".gz"):
        return igzip.IGzipFile("", "wb", 1, file, 0)
    return nullcontext(file)


def _same_axes(a: Float[ndarray, "4 4"], b: Float[ndarray, "4 4"]) -> bool:
    u, v = a[:3, :3] / grid.spacing(a), b[:3, :3] / grid.spacing(b)
    return bool(np.abs(u - v).max() < 1e-4)
