"""One scan: `Steps` in memory, for the library too; `run` from file to file, for whatever sharpens files."""

import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from seran import __version__, files, grid, io, kspace, methods, native, progress, scratch, sharpen
from seran.engines import Engine
from seran.errors import BadInput
from seran.io.voxels import cast
from seran.job import labels, record
from seran.job.options import Options
from seran.job.record import Record, key, sidecar
from seran.measure import Measured
from seran.quality import checks
from seran.scratch import Allocator
from seran.sharpen import Method, Normalisation, Progress
from seran.volume import Volume

Watch = Callable[[str, int], Progress]  # from what is worked on, and how many slices, to who is told of them


class Steps:
    """What the first volume decides for all of a scan; `BadInput` for options that do not fit it."""

    def __init__(self, first: Volume, options: Options, engine: Engine, loaded: Method | None = None) -> None:
        self.options, self.engine = options, engine
        axis = grid.slice_axis(first.affine, first.data.shape, options.read.plane)
        stack = np.moveaxis(first.data, axis, 0)
        name, default = (loaded.name, loaded.scale) if loaded else options.implied()
        scale, target = options.target.reach(first.grid, axis, default)
        plain = loaded or methods.method(name, scale, options.degradation, options.weights, engine)
        options.refuse_degradation(plain)
        self.method = plain
        if plain.heads is None:
            options.scanner.refuse_measures(name)
        weighed = bool(plain.weights)  # the spectrum alone is enough for what estimates nothing
        self.known = options.scanner.known(stack) if weighed else Measured(kspace.support(stack))
        if plain.heads is not None:
            if options.scanner.noise == "auto":
                self.known = native.quieted(plain, self.known, stack)
            self.method = native.bound(plain, self.known, stack.shape[1:])
        self.sharpened = False  # a file may tell
        self.gain = Normalisation.of(stack).gain
        self.plan = grid.Plan(first.grid, axis, self.method.factors, self.method.anchor, target)

    def __call__(
        self, volume: Volume, progress: Progress = sharpen.unseen, allocate: Allocator = scratch.memory
    ) -> tuple[Volume, Volume | None, list[checks.Check]]:
        """What `seran.sharpen.upscale` makes of a volume, and the checks of it as it is stored."""
        image, spread = sharpen.upscale(volume, self.method, self.plan, progress, allocate)
        stored, kept = np.dtype(self.options.dtype), image
        if stored.kind != "f":
            kept = image.on(cast(image.data, stored).astype(np.float32), image.affine)
        return image, spread, checks.all_of(volume, kept, self.record.provenance)

    @functools.cached_property
    def record(self) -> Record:
        """What can be stated before the first volume is sharpened, whatever file it came from."""
        method, before, after = self.method, self.plan.scan, self.plan.target or self.plan.enlarged
        same = ("weights", "scale", "factors", "degradation", "engine", "precision")
        old, new = (tuple(grid.spacing(g.affine).round(6).tolist()) for g in (before, after))
        return Record(
            version=__version__,
            method=method.name,
            weights_sha256=method.sha256,
            resampled=self.plan.target is not None,
            kspace_support=tuple(round(f, 3) for f in self.known.fraction),
            native=self.method.heads is not None,
            window=str(self.known.window),
            noise=round(self.known.sigma / self.gain, 5)
            if self.gain and self.known.by != "unknown"
            else None,
            noise_by=self.known.by,
            background=self.known.background,
            sharpened=self.sharpened,
            slice_axis=self.plan.axis,
            grid_anchor=self.plan.kept,
            outside=round(self.plan.outside, 3),
            **{name: getattr(method, name) for name in same},
            requested_engine=asdict(self.engine),
            trained_spacings=method.spacings,
            shape_before=before.shape,
            voxel_size_before=old,
            shape_after=after.shape,
            voxel_size_after=new,
        )


def refuse_output(out: Path, force: bool, source: Path | None = None) -> None:
    """Raise `BadInput` if the result could not be written, or would replace what must not be replaced.

    Args:
        out: the result.
        force: a former result may be replaced.
        source: the scan, which may not.
    """
    written = (*io.written(out), sidecar(out))  # refuses names of no format
    if not io.format_of(out) and source is not None and source.is_file():
        why = "only what was read from DICOM can be written as DICOM"
        raise BadInput(f"{out}: {why}; name a file.nii.gz instead")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it first")
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{out.parent}: the folder is not writable; choose another output")
    for path in filter(Path.exists, written):
        if path.is_dir():
            raise BadInput(f"{path} is a folder, which is not replaced; remove it, or name another output")
        if source and source.exists() and path.samefile(source):
            raise BadInput(f"{path}: the output would replace the input; name another file")
        if source and io.format_of(source) is not None and sidecar(source) == path:
            raise BadInput(f"{path} describes the input and would be replaced; name another output")
        if not force:
            raise BadInput(f"{path} exists; give --force to replace it")


def run(
    source: Path,
    out: Path,
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    watch: Watch | None = None,
    force: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Record:
    """Sharpen one scan and write it with its record: all files, or none with `BadInput` or an OSError.

    Args:
        source: the scan.
        out: the result, in the format that its name ends in.
        options: how.
        engine: how a network is run.
        watch: told of the progress.
        force: replace an existing result.
        facts: what the record states besides.
    """
    began = time.perf_counter()
    refuse_output(out, force, source)
    reading, allocate = options.read, scratch.allocator(out.parent)
    scan = io.resolve(source, reading.series)
    series = io.read_series(scan, reading.affine, reading.fill, allocate, reading.volume)
    with progress.stage(f"read {source}"):
        first = next(series.volumes)
    if reading.label_check:
        labels.refuse_labels(source, first)
    with progress.stage("plan, and load the method"):
        steps = Steps(first, options, engine)
        steps.sharpened = record.read(source) is not None
    progress.log.info("%r in %s; %s", steps.method, steps.method.precision, steps.plan)
    digest = files.sha256_of(scan.files)
    made = replace(steps.record, input=source.name, input_sha256=digest, volumes=series.count, facts=facts)
    made = replace(made, key=key(digest, options, engine))
    outs, stem = [out], io.stem(out)
    if steps.method.spread:
        outs.append(out.with_name(f"{stem}_spread{out.name[len(stem) :]}"))
        refuse_output(outs[1], force, source)
    written = [path for one in outs for path in io.written(one)]
    with files.together(sidecar(out), *written) as (text, *parts), ExitStack() as stack:
        hidden = dict(zip(written, parts, strict=True))
        try:
            names = [hidden[io.written(one)[0]] for one in outs]
            writers = [stack.enter_context(io.writer(n, series.count, options.dtype)) for n in names]
            for i, volume in enumerate(itertools.chain([first], series.volumes)):
                shown = made.method + f" {i + 1}/{series.count}" * (series.count > 1)
                seen = watch(shown, volume.data.shape[made.slice_axis]) if watch else sharpen.unseen
                with progress.stage(f"sharpen and check {shown}"):
                    image, spread, found = steps(volume, seen, allocate)
                for writer, each in zip(writers, filter(None, (image, spread)), strict=True):
                    writer.add(each)
                made = made.judged(found)
            stack.close()
        except BadInput as error:  # of the name that the user gave, not of the temporary one
            raise BadInput(str(error).replace(str(parts[0]), str(out))) from error
        made = replace(made, seconds=round(time.perf_counter() - began, 3))
        made.write(text)
    return made
