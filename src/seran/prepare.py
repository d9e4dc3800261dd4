"""Raw volumes -> packed high- and low-resolution slices and a manifest.

A prepared folder holds, per volume, ``high/NAME.npy`` (slices, h, w) and ``x2/NAME.npy`` … for every
scale, all float32 (or int32, with ``integer``) and meant to be memory-mapped, and ``manifest.json``,
which is written last: a folder without it is not a prepared set.

High-resolution slices are first taken to the k-space support that was really measured (`seran.kspace`:
zero-filled volumes flatter super-resolution), then cropped centrally to multiples of twelve, so that
×2, ×3 and ×4 share one ground truth.
"""

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from seran import files, grid, io, kspace, resample
from seran.degrade import DEGRADATIONS
from seran.errors import BadInput
from seran.infer import unit
from seran.volume import Volume

MULTIPLE = 12
SPLITS = ("train", "val", "test")
SHARE = 0.1
"""Of the subjects of a folder that go to test, and to val."""
CONTRAST = re.compile(r"(T1c|T1|T2|PD|FLAIR)w?$", re.IGNORECASE)
SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)")


@dataclass(frozen=True)
class Source:
    """One raw volume and what is known about it."""

    path: Path
    subject: str
    contrast: str
    split: str
    licence: str = ""
    sha256: str = ""
    repository: str = ""


@dataclass(frozen=True)
class Packed:
    """One prepared volume, as listed in the manifest.

    Attributes:
        band: measured in-plane k-space support of the source, as fractions of Nyquist.
        shape: slices, rows, columns of the high-resolution stack.
        spacing: mm of (slice, row, column) of that stack.
        range: smallest and largest high-resolution intensity.
        unit: per scale, the offset and gain that take the low slices to about [0, 1].
        sha256: of the source file.
        high_sha256: of ``high/NAME.npy``.
    """

    name: str
    source: str
    subject: str
    contrast: str
    split: str
    licence: str
    repository: str
    band: tuple[float, float]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    range: tuple[float, float]
    unit: dict[str, tuple[float, float]]
    sha256: str
    high_sha256: str


@dataclass(frozen=True)
class PreparedSet:
    """A prepared folder."""

    root: Path
    degradation: str
    integer: bool
    fourier_crop: bool
    volumes: list[Packed]
    skipped: list[dict[str, str]] = field(default_factory=list)

    def pick(self, split: str) -> list[Packed]:
        """The volumes of one split, in the manifest's order."""
        return [v for v in self.volumes if v.split == split]

    def scans(self, split: str) -> list[dict[str, str]]:
        """Where the scans of a split come from, each once, for the card of what is trained on them."""
        names = ("repository", "licence", "contrast", "subject", "sha256")
        rows = {v.sha256: {name: getattr(v, name) for name in names} for v in self.pick(split)}
        return list(rows.values())

    def high(self, volume: Packed) -> Real[ndarray, "n h w"]:
        """Memory-mapped ground truth."""
        return np.load(self.root / "high" / f"{volume.name}.npy", mmap_mode="r", allow_pickle=False)

    def low(self, volume: Packed, scale: int) -> Real[ndarray, "n a b"]:
        """Memory-mapped input at ``scale``."""
        path = self.root / f"x{scale}" / f"{volume.name}.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False)


def load(root: Path | str) -> PreparedSet:
    """Read the manifest of a prepared folder.

    Raises:
        BadInput: if ``root`` is not a prepared folder.
    """
    root = Path(root)
    path = root / "manifest.json"
    if not path.is_file():
        raise BadInput(f"{root}: expected a folder made by `seran prepare`, but it has no manifest.json")
    try:
        text = json.loads(path.read_text())
        volumes = [_packed(entry) for entry in text.pop("volumes")]
        return PreparedSet(root, volumes=volumes, **text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path}: expected a manifest of `seran prepare` ({error!r}); prepare again"
        ) from error


def _packed(entry: dict[str, Any]) -> Packed:
    """One row of the manifest: JSON has lists where `Packed` has tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    values["unit"] = {scale: tuple(pair) for scale, pair in entry["unit"].items()}
    return Packed(**values)


def from_manifest(path: Path) -> list[Source]:
    """Sources listed in a CSV with the columns split, path, contrast, subject (and licence, sha256)."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"split", "path", "contrast", "subject"} - {k for row in rows[:1] for k, v in row.items() if v}
    if missing:
        raise BadInput(f"{path}: expected the columns split, path, contrast, subject; no {sorted(missing)}")
    return [
        Source(
            path.parent / (row["path"] or ""),
            row["subject"] or "",
            row["contrast"] or "",
            row["split"] or "",
            row.get("licence") or "",
            row.get("sha256") or "",
            row.get("source_repository") or "",
        )
        for row in rows
    ]


