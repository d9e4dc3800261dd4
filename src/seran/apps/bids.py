"""``seran bids``: a BIDS App. The scans of a BIDS data set become a derivative data set, and a summary of it.

Names and required metadata follow the BIDS specification's chapters on derivatives: the source's entities,
then ``res-`` and ``desc-seran``, the suffix unchanged.
"""

import csv
import functools
import html
import io as streams
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import seran
from seran import files
from seran.apps import FLAT, Positional
from seran.engines import Engine
from seran.errors import BadInput
from seran.grid import dimensions
from seran.job import batch, record
from seran.job.batch import Task
from seran.job.cluster import Cluster
from seran.job.options import Options, Target

BIDS_VERSION = "1.10.0"
SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR")
"""What is sharpened unless `--suffix` says otherwise."""
NAME = re.compile(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_([A-Za-z0-9]+)(\.nii(?:\.gz)?)")
"""A raw image's name: entities, suffix, ending."""
NOT_MAGNITUDE = ("part-phase", "part-real", "part-imag")
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


def named(path: Path) -> tuple[list[str], str, str]:
    """Entities like ``sub-01`` in their order, suffix and ending of an image's name; none of other names."""
    matched = NAME.fullmatch(path.name)
    return (matched[1].split("_"), matched[2], matched[3]) if matched else ([], "", "")


def scans(
    root: Path,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    suffixes: Sequence[str] = SUFFIXES,
) -> list[Path]:
    """The magnitude images of these suffixes, in order.

    Args:
        root: of the raw data set.
        participants: labels, with or without ``sub-``; none for all.
        sessions: labels, with or without ``ses-``; none for all.
        suffixes: what the names end in.

    Raises:
        BadInput: for a root that is no BIDS data set, or labels and suffixes that nothing has.
    """
    if not (root / "dataset_description.json").is_file():
        raise BadInput(f"{root}: expected a BIDS data set; it has no dataset_description.json")
    wanted = {f"sub-{p.removeprefix('sub-')}" for p in participants}
    visits = {f"ses-{s.removeprefix('ses-')}" for s in sessions}
    absent = sorted(w for w in wanted if not (root / w).is_dir())
    if absent:
        raise BadInput(f"{root}: no such participant: {', '.join(absent)}")
    found = []
    for path in sorted([*root.glob("sub-*/*/*"), *root.glob("sub-*/ses-*/*/*")]):
        own, suffix, _ = named(path)
        if (
            own
            and suffix in suffixes
            and path.is_file()
            and (not wanted or own[0] in wanted)
            and (not visits or visits & set(own))
            and not set(NOT_MAGNITUDE) & set(own)
        ):
            found.append(path)
    if not found:
        raise BadInput(f"{root}: no image of these participants and sessions ends in {', '.join(suffixes)}")
    return found


def resolution(target: Target) -> tuple[str, str]:
    """The label of ``res-``, and what it means."""
    if target.like is not None:
        return "like", f"on the grid of {target.like.name}"
    if target.spacing is not None:
        return f"{target.spacing:g}mm".replace(".", "p"), f"{target.spacing:g} mm in the plane of the slices"
    scale = f"{target.scale or 2:g}"
    return f"x{scale}".replace(".", "p"), f"{scale} times the input's matrix in the plane of the slices"


def metadata(root: Path, image: Path) -> dict[str, Any]:
    """What the JSON files of a data set say of an image: those nearer to it win (BIDS: inheritance).

    Raises:
        BadInput: for a file that is no JSON object.
    """
    own, suffix, _ = named(image)
    found: dict[str, Any] = {}
    folders = [root, *(p for p in reversed(image.parents) if root in p.parents)]
    for folder in folders:
        applying = []
        for path in folder.glob(f"*{suffix}.json"):
            *others, last = path.stem.split("_")
            if last == suffix and set(others) <= set(own):
                applying.append((len(others), path))
        for _, path in sorted(applying):
            try:
                said = json.loads(path.read_text(encoding="utf-8"))
                found.update(said)
            except (ValueError, TypeError) as error:
                raise BadInput(f"{path}: expected a JSON object ({error}); mend or remove it") from error
    return found


def facts(root: Path, image: Path, target: Target) -> dict[str, Any]:
    """What the record of a result states besides: what BIDS requires, and what is still true of the source.

    Raises:
        BadInput: if the source's metadata cannot be read.
    """
    said = metadata(root, image)
    return {name: said[name] for name in KEPT if name in said} | {
        "Description": DESCRIPTION,
        "Sources": [f"bids:raw:{image.relative_to(root).as_posix()}"],
        "SpatialReference": "orig",
        "SkullStripped": bool(said.get("SkullStripped", False)),
        "Resolution": resolution(target)[1],
    }


def planned(root: Path, out: Path, images: Iterable[Path], target: Target) -> Iterator[Task]:
    """What becomes of each image."""
    label, _ = resolution(target)
    for image in images:
        own, suffix, ending = named(image)
        name = "_".join([*own, f"res-{label}", "desc-seran", suffix + ending])
        yield Task(
            image,
            out / image.relative_to(root).with_name(name),
            functools.partial(facts, root, image, target),
        )


def describe(root: Path, out: Path) -> None:
    """Write what a derivative data set needs besides images.

    Raises:
        BadInput: if ``out`` is the raw data set, or another program's.
    """
    path = out / "dataset_description.json"
    if out.resolve() == root.resolve():
        raise BadInput(f"{out}: the results would lie among the raw data; name another folder")
    if path.is_file():
        try:
            makers = [maker["Name"] for maker in json.loads(path.read_text())["GeneratedBy"]]
        except (ValueError, TypeError, KeyError):
            makers = []
        if "seran" not in makers:
            raise BadInput(f"{out} is a data set that seran has not made; name another folder")
    link = os.path.relpath(root.resolve(), out.resolve())
    told = {
        "Name": "MR images sharpened by seran",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "seran", "Version": seran.__version__, "Description": DESCRIPTION}],
        "HowToAcknowledge": "Zhang et al., MR Image Super-Resolution With Squeeze and Excitation Reasoning "
        "Attention Network, CVPR 2021",
        "SourceDatasets": [{"URL": Path(link).as_posix()}],
        "DatasetLinks": {"raw": Path(link).as_posix()},
    }
    texts = {
        "dataset_description.json": json.dumps(told, indent=1) + "\n",
        "descriptions.tsv": f"desc_id\tdescription\ndesc-seran\t{DESCRIPTION}\n",
        "README.md": f"# Sharpened MR images\n\n{DESCRIPTION} Made by `seran bids`, version "
        f"{seran.__version__}. Each image has a JSON file that states method, weights and their hash.\n",
        ".bidsignore": "group.*\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with files.atomic(out / name) as part:
            part.write_text(text, encoding="utf-8")


def rows(tasks: Iterable[Task], root: Path) -> list[dict[str, str]]:
    """One row of `COLUMNS` for each task: what its record says, or that it is missing."""
    table = []
    for task in tasks:
        own = dict(e.split("-", 1) for e in named(task.source)[0])
        row = dict.fromkeys(COLUMNS, "n/a") | {
            "participant_id": f"sub-{own['sub']}",
            "source": task.source.relative_to(root).as_posix(),
            "status": "missing",
        }
        if "ses" in own:
            row["session_id"] = f"ses-{own['ses']}"
        made = record.read(task.out)
        if made is not None:
            row |= {
                "status": "done",
                "method": made.method,
                "weights": made.weights or "n/a",
                "weights_sha256": made.weights_sha256 or "n/a",
                "version": made.version,
                "voxel_before": dimensions(made.voxel_size_before, ".3g", " x "),
                "voxel_after": dimensions(made.voxel_size_after, ".3g", " x "),
                "kspace_support": dimensions(made.kspace_support, ".3g", " x "),
                "seconds": f"{made.seconds:.1f}",
            }
        table.append({name: " ".join(str(value).split()) for name, value in row.items()})
    return table


def page(table: Sequence[dict[str, str]]) -> str:
    """The table as a page of its own; everything in it is escaped."""
    done = sum(row["status"] == "done" for row in table)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    body = "\n".join(
        f'<tr class="{row["status"]}">'
        + "".join(f"<td>{html.escape(row[c])}</td>" for c in COLUMNS)
        + "</tr>"
        for row in table
    )
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>seran: {done} of {len(table)} scans</title>
<style>body{{font:14px sans-serif;margin:2em}}table{{border-collapse:collapse}}td,th{{padding:.3em .7em;
border-bottom:1px solid #ccc;text-align:left;font-variant-numeric:tabular-nums}}
.missing{{background:#fdd}}</style>
<h1>{done} of {len(table)} scans sharpened</h1><p>{html.escape(DESCRIPTION)} seran {seran.__version__}.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></html>
"""


def bids(
    bids_dir: Positional[Path],
    output_dir: Positional[Path],
    level: Positional[Literal["participant", "group"]],
    participant_label: tuple[str, ...] = (),
    session_label: tuple[str, ...] = (),
    suffix: tuple[str, ...] = SUFFIXES,
    options: Annotated[Options, FLAT] = Options(),  # noqa: B008
    engine: Annotated[Engine, FLAT] = Engine(),  # noqa: B008
    where: Annotated[Cluster, FLAT] = Cluster(),  # noqa: B008
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

    Raises:
        BadInput: for anything wrong with the data set or the options.
        Incomplete: if some scans could not be sharpened, or are missing from the group; each is named.
        OSError: if a result cannot be written.
    """
    images = scans(bids_dir, participant_label, session_label, suffix)
    tasks = list(planned(bids_dir, output_dir, images, options.target))
    if level == "group":
        return _group(tasks, bids_dir, output_dir)
    describe(bids_dir, output_dir)
    return batch.run(tasks, options, engine, resume=True, where=where)


def _group(tasks: Sequence[Task], root: Path, out: Path) -> str:
    if not (out / "dataset_description.json").is_file():
        raise BadInput(f"{out}: nothing is there yet; run `seran bids {root} {out} participant` first")
    table, text = rows(tasks, root), streams.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    with files.together(out / "group.tsv", out / "group.html") as (tsv, web):
        tsv.write_text(text.getvalue(), encoding="utf-8")
        web.write_text(page(table), encoding="utf-8")
    done = sum(row["status"] == "done" for row in table)
    return f"{done} of {len(table)} scans are sharpened; {out / 'group.tsv'}, {out / 'group.html'}"
