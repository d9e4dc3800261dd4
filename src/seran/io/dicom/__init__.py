"""DICOM series of MR slices: a folder of them in (`slices`), a derived series out (`derived`).

Nothing in a file is trusted: its texts name no paths, and what would unpack to far more is refused.
"""

from pydicom.misc import is_dicom

from seran.io.dicom.derived import receive
from seran.io.dicom.slices import Listed, picked, read, scans, series_of

__all__ = ["Listed", "is_dicom", "picked", "read", "receive", "scans", "series_of"]
