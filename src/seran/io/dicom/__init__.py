"""DICOM series of MR slices: a folder of them in (`folder`, `slices`), a derived series out (`derived`).

Nothing in a file is trusted: its texts name no paths, its values may be anything, what would unpack to far
more is refused, and what decodes packed pixels may die (`decode`).
"""

from pydicom.misc import is_dicom

from seran.io.dicom.derived import as_written, receive
from seran.io.dicom.folder import Listed, picked, series_of
from seran.io.dicom.slices import Slices, read, scans
from seran.io.dicom.stated import Matrix, laid, matrix

__all__ = [
    "Listed", "Matrix", "Slices", "as_written", "is_dicom", "laid", "matrix", "picked", "read", "receive",
    "scans", "series_of",
]  # fmt: skip
