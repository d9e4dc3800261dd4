"""Raw scans -> a prepared set (`seran.data.pairs`).

High-resolution slices are first taken to the k-space support that was really measured (`seran.kspace`:
zero-filled volumes flatter super-resolution), then cropped centrally to multiples of twelve, so that
×2, ×3 and ×4 share one ground truth.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import degrade, files, grid, kspace, resample
from seran.data.pairs import Packed, PreparedSet, load_prepared
from seran.data.sources import Source, find, read_source
from seran.errors import BadInput
from seran.sharpen import Normalisation
from seran.volume import Volume

MULTIPLE = 12


@dataclass(frozen=True)
class PrepareOptions:
    """What pairs are made.

    Attributes:
        degradation: what makes low slices, as bd: MATLAB's antialiased bicubic; td: k-space truncation.
        scales: which low-resolution sets to write.
        integer: round and clip at 0, as the CSN data set does.
        fourier_crop: first take zero-filled scans to the k-space support that was really measured.
        also_stored: pack such scans of the training split once more, as stored, so that a network learns of
            zero-filled scans, too, which is what most users have.

    Raises:
        BadInput: for a degradation or a scale that there is not.
    """

    degradation: str = "bd"
    scales: tuple[int, ...] = (2, 3, 4)
    integer: bool = False
    fourier_crop: bool = True
    also_stored: bool = False

    def __post_init__(self) -> None:
        if not self.scales or not set(self.scales) <= {2, 3, 4}:
            raise BadInput(f"--scales {' '.join(map(str, self.scales))}: expected 2, 3 or 4")
        degrade.named(self.degradation)


def high_resolution(
    volume: Volume, options: PrepareOptions, shape: tuple[int, int, int] | None = None
) -> tuple[Float[ndarray, "n h w"], tuple[float, float], tuple[float, float, float]]:
    """Ground-truth stack of a scan, its measured k-space support, and its spacing in mm.

    Args:
        volume: the scan.
        options: whether it is cropped to its support, and rounded.
        shape: slices, rows and columns, cut from its centre; without it all slices of as many pixels as are
            multiples of twelve.

    Raises:
        BadInput: if the scan is smaller than that, or too little is left in the plane to make pairs from.
    """
    axis = grid.slice_axis(volume.affine, volume.data.shape)
    band = kspace.support(np.moveaxis(volume.data, axis, 0))
    if options.fourier_crop and min(band) < 1:
        volume = resample.acquired(volume, axis, band)
    stack = np.moveaxis(volume.data, axis, 0)
    n, h, w = shape or (len(stack), *(n // MULTIPLE * MULTIPLE for n in stack.shape[1:]))
    if min(h, w) < 4 * MULTIPLE:
        raise BadInput(f"only {grid.dimensions(stack.shape[1:])} pixels in the plane, too few for pairs")
    first, top, left = ((have - want) // 2 for have, want in zip(stack.shape, (n, h, w), strict=True))
    if min(first, top, left) < 0:
        wanted, got = grid.dimensions((n, h, w)), grid.dimensions(stack.shape)
        raise BadInput(f"expected at least {wanted} (slices, rows, columns), got {got}")
    stack = np.ascontiguousarray(stack[first : first + n, top : top + h, left : left + w])
    if options.integer:
        stack = np.maximum(np.floor(stack + 0.5), 0)
    size = [float(mm) for mm in grid.spacing(volume.affine)]
    across = size.pop(axis)
    return stack, band, (across, size[0], size[1])


def _pack(
    source: Source,
    volume: Volume,
    made: PreparedSet,
    name: str,
    options: PrepareOptions,
    shape: tuple[int, int, int] | None,
) -> Packed:
    """Write the stacks of one volume."""
    stack, band, spacing = high_resolution(volume, options, shape)
    dtype = np.int32 if options.integer else np.float32
    np.save(made.file(name), stack.astype(dtype))
    units = {}
    for scale in options.scales:
        apply = degrade.named(options.degradation)((scale, scale), options.integer)
        low = np.concatenate([apply(part[None]) for part in stack]).astype(dtype)
        np.save(made.file(name, scale), low)
        norm = Normalisation.of(low.astype(np.float32))
        units[str(scale)] = (norm.offset, norm.gain)
    about = ("subject", "contrast", "split", "licence", "repository")
    return Packed(
        name=name,
        source=source.path.name,
        **{fact: getattr(source, fact) for fact in about},
        band=band,
        shape=stack.shape,
        spacing=spacing,
        range=(float(stack.min()), float(stack.max())),
        unit=units,
        sha256=source.sha256 or files.sha256(source.path),
        high_sha256=files.sha256(made.file(name)),
    )


def _pack_source(
    source: Source, made: PreparedSet, name: str, options: PrepareOptions, shape: tuple[int, int, int] | None
) -> list[Packed]:
    """Read a source and write its stacks: once, or twice for `PrepareOptions.also_stored`."""
    volume = read_source(source)
    versions = [_pack(source, volume, made, name, options, shape)]
    cropped = options.fourier_crop and min(versions[0].band) < 1
    if options.also_stored and cropped and source.split == "train":
        stored = replace(options, fourier_crop=False)
        versions.append(_pack(source, volume, made, f"{name}-stored", stored, shape))
    return versions


def refuse_existing(out: Path) -> None:
    """Raise `BadInput` if there is something at ``out``."""
    if out.exists():
        raise BadInput(f"{out} exists; remove it or name another folder")


def prepare(
    source: Path | Iterable[Source],
    out: Path,
    options: PrepareOptions = PrepareOptions(),
    report: Callable[[str], Any] = print,
    shape: tuple[int, int, int] | None = None,
) -> PreparedSet:
    """Pack a folder or a manifest of scans into ``out``, which must not exist yet.

    Everything is made in a folder beside ``out`` that takes its name at the very end.

    Args:
        source: a folder of scans, a CSV manifest (columns split, path, contrast, subject), or sources; each
            of these may appear as late as it is asked for.
        out: the prepared folder.
        options: what pairs are made.
        report: called with one line per volume.
        shape: slices, rows and columns of every volume, see `high_resolution`.

    Raises:
        BadInput: if nothing usable is found, or ``out`` exists.
    """
    refuse_existing(out)
    sources = find(source) if isinstance(source, Path) else source
    made = PreparedSet(files.part(out), options.degradation, options.integer, options.fourier_crop, [])
    files.sweep(out.parent.absolute())
    try:
        for scale in (1, *options.scales):
            made.file("", scale).parent.mkdir(parents=True)
        for i, one in enumerate(sources):
            name = f"{i:04d}-{re.sub(r'[^A-Za-z0-9_-]', '_', one.path.name.split('.')[0])[:80]}"
            try:
                versions = _pack_source(one, made, name, options, shape)
            except BadInput as error:
                for leftover in made.root.rglob(f"{name}*.npy"):
                    leftover.unlink()
                made.skipped.append({"source": one.path.name, "reason": str(error)})
                report(f"skipped {one.path.name}: {error}")
                continue
            made.volumes.extend(versions)
            packed = versions[0]
            report(
                f"{packed.split:5} {packed.contrast:5} {packed.source}: {grid.dimensions(packed.shape)}, "
                f"k-space support {packed.band[0]:.2f} x {packed.band[1]:.2f}"
            )
        if not made.volumes:
            named = source if isinstance(source, Path) else out
            raise BadInput(f"{named}: no usable scan ({len(made.skipped)} skipped)")
        manifest = asdict(made)
        del manifest["root"]
        with files.atomic(made.root / "manifest.json") as path:
            path.write_text(json.dumps(manifest, indent=1))
        made.root.rename(out)
    finally:
        shutil.rmtree(made.root, ignore_errors=True)
    return load_prepared(out)
