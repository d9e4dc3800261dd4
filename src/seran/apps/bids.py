"""``seran bids``: a BIDS App. The scans of a BIDS data set become a derivative data set, and a summary of it.

Names and required metadata follow the BIDS specification's chapters on derivatives: the source's entities,
then ``res-`` and ``desc-seran``, the suffix unchanged.
"""

import csv
import json
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, Literal

import seran
from seran import facts, files
from seran.engines import Engine
from seran.errors import BadInput
from seran.grid import dimensions
from seran.job import batch, record
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.options import Options, Target
from seran.quality import report

SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR")
"""What is sharpened unless `--suffix` says otherwise."""
NAME = re.compile(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_([A-Za-z0-9]+)(\.nii(?:\.gz)?)")
"""A raw image's name: entities, suffix, ending."""
NOT_MAGNITUDE = {"part-phase", "part-real", "part-imag"}
DESCRIPTION = "Sharpened in the plane of the slices by a super-resolution network. Not for diagnosis."
KEPT = (
    "Modality", "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "DeviceSerialNumber",
    "StationName", "SoftwareVersions", "InstitutionName", "ReceiveCoilName", "PulseSequenceType",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "MRAcquisitionType", "EchoTime",
    "RepetitionTime", "InversionTime", "FlipAngle", "EchoTrainLength", "ImagingFrequency",
    "ContrastBolusIngredient", "TaskName", "BodyPart",
)  # fmt: skip
"""Metadata of the source that are still true of the result."""
COLUMNS = (
    "participant_id", "session_id", "source", "status", "method", "weights", "weights_sha256", "version",
    "voxel_before", "voxel_after", "kspace_support", "seconds",
)  # fmt: skip


def _named(path: Path) -> tuple[list[str], str, str]:
    """Entities like ``sub-01`` in their order, suffix and ending of an image's name; none of other names."""
    matched = NAME.fullmatch(path.name)
    return (matched[1].split("_"), matched[2], matched[3]) if matched else ([], "", "")


def _scans(
    root: Path, participants: Sequence[str], sessions: Sequence[str], suffixes: Sequence[str]
) -> list[Path]:
    """The magnitude images of these suffixes, in order; labels with or without ``sub-``, none for all."""
    if not (root / "dataset_description.json").is_file():
        raise BadInput(f"{root}: expected a BIDS data set; it has no dataset_description.json")
    wanted = {f"sub-{label.removeprefix('sub-')}" for label in participants}
    visits = {f"ses-{label.removeprefix('ses-')}" for label in sessions}
    for name in sorted(wanted):
        if not (root / name).is_dir():
            raise BadInput(f"--participant-label {name[4:]}: no such participant in {root}")
    found = []
    for path in sorted([*root.glob("sub-*/*/*"), *root.glob("sub-*/ses-*/*/*")]):
        own, suffix, _ = _named(path)
        asked = (not wanted or wanted & set(own)) and (not visits or visits & set(own))
        if asked and suffix in suffixes and path.is_file() and not NOT_MAGNITUDE & set(own):
            found.append(path)
    if not found:
        raise BadInput(f"{root}: no image of these participants and sessions ends in {', '.join(suffixes)}")
    return found


def resolution(target: Target) -> tuple[str, str]:
    """The label of ``res-``, and what it means."""
    if target.like is not None:
        return "like", f"on the grid of {target.like.name}"
    number = f"{target.spacing or target.scale or 2:g}"
    label = number.replace(".", "p")
    if target.spacing is not None:
        return f"{label}mm", f"{number} mm in the plane of the slices"
    return f"x{label}", f"{number} times the input's matrix in the plane of the slices"


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(facts.parsed(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: expected a JSON object ({error}); mend or remove it") from error


def _metadata(root: Path, image: Path) -> dict[str, Any]:
    """What the JSON files of a data set say of an image: those nearer to it win (BIDS: inheritance)."""
    own, suffix, _ = _named(image)
    found: dict[str, Any] = {}
    for folder in [root, *(p for p in reversed(image.parents) if root in p.parents)]:
        names = {p: set(p.stem.split("_")) for p in folder.glob(f"*{suffix}.json")}
        applying = [p for p, parts in names.items() if parts - set(own) == {suffix}]
        for path in sorted(applying, key=lambda p: (len(names[p]), p)):
            found |= _json(path)
    return found


def _facts(root: Path, image: Path, target: Target) -> dict[str, Any]:
    """What a record states besides: what BIDS requires, and what is still true of the source."""
    said = _metadata(root, image)
    return {name: said[name] for name in KEPT if name in said} | {
        "Description": DESCRIPTION,
        "Sources": [f"bids:raw:{image.relative_to(root).as_posix()}"],
        "SpatialReference": "orig",
        "SkullStripped": bool(said.get("SkullStripped", False)),
        "Resolution": resolution(target)[1],
    }


def _planned(root: Path, out: Path, image: Path, target: Target) -> Task:
    """What becomes of an image."""
    own, suffix, ending = _named(image)
    name = "_".join([*own, f"res-{resolution(target)[0]}", "desc-seran", suffix + ending])
    return Task(image, out / image.relative_to(root).with_name(name), partial(_facts, root, image, target))


def _describe(root: Path, out: Path) -> None:
    """Write what a derivative data set needs besides images."""
    path = out / "dataset_description.json"
    if out.resolve() == root.resolve():
        raise BadInput(f"{out}: the results would lie among the raw data; name another folder")
    if path.is_file() and '"Name": "seran"' not in json.dumps(_json(path).get("GeneratedBy")):
        raise BadInput(f"{out} is a data set that seran has not made; name another folder")
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
    texts = {
        path.name: json.dumps(told, indent=1) + "\n",
        "descriptions.tsv": f"desc_id\tdescription\ndesc-seran\t{DESCRIPTION}\n",
        "README.md": f"# Sharpened MR images\n\n{DESCRIPTION} Made by `seran bids`, version "
        f"{seran.__version__}. Each image has a JSON file that states method, weights and their hash.\n",
        ".bidsignore": "group.*\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with files.atomic(out / name) as part:
            part.write_text(text, encoding="utf-8")


def _row(task: Task, root: Path) -> dict[str, str]:
    """What the record of a task says, or that it is missing."""
    own, made = _named(task.source)[0], record.read(task.out)
    row: dict[str, object] = {
        "participant_id": own[0],
        "session_id": next((entity for entity in own if entity.startswith("ses-")), None),
        "source": task.source.relative_to(root).as_posix(),
        "status": "done" if made else "missing",
    }
    if made:
        row |= {name: getattr(made, name) for name in ("method", "weights", "weights_sha256", "version")} | {
            "voxel_before": dimensions(made.voxel_size_before, ".3g", " x "),
            "voxel_after": dimensions(made.voxel_size_after, ".3g", " x "),
            "kspace_support": dimensions(made.kspace_support, ".3g", " x "),
            "seconds": f"{made.seconds:.1f}",
        }
    return {name: " ".join(str(row.get(name) or "n/a").split()) for name in COLUMNS}


def page(table: Sequence[dict[str, str]]) -> str:
    """The rows as a page of its own; everything in it is escaped."""
    rows = report.table([list(row.values()) for row in table], COLUMNS)
    return Template(Path(__file__).with_suffix(".html").read_text()).substitute(
        done=sum(row["status"] == "done" for row in table),
        all=len(table),
        description=DESCRIPTION,
        version=seran.__version__,
        table=rows.replace("<td>missing<", '<td class="missing">missing<'),
    )


def bids(
    bids_dir: Path,
    output_dir: Path,
    level: Literal["participant", "group"],
    /,
    participant_label: tuple[str, ...] = (),
    session_label: tuple[str, ...] = (),
    suffix: tuple[str, ...] = SUFFIXES,
    options: Options = Options(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
    where: Cluster = Cluster(),  # noqa: B008
) -> str:
    """Sharpen the scans of a BIDS data set, as a BIDS App.

    `participant` writes derivatives (`…_res-x2_desc-seran_T2w.nii.gz` with its JSON); scans whose result is
    there, made from the same scan by the same weights, options and version, are passed over. `group` writes
    group.tsv and group.html: every scan, done or missing.

    Args:
        bids_dir: the raw data set.
        output_dir: the derivative data set; made if it is not there.
        level: participant, any number of times, also in parallel for different participants; then group.
        participant_label: with or without sub-; none for all.
        session_label: with or without ses-; none for all.
        suffix: which images.
        options: how.
        engine: how the network is run.
        where: several scans may be sharpened at once, on this machine or on many.
    """
    images = _scans(bids_dir, participant_label, session_label, suffix)
    tasks = [_planned(bids_dir, output_dir, image, options.target) for image in images]
    if level == "participant":
        _describe(bids_dir, output_dir)
        return batch.run(tasks, options, engine, resume=True, where=where)
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
    done = sum(row["status"] == "done" for row in table)
    return f"{done} of {len(table)} scans are sharpened; {paths[0]}, {paths[1]}"