def from_folder(root: Path) -> list[Source]:
    """Every file below ``root``, split by subject: about a tenth each to val and test.

    The subject is the ``sub-`` entity of the path (BIDS); without one the first folder below ``root``; for
    files that lie in ``root`` itself the IXI number or the stem without its contrast. A subject's split
    follows from the hash of its name alone, so further subjects change nothing for those that are there.
    """
    paths = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
    found = []
    for path in paths:
        subject, stem = _subject(path.relative_to(root)), path.name.split(".")[0]
        at = int(hashlib.sha256(subject.encode()).hexdigest()[:8], 16) / 16**8
        split = "test" if at < SHARE else "val" if at < 2 * SHARE else "train"
        found.append(Source(path, subject, _contrast(stem), split))
    return found


def _subject(path: Path) -> str:
    """Who was scanned, from a path relative to the folder."""
    if named := SUBJECT.search(path.as_posix()):
        return named.group(1)
    if len(path.parts) > 1:
        return path.parts[0]
    stem = path.name.split(".")[0]
    if ixi := re.match(r"IXI\d+", stem):
        return ixi.group(0)
    return CONTRAST.sub("", stem).rstrip("-_") or stem


def _contrast(stem: str) -> str:
    found = CONTRAST.search(stem)
    return {"T1C": "T1c"}.get(found.group(1).upper(), found.group(1).upper()) if found else "unknown"


