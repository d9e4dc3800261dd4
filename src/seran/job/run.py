"""One scan: read, sharpened, put on its grid, written, with a record beside it.

Everything that sharpens files does it through `run`: a single scan, a folder of them, a BIDS data set.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy import ndarray

import seran
from seran import files, grid, io, kspace, methods, progress, resample, scratch, sharpen
from seran.errors import BadInput
from seran.grid import Plane
from seran.job import labels
from seran.methods import Engine, Method
from seran.volume import Volume
from seran.weights import at_hand

Dtype = Literal["float32", "float64", "uint8", "int16", "uint16", "int32"]
Watch = Callable[[str, int], sharpen.Progress]
"""Told what is worked on and of how many slices, gives what is called as they are finished."""


@dataclass(frozen=True)
class ReadOptions:
    """How the input is read.

    Attributes:
        plane: which slices to sharpen; ``auto``: the plane of the two axes with the finest spacing.
        affine: which transform of the header is right, when they disagree.
        fill: value for voxels that are NaN, infinite or beyond 1e30.
        fourier_crop: first take a scan whose k-space was filled with zeros to the grid that was measured.
        volume: which one of several (4-D, echoes), counted from 0; without it all, one after the other.
        series: which series of a DICOM folder, by number or UID (`seran info FOLDER` lists them).
        label_check: refuse what looks like a segmentation or a mask by its header, name or values.
    """

    plane: Plane = "auto"
    affine: Literal["auto", "sform", "qform"] = "auto"
    fill: float | None = None
    fourier_crop: bool = False
    volume: int | None = None
    series: str | None = None
    label_check: bool = True


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
        scale = self.scale or 2
        if self.like is not None:
            reference = next(io.read_series(self.like, "auto", 0.0).volumes)
            to, name = (reference.affine, reference.data.shape), f"--like {self.like}"
            if not resample.meets(volume.affine, volume.data.shape, *to):
                raise BadInput(
                    f"{name}: its field of view does not meet the scan's; is it of the same person?"
                )
        elif self.spacing is None and scale in (2, 3, 4):
            return int(scale), None
        else:
            size = [s for i, s in enumerate(grid.spacing(volume.affine)) if i != axis]
            a, b = (self.spacing or s / scale for s in size)
            to = resample.finer(volume.affine, volume.data.shape, axis, (a, b))
            name = f"--spacing {self.spacing:g}" if self.spacing else f"--scale {scale:g}"
        return resample.factor(volume.affine, axis, to[0], name), to


@dataclass(frozen=True)
class Options:
    """How a scan is sharpened.

    Attributes:
        method: seran, bicubic, ...: `seran methods` lists them.
        weights: a weights file to use instead of the shipped ones, or the name of other shipped ones
            (`seran weights list`).
        ensemble: average over the eight symmetries of a slice: a little better, eight times slower.
        dtype: type of a voxel of the result; integers are rounded and held at their limits.
        target: the grid of the result; without any of its options twice as fine.
        scan: how the input is read.
    """

    method: str = "seran"
    weights: Path | None = None
    ensemble: bool = False
    dtype: Dtype = "float32"
    target: Annotated[Target, tyro.conf.arg(name="")] = Target()
    scan: Annotated[ReadOptions, tyro.conf.arg(name="")] = ReadOptions()


def sidecar(out: Path) -> Path:
    """The JSON record beside an image or the folder of a series."""
    return out.with_name(_stem(out) + ".json")


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(io.format_of(path) or "")]


def refuse_output(source: Path, out: Path, force: bool) -> None:
    """Raise `BadInput` if the result could not be written, or would replace what must not be replaced."""
    if io.format_of(out) is None:
        raise BadInput(
            f"{out}: expected an output name ending in {', '.join(io.FORMATS)}, or none for a DICOM series"
        )
    if not io.format_of(out) and source.is_file():
        raise BadInput(
            f"{out}: only what was read from DICOM can be written as DICOM; name a file.nii.gz instead"
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


@functools.lru_cache(maxsize=4)
def network(name: str, scale: int, weights: Path | None, engine: Engine) -> Method:
    """A method that is loaded once for all scans that want it."""
    return methods.method(name, scale, file=weights, engine=engine)


def key(source: Path, options: Options) -> str:
    """Hex digest of all that decides a result: the scan, the weights, the options, the version.

    Raises:
        BadInput: if the scan or the weights cannot be read.
    """
    return _key(files.sha256_of(io.sources(source, options.scan.series)), options)


def _key(scan: str, options: Options) -> str:
    """`key` of the scan with this digest."""
    stated = dataclasses.asdict(options)
    name = options.method.removesuffix("+")
    used = (
        [methods.named(options.weights)]
        if options.weights
        else [p for n, p in at_hand().items() if n.startswith(name)]
    )
    stated["weights"] = [files.sha256(path) for path in used]
    if options.target.like is not None:
        stated["target"]["like"] = files.sha256_of(io.sources(options.target.like))
    stated["source"] = scan
    stated["version"] = seran.__version__
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def record(out: Path) -> dict[str, Any] | None:
    """The record of the result at ``out``; none if a file of it is missing, or the record is not ours."""
    if not sidecar(out).is_file() or not all(path.exists() for path in io.written(out)):
        return None
    try:
        found = json.loads(sidecar(out).read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("Software") == "seran" else None


def is_done(out: Path, wanted: str) -> bool:
    """Whether the result that `key` ``wanted`` names lies at ``out``."""
    found = record(out)
    return found is not None and found.get("Key") == wanted


def run(
    source: Path,
    out: Path,
    options: Options = Options(),
    engine: Engine = Engine(),  # noqa: B008
    watch: Watch = lambda name, total: lambda n: None,
    force: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Sharpen one scan and write it with its record.

    Args:
        source: the scan.
        out: the result, in the format that its name ends in.
        options: how.
        engine: how a network is run.
        watch: told of the progress.
        force: replace an existing result.
        facts: what the record states besides.

    Returns:
        The record.

    Raises:
        BadInput: for anything wrong with the input or the options; nothing is written then.
        OSError: if the result cannot be written; nothing is left behind.
    """
    began = time.perf_counter()
    refuse_output(source, out, force)
    scan, allocate = options.scan, scratch.allocator(out.parent)
    series = io.read_series(source, scan.affine, scan.fill, allocate, scan.volume, scan.series)
    with progress.stage(f"read {source}"):
        first = next(series.volumes)
    if scan.label_check:
        labels.refuse_labels(source, "" if source.is_dir() else _stem(source), first)
    axis = grid.slice_axis(first.affine, first.data.shape, scan.plane)
    band = kspace.support(np.moveaxis(first.data, axis, 0))
    volumes: Iterator[Volume] = itertools.chain([first], series.volumes)
    if scan.fourier_crop and min(band) < 1:
        volumes = (resample.acquired(volume, axis, band) for volume in volumes)
        first = next(volumes)
        volumes = itertools.chain([first], volumes)
    scale, to = options.target.grid(first, axis)
    name = options.method.removesuffix("+") + "+" * (options.ensemble or options.method.endswith("+"))
    with progress.stage(f"load {name} x{scale}"):
        chosen = network(name, scale, options.weights, engine)
    progress.log.info(
        "%s %s, %s in %s; slices along axis %d of %s",
        chosen.name, chosen.weights, chosen.engine, chosen.precision, axis, first.data.shape,
    )  # fmt: skip
    digest = files.sha256_of(io.sources(source, scan.series))
    stated: dict[str, Any] = {
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
        "InputSHA256": digest,
        "Key": _key(digest, options),
        "Volumes": series.count,
        "ResearchUseOnly": True,
        **facts,
    }

    def sharpened() -> Iterator[Volume]:
        for i, volume in enumerate(volumes):
            shown = chosen.name + f" {i + 1}/{series.count}" * (series.count > 1)
            seen = watch(shown, volume.data.shape[axis])
            with progress.stage(f"sharpen {shown}"):
                result = sharpen.upscale(
                    volume, chosen.predict, scale, chosen.anchor, axis, seen, chosen.whole, allocate
                )
            if to is not None:
                with progress.stage("resample"):
                    result = resample.onto(result, *to)
            for when, one in (("Before", volume), ("After", result)):
                stated[f"Shape{when}"] = list(one.data.shape)
                stated[f"VoxelSize{when}"] = grid.spacing(one.affine).round(6).tolist()
            yield result

    with files.together(sidecar(out), *io.written(out)) as (text, *images):
        try:
            io.write_series(sharpened(), series.count, images[0], options.dtype)
        except BadInput as error:  # of the name that the user gave, not of the temporary one
            raise BadInput(str(error).replace(str(images[0]), str(out))) from error
        stated["Seconds"] = round(time.perf_counter() - began, 3)
        text.write_text(json.dumps(stated, indent=1) + "\n")
    return stated


def summary(record: dict[str, Any], out: Path) -> str:
    """A record in one line."""
    shown = record["Method"]
    if record["Weights"]:
        shown += f" ({record['Weights']}, {record['Precision']})"
    before, after = (
        (_x(record[f"Shape{when}"], "d"), _x(record[f"VoxelSize{when}"], ".3f"))
        for when in ("Before", "After")
    )
    band = record["KspaceSupport"]
    filled = f"; k-space is filled beyond {band[0]:.0%} x {band[1]:.0%}, see --fourier-crop"
    several = f"{record['Volumes']} volumes, " * (record["Volumes"] > 1)
    return (
        f"{shown}: {record['Seconds']:.1f} s, {several}matrix {before[0]} -> {after[0]}, "
        f"voxel {before[1]} -> {after[1]} mm, {out}{filled * (min(band) < 1 and not record['FourierCrop'])}"
    )


def _x(numbers: list[float], form: str) -> str:
    return "x".join(f"{n:{form}}" for n in numbers)
