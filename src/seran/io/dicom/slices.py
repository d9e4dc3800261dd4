"""Slices of MR images, one in a file or all in one (enhanced), plain or compressed.

Voxel (x, y, z) of a stack of n slices lies, in DICOM's LPS+ mm, at

    p_0 + x Δ_1 r + y Δ_0 c + z (p_{n-1} - p_0) / (n - 1)

with the positions p (Image Position), the directions r along a row and c down a column (Image Orientation)
and Pixel Spacing Δ (between rows, between columns); slices are sorted along r × c (DICOM PS3.3, C.7.6.2.1.1).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.misc import is_dicom

from seran import grid
from seran.errors import BadInput, counted
from seran.io.voxels import GZIP_RATIO, MAXIMUM, Found, printable, readable
from seran.volume import Volume

TOLERANCE = 0.05  # distances between slices that one may lie from its place on the grid
APART = 1e-3  # mm: slices whose positions differ by less are one slice twice
SMALL = 1 << 26  # bytes of pixels that any compressed file may hold: an empty slice packs well
TAGS = [
    "SeriesInstanceUID", "EchoNumbers", "EchoTime", "SliceThickness", "ImagePositionPatient", "ImageType",
    "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelData", "EffectiveEchoTime", "TemporalPositionIndex",
    "TemporalPositionIdentifier", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
FORM = "DICOM", (  # what pydicom raises on damaged files, and what comes of converting their values
    OSError, EOFError, InvalidDicomError, BytesLengthException, struct.error, AttributeError, LookupError,
    TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A series of MR images in a folder, with what its headers say as it is written there."""

    folder: Path
    uid: str
    number: str
    description: str
    paths: list[Path]

    def __str__(self) -> str:
        return f"{self.number} ({self.description or 'no description'}, {counted(len(self.paths), 'image')})"


@dataclass(frozen=True)
class Slices:
    """Where a volume's slices came from, in the order of its third axis; what a stored step and 0 mean."""

    paths: tuple[Path, ...]
    positions: Float[ndarray, "n 3"]  # of their first voxels, in mm (LPS+)
    slope: float
    offset: float


@dataclass(frozen=True)
class _Slice:
    """One slice: what it belongs to, its voxels in the order x, y, and where they lie (mm, LPS+)."""

    path: Path
    stack: tuple[str, float, str]
    data: Float[ndarray, "x y"]
    position: Float[ndarray, "3"]
    plane: Float[ndarray, "3 2"]
    thickness: float
    slope: float
    offset: float


def header(path: Path, tags: list[str] | None = None) -> pydicom.Dataset:
    """The elements of a file that ``tags`` names, or all but pixels; decoded, but not those in sequences."""
    with readable(path, FORM):
        found = pydicom.dcmread(path, stop_before_pixels="PixelData" not in (tags or ()), specific_tags=tags)
        list(found)  # decodes it here, where warnings are ignored
        return found


def series_of(folder: Path) -> list[Listed]:
    """The series of MR images below a folder, at least one, by their numbers; other files are passed over."""
    found: dict[str, Listed] = {}
    others: set[str] = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_dicom(p)):
        said = header(path, ["Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows"])
        if said.get("Modality") == "MR" and "Rows" in said:
            number, text = (printable(said.get(f"Series{n}")) for n in ("Number", "Description"))
            uid = str(said.get("SeriesInstanceUID"))
            found.setdefault(uid, Listed(folder, uid, number, text, [])).paths.append(path)
        else:
            others.add(printable(said.get("Modality")) or "no modality")
    if not found:
        shown = f"only {', '.join(sorted(others))}" if others else "none"
        raise BadInput(f"{folder}: expected a folder with MR images in DICOM, found {shown}")
    return sorted(found.values(), key=lambda s: (s.number.zfill(9), s.uid))


def picked(folder: Path, pick: str | None) -> Listed:
    """The one series of a folder, or the one that ``pick`` names by its number or UID."""
    listed = series_of(folder)
    chosen = [s for s in listed if pick in (None, s.number, s.uid)]
    if len(chosen) != 1:
        raise BadInput(
            f"{folder}: expected one series, got {', '.join(map(str, chosen or listed))}; "
            "choose one with --series NUMBER or --series UID"
        )
    return chosen[0]


def scans(paths: Iterable[Path]) -> list[Volume]:
    """The scans that these files make up, rescaled, by series, echo, moment (temporal position) and part."""
    stacks: dict[tuple[str, float, str], list[_Slice]] = {}
    for path in paths:
        for one in _slices(path):
            stacks.setdefault(one.stack, []).append(one)
    if not stacks:
        raise BadInput("expected the files of a DICOM series, got none")
    return [volume for _, slices in sorted(stacks.items()) for volume in _volumes(slices)]


