"""Scans in, sharper scans out, with a record beside each."""

from pathlib import Path
from typing import Annotated

import tyro

from seran import io
from seran.apps import FLAT, Positional, compare
from seran.engines import Engine
from seran.errors import BadInput, Incomplete
from seran.job import batch, record
from seran.job import run as job
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.options import Options


def scans_in(folder: Path) -> list[Path]:
    """The scans below a folder; none in the folder of a DICOM series."""
    found = [
        p
        for p in sorted(folder.rglob("*"))
        if p.is_file() and io.format_of(p) and not p.name.startswith(".") and not io.dicom.is_dicom(p)
    ]
    return [p for p in found if not (p.suffix.lower() == ".img" and p.with_suffix(".hdr") in found)]


def planned(sources: tuple[Path, ...], out: Path) -> list[Task]:
    """Every scan and where its result goes: below ``out``, under its own name.

    Where ``out`` lies in a folder of scans, what is in it are results of earlier runs, not scans.

    Raises:
        BadInput: if two results would have one name.
    """
    pairs, results = [], out.resolve()
    for source in sources:
        inside = scans_in(source) if source.is_dir() else []
        if source.resolve() in results.parents:
            inside = [one for one in inside if not one.parent.resolve().is_relative_to(results)]
        pairs += [(one, out / one.relative_to(source)) for one in inside] or [(source, out / source.name)]
    taken: dict[Path, Path] = {}
    for source, result in pairs:
        if result in taken:
            raise BadInput(f"{source} and {taken[result]} would both become {result}; sharpen them apart")
        taken[result] = source
    return [Task(*pair) for pair in pairs]


def upscale(
    paths: Annotated[Positional[tuple[Path, ...]], "IN ... OUT"],
    inputs: Annotated[tuple[Path, ...], tyro.conf.arg(name="in", aliases=("-i",)), "IN ..."] = (),
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",)), "OUT"] = None,
    force: bool = False,
    resume: bool = False,
    report: Path | None = None,
    options: Annotated[Options, FLAT] = Options(),  # noqa: B008
    engine: Annotated[Engine, FLAT] = Engine(),  # noqa: B008
    where: Annotated[Cluster, FLAT] = Cluster(),  # noqa: B008
) -> str:
    """Sharpen scans in the plane of their slices, and write a JSON record beside each.

    `seran upscale IN OUT` for one scan; `seran upscale IN IN ... FOLDER`, where IN may be a folder of scans,
    for many: a scan that cannot be used is named and counted, and does not stop the others.

    Formats: NIfTI (.nii, .nii.gz, .hdr/.img), FreeSurfer (.mgh, .mgz), NRRD (.nrrd), MetaImage (.mha), and
    folders of DICOM files.

    Args:
        paths: the scan, one real number per voxel, 3-D or a series of volumes (4-D), and the result, in the
            input's units and in the format that its name ends in; a name without an ending becomes the folder
            of a derived DICOM series, if the input is one; in a folder that is there, a file keeps its name
            and format. Or scans, or a folder of them, and a folder.
        inputs: the same as IN.
        out: the same as OUT.
        force: replace existing results.
        resume: pass over scans whose result is there, made from the same scan by the same weights, options
            and version; replace others.
        report: a page (.html) about one scan: before and after with a divider, difference, spectrum, checks.
        options: how.
        engine: how the network is run.
        where: several scans may be sharpened at once, on this machine or on many.

    Raises:
        BadInput: for anything wrong with the input or the options; nothing is written then.
        Incomplete: if some of several scans could not be sharpened, or a check of the report fails.
        OSError: if a result cannot be written; nothing half-written is left behind.
    """
    named = (*inputs, *paths, *([out] if out else ()))
    if len(named) < 2:
        raise BadInput("upscale needs IN and OUT; see seran upscale --help")
    *sources, out = named
    chosen = options.read.series is not None  # of a DICOM folder, whatever else lies there
    single = len(sources) == 1 and (chosen or not (sources[0].is_dir() and scans_in(sources[0])))
    if single and where != Cluster():
        raise BadInput("--cluster and --part are for several scans; name a folder of them, or several")
    if report is not None and not single:
        raise BadInput("--report is for one scan; `seran compare IN OUT PAGE.html` makes a page of a pair")
    if single:
        if sources[0].is_file() and out.is_dir():  # in the input's format, under its name
            out = out / sources[0].name
        return _one(sources[0], out, force, resume, report, options, engine)
    if out.is_file() or io.format_of(out):
        raise BadInput(f"{out}: expected a folder for the results of several scans")
    return batch.run(planned(tuple(sources), out), options, engine, force, resume, where)


def _one(
    source: Path, out: Path, force: bool, resume: bool, report: Path | None, options: Options, engine: Engine
) -> str:
    if report is not None:
        compare.refuse_page(report, force or resume, source, out, record.sidecar(out))
    if resume and record.is_done(source, out, options, engine):
        made, told = record.read(out), f"{out} is there already, from the same scan and options"
    else:
        with batch.bars() as watch:
            made = job.run(source, out, options, engine, watch, force or resume)
        told = made.summary(out)
    if report is None:
        return told
    try:
        before = io.resolve(source, options.read.series)
        return f"{told}\n{compare.write(before, out, report, options.read, made)}"
    except Incomplete as error:
        raise Incomplete(f"{error}; the result is kept ({told})") from error
