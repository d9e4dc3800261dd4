"""``seran bids``, a BIDS App: the scans of a data set become a derivative data set, and a summary of it."""

import csv
import json
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Literal

import seran
from seran import files
from seran.engines import Engine
from seran.errors import BadInput
from seran.grid import dimensions
from seran.job import batch, dataset, record
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.dataset import Naming, Selection
from seran.job.limits import Limits
from seran.job.options import Options
from seran.journal import Telling
from seran.progress import plain
from seran.quality import report

BESIDE = {
    "uncertainty": "Half-widths of intervals for desc-{}: on average over scans like those of the "
    "calibration they cover the error of 9 of 10 tissue voxels",
    "estimated": "What the scan did not measure of desc-{}: estimated by weights",
}
DESCRIPTION = "Images on a finer grid in the plane of their slices. Not for diagnosis."
OWN = ("README.md", ".bidsignore")
"""What a user may have written, or write on, and is left as it is."""
BAD = ("FAIL", "WARN")
"""Verdicts that are counted, and whose checks are told in words."""
MARKED = ("missing", *BAD)
"""Cells of the page that stand out."""
COLUMNS = (
    "participant_id", "session_id", "source", "status", "verdict", "method", "weights", "weights_sha256",
    "version", "voxel_before", "voxel_after", "kspace_support", "seconds", "checks",
)  # fmt: skip


def _planned(
    root: Path, out: Path, image: Path, names: Naming, wrong: str, said: Sequence[Path], work: Path | None
) -> Task:
    """What becomes of an image that these JSON files say something of, or why nothing can."""
    name = image.name if wrong else names.of(image)
    made = out / image.relative_to(root).with_name(name)
    return Task(image, made, partial(dataset.stated, root, image, names, said), wrong, work)


def _refuse_folder(root: Path, out: Path) -> None:
    """Raise `BadInput` for an output folder among the raw data, or of a data set that seran has not made."""
    raw, made = root.resolve(), out.resolve()
    if made.is_relative_to(raw) and raw / "derivatives" not in made.parents:
        place = f"name another folder, or {root / 'derivatives' / 'seran'}"
        raise BadInput(f"{out}: the results would lie among the raw data; {place}")
    path = out / "dataset_description.json"
    if path.is_file() and '"Name": "seran"' not in json.dumps(dataset.parsed(path).get("GeneratedBy")):
        raise BadInput(f"{out} is a data set that seran has not made; name another folder")


