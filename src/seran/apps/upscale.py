"""Scans in, sharper scans out, with a record beside each."""

from pathlib import Path
from typing import Annotated

import tyro

from seran import io
from seran.apps import compare
from seran.engines import Engine
from seran.errors import BadInput, Incomplete
from seran.job import batch, record
from seran.job import run as job
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.options import Options


def _scans_in(folder: Path) -> list[Path]:
    """The scans below a folder; none in the folder of a DICOM series."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    found = [p for p in files if io.format_of(p) and not io.dicom.is_dicom(p)]
    return [p for p in found if p.suffix.lower() != ".img" or p.with_suffix(".hdr") not in found]


def _planned(sources: list[Path], out: Path) -> list[Task]:
    """Every scan and where its result goes: below ``out``, under its own name.

    Where ``out`` lies in a folder of scans, what is in it are results of earlier runs, not scans.
    """
    pairs, results = [], out.resolve()
    for source in sources:
        inside = _scans_in(source) if source.is_dir() else []
        if source.resolve() in results.parents:
            inside = [one for one in inside if not one.parent.resolve().is_relative_to(results)]
        pairs += [(one, out / one.relative_to(source).parent / io.result_name(one)) for one in inside] or [
            (source, out / io.result_name(source))
        ]
    taken: dict[Path, Path] = {}
    for source, result in pairs:
        if taken.setdefault(result, source) is not source:
            raise BadInput(f"{source} and {taken[result]} would both become {result}; sharpen them apart")
    return [Task(*pair) for pair in pairs]


def upscale(
    paths: Annotated[tuple[Path, ...], "IN ... OUT"],
    /,
    inputs: Annotated[tuple[Path, ...], tyro.conf.arg(name="in", aliases=("-i",)), "IN ..."] = (),
    out: Annotated[Path | None, tyro.conf.arg(name="out", aliases=("-o",))] = None,
    force: bool = False,
    resume: bool = False,
    report: Annotated[Path | None, "PAGE"] = None,
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    where: Cluster = Cluster(),  # noqa: B008
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
        resume: pass over scans whose result is there, made from the same scan in the same way (weights,
            options, device, precision, version); replace others.
        report: a page (.html) about one scan: before and after with a divider, difference, spectrum, checks.
        options: how.
        engine: how the network is run.
        where: several scans may be sharpened at once, on this machine or on many.
    """
    named = [*inputs, *paths, *([out] if out else [])]
    if len(named) < 2:
        raise BadInput("upscale needs IN and OUT; see seran upscale --help")
    *sources, result = named
    chosen = options.read.series is not None  # of a DICOM folder, whatever else lies there
    if len(sources) > 1 or (not chosen and sources[0].is_dir() and _scans_in(sources[0])):
        if report is not None:
            raise BadInput(
                "--report is for one scan; `seran compare IN OUT PAGE.html` makes a page of a pair"
            )
        if result.is_file() or io.format_of(result):
            raise BadInput(f"{result}: must be a folder; several scans are sharpened")
        return batch.run(_planned(sources, result), options, engine, force, resume, where)
    if where != Cluster():
        raise BadInput("--cluster and --part are for several scans; name a folder of them, or several")
    source = sources[0]
    if source.is_file() and result.is_dir():  # in the input's format, under its name
        result = result / io.result_name(source)
    if report is not None:
        compare.refuse_page(report, force or resume, source, result, record.sidecar(result))
    if resume and record.done(source, result, options, engine):
        told = f"{result} is there already, from the same scan and options"
    else:
        with batch.bars() as watch:
            told = job.run(source, result, options, engine, watch, force or resume).summary(result)
    if report is None:
        return told
    try:
        return f"{told}\n{compare.write(source, result, report, options.read)}"
    except Incomplete as error:
        raise Incomplete(f"{error}; the result is kept ({told})") from error
