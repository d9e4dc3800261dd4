"""What is stored like a scan and is none: labels, phase, and results of seran's own.

Labels are names: interpolation makes a border of 3 between 2 and 4. Where phase wraps it makes an edge.
"""

import re
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from jaxtyping import Float, Real
from numpy import ndarray

from seran import io, scratch
from seran.errors import BadInput
from seran.io.dicom.elements import header, items, texts
from seran.io.dicom.slices import Slices
from seran.volume import Volume

INTENTS = {1002: "label", 1003: "NeuroNames"}  # NIfTI's intent codes of images whose values are names
NAME = re.compile(r"(?:^|[-_.+])(d?seg|mask|labels?|labelmap|segmentation|aseg|aparc|wmparc|ribbon)$", re.I)
"""The end of such an image's name, without the ending of its format: BIDS, FreeSurfer, Slicer."""
HINT = re.compile(r"seg|parc|label|mask|atlas|aal|roi|lesion", re.I)  # in the name of what may be labels
FEW = 16  # different values that labels have at most; the quietest 8-bit scan has many more
ALIKE, HINTED_ALIKE = 0.65, 0.45
"""Part of the voxels off the background like their neighbour, above which values are names.

Label images of 1 and 2 mm have 0.75 to 0.94; scans at most 0.23, rounded to 8 bits 0.44 (a phantom)."""
COMPLEX = re.compile(r"(?:^|_)(part-(?:phase|real|imag)|phasediff)(?:_|$)")  # in names of BIDS
MAYBE = re.compile(r"[-_](?:ph|phase\d?|real|imag|imaginary)(?:_|$)", re.I)  # in others: dcm2niix
COMPONENTS = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}  # third values of DICOM's image types
TURNS = np.pi, 180, 1000 * np.pi, 4096  # half a turn, as it is stored: radians, degrees, GE, Siemens
WRAPS, HINTED_WRAPS = 0.005, 0.002
"""What `_wraps` finds in phase: 0.1 where air is noise, 0.01 where it is constant.

Scans have at most 0.0011, cut off at any brightness or not."""
FILLED = 0.002  # part of the voxels that every twentieth of the range has in phase; pure noise has fewer
KINDS = {
    "a result of seran's": "sharpen the scan that it was made from",
    "labels": "sharpen the scan, then: seran resample LABELS OUT --like SHARP (a mask or segmentation)",
    "phase, or a part of a complex image": "sharpen the magnitude (of several volumes --volume chooses one)",
}


def refuse_other_kinds(path: Path, volume: Volume, made: bool = False) -> None:
    """Raise `BadInput` for what is no scan by its record, header, name or voxels, see `other_kind`."""
    kind, why = other_kind(path, volume, made)
    if kind:
        looks = f"{path}: expected an image, got what looks like {kind} ({why})"
        raise BadInput(f"{looks}; {KINDS[kind]}, or give --no-label-check to take it as it is")


def other_kind(path: Path, volume: Volume, made: bool = False) -> tuple[str, str]:
    """Which of `KINDS` something is and what says so; both are empty of a scan.

    Args:
        path: where it comes from.
        volume: it, or the first of several.
        made: whether there is a record that says so of a result.
    """
    name = "" if path.is_dir() else io.stem(path)
    record = "by the record beside it" * made
    for kind, find in zip(KINDS, (_result, _labels, _phase), strict=True):
        if why := record or find(path, name, volume):
            return kind, why
    return "", ""


def _result(path: Path, name: str, volume: Volume) -> str:
    if "_desc-seran" in name:
        return "its name says desc-seran"
    tools = items(_first(volume, "ContributingEquipmentSequence"), "ContributingEquipmentSequence")
    return "its DICOM header says so" * any(texts(tool, "Manufacturer") == ["seran"] for tool in tools)


