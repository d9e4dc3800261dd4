"""``seran bids``, a BIDS App: the scans of a data set become a derivative data set, and a summary of it."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import seran
from seran import facts, files, io, progress
from seran.engines import Engine
from seran.errors import BadInput, Incomplete, counted
from seran.job import batch, columns, dataset, found, summary
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.dataset import Naming, Selection
from seran.job.limits import Limits
from seran.job.options import Options
from seran.journal import Telling

BESIDE = {
    "uncertainty": "Half-widths of intervals for desc-{}: on average over scans like those of the "
    "calibration they cover the error of 9 of 10 tissue voxels",
    "estimated": "What the scan did not measure of desc-{}: estimated by weights",
}
DESCRIPTION = "Images on a finer grid in the plane of their slices. Not for diagnosis."
CARRIED = {"Authors": list, "License": str}
"""What a derivative data set says as the raw one does."""
OWN = ("README.md", ".bidsignore")
"""What a user may have written, or write on, and is left as it is."""
FORMER = "group.*\n"
"""`.bidsignore` as earlier versions wrote it."""


def _planned(
    root: Path, out: Path, image: Path, names: Naming, wrong: str, said: Sequence[Path], work: Path | None
) -> Task:
    """What becomes of an image that these JSON files say something of, or why nothing can.

    Its page lies at the top, reasons to fail in logs.
    """
    planned = found.task(root, out, image, names.of(image))
    if wrong:  # of a wrong name or place, the text would be about another scan
        log = planned.log if dataset.is_right(image.relative_to(root)) else None
        return replace(found.task(root, out, image, wrong=wrong), log=log)
    facts = partial(dataset.stated, root, image, names, said)
    return replace(planned, facts=facts, work=work, shared=out, above=out / "group.html")


def _refuse_folder(root: Path, out: Path) -> None:
    """Raise `BadInput` for an output folder among the raw data, or of a data set that seran has not made."""
    raw, made = root.resolve(), out.resolve()
    if made.is_relative_to(raw) and raw / "derivatives" not in made.parents:
        place = f"name another folder, or {root / 'derivatives' / 'seran'}"
        raise BadInput(f"{out}: the results would lie among the raw data; {place}")
    path = out / "dataset_description.json"
    if path.is_file() and '"Name": "seran"' not in facts.dumps(dataset.parsed(path).get("GeneratedBy")):
        raise BadInput(f"{out} is a data set that seran has not made; name another folder")


def _describe(root: Path, out: Path) -> None:
    """Write what a derivative data set needs besides images and their `_list`."""
    path = out / "dataset_description.json"
    link = Path(os.path.relpath(root.resolve(), out.resolve())).as_posix()
    told = {
        "Name": "MR images sharpened by seran",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "seran", "Version": seran.__version__, "Description": DESCRIPTION}],
        "HowToAcknowledge": "Zhang et al., MR Image Super-Resolution With Squeeze and Excitation Reasoning "
        "Attention Network, CVPR 2021",
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
    }
    raw = dataset.parsed(root / path.name)
    told |= {name: raw[name] for name, kind in CARRIED.items() if isinstance(raw.get(name), kind)}
    texts = {
        path.name: facts.dumps(told, indent=1) + "\n",
        "README.md": f"# MR images on a finer grid\n\n{DESCRIPTION} Made by `seran bids`. "
        "Each image has a JSON file that states method, weights and their hash.\n",
        ".bidsignore": "group.*\n*.html\nlogs/\nviewer\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        kept = name in OWN and os.path.lexists(out / name)
        former = name == ".bidsignore" and (out / name).is_file()
        if kept and not (former and (out / name).read_bytes() == FORMER.encode()):
            continue
        with files.atomic(out / name) as part:
            part.write_text(text, encoding="utf-8")


def _list(out: Path, names: Naming, beside: Sequence[str]) -> None:
    """Say in descriptions.tsv what the labels of these results mean; a row for each label, of all runs."""
    path = out / "descriptions.tsv"
    lines = path.read_text("utf-8", "replace").split("\n")[1:] if path.is_file() else []
    rows = {label: text for label, _, text in (line.partition("\t") for line in lines if line)}
    rows[f"desc-{names.desc}"] = columns.cell(names.description)
    for name in beside:
        rows[f"desc-{names.desc}{name}"] = f"{BESIDE[name].format(names.desc)}. Not for diagnosis."
    told = [f"{label}\t{text}" for label, text in sorted(rows.items())]
    with files.atomic(path) as part:
        text = "\n".join(["desc_id\tdescription", *told, ""])
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names of weights


def _scan(task: Task, root: Path) -> summary.Scan:
    """What is told of a scan, with its participant and session, and what the name of its result says."""
    parts = task.source.relative_to(root).parts
    session = next((part for part in parts[1:-1] if part.startswith("ses-")), None)
    _, res, desc = found.labels(io.stem(task.out)) or ("", "", "")
    kind = {"labels": f"res-{res}_desc-{desc}", "res": res, "desc": desc} if desc else {}
    return {"participant_id": parts[0], "session_id": session, **kind, **summary.of(task, root)}


def _kind(scan: summary.Scan) -> str:
    """What is said of all results with the labels of this one."""
    return f"{scan.get('labels')}: {scan['description']} Grid: {scan.get('resolution', 'not known')}."


def _group(root: Path, out: Path, wanted: Selection, names: Naming | None, strict: bool) -> str:
    """Write the summary of a derivative data set and say it, by `Incomplete` if that is no success.

    Args:
        root: the data set.
        out: the derivatives.
        wanted: which scans.
        names: how the results are called that every scan shall have; None: whatever there is of each.
        strict: whether a check that says FAIL is no success.
    """
    if not (out / "dataset_description.json").is_file():
        raise BadInput(f"{out}: nothing is there yet; run `seran bids {root} {out} participant` first")
    tasks = found.tasks(root, out, wanted, names)
    if not tasks:
        dataset.images(root, wanted)  # says why
    scans, page = [_scan(task, root) for task in tasks], out / "group.html"
    only = found.words(wanted)
    if names is not None:
        only.append(f"results of res-{names.res}_desc-{names.desc}")
    about = summary.About(
        str(dataset.parsed(root / "dataset_description.json").get("Name", root.name)),
        sorted({_kind(scan) for scan in scans if "description" in scan}),
        ", ".join(only),
        f"seran bids {root} {out} participant --report (and the options of the results)",
    )
    summary.write(scans, page, about)
    if changed := summary.disputed(scans):
        progress.say(f"seran: {changed}", "stderr", logging.WARNING)
    told = f"{summary.counts(scans)}; {', '.join(map(str, summary.names(page)))}"
    told += f"; only {about.only}" * bool(only)
    if summary.wrong(scans, strict):
        raise Incomplete(told)
    return told


def bids(
    bids_dir: Path,
    output_dir: Path,
    level: Literal["participant", "group"],
    /,
    wanted: Selection = Selection(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    force: bool = False,
    resume: bool = False,
    verify: bool = False,
    report: bool = False,
    telling: Telling = Telling(),  # noqa: B008
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    where: Cluster = Cluster(),  # noqa: B008
) -> str:
    """Sharpen the scans of a BIDS data set, as a BIDS App.

    `participant` writes derivatives (`…_res-x2_desc-seran_T2w.nii.gz` with its JSON; options other than the
    defaults go into the label of desc-); scans whose result is there, made from the same scan by the same
    weights, options and version, are passed over. `group` writes group.html, group.tsv (and what its columns
    are) and group.json: every scan with each of its results, whatever their options, what the checks say, or
    why it failed. With options that say how scans are sharpened, or which, it is restricted to these.

    Args:
        bids_dir: the raw data set.
        output_dir: the derivative data set; made if it is not there.
        level: participant, any number of times, also in parallel for different participants; then group.
        wanted: which images.
        limits: what may be used of the machine.
        force: of participant, make every result again, and replace whatever has its name, also what no record
            of seran's vouches for; with --cluster only what is not there or not as it would be made.
        resume: of participant, pass over results that are there; without --force that is so in any case.
        verify: of participant, read and hash every scan and result that is there; without it only those whose
            size or modification time is not as recorded.
        report: of participant: a page (.html) for each scan, at the top of output_dir: before and after with
            a divider, difference, spectrum, checks; group.html has a picture of each and leads to it.
        telling: what is told.
        options: how.
        engine: how the network is run.
        where: several scans may be sharpened at once, on this machine or on many.
    """
    if where.cluster != "sbatch":  # what is printed is a script, and nothing is done that could be told
        telling.begin()
    elif level == "group":
        raise BadInput("--cluster sbatch: is for participant; run group when the jobs are done")
    if where.dry_run and level == "group":
        raise BadInput("--dry-run: is for participant; group makes no images, and says what is there")
    engine, where = limits.shared(engine, where)
    names, stops = dataset.naming(options, engine), telling.strict == "on"
    if level == "group":
        _refuse_folder(bids_dir, output_dir)
        every = options == Options() and names == dataset.naming(Options(), Engine())
        return _group(bids_dir, output_dir, wanted, None if every else names, stops)
    options.refuse_unfit()
    left = Counter[str]()
    images = dataset.images(bids_dir, wanted, left=left)
    _refuse_folder(bids_dir, output_dir)
    said = dataset.descriptions(bids_dir, [image for image, wrong in images.items() if not wrong])
    tasks = [
        _planned(bids_dir, output_dir, image, names, wrong, said.get(image, ()), limits.work_dir)
        for image, wrong in images.items()
    ]
    if left:
        told = f"{counted(left.total(), 'image')} of other suffixes were not asked for"
        progress.say(f"seran: {told} ({', '.join(sorted(left))})", "stderr")
    if where.runs:
        limits.refuse_work(bids_dir)
        _describe(bids_dir, output_dir)
    if not report:
        tasks = [replace(task, page=None) for task in tasks]
    how: dict[str, Any] = {
        "force": force,
        "resume": resume or not force,
        "where": where,
        "strict": stops,
        "verify": verify,
    }
    with limits.bounded(where):
        listed = partial(_list, output_dir, names, options.beside)
        return batch.run(tasks, options, engine, **how, first=listed)
