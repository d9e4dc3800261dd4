"""DICOM series of single-frame MR slices.

Voxel (x, y, z) of a stack of n slices lies, in DICOM's LPS+ mm, at

    p_0 + x Δ_1 r + y Δ_0 c + z (p_{n-1} - p_0) / (n - 1)

with the positions p (Image Position), the directions r along a row and c down a column (Image Orientation)
and Pixel Spacing Δ (between rows, between columns); slices are sorted along r × c (DICOM PS3.3, C.7.6.2.1.1).
A `Volume` is RAS+: the first two coordinates change their sign.

Nothing in a file is trusted: its texts name no paths, and encodings that unpack to more than the file holds
are refused.
"""

import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom

from seran.errors import BadInput
from seran.volume import Volume

__all__ = ["is_dicom", "read"]

TOLERANCE = 0.05
"""A slice may lie so far from its place on the grid, in units of the distance between slices."""
APART = 1e-3
"""Slices whose positions differ by less than so many mm are one slice twice."""

PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""The transfer syntaxes that store voxels as they are."""

TAGS = [
    "SeriesInstanceUID", "EchoNumbers", "EchoTime", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelData",
]  # fmt: skip

UNREADABLE = (
    OSError, EOFError, InvalidDicomError, BytesLengthException, struct.error, AttributeError, LookupError,
    TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError, MemoryError,
)  # fmt: skip
"""What pydicom raises on damaged files and impossible headers."""


@dataclass(frozen=True)
class _Slice:
    """One file: what it belongs to, its voxels in the order x, y, and where they lie (mm, LPS+)."""

    path: Path
    stack: tuple[str, float, str]
    data: Float[ndarray, "x y"]
    position: Float[ndarray, "3"]
    plane: Float[ndarray, "3 2"]
    thickness: float


def read(paths: Iterable[Path]) -> list[Volume]:
    """The scans that these files make up, in float32 in their own units (after rescaling).

    One per series, echo (number and time) and part: where slices are missing, a part ends and the next
    begins. They come in the order of the series' identifiers, the echo times and the positions.

    Raises:
        BadInput: if there is no file, a file is not a single-frame grey-scale image, slices of a stack differ
            in shape or orientation, one comes twice, or they do not lie on a regular grid.
    """
    stacks: dict[tuple[str, float, str], list[_Slice]] = {}
    for path in paths:
        one = _slice(path)
        stacks.setdefault(one.stack, []).append(one)
    if not stacks:
        raise BadInput("expected the files of a DICOM series, got none")
    return [volume for _, slices in sorted(stacks.items()) for volume in _volumes(slices)]


def _slice(path: Path) -> _Slice:
    """Read one file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on unusual values; what cannot be used is an exception
            syntax = read_file_meta_info(path).get("TransferSyntaxUID", "")
            if syntax not in PLAIN:
                raise BadInput(f"{path}: expected uncompressed DICOM; decompress it first (gdcmconv --raw)")
            header = pydicom.dcmread(path, specific_tags=TAGS)
            if int(header.get("NumberOfFrames") or 1) != 1 or "ImagePositionPatient" not in header:
                raise BadInput(f"{path}: expected one slice with a position, got several frames or none")
            if header.SamplesPerPixel != 1 or header.PhotometricInterpretation != "MONOCHROME2":
                raise BadInput(f"{path}: expected a grey-scale image")
            slope, offset = (header.get(f"Rescale{name}") for name in ("Slope", "Intercept"))
            slope, offset = float(1 if slope is None else slope), float(offset or 0)
            cosines = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
            time, number = float(header.get("EchoTime") or 0), str(header.get("EchoNumbers"))
            return _Slice(
                path,
                (str(header.get("SeriesInstanceUID")), time, number),
                (header.pixel_array.T * slope + offset).astype(np.float32),
                np.array(header.ImagePositionPatient, float).reshape(3),
                cosines.T * np.array(header.PixelSpacing, float).reshape(2)[::-1],
                float(header.get("SliceThickness") or 0),
            )
    except BadInput:
        raise
    except UNREADABLE as error:
        text = "".join(c if c.isprintable() else " " for c in str(error))
        raise BadInput(f"{path}: cannot be read as DICOM ({text or type(error).__name__})") from error


def _volumes(slices: list[_Slice]) -> list[Volume]:
    """The parts of one stack."""
    first = slices[0]
    for one in slices:
        if one.data.shape != first.data.shape or not np.allclose(one.plane, first.plane, atol=1e-3):
            raise BadInput(
                f"{one.path}: expected the shape, orientation and pixel spacing of {first.path.name}, of the "
                "same series; put each orientation into a folder of its own"
            )
    normal = np.cross(*first.plane.T)
    normal = normal / (np.linalg.norm(normal) or 1)
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    steps = np.array([(b.position - a.position) @ normal for a, b in pairwise(slices)])
    if (steps < APART).any():
        i = int(steps.argmin())
        same = slices[i].path.name
        raise BadInput(f"{slices[i + 1].path}: it lies where {same} of the same series lies; remove one")
    pitch = float(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else first.thickness
    cuts = np.flatnonzero(steps > 1.5 * pitch) + 1
    bounds = [0, *(int(cut) for cut in cuts), len(slices)]
    return [_volume(slices[a:b], pitch, normal) for a, b in pairwise(bounds)]


def _volume(slices: list[_Slice], pitch: float, normal: Float[ndarray, "3"]) -> Volume:
    """Slices without a gap."""
    positions = np.array([one.position for one in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1) if len(slices) > 1 else pitch * normal
    off = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max()
    affine = np.eye(4)
    affine[:3] = np.column_stack([slices[0].plane, step, positions[0]])
    affine[:2] *= -1  # LPS+ to RAS+
    if not off <= TOLERANCE * pitch or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise BadInput(
            f"{slices[0].path}: expected slices {pitch:.3g} mm apart on a regular grid, but one of its "
            f"series lies {off:.3g} mm from its place"
        )
    data = np.stack([one.data for one in slices], axis=2)
    if not np.isfinite(data).all():
        raise BadInput(f"{slices[0].path}: expected finite intensities; the rescale slope is damaged")
    return Volume(data, affine)
