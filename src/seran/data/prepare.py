"""Raw scans -> a prepared set (`seran.data.pairs`).

High-resolution slices are first taken to the k-space support that was really measured (`seran.kspace`:
zero-filled volumes flatter super-resolution), then cropped centrally to multiples of twelve, so that
×2, ×3 and ×4 share one ground truth.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from seran import files, grid, kspace, resample
from seran.data.pairs import Packed, PreparedSet, load_prepared
from seran.data.sources import Source, find, read_source
from seran.degrade import DEGRADATIONS
from seran.errors import BadInput
from seran.sharpen import Normalisation
from seran.volume import Volume

MULTIPLE = 12


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
        norm = Normalisation.of(low.astype(np.float32))
        units[str(scale)] = (norm.offset, norm.gain)
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


def _named(sources: Iterable[Source]) -> Iterator[tuple[str, Source]]:
    for i, source in enumerate(sources):
        yield f"{i:04d}-{re.sub(r'[^A-Za-z0-9_-]', '_', source.path.name.split('.')[0])[:80]}", source


def refuse_settings(out: Path, degradation: str, scales: tuple[int, ...]) -> None:
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
    refuse_settings(out, degradation, scales)
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
    return load_prepared(out)


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