def read_source(source: Source) -> Volume:
    """Read and check one source; a `BadInput` says why it cannot be used for super-resolution."""
    if source.split not in SPLITS:
        raise BadInput(f"expected a split of {', '.join(SPLITS)}, got {source.split!r}")
    if source.path.is_file() and source.sha256 and files.sha256(source.path) != source.sha256:
        raise BadInput("its sha256 is not the manifest's: a damaged or a different file")
    volume = io.read(source.path, affine="either")
    data = volume.data
    if data.min() == data.max():
        raise BadInput(f"every voxel is {data.flat[0]:g}")
    if data.min() < -500:
        raise BadInput(f"its minimum is {data.min():g}: Hounsfield units (CT), not MR")
    sample = data.ravel()[:: max(1, data.size // 100_000)]
    if len(np.unique(sample)) < 24:
        raise BadInput(f"it has only {len(np.unique(sample))} distinct values: a mask, not a scan")
    return volume


def high_resolution(
    volume: Volume, integer: bool, fourier_crop: bool, shape: tuple[int, int, int] | None = None
) -> tuple[ndarray, tuple[float, float], tuple[float, ...]]:
    """Ground-truth stack of a scan, its measured k-space support, and its spacing in mm.

    Its centre of ``shape`` (slices, rows, columns), or all slices of as many pixels as are multiples of 12.

    Raises:
        BadInput: if the scan is smaller than that, or too little is left in the plane to make pairs from.
    """
    axis = grid.slice_axis(volume.affine, volume.data.shape)
    band = kspace.support(np.moveaxis(volume.data, axis, 0))
    if fourier_crop and min(band) < 1:
        volume = resample.acquired(volume, axis, band)
    stack = np.moveaxis(volume.data, axis, 0)
    size = np.delete(grid.spacing(volume.affine), axis)
    n, h, w = shape or (len(stack), *(n // MULTIPLE * MULTIPLE for n in stack.shape[1:]))
    if min(h, w) < 4 * MULTIPLE:
        raise BadInput(f"only {stack.shape[1]}x{stack.shape[2]} pixels in the plane, too few for pairs")
    first, top, left = ((have - want) // 2 for have, want in zip(stack.shape, (n, h, w), strict=True))
    if min(first, top, left) < 0:
        raise BadInput(f"expected at least {_x((n, h, w))} (slices, rows, columns), got {_x(stack.shape)}")
    stack = np.ascontiguousarray(stack[first : first + n, top : top + h, left : left + w])
    if integer:
        stack = np.maximum(np.floor(stack + 0.5), 0)
    return stack, band, (float(grid.spacing(volume.affine)[axis]), float(size[0]), float(size[1]))


def _pack(
    source: Source,
    volume: Volume,
    name: str,
    out: Path,
    degradation: str,
    scales: Sequence[int],
    options: dict[str, Any],
) -> Packed:
    stack, band, size = high_resolution(volume, **options)
    dtype = np.int32 if options["integer"] else np.float32
    np.save(out / "high" / f"{name}.npy", stack.astype(dtype))
    units = {}
    for scale in scales:
        degrade = DEGRADATIONS[degradation](scale, options["integer"])
        low = np.concatenate([degrade(part[None]) for part in stack]).astype(dtype)
        np.save(out / f"x{scale}" / f"{name}.npy", low)
        units[str(scale)] = unit(low.astype(np.float32))
    return Packed(
        name=name,
        source=source.path.name,
        subject=source.subject,
        contrast=source.contrast,
        split=source.split,
        licence=source.licence,
        repository=source.repository,
        band=band,
        shape=stack.shape,
        spacing=size,  # type: ignore[arg-type]
        range=(float(stack.min()), float(stack.max())),
        unit=units,
        sha256=source.sha256 or files.sha256(source.path),
        high_sha256=files.sha256(out / "high" / f"{name}.npy"),
    )


def find(source: Path) -> list[Source]:
    """The sources that a path names: a CSV, a folder with a MANIFEST.csv, or a folder of scans.

    Raises:
        BadInput: if the path is neither, or a subject would be in two splits.
    """
    found = _find(source)
    splits: dict[str, str] = {}
    for one in found:
        if splits.setdefault(one.subject, one.split) != one.split:
            raise BadInput(f"{source}: subject {one.subject} is in {splits[one.subject]} and in {one.split}")
    return found


def _find(source: Path) -> list[Source]:
    if source.suffix == ".csv" and source.is_file():
        return from_manifest(source)
    if (source / "MANIFEST.csv").is_file():
        return from_manifest(source / "MANIFEST.csv")
    if source.is_dir():
        return from_folder(source)
    raise BadInput(f"{source}: expected a folder of scans or a CSV manifest")


def _named(sources: Iterable[Source]) -> Iterator[tuple[str, Source]]:
    for i, source in enumerate(sources):
        yield f"{i:04d}-{re.sub(r'[^A-Za-z0-9_-]', '_', source.path.name.split('.')[0])[:80]}", source


def refuse(out: Path, degradation: str, scales: tuple[int, ...]) -> None:
    """Raise `BadInput` for settings of `prepare` that cannot be."""
    if out.exists():
        raise BadInput(f"{out} exists; remove it or name another folder")
    if degradation not in DEGRADATIONS:
        raise BadInput(f"expected a degradation of {', '.join(DEGRADATIONS)}, got {degradation!r}")
    if not scales or not set(scales) <= {2, 3, 4}:
        raise BadInput(f"expected scales of 2, 3 and 4, got {scales}")


def prepare(
    source: Path | Iterable[Source],
    out: Path,
    degradation: str = "bd",
    scales: tuple[int, ...] = (2, 3, 4),
    integer: bool = False,
    fourier_crop: bool = True,
    report: Callable[[str], Any] = print,
    shape: tuple[int, int, int] | None = None,
    also_stored: bool = False,
) -> PreparedSet:
    """Pack a folder or a manifest of scans into ``out``, which must not exist yet.

    Everything is made in a folder beside ``out`` that takes its name at the very end.

    Args:
        source: a folder of scans, a CSV manifest (columns split, path, contrast, subject), or sources; each
            of these may appear as late as it is asked for.
        out: the prepared folder.
        degradation: ``bd`` (bicubic) or ``td`` (k-space truncation).
        scales: which low-resolution sets to write.
        integer: round and clip as the CSN data set does.
        fourier_crop: take zero-filled volumes to their measured k-space support first.
        report: called with one line per volume.
        shape: slices, rows and columns of every volume, cut from its centre; without it all slices of as many
            pixels as are multiples of twelve.
        also_stored: pack training scans that were taken to their support once more as stored, so that a
            network learns of zero-filled scans, too, which is what most users have.

    Raises:
        BadInput: if nothing usable is found, or ``out`` exists.
    """
    refuse(out, degradation, scales)
    sources = find(source) if isinstance(source, Path) else source
    part = files.part(out)
    files.sweep(out.parent.absolute())
    volumes: list[Packed] = []
    skipped: list[dict[str, str]] = []
    options: dict[str, Any] = {"integer": integer, "fourier_crop": fourier_crop, "shape": shape}
    try:
        for folder in ("high", *(f"x{s}" for s in scales)):
            (part / folder).mkdir(parents=True)
        for name, one in _named(sources):
            try:
                volume = read_source(one)
                packed = _pack(one, volume, name, part, degradation, scales, options)
                versions = [packed]
                if also_stored and fourier_crop and one.split == "train" and min(packed.band) < 1:
                    stored = options | {"fourier_crop": False}
                    versions.append(_pack(one, volume, f"{name}-stored", part, degradation, scales, stored))
            except BadInput as error:
                for leftover in part.rglob(f"{name}*.npy"):
                    leftover.unlink()
                skipped.append({"source": one.path.name, "reason": str(error)})
                report(f"skipped {one.path.name}: {error}")
                continue
            volumes += versions
            report(
                f"{packed.split:5} {packed.contrast:5} {packed.source}: {_x(packed.shape)}, "
                f"k-space support {packed.band[0]:.2f} x {packed.band[1]:.2f}"
            )
        if not volumes:
            named = source if isinstance(source, Path) else out
            raise BadInput(f"{named}: no usable scan ({len(skipped)} skipped)")
        made = PreparedSet(part, degradation, integer, fourier_crop, volumes, skipped)
        text = asdict(made)
        del text["root"]
        with files.atomic(part / "manifest.json") as path:
            path.write_text(json.dumps(text, indent=1))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return load(out)


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
