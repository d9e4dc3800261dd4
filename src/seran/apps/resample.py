"""``seran resample``."""

from pathlib import Path
from typing import Annotated

from seran.job import transfer
from seran.job.options import Transform


def resample(
    labels: Path,
    out: Path,
    /,
    like: Annotated[Path, "SHARP"],
    affine: Transform = "auto",
    force: bool = False,
) -> str:
    """Put labels (a mask, a segmentation, a label map) on the grid of a sharpened image, unchanged.

    Every voxel of OUT takes the label of the voxel of LABELS that its centre lies in, in millimetres; their
    axes may differ. OUT has the shape, the transforms and their codes of SHARP, and the type of LABELS. There
    is no record beside it: nothing in it is estimated.

    Args:
        labels: whole numbers of any type, 3-D or 4-D: NIfTI, FreeSurfer, NRRD or MetaImage.
        out: a file of these formats; not DICOM, which has labels in objects of another kind.
        like: the image whose grid OUT has, of any format; only its grid is read.
        affine: which transform of the headers of LABELS and SHARP is right, when they disagree.
        force: replace an existing file.
    """
    return transfer.run(labels, out, like, affine, force)
