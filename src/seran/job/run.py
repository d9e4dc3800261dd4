"""One scan from file to file, for whatever sharpens files: `Steps` do the work."""

import functools
import itertools
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from seran import files, grid, io, progress, scratch
from seran.engines import Engine
from seran.errors import BadInput
from seran.job import labels, memory, record
from seran.job.advice import faster
from seran.job.options import Options
from seran.job.record import Record, sidecar
from seran.job.resume import keeping, key, listed, stamp, thickness_for
from seran.job.steps import Steps, ahead

SLICES = ("SliceThickness", "SpacingBetweenSlices")


def refuse_output(out: Path, force: bool, source: Path | None = None, resume: bool = False) -> None:
    """Raise `BadInput` if the result could not be written, or would replace what must not be replaced.

    Args:
        out: the result.
        force: whatever is there may be replaced.
        source: the scan, which may not.
        resume: what has a record of seran's may be replaced.
    """
    there = record.there(out)  # refuses names of no format
    if not io.format_of(out) and source is not None and source.is_file():
        why = "a name without one is the folder of a DICOM series, which only DICOM becomes"
        ends = ", ".join(end for end in io.FORMATS if end not in io.ONE_FILE)
        raise BadInput(f"{out}: must end in {ends}; {why}")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it first")
    if not os.access(out.parent, os.W_OK):
        raise BadInput(f"{out.parent}: the folder is not writable; choose another output")
    for path in there:
        if path.is_dir():
            raise BadInput(f"{path} is a folder, which is not replaced; remove it, or name another output")
        if source and source.exists() and path.exists() and path.samefile(source):
            raise BadInput(f"{path}: the output would replace the input; name another file")
        if source and io.format_of(source) is not None and sidecar(source) == path:
            raise BadInput(f"{path} describes the input and would be replaced; name another output")
        if resume and not (force or record.is_ours(out)):
            beside = sidecar(out)
            if path != beside and beside.is_file() and not record.is_readable(beside):
                known = f"exists, and the record beside it, {beside.name}, cannot be read"
                raise BadInput(f"{path} {known}; remove both, or give --force to replace them")
            known = "exists, and no record beside it says that seran made it"
            raise BadInput(f"{path} {known}; remove it, or give --force to replace it")
        if not (force or resume):
            raise BadInput(f"{path} exists; give --force to replace it")


def run(
    source: Path,
    out: Path,
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    force: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
    resume: bool = False,
    work: Path | None = None,
) -> Record:
    """Sharpen one scan and write it with its record: all files, or none with `BadInput` or an OSError.

    Args:
        source: the scan.
        out: the result, in the format that its name ends in.
        options: how.
        engine: how a network is run.
        force: replace whatever is there.
        facts: what the record states besides.
        resume: replace an existing result of seran's.
        work: folder for arrays that are kept on disk; that of the result without it.
    """
    began = time.perf_counter()
    refuse_output(out, force, source, resume)
    reading, allocate = options.read, scratch.allocator(work or out.parent)
    scan, before = io.resolve(source, reading.series), listed(source)
    series = io.read_series(scan, reading.affine, reading.fill, allocate, reading.volume)
    with progress.stage(f"read {source}", "read"):
        held = ahead(series.volumes)
    made_here = record.is_result(source)
    if reading.label_check:
        labels.refuse_other_kinds(source, held[0], made_here)
    with progress.stage("plan, and load the method", "load"):
        digest, thickness = files.sha256_of(scan.files), thickness_for(source, options, facts)
        if resume:
            options = keeping(record.read(out), digest, options, engine, source.name, thickness)
        steps = Steps(held[0], options, engine, more=held[1:], scan=str(source), thickness=thickness)
        steps.sharpened, steps.out = made_here, out
    progress.advise(faster(options, engine))
    matrix = [grid.dimensions(one.shape) for one in (steps.plan.scan, steps.final)]
    of = f" ({steps.method.weights})" * bool(steps.method.weights)
    log = "%s%s: slices along axis %d, matrix %s -> %s"
    progress.log.info(log, steps.method.name, of, steps.plan.axis, *matrix)
    images, slices = steps.shapes
    memory.foresee(str(source), [*images, *[steps.plan.scan.shape] * len(held)], slices, engine)
    found: list[Record] = []
    outs = record.outputs(out, steps.maps)
    former, own = record.maps_of(out), record.maps_of(out, whole=True)
    for more in outs[1:]:
        refuse_output(more, force or (resume and more in former), source)
    written = [path for one in outs for path in io.written(one)]
    with (
        files.together(*written, sidecar(out), force=force or resume) as (*parts, text),
        ExitStack() as stack,
    ):
        hidden = dict(zip(written, parts, strict=True))
        try:
            names = [hidden[io.written(one)[0]] for one in outs]
            types = [options.dtype, *["float32"] * len(steps.maps)]
            nth = map(record.number, ("", *steps.maps))
            writers = [
                stack.enter_context(io.writer(n, series.count, t, i))
                for n, t, i in zip(names, types, nth, strict=True)
            ]
            waiting = (held.pop(0) for _ in range(len(held)))
            seen = progress.slices(series.count * steps.plan.scan.shape[steps.plan.axis])
            for i, volume in enumerate(itertools.chain(waiting, series.volumes)):
                shown = steps.method.name + f" {i + 1}/{series.count}" * (series.count > 1)
                with progress.stage(f"sharpen and check {shown}"):
                    image, maps, one = steps(volume, seen, allocate)
                progress.enter("write")
                for writer, (name, each) in zip(writers, {"": image, **maps}.items(), strict=True):
                    writer.add(each, one.said(name))
                found.append(one)
            stack.close()
        except BadInput as error:  # of the name that the user gave, not of the temporary one
            raise BadInput(str(error).replace(str(parts[0]), str(out))) from error
        made = functools.reduce(Record.joined, found)
        progress.log.info("%s in %s", made.engine, made.precision)
        made = replace(
            made,
            input=source.absolute().name,
            input_sha256=digest,
            read_as=reading.stated,
            key=key(digest, options, engine, source.name, thickness),
        )
        took = round(time.perf_counter() - began, 3)
        if steps.across is not None or options.target.like is not None:  # its slices are others
            size = round(made.voxel_size_after[made.slice_axis], 6)
            facts = {name: fact for name, fact in facts.items() if name not in SLICES}
            facts |= dict.fromkeys(SLICES, size) if steps.across else {}
        made = replace(made, volumes=series.count, facts=facts, seconds=took)
        made = replace(made.sealed(names), stamp=stamp(before, names))
        made.write(text)
    for path in remove_maps(own, outs):
        told = "removed: the result that it was made with is replaced, and no such image is asked for"
        progress.say(f"seran: {path}: {told}", "stderr", logging.WARNING)
    return made


def remove_maps(former: Sequence[Path], kept: Sequence[Path]) -> list[Path]:
    """Remove the maps of a result that was replaced, but for those that were, too; give their names."""
    gone = [path for one in former if one not in kept for path in io.written(one)]
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return gone
