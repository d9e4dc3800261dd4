"""Many scans at a glance: a page, a table and JSON; every scan with its checks, or why it failed."""

import csv
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import seran
from seran import files
from seran.errors import BadInput
from seran.grid import dimensions
from seran.job import pages, record
from seran.job.batch import Task
from seran.progress import plain
from seran.quality.report import VIEWER, trust

Scan = dict[str, Any]
"""What is told of one, see `of`."""
BAD = ("FAIL", "WARN")
"""Verdicts whose checks are told in words."""
ORDER = ("missing", "FAIL", "WARN", "not known", "PASS")
"""States of a scan, from the worst to the best."""
UNKNOWN = "it was not tried yet, or its run was ended"
TABLE = (
    "participant_id", "session_id", "source", "status", "verdict", "reason", "method", "weights",
    "weights_sha256", "version", "voxel_before", "voxel_after", "kspace_support", "seconds", "page", "checks",
)  # fmt: skip
CELLS = {
    "method": "method", "voxel, mm": "voxel_before", "after, mm": "voxel_after",
    "k-space": "kspace_support", "seconds": "seconds", "version": "version",
}  # fmt: skip
"""Columns of the page behind picture, scan, verdict and why."""


def of(task: Task, root: Path) -> Scan:
    """What is told of a scan: of its record, of its page, and why it has no result or failed when last tried.

    Args:
        task: the scan, its result and its page.
        root: the folder that its name is told below.
    """
    made = None if task.wrong else record.read(task.out)
    inside = task.source.relative_to(root) if task.source.is_relative_to(root) else task.source
    key, picture = pages.about(task.page) if task.page and made else ("", "")
    is_of_it = made is not None and key == made.key
    scan: Scan = {
        "source": inside.as_posix(),
        "status": "done" if made else "missing",
        "verdict": made.verdict if made else None,
        "reason": _reason(task, made is not None).replace(f"{root}{os.sep}", ""),
        "result": task.out if made else None,
        "page": task.page if is_of_it else None,
        "picture": picture if is_of_it else "",
        "checks": [asdict(check) for check in made.checks] if made else [],
    }
    if made:
        names = ("method", "weights", "weights_sha256", "version", "seconds", "kspace_support")
        scan |= {name: getattr(made, name) for name in names}
        scan |= {"voxel_before": made.voxel_size_before, "voxel_after": made.voxel_size_after}
    return scan


def _reason(task: Task, done: bool) -> str:
    if task.wrong:
        return task.wrong
    if task.log is not None and task.log.is_file():
        return task.log.read_text("utf-8", "replace").strip().removeprefix(f"{task.source}: ")
    return "" if done else UNKNOWN


def state(scan: Scan) -> str:
    """One of `ORDER`: its verdict, or that it is missing or failed when it was last tried."""
    return "missing" if scan["reason"] else scan["verdict"]


def wrong(scans: Sequence[Scan], strict: bool) -> bool:
    """Whether a scan is missing or failed when it was last tried, or, if that counts, a check says FAIL."""
    return any(state(scan) in ("missing", "FAIL")[: 1 + strict] for scan in scans)


def counts(scans: Sequence[Scan]) -> str:
    """How many scans have a result, and how many of these a FAIL or a WARN."""
    done, verdicts = [s for s in scans if s["status"] == "done"], [s["verdict"] for s in scans]
    told = [f"{verdicts.count(verdict)} {verdict}" for verdict in BAD if verdict in verdicts]
    older = sum(bool(scan["reason"]) for scan in done)
    told += [f"{older} of an earlier run, which failed the last time"] * bool(older)
    return ", ".join([f"{len(done)} of {len(scans)} scans are sharpened", *told])


def names(page: Path) -> tuple[Path, Path, Path]:
    """The page, the table and the JSON beside it."""
    return page, page.with_suffix(".tsv"), page.with_suffix(".json")


def refuse(page: Path, force: bool, resume: bool, tasks: Sequence[Task]) -> None:
    """Raise `BadInput` if the three files could not be written, or would replace what must not go."""
    renew = force or (resume and pages.is_page(page))
    pages.refuse_page(page, renew)
    for path in names(page)[1:]:
        if path.exists() and not renew:
            raise BadInput(f"{path} exists; give --force to replace it, or name another page")
    taken = {path.absolute() for task in tasks for path in (task.page, record.sidecar(task.out)) if path}
    for path in names(page):
        if path.absolute() in taken:
            raise BadInput(f"{path}: would replace the page or record of a scan; name another page")


