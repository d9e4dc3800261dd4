"""Slices of MR images, one in a file or all in one (enhanced), plain or compressed.

Voxel (x, y, z) of a stack of n slices lies, in DICOM's LPS+ mm, at

    p_0 + x Δ_1 r + y Δ_0 c + z (p_{n-1} - p_0) / (n - 1)

with the positions p (Image Position), the directions r along a row and c down a column (Image Orientation)
and Pixel Spacing Δ (between rows, between columns); slices are sorted along r × c (DICOM PS3.3, C.7.6.2.1.1).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray

from seran import grid
from seran.contrast import OTHER
from seran.errors import BadInput, counted
from seran.io.dicom import pixels, stated
from seran.io.dicom.elements import header, items, numbers, texts
from seran.io.dicom.folder import Listed
from seran.io.voxels import COARSEST_MM, LARGEST_MM, MAXIMUM, Found, refuse_sizes, usable_affine
from seran.volume import Volume

TOLERANCE = 0.05  # distances between slices that one may lie from its place on the grid
APART = 1e-3  # mm: slices whose positions differ by less are one slice twice
APART_AT_LEAST = 1 << 16  # intensities that float32 must tell apart where it does not tell all
TINY = float(np.finfo(np.float32).tiny)  # below, float32 loses digits
IMAGES = tuple(0x0065_0050 | block << 8 for block in range(0x10, 0x20))  # UIH: how many a mosaic has
TYPES = tuple(0x0021_0075 | block << 8 for block in range(0x10, 0x20))  # Siemens: ImageTypeText
FRAME_TYPE = "MRImageFrameTypeSequence"
SAYING: tuple[str | int, ...] = ("ImageType", *TYPES)
MOSAIC = {"MOSAIC", "VFRAME"}  # in the type of an image: many slices, as tiles
ALIKE = 0.7  # correlation of neighbouring tiles: 0.78 to 0.99 in mosaics of public scans, to 0.57 in slices
MOSAICS = "a mosaic of many; convert the series to NIfTI (dcm2niix)"
TILES, SMALLEST = range(2, 13), 16  # that a mosaic has along an axis, and pixels that a tile has
TAGS: tuple[str | int, ...] = (
    *pixels.TAGS, *IMAGES, *TYPES, "SeriesInstanceUID", "EchoNumbers", "EchoTime", "SliceThickness",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageType", "ImageOrientationPatient", "PixelSpacing",
    "RescaleSlope", "RescaleIntercept", "EffectiveEchoTime", "TemporalPositionIndex", "MRAcquisitionType",
    "TemporalPositionIdentifier", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ComplexImageComponent", *stated.TEXTS,
)  # fmt: skip


@dataclass(frozen=True)
class Slices:
    """Where a volume's slices came from, in the order of its third axis; what a stored step and 0 mean.

    Each slice may have its own; these are of the one with the smallest step, which is above 0.
    """

    paths: tuple[Path, ...]
    positions: Float[ndarray, "n 3"]  # of their first voxels, in mm (LPS+)
    slope: float
    offset: float
    components: frozenset[str]  # of complex values, that slices of its series say they show: M, P, ...

    @property
    def off(self) -> float:
        """How far a slice lies at most from its place on the even line from the first to the last, in mm."""
        first, last = self.positions[0], self.positions[-1]
        line = first + np.linspace(0, 1, len(self.positions))[:, None] * (last - first)
        return float(np.linalg.norm(self.positions - line, axis=1).max())


@dataclass(frozen=True)
class _Slice:
    """One slice: what it belongs to, its voxels in the order x, y, and where they lie (mm, LPS+)."""

    path: Path
    stack: tuple[str, float, str]
    data: Float[ndarray, "x y"]
    position: Float[ndarray, "3"]
    plane: Float[ndarray, "3 2"]
    thickness: float  # mm, 0 where it is not said
    between: float  # their distance, the same
    slope: float
    offset: float
    components: frozenset[str]
    flat: bool  # acquired as a slice, not as a part of a volume
    contrast: str  # see `seran.contrast`, empty where it is not said


def scans(paths: Iterable[Path]) -> list[Volume]:
    """The scans that these files make up, rescaled, by series, echo, moment (temporal position) and part."""
    stacks: dict[tuple[str, float, str], list[_Slice]] = {}
    with pixels.decoder() as decode:
        for path in paths:
            for one in _slices(path, decode):
                stacks.setdefault(one.stack, []).append(one)
    if not stacks:
        raise BadInput("expected the files of a DICOM series, got none")
    return [volume for _, slices in sorted(stacks.items()) for volume in _volumes(slices)]


def _slices(path: Path, decode: pixels.Decode) -> list[_Slice]:
    """Read one file: its slice, or the slices of an enhanced image."""
    image = header(path, TAGS)
    frames = int(numbers(path, [image], "NumberOfFrames", default=1)[0])
    own = items(image, "PerFrameFunctionalGroupsSequence") or [pydicom.Dataset()] * (frames == 1)
    shared = items(image, "SharedFunctionalGroupsSequence")[:1]
    stored = pixels.stored(path, image, decode)
    if len(own) != len(stored):
        raise BadInput(f"{path}: expected a position for each of its {len(stored)} frames, got {len(own)}")
    made = [_frame(path, [one, *shared], image, stored[i]) for i, one in enumerate(own)]
    if _mosaic(image) and len({tuple(one.position) for one in made}) < 2:
        raise BadInput(f"{path}: expected a slice, got {MOSAICS}")
    return made


def _mosaic(image: pydicom.Dataset) -> bool:
    """Whether an image is said to be a mosaic, by any of those who say it."""
    said = {word for name in SAYING for word in texts(image, name)}
    counts = [text for name in IMAGES for text in texts(image, name)]
    return bool(said & MOSAIC) or any(text.isdigit() and int(text) > 1 for text in counts)


def _frame(path: Path, groups: list[pydicom.Dataset], image: pydicom.Dataset, stored: ndarray) -> _Slice:
    """One slice; an enhanced image tells in its functional ``groups`` what others tell in the header."""

    def at(name: str, group: str, count: int = 1, default: float | None = None) -> Float[ndarray, "count"]:
        holders = [one for holder in groups for one in items(holder, group)[:1]]
        return numbers(path, [*holders, image], name, count, default)

    position = at("ImagePositionPatient", "PlanePositionSequence", 3)
    if np.abs(position).max() >= LARGEST_MM:
        told = f"expected ImagePositionPatient below {LARGEST_MM:g} mm, got {position.tolist()}"
        raise BadInput(f"{path}: {told}; correct its header")
    directions = at("ImageOrientationPatient", "PlaneOrientationSequence", 6).reshape(2, 3)
    stated.refuse_directions(path, directions)
    spacing = at("PixelSpacing", "PixelMeasuresSequence", 2)
    refuse_sizes(path, spacing, "PixelSpacing")
    slope, offset = (
        float(at(name, "PixelValueTransformationSequence", default=default)[0])
        for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    slope, offset = (slope, offset) if slope else (1.0, 0.0)  # as in NIfTI, 0 is none
    thickness, between = (
        float(at(name, "PixelMeasuresSequence", default=0)[0])
        for name in ("SliceThickness", "SpacingBetweenSlices")
    )
    if max(thickness, abs(between)) > COARSEST_MM:  # what is not above 0 is not said
        got = f"{thickness:g} and {between:g}"
        told = f"expected SliceThickness and SpacingBetweenSlices of at most {COARSEST_MM:g} mm, got {got}"
        raise BadInput(f"{path}: {told}; correct its header")
    time = float(at("EffectiveEchoTime", "MREchoSequence", default=0)[0])
    time = float(numbers(path, [image], "EchoTime", default=time)[0])
    moment = int(at("TemporalPositionIndex", "FrameContentSequence", default=0)[0])
    moment = int(numbers(path, [image], "TemporalPositionIdentifier", default=moment)[0])
    named = "\\".join(texts(image, "SeriesInstanceUID"))
    stack = named, time, f"{'/'.join(texts(image, 'EchoNumbers'))} {moment:06}"
    with np.errstate(over="ignore", invalid="ignore"):  # told later, of the volume
        data = (stored.T * slope + offset).astype(np.float32)
    _refuse_lost(path, stored, data, slope)
    flat = "2D" in texts(image, "MRAcquisitionType")
    plane = directions.T * spacing[::-1]
    shown = _components([image, *(one for group in groups for one in items(group, FRAME_TYPE)[:1])])
    geometry = position, plane, thickness, between
    contrast = stated.contrast(image, time)
    return _Slice(path, stack, data, *geometry, slope, offset, shown, flat, contrast)


def _refuse_lost(path: Path, stored: ndarray, data: Float[ndarray, "x y"], slope: float) -> None:
    """Raise `BadInput` if different stored values are alike as float32, or nothing but 0."""
    low, high = float(data.min()), float(data.max())
    with np.errstate(invalid="ignore"):  # of what is infinite, which is told later
        finest = max(float(np.spacing(np.float32(max(-low, high)))), TINY)
    if stored.min() < stored.max() and finest > abs(slope) and high - low < APART_AT_LEAST * finest:
        got = f"{slope:g} at intensities of {low:g} to {high:g}"
        told = f"expected steps that float32 tells apart, got {got} (RescaleSlope, RescaleIntercept)"
        raise BadInput(f"{path}: {told}; correct its header")


def _components(holders: list[pydicom.Dataset]) -> frozenset[str]:
    """What of complex values an image or frame says it shows: the third value of its type, its component."""
    types = [texts(one, name)[2:3] for one in holders for name in ("ImageType", "FrameType")]
    return frozenset[str]().union(*types, *(texts(one, "ComplexImageComponent") for one in holders))


def _volumes(slices: list[_Slice]) -> list[Volume]:
    """The parts of one stack: where slices are missing, one ends and the next begins."""
    first = slices[0]
    for one in slices:
        if one.data.shape != first.data.shape or not np.allclose(one.plane, first.plane, atol=1e-3):
            raise BadInput(
                f"{one.path}: expected the shape, orientation and pixel spacing of {first.path}, of the "
                "same series; a localizer shows several orientations: put each into a folder of its own"
            )
    normal = np.cross(*first.plane.T)
    normal = normal / (np.linalg.norm(normal) or 1)
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    steps = np.array([(b.position - a.position) @ normal for a, b in pairwise(slices)])
    if (steps < APART).any():
        i = int(steps.argmin())
        raise BadInput(
            f"{slices[i + 1].path}: it lies where {slices[i].path} of the same series lies; remove one "
            "of them, or, if they belong to volumes of their own (diffusion), convert the series to NIfTI "
            "(dcm2niix)"
        )
    pitch = float(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else first.thickness or first.between
    if pitch <= 0:
        raise BadInput(f"{first.path}: expected the SliceThickness of a slice that is alone, got none")
    if len(slices) == 1 and _tiled(first.data):
        raise BadInput(f"{first.path}: expected a slice, got tiles that are alike, {MOSAICS}")
    bounds = [0, *(np.flatnonzero(steps > 1.5 * pitch) + 1).tolist(), len(slices)]
    return [_volume(slices[a:b], pitch, normal) for a, b in pairwise(bounds)]


def _tiled(data: Float[ndarray, "x y"]) -> bool:
    """Whether an image is a mosaic of slices: tiles, each much like the one before."""
    for n in TILES:
        x, y = (size // n for size in data.shape)
        if (n * x, n * y) != data.shape or min(x, y) < SMALLEST:
            continue
        tiles = data.T.reshape(n, y, n, x).swapaxes(1, 2).reshape(n * n, -1)
        tiles = tiles - tiles.mean(1, keepdims=True)
        size = np.sqrt((tiles.astype(np.float64) ** 2).sum(1))
        pairs = [i for i in range(n * n - 1) if size[i : i + 2].min() > 0.05 * size.max()]
        alike = [float(tiles[i] @ tiles[i + 1]) / size[i] / size[i + 1] for i in pairs]
        if len(alike) > 1 and np.median(alike) > ALIKE:
            return True
    return False


def _volume(slices: list[_Slice], pitch: float, normal: Float[ndarray, "3"]) -> Volume:
    """Slices without a gap."""
    first = slices[0]
    positions = np.array([one.position for one in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1) if len(slices) > 1 else pitch * normal
    off = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max()
    if off > TOLERANCE * pitch:
        raise BadInput(
            f"{first.path}: expected slices {pitch:.3g} mm apart on a regular grid, but one of its "
            f"series lies {off:.3g} mm from its place"
        )
    affine = grid.lps(np.vstack([np.column_stack([first.plane, step, positions[0]]), [0, 0, 0, 1]]))
    data = np.stack([one.data for one in slices], axis=2)
    if not (np.abs(data) <= MAXIMUM).all():
        raise BadInput(f"{first.path}: expected intensities up to {MAXIMUM:g}; the rescale slope is damaged")
    components = frozenset[str]().union(*(one.components for one in slices))
    scaled = min(slices, key=lambda one: abs(one.slope))
    paths, scaling = tuple(one.path for one in slices), (abs(scaled.slope), scaled.offset)
    source = Slices(paths, positions, *scaling, components)
    axis, thickness = 2 if first.flat else None, first.thickness if first.thickness > 0 else None
    contrasts = {one.contrast for one in slices}
    contrast = first.contrast if len(contrasts) == 1 else OTHER
    return Volume(data, usable_affine(first.path, affine), source, axis, thickness, contrast)


def read(series: Listed, only: int | None = None) -> Found:
    """The volumes of a series: its echoes and moments, in the order of their times, with no slice missing.

    Args:
        series: of a folder.
        only: which of them is wanted, and says what is in it; without it all say what is in any.
    """
    volumes = scans(series.paths)
    shape, affine = volumes[0].data.shape, volumes[0].affine
    if not all(v.data.shape == shape and np.allclose(v.affine, affine, atol=1e-2) for v in volumes):
        parts = [(len(v.header.paths), v.header.paths[0].relative_to(series.folder)) for v in volumes]
        where = [f"{counted(number, 'slice')} from {path}" for number, path in parts]
        raise BadInput(
            f"{series.folder}: slices are missing in series {series}, or the gaps between them vary: it "
            f"falls into {', '.join(where)}; complete it, or put one part into a folder of its own"
        )
    if only is not None:
        return len(volumes), volumes.__getitem__
    components = frozenset[str]().union(*(v.header.components for v in volumes))
    volumes = [replace(v, header=replace(v.header, components=components)) for v in volumes]
    return len(volumes), volumes.__getitem__
