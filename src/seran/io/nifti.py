"""NIfTI-1 and -2.

A NIfTI file may place its voxels twice: by the qform (rotation, scanner) and by the sform (any affine).
Readers differ in which they prefer, so both are written, each with the code the input had. Codes:
0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI.
"""

import logging
import zlib
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


def read(path: Path, affine: str, fill: float | None) -> Volume:
    """Read one 3-D scan; see `seran.io.read`."""
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it would say, the exception says
    if fill is not None and not np.isfinite(np.float32(fill)):
        raise BadInput(f"expected a finite number for --fill, got {fill}")
    try:
        image = nib.load(path)
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
        data = np.asanyarray(image.dataobj, dtype=np.float32).reshape(shape)
        matrix = _transform(image.header, shape, affine, str(path))
    except BadInput:
        raise
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read as NIfTI ({_line(error)})") from error
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise BadInput(f"{path}: expected an invertible affine in the header, got {matrix.tolist()}")
    bad = ~np.isfinite(data)
    if bad.any():
        if fill is None:
            raise BadInput(
                f"{path}: {int(bad.sum())} voxels are NaN or infinite; give their value with --fill 0"
            )
        data = np.where(bad, np.float32(fill), data)
    header = image.header.copy()
    if affine in ("sform", "qform"):  # the user's choice replaces the other transform
        header.set_qform(matrix, int(header["qform_code"]), strip_shears=True)
        header.set_sform(matrix, int(header["sform_code"]))
    return Volume(np.ascontiguousarray(data), matrix, header)


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
    header.set_slope_inter(1, 0)
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
    image = kind(volume.data.astype(np.float32, copy=False), None, header)
    nib.save(image, path)


def _same_axes(a: Float[ndarray, "4 4"], b: Float[ndarray, "4 4"]) -> bool:
    u, v = a[:3, :3] / grid.spacing(a), b[:3, :3] / grid.spacing(b)
    return bool(np.abs(u - v).max() < 1e-4)
