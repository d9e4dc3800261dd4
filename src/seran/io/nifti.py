"""NIfTI-1 and -2.

A NIfTI file may place its voxels twice: by the qform (rotation, scanner) and by the sform (any affine).
Readers differ in which they prefer, so both are written, each with the code the input had.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid
from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver, Writer, readable
from seran.volume import Volume

FORM = "NIfTI", voxels.UNREADABLE
TOLERANCE = 0.05  # voxels that sform and qform may lie apart: the qform's float32 alone can cost hundredths


def _transform(path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int], choice: str) -> grid.Affine:
    """The affine that counts: the one of ``choice``, or the one that both transforms say."""
    with readable(path, FORM):
        (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
        best = header.get_best_affine()
    if choice in ("sform", "qform"):
        chosen = {"sform": sform, "qform": qform}[choice]
        if chosen is None:
            raise BadInput(f"{path}: its {choice} code is 0, so there is no {choice} to trust")
        return chosen
    if s_code and q_code and choice != "either" and (apart := _apart(shape, sform, qform)):
        raise BadInput(
            f"{path}: sform (code {s_code}) and qform (code {q_code}) place the scan up to {apart:.3g} mm "
            "apart; say which is right with --affine sform or --affine qform"
        )
    return best


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Without what nibabel remarks on unusual headers: what cannot be used is an exception."""
    log, nothing = logging.getLogger("nibabel.global"), logging.Filter("another logger's name")
    log.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(nothing)


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    with readable(path, FORM), _without_remarks():
        image = nib.load(path, keep_file_open=True)  # and so unpacked once, not once for each part
    if not isinstance(image, nib.Nifti1Pair):
        raise BadInput(f"{path}: expected NIfTI, got {type(image).__name__}")
    with readable(path, FORM):
        shape, dtype, body = image.shape, image.get_data_dtype(), Path(image.file_map["image"].filename)
    with readable(path, ("NIfTI", (OSError,))):  # of a pair the second may be gone
        x, y, z, count = voxels.shaped(body, shape, dtype, voxels.packed(body))
    matrix = voxels.usable_affine(path, _transform(path, image.header, (x, y, z), how.affine))
    header = image.header.copy()
    if how.affine in ("sform", "qform"):  # the user's choice replaces the other transform
        header.set_qform(matrix, int(header["qform_code"]), strip_shears=True)
        header.set_sform(matrix, int(header["sform_code"]))
    proxy = image.dataobj.reshape((x, y, z, count))
    return count, lambda t: Volume(voxels.filled(path, proxy, t, how, FORM), matrix, header)


def receive(out: Writer) -> Receiver:
    """Write volumes, to one file or a pair, with the transforms and codes of the header of the first."""
    with ExitStack() as stack:
        opened = [stack.enter_context(voxels.created(path)) for path in voxels.files_of(out.path)]
        head, body = opened[0], opened[-1]
        first = yield
        with _without_remarks():
            header = _blank(first, out.shape, out.dtype, head is not body).header
            header.write_to(head)
        if head is body:
            body.write(bytes(header.get_data_offset() - body.tell()))
        yield from voxels.stream(first, out.count, header.get_data_dtype(), body.write)


def image(volume: Volume) -> nib.Nifti1Image:
    """A volume as nibabel has it in memory, with the header that `receive` would write."""
    blank = _blank(volume, volume.data.shape, np.dtype(np.float32), False)
    return type(blank)(volume.data, blank.header.get_best_affine(), blank.header)


def _blank(volume: Volume, shape: tuple[int, ...], dtype: np.dtype, pair: bool) -> nib.Nifti1Pair:
    """An image of no memory with the header for volumes like this one."""
    known = isinstance(volume.header, nib.Nifti1Header)
    source = volume.header if known else nib.Nifti1Header()
    header = source.copy()
    if not _same_slices(source, volume):
        for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
            header[name] = 0  # the timing of slices that are no longer these
    if not known:
        header.set_xyzt_units("mm")
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)  # a pair would lose the spacing of a header without axes
    header["cal_min"] = header["cal_max"] = 0
    rigid, q_code = source.get_qform(coded=True)
    header.set_sform(volume.affine, int(source["sform_code"]) if known else 1)
    cosines = _cosines(volume.affine)
    moved = (
        volume.affine if rigid is None else rigid @ np.linalg.inv(source.get_best_affine()) @ volume.affine
    )
    turned = rigid is None or np.abs(_cosines(rigid) - cosines).max() >= 1e-4
    if not turned and not _apart(volume.grid.shape, volume.affine, moved):  # by voxels that may be finer
        # The rotation is unchanged: keep its stored quaternion, which re-deriving would round again.
        header["pixdim"][1:4] = grid.spacing(moved)
        for name, value in zip("xyz", moved[:3, 3], strict=True):
            header[f"qoffset_{name}"] = value
    else:
        rigid_too = bool(np.abs(cosines.T @ cosines - np.eye(3)).max() < 1e-4)  # a qform holds no shears
        header.set_qform(volume.affine, (int(q_code) if known else 1) * rigid_too, strip_shears=True)
        length = sum(float(header[f"quatern_{name}"]) ** 2 for name in "bcd") ** 0.5
        for name in "bcd" if length > 1 else "":  # by rounding: readers would not take its root
            header[f"quatern_{name}"] /= length * (1 + 1e-15)
        if not rigid_too and not header["sform_code"]:
            header["sform_code"] = int(q_code) or 1
    version = 2 if isinstance(header, nib.Nifti2Header) else 1
    zeros = np.broadcast_to(np.zeros((), dtype), shape)
    made = getattr(nib, f"Nifti{version}{'Pair' if pair else 'Image'}")(zeros, None, header)
    made.header.set_slope_inter(1, 0)
    return made


def _apart(shape: tuple[int, int, int], sform: grid.Affine, qform: grid.Affine) -> float:
    """How far two transforms that disagree place a corner of the field of view apart, in mm; else 0."""
    with np.errstate(over="ignore", invalid="ignore"):  # NIfTI-2 holds numbers whose square is infinite
        apart = np.linalg.norm(grid.corners(shape, sform) - grid.corners(shape, qform), axis=1).max()
        return 0.0 if apart <= TOLERANCE * grid.spacing(sform).min() else float(apart)


def _cosines(affine: Float[ndarray, "4 4"]) -> Float[ndarray, "3 3"]:
    return affine[:3, :3] / grid.spacing(affine)


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
