"""One file in, one sharper file out, with a record beside it."""

import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy import ndarray
from tqdm import tqdm

import seran
from seran import files, grid, infer, io, kspace, methods, resample, scratch
from seran.apps import FLAT, Positional
from seran.errors import BadInput
from seran.grid import Plane
from seran.methods import Engine
from seran.volume import Volume


@dataclass(frozen=True)
class Scan:
    """How the input is read.

    Attributes:
        plane: which slices to sharpen; ``auto``: the plane of the two axes with the finest spacing.
        affine: which transform of the header is right, when they disagree.
        fill: value for voxels that are NaN or infinite.
        fourier_crop: first take a scan whose k-space was filled with zeros to the grid that was measured.
        volume: which one of several (4-D, echoes), counted from 0; without it all, one after the other.
        series: which series of a DICOM folder, by number or UID (`seran info FOLDER` lists them).
    """

    plane: Plane = "auto"
    affine: Literal["auto", "sform", "qform"] = "auto"
    fill: float | None = None
    fourier_crop: bool = False
    volume: int | None = None
    series: str | None = None


@dataclass(frozen=True)
class Target:
    """The grid of the result, by one of these; what is left out follows.

    Attributes:
        scale: how many times finer the slices become, above 1 and up to 4; 2, 3 and 4 by the network alone,
            others by the network of the next whole number and one antialiased resampling.
        spacing: of the result in the plane of the slices, in mm.
        like: an image whose grid the result is put on.
    """

    scale: float | None = None
    spacing: float | None = None
    like: Path | None = None

    def __post_init__(self) -> None:
        given = [n for n in ("scale", "spacing", "like") if getattr(self, n) is not None]
        if len(given) > 1:
            raise BadInput(f"expected one of --scale, --spacing and --like, got {' and '.join(given)}")
        for name in set(given) - {"like"}:
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise BadInput(f"expected a positive --{name}, got {value:g}")

    def grid(self, volume: Volume, axis: int) -> tuple[int, tuple[ndarray, tuple[int, int, int]] | None]:
        """The whole factor of the network, and the affine and shape to resample to, if that is not all.

        Raises:
            BadInput: if no network leads there.
        """
        scale = 2 if self.scale is None and self.spacing is None else self.scale
        if self.like is not None:
            reference = next(io.read_series(self.like, "auto", 0.0).volumes)
            to, name = (reference.affine, reference.data.shape), f"--like {self.like}"
        elif scale in (2, 3, 4):
            return int(scale), None
        else:
            size = [s for i, s in enumerate(grid.spacing(volume.affine)) if i != axis]
            fine = (self.spacing, self.spacing) if scale is None else (size[0] / scale, size[1] / scale)
            to = resample.finer(volume.affine, volume.data.shape, axis, fine)
            name = f"--spacing {self.spacing:g}" if scale is None else f"--scale {scale:g}"
        return resample.factor(volume.affine, axis, to[0], name), to


def sidecar(out: Path) -> Path:
    """The JSON record beside an image or the folder of a series."""
    return out.with_name(out.name[: len(out.name) - len(io.format_of(out) or "")] + ".json")


def _check(source: Path, out: Path, force: bool) -> None:
    if io.format_of(out) is None:
        raise BadInput(
            f"{out}: expected an output name ending in {', '.join(io.FORMATS)}, or none for a DICOM series"
        )
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it first")
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{out.parent}: the folder is not writable; choose another output")
    for path in (*io.written(out), sidecar(out)):
        if path.is_dir():
            raise BadInput(f"{path} is a folder, which is not replaced; remove it, or name another output")
        if path.exists() and source.exists() and path.samefile(source):
            raise BadInput(f"{path}: the output would replace the input; name another file")
        if (
            path == sidecar(out)
            and path.exists()
            and io.format_of(source) is not None
            and sidecar(source) == path
        ):
            raise BadInput(f"{path} describes the input and would be replaced; name another output")
        if path.exists() and not force:
            raise BadInput(f"{path} exists; give --force to replace it")


