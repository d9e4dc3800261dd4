"""Raw scans -> a prepared set (`seran.data.pairs`)."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import degrade, files, grid, kspace, resample
from seran.data.pairs import Packed, PreparedSet, load_prepared
from seran.data.sources import Source, find, read_source
from seran.errors import BadInput
from seran.grid import Affine
from seran.sharpen import Normalisation
from seran.volume import Volume

MULTIPLE = 12  # of pixels along each axis, so that x2, x3 and x4 share one ground truth
Shape = tuple[int, int, int]


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
    volume: Volume, options: PrepareOptions, shape: Shape | None
) -> tuple[Float[ndarray, "n h w"], tuple[float, float], Affine]:
    """Ground-truth stack of a scan, its measured k-space support, and where its voxels lie.

    Args:
        volume: the scan; `BadInput` if it is too small.
        options: whether it is cropped to its support, and rounded.
        shape: slices, rows, columns to cut from its centre; None: all that multiples of twelve allow.
    """
    axis = grid.slice_axis(volume.affine, volume.data.shape, named=volume.slices)
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
    order = [axis, *(i for i in range(3) if i != axis), 3]
    affine = volume.affine[:, order]
    affine[:3, 3] += affine[:3, :3] @ (first, top, left)
    return stack, band, affine


def _pack(
    source: Source, made: PreparedSet, name: str, options: PrepareOptions, shape: Shape | None
) -> list[Packed]:
    """Read a source and write its stacks: once, or twice for `PrepareOptions.also_stored`."""
    stack, band, affine = high_resolution(read_source(source), options, shape)
    deep, tall, wide = grid.spacing(affine).tolist()
    dtype = np.int32 if options.integer else np.float32
    np.save(made.file(name), stack.astype(dtype))
    units = {}
    for scale in options.scales:
        apply = degrade.named(options.degradation)((scale, scale), options.integer)
        low = np.concatenate([apply(part[None]) for part in stack]).astype(dtype)
        np.save(made.file(name, scale), low)
        unit = Normalisation.of(low.astype(np.float32))
        units[str(scale)] = [unit.offset, unit.gain]
    packed = Packed(
        name=name,
        source=source.path.name,
        **{fact: getattr(source, fact) for fact in ("subject", "contrast", "split", "licence", "repository")},
        band=band,
        shape=stack.shape,
        spacing=(deep, tall, wide),
        range=(float(stack.min()), float(stack.max())),
        unit=units,
        sha256=source.sha256 or files.sha256(source.path),
        high_sha256=files.sha256(made.file(name)),
        affine=affine.tolist(),
    )
    if options.also_stored and options.fourier_crop and min(band) < 1 and source.split == "train":
        stored = replace(options, fourier_crop=False)
        return [packed, *_pack(source, made, f"{name}-stored", stored, shape)]
    return [packed]


def refuse_existing(out: Path) -> None:
    """Raise `BadInput` if there is something at ``out``."""
    if out.exists():
        raise BadInput(f"{out} exists; remove it or name another folder")


def prepare(
    source: Path | Iterable[Source],
    out: Path,
    options: PrepareOptions = PrepareOptions(),
    report: Callable[[str], object] = print,
    shape: Shape | None = None,
) -> PreparedSet:
    """Pack scans into ``out``, made beside it and named at the very end; `BadInput` if none is usable.

    Args:
        source: a folder of scans, a CSV manifest, or sources, whose files may appear when they are asked for.
        out: the prepared folder; must not exist.
        options: what pairs are made.
        report: called with one line per volume.
        shape: slices, rows and columns, cut from every centre; without it multiples of twelve pixels.
    """
    refuse_existing(out)
    sources = find(source) if isinstance(source, Path) else source
    with files.together(out, force=False) as (root,):
        made = PreparedSet(root, options.degradation, options.integer, options.fourier_crop, [])
        for scale in (1, *options.scales):
            made.file("", scale).parent.mkdir(parents=True)
        for i, one in enumerate(sources):
            name = f"{i:04d}-{re.sub(r'[^A-Za-z0-9_-]', '_', one.path.name.split('.')[0])[:80]}"
            try:
                versions = _pack(one, made, name, options, shape)
            except BadInput as error:
                for leftover in made.root.rglob(f"{name}*.npy"):
                    leftover.unlink()
                made.skipped.append({"source": one.path.name, "reason": str(error)})
                report(f"skipped {one.path.name}: {error}")
                continue
            made.volumes.extend(versions)
            (rows, columns), size = versions[0].band, grid.dimensions(versions[0].shape)
            support = f"k-space support {rows:.2f} x {columns:.2f}"
            report(f"{one.split:5} {one.contrast:5} {one.path.name}: {size}, {support}")
        if not made.volumes:
            raise BadInput(
                f"{source if isinstance(source, Path) else out}: no usable scan ({len(made.skipped)} skipped)"
            )
        made.write_manifest()
    return load_prepared(out)
