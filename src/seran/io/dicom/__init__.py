"""DICOM series of MR slices: a folder of them in (`slices`), a derived series out (`derived`).

Nothing in a file is trusted: its texts name no paths, and what would unpack to far more than the file holds
is refused.
"""

from pydicom.misc import is_dicom

from seran.io.dicom.derived import Slices, receive
from seran.io.dicom.listing import Listed, picked, series_of
from seran.io.dicom.slices import read, scans

__all__ = ["Listed", "Slices", "is_dicom", "picked", "read", "receive", "scans", "series_of"]
