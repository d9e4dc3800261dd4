"""Scans in, sharper scans out, with a record beside each."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from seran import files, io, progress
from seran.engines import Engine
from seran.errors import BadInput, Incomplete
from seran.io.dicom.folder import ENDS
from seran.job import batch, dataset, display, pages, record, summary
from seran.job import run as job
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.options import Options
from seran.job.resume import done
from seran.journal import Telling

NAMED = re.compile(rf"(?:{'|'.join(map(re.escape, io.FORMATS))})$", re.I)  # like a scan
PACKED = re.compile(r"\.(?:nii|hdr|mgh|nrrd|nhdr|mha|mhd)\.(?:gz|bz2|xz|zst|zip)$", re.I)
TEXTS = {".json", ".bval", ".bvec", ".txt", ".tsv", ".csv", ".md"}  # lie beside scans, and are no DICOM


def _scans_in(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """The scans below a folder, none in that of a DICOM series; what may be some and cannot be done."""
    paths, unread = files.below(folder)
    found = {p for p in paths if io.format_of(p) and not _is_dicom(p)}
    pairs = {p.with_suffix("") for p in found if p.suffix.lower() == ".hdr"}
    scans = [p for p in sorted(found) if p.suffix.lower() != ".img" or p.with_suffix("") not in pairs]
    if not scans:
        return [], {}
    lost = {p: why for p, why in unread.items() if _may_be_scans(p)}
    for path in (p for p in paths if p not in found and PACKED.search(p.name)):
        lost[path] = "of packed scans .nii.gz and .mgz are read; unpack it"
    above = _above(scans)
    for path in files.folders(folder):
        if NAMED.search(path.name) and path not in above:
            lost[path] = "a folder with the name of a scan, and no scan in it; rename or remove it"
    others = (p for p in paths if p not in found and p.suffix.lower() not in TEXTS and p.name != "DICOMDIR")
    return scans, lost | _series_beside(above, others)


def _above(scans: Iterable[Path]) -> set[Path]:
    """Every folder that a scan lies in or below."""
    return {parent for folder in {scan.parent for scan in scans} for parent in (folder, *folder.parents)}


def _series_beside(above: set[Path], others: Iterable[Path]) -> dict[Path, str]:
    """The folders of DICOM files, and how they are sharpened, as they are not together with other scans."""
    lost: dict[Path, str] = {}
    for path in others:
        here = path.parent
        if here not in lost and _is_dicom(path):
            which = " --series NUMBER" if here in above else ""
            lost[here] = f"{here}: DICOM files are sharpened apart: seran upscale {here} OUT{which}"
    return lost


def _is_dicom(path: Path) -> bool:
    with suppress(OSError):  # told when it is read
        return path.suffix.lower() in ENDS or io.dicom.is_dicom(path)
    return False


def _may_be_scans(path: Path) -> bool:
    with suppress(OSError):
        return io.format_of(path) is not None
    return True


def _planned(sources: list[Path], out: Path) -> list[Task]:
    """Every scan and where its result goes: below ``out``, under its own name.

    Where ``out`` lies in a folder of scans, what is in it are results of earlier runs, not scans.
    """
    tasks, results = [], out.resolve()
    for source in sources:
        inside, lost = _scans_in(source) if os.path.isdir(source) else ([], {})  # noqa: PTH112, of any path
        if not inside:
            tasks.append(Task(source, out / io.result_name(source)))
            continue
        for path in (*inside, *lost):
            own = source.resolve() in results.parents and path.parent.resolve().is_relative_to(results)
            if not own:
                result = (out / path.relative_to(source)).with_name(io.result_name(path))
                tasks.append(Task(path, result, wrong=lost.get(path, "")))
    return tasks


def _with_page(task: Task, folder: Path, every: Path) -> Task:
    """With a page beside the result that leads to the page of every scan, and a text beside it if it fails.

    Pages share the viewer of a folder.
    """
    if task.wrong:
        return task
    stem = io.stem(task.out)
    page, log = (task.out.with_name(stem + end) for end in (".html", ".failed.txt"))
    return replace(task, page=page, log=log, shared=folder, above=every)


def _summed(tasks: list[Task], root: Path, page: Path, how: str) -> str:
    """Write the page of many scans, and what else is told of them; their names."""
    scans = [summary.of(task, root) for task in tasks]
    name = "" if root == Path() else root.resolve().name
    summary.write(scans, page, summary.About(name, [how], again="the same command with --resume"))
    return ", ".join(map(str, summary.names(page)))


def upscale(
    paths: Annotated[tuple[Path, ...], "IN ... OUT"],
    /,
    inputs: Annotated[tuple[Path, ...], tyro.conf.arg(name="in", aliases=("-i",)), "IN ..."] = (),
    out: Annotated[Path | None, tyro.conf.arg(name="out", aliases=("-o",))] = None,
    force: bool = False,
    resume: bool = False,
    verify: bool = False,
    report: Annotated[Path | None, "PAGE"] = None,
    telling: Telling = Telling(),  # noqa: B008
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    where: Cluster = Cluster(),  # noqa: B008
) -> str:
    """Sharpen scans in the plane of their slices or, with --isotropic, across them, with a JSON record each.

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
            options, device, precision, version); replace others that have a record of seran's.
        verify: with --resume, read and hash every scan and result; without it only those whose size or
            modification time is not as recorded.
        report: a page (.html): before and after with a divider, difference, spectrum, checks. Of several
            scans such a page lies beside each result, and PAGE is a list of all with their pictures, verdicts
            and reasons to fail; a table (.tsv) and all checks (.json) lie beside it.
        telling: what is told.
        options: how.
        engine: how the network is run.
        where: several scans may be sharpened at once, on this machine or on many.
    """
    if where.cluster != "sbatch":  # what is printed is a script, and nothing is done that could be told
        telling.begin()
    named = [*inputs, *paths, *([out] if out else [])]
    if len(named) < 2:
        raise BadInput("upscale needs IN and OUT; see seran upscale --help")
    if verify and not resume:
        raise BadInput("--verify: only --resume uses it; give both, or leave it out")
    *sources, result = named
    chosen = options.read.series is not None  # of a DICOM folder, whatever else lies there
    if len(sources) > 1 or (not chosen and sources[0].is_dir() and _scans_in(sources[0])[0]):
        if result.is_file() or io.format_of(result):
            raise BadInput(f"{result}: must be a folder; several scans are sharpened")
        tasks = _planned(sources, result)
        how = options, engine, force, resume, where, telling.strict == "on", verify
        if report is None or not where.runs:
            return batch.run(tasks, *how)
        result.mkdir(parents=True, exist_ok=True)
        tasks = [_with_page(task, result, report) for task in tasks]
        summary.refuse(report, force, resume, tasks)
        root = sources[0] if len(sources) == 1 else Path()
        called = dataset.naming(options, engine)
        kept = root, report, f"{called.description} Grid: {called.resolution}."
        try:
            told = batch.run(tasks, *how)
        except Incomplete as error:
            raise Incomplete(f"{error}; {_summed(tasks, *kept)}") from error
        return f"{told}; {_summed(tasks, *kept)}"
    if where != Cluster():
        given = "--cluster, --part and --dry-run are for several scans"
        raise BadInput(f"{given}; name a folder of them, or several")
    source = sources[0]
    if source.is_file() and result.is_dir():  # in the input's format, under its name
        result = result / io.result_name(source)
    if report is not None:
        Task(source, result, page=report).refuse_page(force, resume)
    if resume and (made := done(source, result, options, engine, verify)):
        told = f"{result} is there already, from the same scan and options{made.judged_as(result)}"
        kind = "there"
    else:
        with display.shown():
            display.begin(source)
            made = job.run(source, result, options, engine, force, resume=resume)
            told, kind = made.summary(result), "sharpened"
    progress.tell("scan", number=1, scans=1, **display.outcome(kind, source, result, made))
    failed, why = made.failed, f"Checks in {record.sidecar(result).name}"
    if report is not None:
        found = pages.write(source, result, report, options.read)
        told, failed = f"{told}\n{found.words()}", [*dict.fromkeys([*failed, *found.failed])]
        why = str(report)
    if not failed or telling.strict == "off":
        return told
    progress.say(told)
    look = f"look at it and at {why} before you use it, or say --strict off if you know why"
    raise Incomplete(f"{result}: FAIL: {', '.join(failed)}; it is kept: {look}")
