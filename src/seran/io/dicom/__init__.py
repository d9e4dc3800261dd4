"""DICOM series of MR slices, one in a file or all in one (enhanced), plain or compressed.

Voxel (x, y, z) of a stack of n slices lies, in DICOM's LPS+ mm, at

    p_0 + x Δ_1 r + y Δ_0 c + z (p_{n-1} - p_0) / (n - 1)

with the positions p (Image Position), the directions r along a row and c down a column (Image Orientation)
and Pixel Spacing Δ (between rows, between columns); slices are sorted along r × c (DICOM PS3.3, C.7.6.2.1.1).
A `Volume` is RAS+: the first two coordinates change their sign.

Nothing in a file is trusted: its texts name no paths, and what would unpack to far more than the file holds
is refused.
"""

import datetime
import struct
import warnings
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
from pydicom.filereader import read_file_meta_info
from pydicom.misc import is_dicom
from pydicom.uid import UID, generate_uid

from seran.errors import BadInput
from seran.io.dicom import derived
from seran.volume import MOST, STRONGEST, Series, Volume, series

__all__ = ["is_dicom", "read", "scans", "series_of", "write", "written"]

TOLERANCE = 0.05
"""A slice may lie so far from its place on the grid, in units of the distance between slices."""
APART = 1e-3
"""Slices whose positions differ by less than so many mm are one slice twice."""

TEXT = "Super-resolution"
"""What a derived series is called."""
SMALL = 1 << 26
"""Bytes of pixels that a compressed file may hold whatever its own size: an empty slice packs well."""

