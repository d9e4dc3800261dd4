"""One scan from file to file: read, sharpened, put on its grid, written, with a record beside it.

Everything that sharpens files does it through `run`: a single scan, a folder of them, a BIDS data set.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seran import files, io, progress, scratch
from seran.engines import Engine
from seran.errors import BadInput
from seran.job import labels
from seran.job.options import Options
from seran.job.record import Record, key, sidecar
from seran.job.steps import Steps
from seran.sharpen import Progress

Watch = Callable[[str, int], Progress]
"""Told what is worked on and of how many slices, gives what is called as they are finished."""


def refuse_output(out: Path, force: bool, source: Path | None = None) -> None:
    """Raise `BadInput` if the result could not be written, or would replace what must not be replaced.

    Args:
        out: the result.
        force: a former result may be replaced.
        source: the scan, which may not.
    """
    if io.format_of(out) is None:
        raise BadInput(f"{out}: must end in {', '.join(io.FORMATS)}, or in nothing for a DICOM series")
    if not io.format_of(out) and source is not None and source.is_file():
        raise BadInput(
            f"{out}: only what was read from DICOM can be written as DICOM; name a file.nii.gz instead"
        )
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it first")
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{out.parent}: the folder is not writable; choose another output")
    for path in (*io.written(out), sidecar(out)):
        there = path.exists()
        if path.is_dir():
            raise BadInput(f"{path} is a folder, which is not replaced; remove it, or name another output")
        if there and source is not None and source.exists() and path.samefile(source):
            raise BadInput(f"{path}: the output would replace the input; name another file")
        if there and source is not None and io.format_of(source) is not None and sidecar(source) == path:
            raise BadInput(f"{path} describes the input and would be replaced; name another output")
        if there and not force:
            raise BadInput(f"{path} exists; give --force to replace it")


def spread_of(out: Path) -> Path:
    """Where the spread of a result lies: beside it."""
    stem = io.stem(out)
    return out.with_name(f"{stem}_spread{out.name[len(stem) :]}")


def run(
    source: Path,
    out: Path,
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    watch: Watch = lambda name, total: lambda n: None,
    force: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Record:
    """Sharpen one scan and write it with its record; all files or none.

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
    refuse_output(out, force, source)
    reading, allocate = options.read, scratch.allocator(out.parent)
    found = io.resolve(source, reading.series)
    series = io.read_series(found, reading.affine, reading.fill, allocate, reading.volume)
    with progress.stage(f"read {source}"):
        first = next(series.volumes)
    if reading.label_check:
        labels.refuse_labels(source, first)
    with progress.stage("plan, and load the method"):
        steps = Steps.of(first, options, engine)
    progress.log.info("%r in %s; %s", steps.method, steps.method.precision, steps.plan)
    digest = files.sha256_of(found.files)
    made = steps.record(source.name, digest, key(digest, options, engine), series.count, facts)
    outs = [out, spread_of(out)][: 1 + steps.method.spread]
    for extra in outs[1:]:
        refuse_output(extra, force, source)
    written = [path for one in outs for path in io.written(one)]
    with files.together(sidecar(out), *written) as (text, *parts), ExitStack() as stack:
        hidden = dict(zip(written, parts, strict=True))
        try:
            writers = [
                stack.enter_context(io.writer(hidden[io.written(one)[0]], series.count, options.dtype))
                for one in outs
            ]
            for i, volume in enumerate(itertools.chain([first], series.volumes)):
                shown = made.method + f" {i + 1}/{series.count}" * (series.count > 1)
                seen = watch(shown, volume.data.shape[made.slice_axis])
                with progress.stage(f"sharpen and check {shown}"):
                    result = steps(volume, seen, allocate)
                for writer, image in zip(writers, (result.image, result.spread), strict=False):
                    assert image is not None
                    writer.add(image)
                made = made.judged(result.checks)
            stack.close()
        except BadInput as error:  # of the name that the user gave, not of the temporary one
            raise BadInput(str(error).replace(str(parts[0]), str(out))) from error
        made = dataclasses.replace(made, seconds=round(time.perf_counter() - began, 3))
        made.write(text)
    return made
