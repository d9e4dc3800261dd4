"""Slices of MR images, one in a file or all in one (enhanced), plain or compressed.

Voxel (x, y, z) of a stack of n slices lies, in DICOM's LPS+ mm, at

    p_0 + x Δ_1 r + y Δ_0 c + z (p_{n-1} - p_0) / (n - 1)

with the positions p (Image Position), the directions r along a row and c down a column (Image Orientation)
and Pixel Spacing Δ (between rows, between columns); slices are sorted along r × c (DICOM PS3.3, C.7.6.2.1.1).
A `Volume` is RAS+: the first two coordinates change their sign.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from seran import grid
from seran.errors import BadInput
from seran.io.dicom.derived import Slices
from seran.io.dicom.listing import decoded, header
from seran.io.voxels import GZIP_RATIO, LARGEST_INTENSITY, Found, printable
from seran.volume import Volume

TOLERANCE = 0.05
"""A slice may lie so far from its place on the grid, in units of the distance between slices."""
APART = 1e-3
"""Slices whose positions differ by less than so many mm are one slice twice."""
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on unusual values; what cannot be used is an exception
        with decoded(path):
            syntax = UID(read_file_meta_info(path).get("TransferSyntaxUID", ""))
        if not syntax.is_transfer_syntax or syntax.is_deflated:
            raise BadInput(f"{path}: got {printable(syntax.name)}; unpack it first (gdcmconv --raw)")
        image = header(path, TAGS, pixels=True)
        _refuse_other_images(path, image)
        with decoded(path):
            frames = int(image.get("NumberOfFrames") or 1)
            rows, columns, bits = int(image.Rows), int(image.Columns), int(image.BitsAllocated)
            own = image.get("PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()] * (frames == 1)
            shared = (image.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
            found = len(own)
        _refuse_oversized(path, rows * columns * frames * bits // 8, syntax.is_compressed)
        if found != frames:
            raise BadInput(f"{path}: expected a position for each of its {frames} frames, got {found}")
        try:
            with decoded(path):
                pixels = image.pixel_array.reshape(frames, rows, columns)
        except RuntimeError as error:  # how pydicom says that it has no decoder
            raise BadInput(
                f"{path}: its {printable(syntax.name)} needs a decoder; pip install 'seran[dicom]', "
                "or unpack it first (gdcmconv --raw)"
            ) from error
        return [_frame(path, [one, shared], image, pixels[i]) for i, one in enumerate(own)]


def _refuse_other_images(path: Path, image: pydicom.Dataset) -> None:
    """Refuse what is not one slice, or slices, in shades of grey."""
    with decoded(path):
        samples, colours = image.SamplesPerPixel, image.PhotometricInterpretation
        mosaic = "MOSAIC" in (image.get("ImageType") or [])
    if samples != 1 or colours != "MONOCHROME2":
        raise BadInput(
            f"{path}: expected a grey-scale image (MONOCHROME2), got {printable(colours)}; a map in colours "
            "or a picture of the screen is no scan, leave it out"
        )
    if mosaic:
        raise BadInput(
            f"{path}: expected a slice, got a mosaic of many; convert the series to NIfTI (dcm2niix)"
        )


def _refuse_oversized(path: Path, need: int, compressed: bool) -> None:
    """Refuse a header that promises more bytes of pixels than the file can hold."""
    has = path.stat().st_size
    if need > (max(SMALL, GZIP_RATIO * has) if compressed else has):
        raise BadInput(f"{path}: its header promises {need:,} bytes of pixels, but the file cannot hold them")


def _frame(path: Path, groups: list[pydicom.Dataset], image: pydicom.Dataset, pixels: ndarray) -> _Slice:
    """One slice; an enhanced image tells in its functional ``groups`` what others tell in the header."""

    def value(name: str, group: str) -> Any:  # noqa: ANN401
        for holder in groups:
            if group in holder and name in holder[group][0]:
                return holder[group][0].get(name)
        return image.get(name)

    with decoded(path):
        place = value("ImagePositionPatient", "PlanePositionSequence")
    if place is None:
        raise BadInput(f"{path}: expected a slice with a position in space, got none")
    with decoded(path):
        position = np.array(place, float).reshape(3)
        slope, offset = (
            value(f"Rescale{name}", "PixelValueTransformationSequence") for name in ("Slope", "Intercept")
        )
        slope, offset = float(1 if slope is None else slope), float(offset or 0)
        cosines = np.array(value("ImageOrientationPatient", "PlaneOrientationSequence"), float).reshape(2, 3)
        spacing = np.array(value("PixelSpacing", "PixelMeasuresSequence"), float).reshape(2)
        thickness = float(value("SliceThickness", "PixelMeasuresSequence") or 0)
        time = float(image.get("EchoTime") or value("EffectiveEchoTime", "MREchoSequence") or 0)
        moment = int(
            image.get("TemporalPositionIdentifier")
            or value("TemporalPositionIndex", "FrameContentSequence")
            or 0
        )
    return _Slice(
        path,
        (str(image.get("SeriesInstanceUID")), time, f"{image.get('EchoNumbers')} {moment:06}"),
        (pixels.T * slope + offset).astype(np.float32),
        position,
        cosines.T * spacing[::-1],
        thickness,
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
    affine = grid.lps(affine)
    if not off <= TOLERANCE * pitch or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise BadInput(
            f"{slices[0].path}: expected slices {pitch:.3g} mm apart on a regular grid, but one of its "
            f"series lies {off:.3g} mm from its place"
        )
    data = np.stack([one.data for one in slices], axis=2)
    if not (np.abs(data) <= LARGEST_INTENSITY).all():
        raise BadInput(
            f"{slices[0].path}: expected intensities up to {LARGEST_INTENSITY:g}; "
            "the rescale slope is damaged"
        )
    first = slices[0]
    source = Slices(tuple(one.path for one in slices), positions, first.slope, first.offset)
    return Volume(data, affine, source)


def read(folder: Path, paths: Sequence[Path], name: str) -> Found:
    """The volumes of a series: its echoes and moments, in the order of their times.

    Args:
        folder: the folder that it was found in.
        paths: its files.
        name: what it is called.

    Raises:
        BadInput: also if slices are missing; see `scans`.
    """
    volumes = scans(paths)
    first = volumes[0]
    alike = [
        v.data.shape == first.data.shape and np.allclose(v.affine, first.affine, atol=1e-2) for v in volumes
    ]
    if not all(alike):
        where = [f"{len(v.header.paths)} slices from {v.header.paths[0].name}" for v in volumes]
        raise BadInput(
            f"{folder}: slices are missing in series {name}, or the gaps between them vary: it falls into "
            f"{', '.join(where)}; complete it, or put one part into a folder of its own"
        )
    return len(volumes), lambda t: volumes[t]
