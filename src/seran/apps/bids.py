"""``seran bids``, a BIDS App: the scans of a data set become a derivative data set, and a summary of it."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import seran
from seran import files, io, progress
from seran.engines import Engine
from seran.errors import BadInput, Incomplete, counted
from seran.job import batch, dataset, summary
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
    place = out / image.relative_to(root)
    made = place.with_name(names.of(image)) if dataset.NAME.fullmatch(image.name) else place
    stem = io.stem(made)
    page, log = out / f"{stem}.html", out / "logs" / f"{stem}.txt"
    if wrong:
        return Task(image, place, wrong=wrong, log=log)
    facts = partial(dataset.stated, root, image, names, said)
    return Task(image, made, facts, work=work, page=page, log=log, shared=out)


def _refuse_folder(root: Path, out: Path) -> None:
    """Raise `BadInput` for an output folder among the raw data, or of a data set that seran has not made."""
    raw, made = root.resolve(), out.resolve()
    if made.is_relative_to(raw) and raw / "derivatives" not in made.parents:
        place = f"name another folder, or {root / 'derivatives' / 'seran'}"
        raise BadInput(f"{out}: the results would lie among the raw data; {place}")
    path = out / "dataset_description.json"
    if path.is_file() and '"Name": "seran"' not in json.dumps(dataset.parsed(path).get("GeneratedBy")):
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
        path.name: json.dumps(told, indent=1) + "\n",
        "README.md": f"# MR images on a finer grid\n\n{DESCRIPTION} Made by `seran bids`. "
        "Each image has a JSON file that states method, weights and their hash.\n",
        ".bidsignore": "group.*\n*.html\nlogs/\nviewer\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        kept = name in OWN and os.path.lexists(out / name)
        if kept and not (name == ".bidsignore" and (out / name).read_bytes() == FORMER.encode()):
            continue
        with files.atomic(out / name) as part:
            part.write_text(text, encoding="utf-8")


def _list(out: Path, names: Naming, beside: Sequence[str]) -> None:
    """Say in descriptions.tsv what the labels of these results mean; a row for each label, of all runs."""
    path = out / "descriptions.tsv"
    lines = path.read_text("utf-8", "replace").splitlines()[1:] if path.is_file() else []
    rows = {label: text for label, _, text in (line.partition("\t") for line in lines)}
    rows[f"desc-{names.desc}"] = names.description
    for name in beside:
        rows[f"desc-{names.desc}{name}"] = f"{BESIDE[name].format(names.desc)}. Not for diagnosis."
    told = [f"{label}\t{text}" for label, text in sorted(rows.items())]
    with files.atomic(path) as part:
        part.write_text("\n".join(["desc_id\tdescription", *told, ""]), encoding="utf-8")


def _scan(task: Task, root: Path) -> summary.Scan:
    """What is told of a scan, with its participant and session."""
    parts = task.source.relative_to(root).parts
    session = next((part for part in parts[1:-1] if part.startswith("ses-")), None)
    return {"participant_id": parts[0], "session_id": session, **summary.of(task, root)}


def _summed(scans: Sequence[summary.Scan], out: Path, strict: bool) -> str:
    """Write the summary of a derivative data set and say it, by `Incomplete` if that is no success."""
    page = out / "group.html"
    summary.write(scans, page)
    told = f"{summary.counts(scans)}; {', '.join(map(str, summary.names(page)))}"
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
    weights, options and version, are passed over. `group` writes group.html, group.tsv and group.json: every
    scan with the result of the same options, what its checks say, or why it failed.

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
    engine, where = limits.shared(engine, where)
    options.refuse_unfit()
    left = Counter[str]()
    images = dataset.images(bids_dir, wanted, left)
    _refuse_folder(bids_dir, output_dir)
    names, work = dataset.naming(options, engine), limits.work_dir
    right = [image for image, wrong in images.items() if not wrong and level == "participant"]
    said = dataset.descriptions(bids_dir, right)
    tasks = [
        _planned(bids_dir, output_dir, image, names, wrong, said.get(image, ()), work)
        for image, wrong in images.items()
    ]
    if level == "participant":
        if left:
            told = f"{counted(left.total(), 'image')} of other suffixes were not asked for"
            progress.say(f"seran: {told} ({', '.join(sorted(left))})", "stderr")
        if where.cluster != "sbatch":
            limits.refuse_work(bids_dir)
            _describe(bids_dir, output_dir)
        if not report:
            tasks = [replace(task, page=None) for task in tasks]
        stops = telling.strict == "on"
        listed = partial(_list, output_dir, names, options.beside)
        how: dict[str, Any] = {
            "force": force,
            "resume": resume or not force,
            "where": where,
            "strict": stops,
            "verify": verify,
        }
        with limits.bounded(where):
            return batch.run(tasks, options, engine, **how, first=listed)
    if not (output_dir / "dataset_description.json").is_file():
        told = f"run `seran bids {bids_dir} {output_dir} participant` first"
        raise BadInput(f"{output_dir}: nothing is there yet; {told}")
    return _summed([_scan(task, bids_dir) for task in tasks], output_dir, telling.strict == "on")