def _labels(path: Path, name: str, volume: Volume) -> str:
    if isinstance(volume.header, nib.Nifti1Header):
        code = int(volume.header["intent_code"])
        if code in INTENTS:
            return f"its intent is {INTENTS[code]}"
    if isinstance(volume.header, io.itk.Kept) and "Segment0_ID" in volume.header.texts:
        return "its header lists segments"
    if named := NAME.search(name):
        return f"its name ends in {named[1]}"
    return _names(volume.data, HINTED_ALIKE if HINT.search(name) else ALIKE)


def look_like_a_scan(data: Real[ndarray, "x y z"]) -> bool:
    """Whether whole numbers are hardly labels: many of them, few like their neighbour."""
    seen: set[float] = set()
    for block in scratch.parts(data):
        seen.update(np.unique(block).tolist())
        if len(seen) > FEW:
            return not _names(data, HINTED_ALIKE)
    return False


def _names(data: Real[ndarray, "x y z"], limit: float) -> str:
    """Values that are names: few, each on two voxels or more, or in large patches.

    They need not be whole numbers: what scales them to fit a type of voxel makes 0.988 of 1.
    """
    values, counts = np.unique(data[::5, ::5, ::5], return_counts=True)
    common, few = values[counts.argmax()], len(values) <= FEW  # most scans have too many to sort all voxels
    seen: Counter[float] = Counter()
    alike = others = 0
    for block in scratch.parts(data):
        if few:
            values, counts = np.unique(block, return_counts=True)
            seen.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            few = len(seen) <= FEW
        off = block[1:] != common
        alike += np.count_nonzero(off & (block[1:] == block[:-1]))
        others += np.count_nonzero(off)
    if few and len(seen) > 1 and min(seen.values()) > 1:
        return f"{len(seen)} different values"
    share = alike / max(others, 1)
    return f"{share:.0%} of its values are like their neighbour" if share > limit else ""


def _phase(path: Path, name: str, volume: Volume) -> str:
    if isinstance(volume.header, Slices) and (parts := COMPONENTS & volume.header.components):
        return f"its DICOM header says {min(parts)}"
    if named := COMPLEX.search(name):
        return f"its name says {named[1]}"
    low, high = scratch.limits(volume.data)
    if any(abs(high - turn) <= 0.01 * turn and abs(low + turn) <= 0.01 * turn for turn in TURNS):
        return f"its values fill {low:g} to {high:g}"
    hinted = bool(MAYBE.search(name))
    if hinted and low < -high / 4:
        return "its name, and values below 0"
    if (share := _wraps(volume.data, (high - low) / 2)) <= (HINTED_WRAPS if hinted else WRAPS):
        return ""
    filled = sum(np.histogram(block, 20, (low, high))[0] for block in scratch.parts(volume.data))
    wraps = bool(np.min(filled) > FILLED * volume.data.size)
    return f"{share:.1%} of its neighbours lie more than half the range apart, as where a turn ends" * wraps


def _wraps(data: Float[ndarray, "x y z"], half: float) -> float:
    """Part of the neighbours that lie so far apart against the slopes beside them, less those along them.

    An edge is a part of its slope; where phase wraps it falls back against it, and so does its noise. That
    holds along two axes or three: across thick slices, the values of scans jump both ways.

    Args:
        data: a scan.
        half: of its range.
    """
    found = np.zeros((3, 2))
    for block in scratch.parts(data):
        for axis, counts in enumerate(found):
            steps = np.diff(np.moveaxis(block, axis, 0), axis=0)
            far = np.abs(steps[1:-1]) > half
            beside = (steps[:-2][far] + steps[2:][far]) * np.sign(steps[1:-1][far])
            counts += (beside < 0).sum() - (beside > 0).sum(), far.size
    return float(np.sort(found[:, 0] / np.maximum(found[:, 1], 1))[1])


def _first(volume: Volume, *names: str) -> pydicom.Dataset:
    """These elements of a DICOM series, in its first file; none of other scans."""
    source = volume.header
    return header(source.paths[0], names) if isinstance(source, Slices) else pydicom.Dataset()