def write(scans: Sequence[Scan], page: Path) -> None:
    """Write the page of many scans, and beside it a table (.tsv) and all checks (.json).

    Args:
        scans: as `of` tells them, with whatever else shall be in table and JSON.
        page: the page; names of others are told from its folder on.
    """
    told = [{k: _told(v, page.parent) for k, v in scan.items()} for scan in scans]
    rows = [_cells(scan) for scan in told]
    head = [name for name in TABLE if any(name in row for row in rows)]
    with files.together(*names(page)) as (web, tsv, machine):
        with tsv.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, head, "n/a", "ignore", delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        kept = [{k: v for k, v in scan.items() if k != "picture"} for scan in told]
        software = {"Software": "seran", "Version": seran.__version__, "Scans": kept}
        machine.write_text(json.dumps(software, indent=1) + "\n")
        web.write_text(
            text(told, *(path.name for path in names(page)[1:])), encoding="utf-8", errors="backslashreplace"
        )


def _told(value: object, folder: Path) -> object:
    """A path as one from a folder, anything else as it is."""
    return Path(os.path.relpath(value, folder)).as_posix() if isinstance(value, Path) else value


def _said(scan: Mapping[str, Any]) -> list[str]:
    """The checks that say FAIL or WARN, in words, the worst first."""
    bad = sorted((c["verdict"], c["name"], c["text"]) for c in scan["checks"] if c["verdict"] in BAD)
    return [f"{verdict} {name}: {text}" for verdict, name, text in bad]


def _cells(scan: Mapping[str, Any]) -> dict[str, str]:
    """The row of a table: no cell is empty, breaks a line, or is a formula to a spreadsheet."""
    values = {**scan, "checks": " | ".join(_said(scan))}
    for name in ("voxel_before", "voxel_after", "kspace_support"):
        values[name] = dimensions(values.get(name, ()), ".3g", " x ")
    values["seconds"] = f"{values['seconds']:.1f}" if "seconds" in values else ""
    cells = {k: " ".join(plain(str(v or "n/a")).split()) for k, v in values.items()}
    return {name: f"'{cell}" if cell[0] in "=+-@" else cell for name, cell in cells.items()}


def text(scans: Sequence[Mapping[str, Any]], table: str, machine: str) -> str:
    """The page; everything in it is escaped, and it asks for nothing but the pages it links to.

    Args:
        scans: as `of` tells them, paths as texts from the folder of the page on.
        table: the name of the table.
        machine: the name of the JSON.
    """
    template, script, *styles = (
        (VIEWER / name).read_text() for name in ("group.html", "group.js", "report.css", "group.css")
    )
    style, states = "".join(styles), [state(dict(scan)) for scan in scans]
    filters = "".join(
        f'<label class="{s[:4]}"><input type="checkbox" value="{s}" checked> {s} {states.count(s)}</label>'
        for s in ORDER
        if s in states
    )
    return Template(template).substitute(
        trusted_script=trust(script),
        trusted_style=trust(style),
        counts=html.escape(counts([dict(scan) for scan in scans])),
        version=html.escape(seran.__version__),
        table=html.escape(table),
        machine=html.escape(machine),
        filters=filters,
        heads="".join(
            f'<th scope="col"><button>{head}</button></th>' for head in ("scan", "verdict", "why", *CELLS)
        ),
        rows="\n".join(_row(scan, found) for scan, found in zip(scans, states, strict=True)),
        style=style,
        script=script,
    )


def _row(scan: Mapping[str, Any], found: str) -> str:
    """A row of the page."""
    row, picture = _cells(scan), ""
    if re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", scan.get("picture", "")):
        picture = f'<img alt="before and after" loading="lazy" decoding="async" src="{scan["picture"]}">'
    name = re.sub("[/_]", r"\g<0><wbr>", html.escape(row["source"]))  # where a line may end
    if scan.get("page"):
        link = html.escape(quote(scan["page"], errors="surrogateescape"))
        name = f'<a href="{link}">{name}</a>'
        picture = f'<a href="{link}" tabindex="-1" aria-hidden="true">{picture}</a>' if picture else ""
    why = "".join(f"<li>{html.escape(plain(line))}</li>" for line in (scan["reason"], *_said(scan)) if line)
    cells = [f'<td data-rank="{ORDER.index(found)}">{found}</td>', f"<td><ul>{why}</ul></td>"]
    cells += [f"<td>{html.escape(row.get(name, 'n/a'))}</td>" for name in CELLS.values()]
    start = f'<tr class="{found[:4]}" data-state="{found}">'
    return f'{start}<td>{picture}</td><th scope="row">{name}</th>{"".join(cells)}</tr>'
