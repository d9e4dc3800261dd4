"""NIfTI-1 and -2.

A NIfTI file may place its voxels twice: by the qform (rotation, scanner) and by the sform (any affine).
Readers differ in which they prefer, so both are written, each with the code the input had. Codes:
0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI.
"""

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy import ndarray

from seran import grid
from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver, packed
from seran.volume import Volume

TOLERANCE = 0.05
"""sform and qform agree when no corner of the field of view differs by more than this many voxels.

A qform is stored as a float32 quaternion, which alone can cost a few hundredths of a voxel.
"""

UNREADABLE = (
    OSError, EOFError, zlib.error, ImageFileError, WrapStructError, HeaderDataError,
    ValueError, OverflowError, MemoryError, np.linalg.LinAlgError,
)  # fmt: skip
"""What nibabel raises on damaged files and impossible headers."""


def _transform(
    path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int], choice: str
) -> Float[ndarray, "4 4"]:
    """The affine that counts: the one of ``choice``, or the one that both transforms say."""
    with voxels.readable(path, "NIfTI", UNREADABLE):
        (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
        best = header.get_best_affine()
    if choice in ("sform", "qform"):
        chosen = {"sform": sform, "qform": qform}[choice]
        if chosen is None:
            raise BadInput(f"{path}: its {choice} code is 0, so there is no {choice} to trust")
        return chosen
    if s_code and q_code and choice != "either":
        with np.errstate(over="ignore", invalid="ignore"):  # NIfTI-2 holds numbers whose square is infinite
            apart = np.linalg.norm(grid.corners(shape, sform) - grid.corners(shape, qform), axis=1)
            alike = apart.max() <= TOLERANCE * grid.spacing(sform).min()
        if not alike:
            raise BadInput(
                f"{path}: sform (code {s_code}) and qform (code {q_code}) place the scan up to "
                f"{apart.max():.3g} mm apart; say which is right with --affine sform or --affine qform"
            )
    return best


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Without what nibabel remarks on unusual headers: what cannot be used is an exception."""

    def none(record: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("nibabel.global")
    log.addFilter(none)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(none)


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    with voxels.readable(path, "NIfTI", UNREADABLE), _without_remarks():
        # A packed file is kept open, and so unpacked once, not once for each part.
        image = nib.load(path, keep_file_open=True)
    if not isinstance(image, nib.Nifti1Pair):
        raise BadInput(f"{path}: expected NIfTI, got {type(image).__name__}")
    with voxels.readable(path, "NIfTI", UNREADABLE):
        shape, dtype = image.shape, image.get_data_dtype()
    x, y, z, count = voxels.shaped(path, shape, dtype)
    body = Path(image.file_map["image"].filename)
    with voxels.readable(path, "NIfTI", (OSError,)):  # of a pair the second may be gone
        voxels.refuse_oversized(body, x * y * z * count * dtype.itemsize, packed(body))
    matrix = voxels.usable_affine(path, _transform(path, image.header, (x, y, z), how.affine))
    header = image.header.copy()
    if how.affine in ("sform", "qform"):  # the user's choice replaces the other transform
        header.set_qform(matrix, int(header["qform_code"]), strip_shears=True)
        header.set_sform(matrix, int(header["sform_code"]))
    proxy = image.dataobj.reshape((x, y, z, count))

    def volume(t: int) -> Volume:
        def part(at: tuple[slice, slice, slice]) -> ndarray:
            where = (*at, t)
            with voxels.readable(path, "NIfTI", UNREADABLE):
                return proxy[where]

        return Volume(voxels.filled(path, part, (x, y, z), how), matrix, header)

    return count, volume


def receive(path: Path, count: int, dtype: np.dtype) -> Receiver:
    """Write volumes with both transforms under the codes of the header that the first came with.

    Args:
        path: the file, or one of a pair.
        count: how many volumes.
        dtype: of a voxel.
    """
    head, *pair = voxels.files_of(path)
    with ExitStack() as stack:
        file = stack.enter_context(voxels.packing(stack.enter_context(head.open("wb")), packed(path)))
        body = stack.enter_context(pair[0].open("wb")) if pair else file
        first = yield
        with _without_remarks():
            header = _header(first, count, bool(pair), dtype)
            header.write_to(file)
        if not pair:
            file.write(bytes(header.get_data_offset() - file.tell()))
        yield from voxels.stream(first, count, header.get_data_dtype(), body.write)


def image(volume: Volume) -> nib.Nifti1Image:
    """A volume as nibabel has it in memory, with the header that `receive` would write."""
    header = _header(volume, 1, False, np.dtype(np.float32))
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(volume.data, header.get_best_affine(), header)


def _header(volume: Volume, count: int, pair: bool, dtype: np.dtype) -> nib.Nifti1Header:
    """For volumes like this one."""
    known = isinstance(volume.header, nib.Nifti1Header)
    source = volume.header if known else nib.Nifti1Header()
    header = source.copy()
    if not _same_slices(source, volume):
        for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
            header[name] = 0  # the timing of slices that are no longer these
    if not known:
        header.set_xyzt_units("mm")
    shape = (*volume.data.shape, count)[: 4 if count > 1 else 3]
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header["cal_min"] = header["cal_max"] = 0
    rigid, q_code = source.get_qform(coded=True)
    header.set_sform(volume.affine, int(source["sform_code"]) if known else 1)
    if rigid is not None and _same_axes(rigid, volume.affine):
        # The rotation is unchanged: keep its stored quaternion, which re-deriving would round again.
        moved = rigid @ np.linalg.inv(source.get_best_affine()) @ volume.affine
        header["pixdim"][1:4] = grid.spacing(moved)
        for name, value in zip("xyz", moved[:3, 3], strict=True):
            header[f"qoffset_{name}"] = value
    else:
        cosines = volume.affine[:3, :3] / grid.spacing(volume.affine)
        rigid_too = bool(np.abs(cosines.T @ cosines - np.eye(3)).max() < 1e-4)  # a qform holds no shears
        header.set_qform(volume.affine, (int(q_code) if known else 1) * rigid_too, strip_shears=True)
        if not rigid_too and not header["sform_code"]:
            header["sform_code"] = int(q_code) or 1
    second = isinstance(header, nib.Nifti2Header)
    kind = (
        (nib.Nifti2Pair if second else nib.Nifti1Pair)
        if pair
        else (nib.Nifti2Image if second else nib.Nifti1Image)
    )
    header = kind(np.broadcast_to(np.zeros((), dtype), shape), None, header).header
    header.set_slope_inter(1, 0)
    return header


def _same_slices(source: nib.Nifti1Header, volume: Volume) -> bool:
    """Whether what was acquired slice by slice still is: their axis (the third, unless it says another)."""
    axis = source.get_dim_info()[2]
    axis = 2 if axis is None else axis
    best = source.get_best_affine()
    if abs(np.linalg.det(best)) < 1e-9:  # of two transforms the one that was not chosen
        return False
    step = np.linalg.inv(best) @ volume.affine
    kept = np.allclose(step[axis], np.eye(4)[axis], atol=1e-3)
    return kept and (*source.get_data_shape(), 1, 1)[axis] == volume.data.shape[axis]


def _same_axes(a: Float[ndarray, "4 4"], b: Float[ndarray, "4 4"]) -> bool:
    u, v = a[:3, :3] / grid.spacing(a), b[:3, :3] / grid.spacing(b)
    return bool(np.abs(u - v).max() < 1e-4)