def _slices(path: Path) -> list[_Slice]:
    """Read one file: its slice, or the slices of an enhanced image."""
    with readable(path, FORM):
        syntax = pydicom.uid.UID(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if not syntax.is_transfer_syntax or syntax.is_deflated:
        raise BadInput(f"{path}: got {printable(syntax.name)}; unpack it first (gdcmconv --raw)")
    image = header(path, TAGS)
    with readable(path, FORM):
        samples, colours = image.SamplesPerPixel, image.PhotometricInterpretation
        mosaic = "MOSAIC" in (image.get("ImageType") or [])
    if samples != 1 or colours != "MONOCHROME2":
        raise BadInput(
            f"{path}: expected a grey-scale image (MONOCHROME2), got {printable(colours)}; a map in "
            "colours or a picture of the screen is no scan, leave it out"
        )
    if mosaic:
        raise BadInput(
            f"{path}: expected a slice, got a mosaic of many; convert the series to NIfTI (dcm2niix)"
        )
    with readable(path, FORM):
        frames, rows = int(image.get("NumberOfFrames") or 1), int(image.Rows)
        columns, bits = int(image.Columns), int(image.BitsAllocated)
        own = image.get("PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()] * (frames == 1)
        shared = (image.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        found = len(own)
    need, has = rows * columns * frames * bits // 8, path.stat().st_size
    if need > (max(SMALL, GZIP_RATIO * has) if syntax.is_compressed else has):
        raise BadInput(f"{path}: its header promises {need:,} bytes of pixels, but the file cannot hold them")
    if found != frames:
        raise BadInput(f"{path}: expected a position for each of its {frames} frames, got {found}")
    try:
        with readable(path, FORM):
            pixels = image.pixel_array.reshape(frames, rows, columns)
    except RuntimeError as error:  # how pydicom says that it has no decoder
        raise BadInput(
            f"{path}: its {printable(syntax.name)} needs a decoder; pip install 'seran[dicom]', "
            "or unpack it first (gdcmconv --raw)"
        ) from error
    return [_frame(path, [one, shared], image, pixels[i]) for i, one in enumerate(own)]


def _frame(path: Path, groups: list[pydicom.Dataset], image: pydicom.Dataset, pixels: ndarray) -> _Slice:
    """One slice; an enhanced image tells in its functional ``groups`` what others tell in the header."""

    def value(name: str, group: str) -> Any:  # noqa: ANN401
        for holder in groups:
            if group in holder and name in holder[group][0]:
                return holder[group][0].get(name)
        return image.get(name)

    with readable(path, FORM):
        place = value("ImagePositionPatient", "PlanePositionSequence")
    if place is None:
        raise BadInput(f"{path}: expected a slice with a position in space, got none")
    with readable(path, FORM):
        position = np.array(place, float).reshape(3)
        slope = value("RescaleSlope", "PixelValueTransformationSequence")
        slope = float(1 if slope is None else slope)
        offset = float(value("RescaleIntercept", "PixelValueTransformationSequence") or 0)
        cosines = np.array(value("ImageOrientationPatient", "PlaneOrientationSequence"), float).reshape(2, 3)
        spacing = np.array(value("PixelSpacing", "PixelMeasuresSequence"), float).reshape(2)
        thickness = float(value("SliceThickness", "PixelMeasuresSequence") or 0)
        time = float(image.get("EchoTime") or value("EffectiveEchoTime", "MREchoSequence") or 0)
        moment = image.get("TemporalPositionIdentifier")
        moment = int(moment or value("TemporalPositionIndex", "FrameContentSequence") or 0)
        stack = str(image.get("SeriesInstanceUID")), time, f"{image.get('EchoNumbers')} {moment:06}"
        data, plane = (pixels.T * slope + offset).astype(np.float32), cosines.T * spacing[::-1]
    return _Slice(path, stack, data, position, plane, thickness, slope, offset)


def _volumes(slices: list[_Slice]) -> list[Volume]:
    """The parts of one stack: where slices are missing, one ends and the next begins."""
    first = slices[0]
    for one in slices:
        if one.data.shape != first.data.shape or not np.allclose(one.plane, first.plane, atol=1e-3):
            raise BadInput(
                f"{one.path}: expected the shape, orientation and pixel spacing of {first.path.name}, of the "
                "same series; a localizer shows several orientations: put each into a folder of its own"
            )
    normal = np.cross(*first.plane.T)
    normal = normal / (np.linalg.norm(normal) or 1)
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    steps = np.array([(b.position - a.position) @ normal for a, b in pairwise(slices)])
    if (steps < APART).any():
        i = int(steps.argmin())
        raise BadInput(
            f"{slices[i + 1].path}: it lies where {slices[i].path.name} of the same series lies; remove one "
            "of them, or, if they belong to volumes of their own (diffusion), convert the series to NIfTI "
            "(dcm2niix)"
        )
    pitch = float(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else first.thickness
    bounds = [0, *(np.flatnonzero(steps > 1.5 * pitch) + 1).tolist(), len(slices)]
    return [_volume(slices[a:b], pitch, normal) for a, b in pairwise(bounds)]


def _volume(slices: list[_Slice], pitch: float, normal: Float[ndarray, "3"]) -> Volume:
    """Slices without a gap."""
    first = slices[0]
    positions = np.array([one.position for one in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1) if len(slices) > 1 else pitch * normal
    off = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max()
    affine = grid.lps(np.vstack([np.column_stack([first.plane, step, positions[0]]), [0, 0, 0, 1]]))
    if not off <= TOLERANCE * pitch or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise BadInput(
            f"{first.path}: expected slices {pitch:.3g} mm apart on a regular grid, but one of its "
            f"series lies {off:.3g} mm from its place"
        )
    data = np.stack([one.data for one in slices], axis=2)
    if not (np.abs(data) <= MAXIMUM).all():
        raise BadInput(f"{first.path}: expected intensities up to {MAXIMUM:g}; the rescale slope is damaged")
    source = Slices(tuple(one.path for one in slices), positions, first.slope, first.offset)
    return Volume(data, affine, source)


def read(series: Listed) -> Found:
    """The volumes of a series: its echoes and moments, in the order of their times, with no slice missing."""
    volumes = scans(series.paths)
    shape, affine = volumes[0].data.shape, volumes[0].affine
    if not all(v.data.shape == shape and np.allclose(v.affine, affine, atol=1e-2) for v in volumes):
        where = [f"{counted(len(v.header.paths), 'slice')} from {v.header.paths[0].name}" for v in volumes]
        raise BadInput(
            f"{series.folder}: slices are missing in series {series}, or the gaps between them vary: it "
            f"falls into {', '.join(where)}; complete it, or put one part into a folder of its own"
        )
    return len(volumes), volumes.__getitem__