def _describe(root: Path, out: Path, names: Naming, beside: Sequence[str]) -> None:
    """Write what a derivative data set needs besides images."""
    path, described = out / "dataset_description.json", out / "descriptions.tsv"
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
    former = described.read_text("utf-8", "replace").splitlines()[1:] if described.is_file() else []
    made = [f"desc-{names.desc}\t{names.description}"]
    for name in beside:
        made.append(f"desc-{names.desc}{name}\t{BESIDE[name].format(names.desc)}. Not for diagnosis.")
    rows = sorted({*former, *made})  # of all runs
    texts = {
        path.name: json.dumps(told, indent=1) + "\n",
        described.name: "\n".join(["desc_id\tdescription", *rows, ""]),
        "README.md": f"# MR images on a finer grid\n\n{DESCRIPTION} Made by `seran bids`. "
        "Each image has a JSON file that states method, weights and their hash.\n",
        ".bidsignore": "group.*\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if name in OWN and os.path.lexists(out / name):
            continue
        with files.atomic(out / name) as part:
            part.write_text(text, encoding="utf-8")


def _row(task: Task, root: Path) -> dict[str, str]:
    """What the record of a task says, or that it is missing."""
    inside, made = task.source.relative_to(root), None if task.wrong else record.read(task.out)
    row: dict[str, object] = {
        "participant_id": inside.parts[0],
        "session_id": next((part for part in inside.parts[1:-1] if part.startswith("ses-")), None),
        "source": inside.as_posix(),
        "status": "done" if made else "missing",
    }
    if made:
        bad = sorted((c.verdict, c.name, c.text) for c in made.checks if c.verdict in BAD)
        row |= {name: getattr(made, name) for name in ("method", "weights", "weights_sha256", "version")} | {
            "voxel_before": dimensions(made.voxel_size_before, ".3g", " x "),
            "voxel_after": dimensions(made.voxel_size_after, ".3g", " x "),
            "kspace_support": dimensions(made.kspace_support, ".3g", " x "),
            "seconds": f"{made.seconds:.1f}",
            "verdict": made.verdict,
            "checks": " | ".join(f"{verdict} {name}: {text}" for verdict, name, text in bad),
        }
    cells = {name: " ".join(plain(str(row.get(name) or "n/a")).split()) for name in COLUMNS}
    return {name: f"'{cell}" if cell[0] in "=+-@" else cell for name, cell in cells.items()}  # no formula


def _counts(table: Sequence[dict[str, str]], what: str) -> str:
    """How many scans have a result, and how many of these a FAIL or a WARN."""
    done, verdicts = sum(row["status"] == "done" for row in table), [row["verdict"] for row in table]
    bad = (f", {verdicts.count(verdict)} {verdict}" for verdict in BAD if verdict in verdicts)
    return f"{done} of {len(table)} {what}{''.join(bad)}"


def page(table: Sequence[dict[str, str]]) -> str:
    """The rows as a page of its own; everything in it is escaped."""
    rows = report.table([list(row.values()) for row in table], COLUMNS)
    return Template(Path(__file__).with_suffix(".html").read_text()).substitute(
        counts=_counts(table, "scans sharpened"),
        description=DESCRIPTION,
        version=seran.__version__,
        table=re.sub(f"<td>({'|'.join(MARKED)})<", r'<td class="\1">\1<', rows),
    )


def bids(
    bids_dir: Path,
    output_dir: Path,
    level: Literal["participant", "group"],
    /,
    wanted: Selection = Selection(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    verify: bool = False,
    telling: Telling = Telling(),  # noqa: B008
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    where: Cluster = Cluster(),  # noqa: B008
) -> str:
    """Sharpen the scans of a BIDS data set, as a BIDS App.

    `participant` writes derivatives (`…_res-x2_desc-seran_T2w.nii.gz` with its JSON; options other than the
    defaults go into the label of desc-); scans whose result is there, made from the same scan by the same
    weights, options and version, are passed over. `group` writes group.tsv and group.html: every scan, done
    or missing, with the results of the same options and what their checks say.

    Args:
        bids_dir: the raw data set.
        output_dir: the derivative data set; made if it is not there.
        level: participant, any number of times, also in parallel for different participants; then group.
        wanted: which images.
        limits: what may be used of the machine.
        verify: of participant, read and hash every scan and result that is there; without it only those whose
            size or modification time is not as recorded.
        telling: what is told.
        options: how.
        engine: how the network is run.
        where: several scans may be sharpened at once, on this machine or on many.
    """
    telling.begin()
    engine, where = limits.shared(engine, where)
    images = dataset.images(bids_dir, wanted)
    _refuse_folder(bids_dir, output_dir)
    names, work = dataset.naming(options, engine), limits.work_dir
    right = [image for image, wrong in images.items() if not wrong and level == "participant"]
    said = dataset.descriptions(bids_dir, right)
    tasks = [
        _planned(bids_dir, output_dir, image, names, wrong, said.get(image, ()), work)
        for image, wrong in images.items()
    ]
    if level == "participant":
        limits.refuse_work(bids_dir)
        _describe(bids_dir, output_dir, names, options.beside)
        stops = telling.strict == "on"
        with limits.bounded(where):
            return batch.run(tasks, options, engine, resume=True, where=where, strict=stops, verify=verify)
    if not (output_dir / "dataset_description.json").is_file():
        told = f"run `seran bids {bids_dir} {output_dir} participant` first"
        raise BadInput(f"{output_dir}: nothing is there yet; {told}")
    table = [_row(task, bids_dir) for task in tasks]
    paths = output_dir / "group.tsv", output_dir / "group.html"
    with files.together(*paths) as (tsv, web):
        with tsv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
        web.write_text(page(table), encoding="utf-8")
    return f"{_counts(table, 'scans are sharpened')}; {paths[0]}, {paths[1]}"
