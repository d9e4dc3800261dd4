"""NIfTI-1 and -2.

A NIfTI file may place its voxels twice: by the qform (rotation, scanner) and by the sform (any affine).
Readers differ in which they prefer, so both are written, each with the code the input had. Codes:
0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI.
"""

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from nibabel.wrapstruct import WrapStructError
from numpy import ndarray

from seran import grid
from seran.errors import BadInput
from seran.volume import Volume

TOLERANCE = 0.05
"""sform and qform agree when no corner of the field of view differs by more than this many voxels.

A qform is stored as a float32 quaternion, which alone can cost a few hundredths of a voxel.
"""


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
        if apart.max() > TOLERANCE * grid.spacing(sform).min():
            raise BadInput(
                f"{name}: sform (code {s_code}) and qform (code {q_code}) place the scan up to "
                f"{apart.max():.3g} mm apart; say which is right with --affine sform or --affine qform"
            )
    return header.get_best_affine()


def read(path: Path, affine: str, fill: float | None) -> Volume:
    """Read one 3-D scan; see `seran.io.read`."""
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
    except (OSError, EOFError, zlib.error, ImageFileError, WrapStructError) as error:
        raise BadInput(f"{path}: cannot be read as NIfTI ({_line(error)})") from error
    matrix = _transform(image.header, shape, affine, str(path))
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise BadInput(f"{path}: expected an invertible affine in the header, got {matrix.tolist()}")
    bad = ~np.isfinite(data)
    if bad.any():
        if fill is None:
            raise BadInput(
                f"{path}: {int(bad.sum())} voxels are NaN or infinite; give their value with --fill 0"
            )
        data = np.where(bad, np.float32(fill), data)
    return Volume(np.ascontiguousarray(data), matrix, image.header)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def write(volume: Volume, path: Path) -> None:
    """Write a scan on its grid, with both transforms under the codes of the header it came with."""
    source = volume.header if volume.header is not None else nib.Nifti1Header()
    header = source.copy()
    header.set_data_dtype(np.float32)
    header.set_data_shape(volume.data.shape)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    rigid, q_code = source.get_qform(coded=True)
    s_code = int(source["sform_code"]) if volume.header is not None else 1
    header.set_sform(volume.affine, s_code)
    if rigid is not None and _same_axes(rigid, volume.affine):
        # The rotation is unchanged: keep its stored quaternion, which re-deriving would round again.
        header["pixdim"][1:4] = grid.spacing(volume.affine)
        for name, value in zip("xyz", volume.affine[:3, 3], strict=True):
            header[f"qoffset_{name}"] = value
    else:
        header.set_qform(volume.affine, int(q_code), strip_shears=True)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(volume.data.astype(np.float32, copy=False), None, header)
    nib.save(image, path)


def _same_axes(a: Float[ndarray, "4 4"], b: Float[ndarray, "4 4"]) -> bool:
    u, v = a[:3, :3] / grid.spacing(a), b[:3, :3] / grid.spacing(b)
    return bool(np.abs(u - v).max() < 1e-4)