def upscale(
    source: Positional[Path],
    out: Positional[Path],
    method: str = "seran",
    weights: Path | None = None,
    ensemble: bool = False,
    dtype: Literal["float32", "float64", "uint8", "int16", "uint16", "int32"] = "float32",
    force: bool = False,
    target: Annotated[Target, FLAT] = Target(),
    scan: Annotated[Scan, FLAT] = Scan(),
    engine: Annotated[Engine, FLAT] = Engine(),  # noqa: B008
) -> str:
    """Sharpen a scan in the plane of its slices, and write a JSON record beside it.

    Formats: NIfTI (.nii, .nii.gz, .hdr/.img), FreeSurfer (.mgh, .mgz), NRRD (.nrrd), MetaImage (.mha), and
    folders of DICOM files.

    Args:
        source: the scan: one real number per voxel, 3-D or a series of volumes (4-D).
        out: the result, in the input's units and in the format that its name ends in; a name without an
            ending becomes the folder of a derived DICOM series, if the input is one.
        method: seran, bicubic, ...: `seran methods` lists them.
        weights: a weights file to use instead of the shipped ones.
        ensemble: average over the eight symmetries of a slice: a little better, eight times slower.
        dtype: type of a voxel of the result; integers are rounded and held at their limits.
        force: replace an existing output.
        target: the grid of the result; without any of its options twice as fine.
        scan: how the input is read.
        engine: how the network is run.

    Raises:
        BadInput: for anything wrong with the input or the options; nothing is written then.
        OSError: if the result cannot be written; nothing is left behind.
    """
    began = time.perf_counter()
    _check(source, out, force)
    room = scratch.room(out.parent)
    series = io.read_series(source, scan.affine, scan.fill, room, scan.volume, scan.series)
    first = next(series.volumes)
    axis = grid.slice_axis(first.affine, first.data.shape, scan.plane)
    band = kspace.support(np.moveaxis(first.data, axis, 0))
    volumes = itertools.chain([first], series.volumes)
    if scan.fourier_crop and min(band) < 1:
        volumes = (resample.acquired(volume, axis, band) for volume in volumes)
        first = next(volumes)
        volumes = itertools.chain([first], volumes)
    scale, to = target.grid(first, axis)
    chosen = methods.method(
        method.removesuffix("+") + "+" * (ensemble or method.endswith("+")),
        scale,
        file=weights,
        engine=engine,
    )
    record: dict[str, Any] = {
        "Software": "seran",
        "Version": seran.__version__,
        "Method": chosen.name,
        "Weights": chosen.weights,
        "WeightsSHA256": chosen.sha256,
        "Scale": scale,
        "Resampled": to is not None,
        "KspaceSupport": [round(b, 3) for b in band],
        "FourierCrop": scan.fourier_crop,
        "SliceAxis": axis,
        "Degradation": chosen.degradation,
        "GridAnchor": chosen.anchor,
        "Engine": chosen.engine,
        "Precision": chosen.precision,
        "Input": source.name,
        "InputSHA256": files.sha256_of(io.sources(source, scan.series)),
        "Volumes": series.count,
        "ResearchUseOnly": True,
    }

    def sharpened() -> Iterator[Volume]:
        for i, volume in enumerate(volumes):
            name = chosen.name + f" {i + 1}/{series.count}" * (series.count > 1)
            # disable=None: a bar on a terminal, nothing in a log
            with tqdm(
                total=volume.data.shape[axis], unit="slice", desc=name, leave=False, disable=None
            ) as bar:
                result = infer.upscale(
                    volume, chosen.predict, scale, chosen.anchor, axis, bar.update, chosen.whole, room
                )
            if to is not None:
                result = resample.onto(result, *to)
            for when, one in (("Before", volume), ("After", result)):
                record[f"Shape{when}"] = list(one.data.shape)
                record[f"VoxelSize{when}"] = grid.spacing(one.affine).round(6).tolist()
            yield result

    with files.together(sidecar(out), *io.written(out)) as (text, *images):
        io.write_series(sharpened(), series.count, images[0], dtype)
        record["Seconds"] = round(time.perf_counter() - began, 3)
        text.write_text(json.dumps(record, indent=1) + "\n")
    shown = f"{chosen.name}" + (f" ({chosen.weights}, {chosen.precision})" if chosen.weights else "")
    before, after = (
        (_x(record[f"Shape{when}"], "d"), _x(record[f"VoxelSize{when}"], ".3f"))
        for when in ("Before", "After")
    )
    filled = f"; k-space is filled beyond {band[0]:.0%} x {band[1]:.0%}, see --fourier-crop"
    several = f"{series.count} volumes, " * (series.count > 1)
    return (
        f"{shown}: {record['Seconds']:.1f} s, {several}matrix {before[0]} -> {after[0]}, "
        f"voxel {before[1]} -> {after[1]} mm, {out}{filled * (min(band) < 1 and not scan.fourier_crop)}"
    )


def _x(numbers: list[float], form: str) -> str:
    return "x".join(f"{n:{form}}" for n in numbers)