TAGS = [
    "SeriesInstanceUID", "EchoNumbers", "EchoTime", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "NumberOfFrames",
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelData", "EffectiveEchoTime", "TemporalPositionIndex",
    "TemporalPositionIdentifier", "ImageType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip

UNREADABLE = (
    OSError, EOFError, InvalidDicomError, BytesLengthException, struct.error, AttributeError, LookupError,
    TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError, MemoryError,
)  # fmt: skip
"""What pydicom raises on damaged files and impossible headers."""


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


def scans(paths: Iterable[Path]) -> list[Volume]:
    """The scans that these files make up, in float32 in their own units (after rescaling).

    One per series, echo (number and time), moment (temporal position) and part: where slices are missing, a
    part ends and the next begins. They come in the order of the series' identifiers, the echo times and the
    positions.

    Raises:
        BadInput: if there is no file, a file is not a grey-scale image, slices of a stack differ
            in shape or orientation, one comes twice, or they do not lie on a regular grid.
    """
    stacks: dict[tuple[str, float, str], list[_Slice]] = {}
    for path in paths:
        for one in _slices(path):
            stacks.setdefault(one.stack, []).append(one)
    if not stacks:
        raise BadInput("expected the files of a DICOM series, got none")
    return [volume for _, slices in sorted(stacks.items()) for volume in _volumes(slices)]


def _slices(path: Path) -> list[_Slice]:
    """Read one file: its slice, or the slices of an enhanced image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on unusual values; what cannot be used is an exception
            syntax = UID(read_file_meta_info(path).get("TransferSyntaxUID", ""))
            if not syntax.is_transfer_syntax or syntax.is_deflated:
                raise BadInput(f"{path}: got {_text(syntax.name)}; unpack it first (gdcmconv --raw)")
            header = pydicom.dcmread(path, specific_tags=TAGS)
            if header.SamplesPerPixel != 1 or header.PhotometricInterpretation != "MONOCHROME2":
                shown = _text(header.PhotometricInterpretation)
                raise BadInput(
                    f"{path}: expected a grey-scale image (MONOCHROME2), got {shown}; a map in colours or a "
                    "picture of the screen is no scan, leave it out"
                )
            if "MOSAIC" in (header.get("ImageType") or []):
                raise BadInput(
                    f"{path}: expected a slice, got a mosaic of many; convert the series to NIfTI (dcm2niix)"
                )
            frames = int(header.get("NumberOfFrames") or 1)
            _promised(path, header, frames, syntax.is_compressed)
            own = header.get("PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()] * (frames == 1)
            if len(own) != frames:
                raise BadInput(f"{path}: expected a position for each of its {frames} frames, got {len(own)}")
            pixels = header.pixel_array.reshape(frames, header.Rows, header.Columns)
            shared = header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
            return [_frame(path, [one, shared[0]], header, pixels[i]) for i, one in enumerate(own)]
    except BadInput:
        raise
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read as DICOM ({_text(error) or type(error).__name__})") from error
    except RuntimeError as error:  # how pydicom says that it has no decoder
        raise BadInput(
            f"{path}: its {_text(syntax.name)} needs a decoder; pip install 'seran[dicom]', "
            "or unpack it first (gdcmconv --raw)"
        ) from error


def _promised(path: Path, header: pydicom.Dataset, frames: int, packed: bool) -> None:
    """Refuse a header that promises more than the file can hold."""
    need = int(header.Rows) * int(header.Columns) * frames * int(header.BitsAllocated) // 8
    most = max(SMALL, MOST * path.stat().st_size) if packed else path.stat().st_size
    if need > most:
        raise BadInput(f"{path}: its header promises {need:,} bytes of pixels, but the file cannot hold them")


def _frame(path: Path, groups: list[pydicom.Dataset], header: pydicom.Dataset, pixels: ndarray) -> _Slice:
    """One slice; an enhanced image tells in its functional ``groups`` what others tell in the header."""

    def value(name: str, group: str) -> Any:  # noqa: ANN401
        for holder in groups:
            if group in holder and name in holder[group][0]:
                return holder[group][0].get(name)
        return header.get(name)

    position = value("ImagePositionPatient", "PlanePositionSequence")
    if position is None:
        raise BadInput(f"{path}: expected a slice with a position in space, got none")
    slope, offset = (
        value(f"Rescale{name}", "PixelValueTransformationSequence") for name in ("Slope", "Intercept")
    )
    slope, offset = float(1 if slope is None else slope), float(offset or 0)
    cosines = np.array(value("ImageOrientationPatient", "PlaneOrientationSequence"), float).reshape(2, 3)
    spacing = np.array(value("PixelSpacing", "PixelMeasuresSequence"), float).reshape(2)
    time = header.get("EchoTime") or value("EffectiveEchoTime", "MREchoSequence") or 0
    moment = header.get("TemporalPositionIdentifier") or value(
        "TemporalPositionIndex", "FrameContentSequence"
    )
    number = f"{header.get('EchoNumbers')} {int(moment or 0):06}"
    return _Slice(
        path,
        (str(header.get("SeriesInstanceUID")), float(time), number),
        (pixels.T * slope + offset).astype(np.float32),
        np.array(position, float).reshape(3),
        cosines.T * spacing[::-1],
        float(value("SliceThickness", "PixelMeasuresSequence") or 0),
        slope,
        offset,
    )


def _volumes(slices: list[_Slice]) -> list[Volume]:
    """The parts of one stack."""
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
        same = slices[i].path.name
        raise BadInput(
            f"{slices[i + 1].path}: it lies where {same} of the same series lies; remove one of them, or, if "
            "they belong to volumes of their own (diffusion), convert the series to NIfTI (dcm2niix)"
        )
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
    if not (np.abs(data) <= STRONGEST).all():
        raise BadInput(
            f"{slices[0].path}: expected intensities up to {STRONGEST:g}; the rescale slope is damaged"
        )
    first = slices[0]
    source = derived.Source(tuple(one.path for one in slices), positions, first.slope, first.offset)
    return Volume(data, affine, source)


@dataclass(frozen=True)
class Listed:
    """A series of MR images in a folder.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, as it is written.
        description: SeriesDescription.
        paths: its files.
    """

    uid: str
    number: str
    description: str
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.number} ({self.description or 'no description'}, {len(self.paths)} images)"


def series_of(folder: Path) -> list[Listed]:
    """The series of MR images below a folder, by their numbers; other files are passed over.

    Raises:
        BadInput: if there is none.
    """
    found: dict[str, list[tuple[Path, str, str]]] = {}
    others: set[str] = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_dicom(p)):
        header = _header(path, ["Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows"])
        if header.get("Modality") == "MR" and "Rows" in header:
            number, text = (_text(header.get(f"Series{n}")) for n in ("Number", "Description"))
            found.setdefault(str(header.get("SeriesInstanceUID")), []).append((path, number, text))
        else:
            others.add(_text(header.get("Modality")) or "no modality")
    if not found:
        shown = f"only {', '.join(sorted(others))}" if others else "none"
        raise BadInput(f"{folder}: expected a folder with MR images in DICOM, found {shown}")
    listed = [Listed(uid, f[0][1], f[0][2], tuple(p for p, *_ in f)) for uid, f in found.items()]
    return sorted(listed, key=lambda s: (s.number.zfill(9), s.uid))


def _text(value: object) -> str:
    """A text from outside on one printable line."""
    return "".join(c if c.isprintable() else " " for c in str("" if value is None else value)).strip()


def picked(folder: Path, pick: str | None) -> Listed:
    """The one series of a folder, or the one that ``pick`` names by its number or UID.

    Raises:
        BadInput: if it is not clear which.
    """
    listed = series_of(folder)
    chosen = [s for s in listed if pick in (None, s.number, s.uid)]
    if len(chosen) != 1:
        raise BadInput(
            f"{folder}: expected one series, got {', '.join(map(str, chosen or listed))}; "
            "choose one with --series NUMBER or --series UID"
        )
    return chosen[0]


def read(folder: Path, only: int | None, pick: str | None) -> Series:
    """A series, see `picked`; its echoes and moments are volumes of their own, in the order of their times.

    Raises:
        BadInput: also if slices are missing; see `scans`.
    """
    chosen = picked(folder, pick)
    volumes = scans(chosen.paths)
    first = volumes[0]
    alike = [
        v.data.shape == first.data.shape and np.allclose(v.affine, first.affine, atol=1e-2) for v in volumes
    ]
    if not all(alike):
        where = [f"{len(v.header.paths)} slices from {v.header.paths[0].name}" for v in volumes]
        raise BadInput(
            f"{folder}: slices are missing in series {chosen}, or the gaps between them vary: it falls into "
            f"{', '.join(where)}; "
            "complete it, or put one part into a folder of its own"
        )
    return series(folder, len(volumes), lambda t: volumes[t], only)


def written(folder: Path) -> list[Path]:
    """The folder of the series."""
    return [folder]


def write(volumes: Iterable[Volume], count: int, folder: Path, dtype: np.dtype) -> None:
    """Write a derived series into the study of its source, one file for each slice.

    Raises:
        BadInput: if the volumes do not come from DICOM: then there is no study to file them in.
    """
    if dtype != np.float32:
        raise BadInput(f"{folder}: DICOM stores 16-bit integers and how to scale them; leave --dtype out")
    folder.mkdir()
    at, what = 0, None
    for volume in volumes:
        source = volume.header
        if not isinstance(source, derived.Source):
            raise BadInput(
                f"{folder}: only what was read from DICOM can be written as DICOM; name a file.nii.gz instead"
            )
        pixels, scaling = derived.stored(volume.data, source)
        lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
        for z in range(volume.data.shape[2]):
            place = (lps @ [0, 0, z, 1])[:3]
            nearest = int(np.linalg.norm(source.positions - place, axis=1).argmin())
            header = _header(source.paths[nearest], None)
            if what is None:
                what = derived.Derivation(generate_uid(None), TEXT, datetime.datetime.now())
            finer = source.positions.shape[0] / volume.data.shape[2]
            thickness = header.get("SliceThickness")
            thickness = None if thickness in (None, "") else float(thickness) * finer
            made = derived.image(header, pixels[:, :, z].T.copy(), lps, z, thickness, scaling, what)
            made.InstanceNumber = at + 1
            made.save_as(folder / f"{at + 1:05d}.dcm", enforce_file_format=True)
            at += 1


def _header(path: Path, tags: list[str] | None) -> pydicom.Dataset:
    """A file's header without its pixels, or some of its elements."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            list(header)  # decodes it here, where remarks are ignored
            return header
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read as DICOM ({_text(error) or type(error).__name__})") from error
