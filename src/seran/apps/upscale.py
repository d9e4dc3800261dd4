"""Scans in, sharper scans out, with a record beside each."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from seran import infer, io, job
from seran.apps import FLAT
from seran.errors import BadInput, Incomplete
from seran.job import Options
from seran.methods import Engine


@contextmanager
def bars() -> Iterator[job.Watch]:
    """A progress bar for each volume, on a terminal; nothing in a log."""
    shown: list[tqdm] = []

    def watch(name: str, total: int) -> infer.Progress:
        while shown:
            shown.pop().close()
        shown.append(tqdm(total=total, unit="slice", desc=name, leave=False, disable=None))
        return shown[-1].update

    try:
        yield watch
    finally:
        while shown:
            shown.pop().close()


def scans_in(folder: Path) -> list[Path]:
    """The scans below a folder; none in the folder of a DICOM series."""
    found = [
        p for p in sorted(folder.rglob("*")) if p.is_file() and io.format_of(p) and not p.name.startswith(".")
    ]
    return [p for p in found if not (p.suffix.lower() == ".img" and p.with_suffix(".hdr") in found)]


def planned(sources: tuple[Path, ...], out: Path) -> list[tuple[Path, Path]]:
    """Every scan and where its result goes: below ``out``, under its own name.

    Raises:
        BadInput: if two results would have one name.
    """
    pairs = []
    for source in sources:
        inside = scans_in(source) if source.is_dir() else []
        pairs += [(one, out / one.relative_to(source)) for one in inside] or [(source, out / source.name)]
    taken: dict[Path, Path] = {}
    for source, result in pairs:
        if result in taken:
            raise BadInput(f"{source} and {taken[result]} would both become {result}; sharpen them apart")
        taken[result] = source
    return pairs


def upscale(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IN ... OUT")],
    force: bool = False,
    resume: bool = False,
    options: Annotated[Options, FLAT] = Options(),  # noqa: B008
    engine: Annotated[Engine, FLAT] = Engine(),  # noqa: B008
) -> str:
    """Sharpen scans in the plane of their slices, and write a JSON record beside each.

    `seran upscale IN OUT` for one scan; `seran upscale IN IN ... FOLDER`, where IN may be a folder of scans,
    for many: a scan that cannot be used is named and counted, and does not stop the others.

    Formats: NIfTI (.nii, .nii.gz, .hdr/.img), FreeSurfer (.mgh, .mgz), NRRD (.nrrd), MetaImage (.mha), and
    folders of DICOM files.

    Args:
        paths: the scan, one real number per voxel, 3-D or a series of volumes (4-D), and the result, in the
            input's units and in the format that its name ends in; a name without an ending becomes the folder
            of a derived DICOM series, if the input is one. Or scans, or a folder of them, and a folder.
        force: replace existing results.
        resume: pass over scans whose result is there, made from the same scan by the same weights, options
            and version; replace others.
        options: how.
        engine: how the network is run.

    Raises:
        BadInput: for anything wrong with the input or the options; nothing is written then.
        Incomplete: if some of several scans could not be sharpened.
        OSError: if a result cannot be written; nothing half-written is left behind.
    """
    if len(paths) < 2:
        raise BadInput(
            f"expected a scan and the name of its result, got {' '.join(map(str, paths)) or 'nothing'}"
        )
    *sources, out = paths
    single = len(sources) == 1 and not (sources[0].is_dir() and scans_in(sources[0]))
    with bars() as watch:
        if single:
            if resume and job.is_done(out, job.key(sources[0], options)):
                return f"{out} is there already, from the same scan and options"
            return job.told(job.run(sources[0], out, options, engine, watch, force or resume), out)
        if out.is_file() or io.format_of(out):
            raise BadInput(f"{out}: expected a folder for the results of several scans")
        return _batch(planned(tuple(sources), out), options, engine, watch, force, resume)


def _batch(
    pairs: list[tuple[Path, Path]],
    options: Options,
    engine: Engine,
    watch: job.Watch,
    force: bool,
    resume: bool,
) -> str:
    made, there, trouble = 0, 0, []
    for i, (source, out) in enumerate(pairs):
        try:
            if resume and job.is_done(out, job.key(source, options)):
                there += 1
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            record = job.run(source, out, options, engine, watch, force or resume)
            made += 1
            sys.stderr.write(f"[{i + 1}/{len(pairs)}] {job.told(record, out)}\n")
        except BadInput as error:
            trouble.append(str(error))
            sys.stderr.write(f"[{i + 1}/{len(pairs)}] failed: {' '.join(str(error).split())}\n")
    text = f"{made} sharpened, {there} there already, {len(trouble)} failed"
    if trouble:
        raise Incomplete(text)
    return text
