"""Segmentations and masks: values that are names; interpolation makes a border of 3 between 2 and 4."""

import re
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

from seran import io, scratch
from seran.errors import BadInput
from seran.volume import Volume

INTENTS = {1002: "label", 1005: "NeuroNames"}  # NIfTI's intent codes of images whose values are names
NAME = re.compile(r"(?:^|[-_.+])(d?seg|mask|labels?|labelmap|segmentation|aseg|aparc|wmparc|ribbon)$", re.I)
"""The end of such an image's name, without the ending of its format: BIDS, FreeSurfer, Slicer."""
FEW = 16  # different values that labels have at most; the quietest 8-bit scan has many more


def refuse_labels(path: Path, volume: Volume) -> None:
    """Raise `BadInput` for a scan whose header, name (of a file) or voxels are those of a label image."""
    named = None if path.is_dir() else NAME.search(io.stem(path))
    why = _header(volume) or (f"its name ends in {named[1]}" if named else _voxels(volume))
    if why:
        how = "a segmentation or mask wants nearest neighbour, on the grid of the sharpened image"
        looks = f"{path}: expected an image, got what looks like labels ({why})"
        raise BadInput(f"{looks}; {how}; if it is an image, give --no-label-check")


def _header(volume: Volume) -> str:
    if isinstance(volume.header, nib.Nifti1Header):
        code = int(volume.header["intent_code"])
        return f"its intent is {INTENTS[code]}" if code in INTENTS else ""
    texts = volume.header.texts if isinstance(volume.header, io.itk.Kept) else {}
    return "its header lists segments" if "Segment0_ID" in texts else ""


def _voxels(volume: Volume) -> str:
    """Labels are 2 to `FEW` different values, whole, none negative, each on two voxels or more."""
    seen: Counter[float] = Counter()
    for at in scratch.blocks(volume.data):
        if len(np.unique(volume.data[at][::5, ::5, ::5])) > FEW:  # most scans: no need to sort all voxels
            return ""
        values, counts = np.unique(volume.data[at], return_counts=True)
        scratch.release(volume.data)
        seen.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(seen) > FEW or values[0] < 0 or (values != np.rint(values)).any():
            return ""
    return f"{len(seen)} different whole numbers" if len(seen) > 1 and min(seen.values()) > 1 else ""
