"""Many scans at a glance: a page, a table and JSON; every scan with its checks, or why it failed."""

import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import seran
from seran import facts, files, io
from seran.errors import BadInput, counted
from seran.grid import dimensions
from seran.job import columns, pages, record, resume
from seran.job.batch import NAMED, Task
from seran.job.record import Record
from seran.progress import plain
from seran.quality.report import VIEWER, trust

Scan = dict[str, Any]
"""What is told of one, see `of`."""
BAD = ("FAIL", "WARN")
"""Verdicts whose checks are told in words."""
ORDER = ("failed", "missing", "FAIL", "outdated", "WARN", "not known", "PASS", "orphan")
"""States of a scan, from the worst to the best, and what is left of scans that are gone."""
UNKNOWN = "it was not tried yet, or its run was interrupted"
CHANGED = "the scan was changed after the result was made; sharpen it again"
ALTERED = "the result, or a map beside it, was changed after it was made; sharpen the scan again"
GONE = "the scan that it was made from is gone"
CELLS = {
    "result": "labels", "method": "method", "voxel, mm": "voxel_before", "after, mm": "voxel_after",
    "k-space": "kspace_support", "seconds": "seconds", "version": "version",
}  # fmt: skip
"""Columns of the page behind picture, scan, verdict and why."""


@dataclass(frozen=True)
class About:
    """What the page says of all scans together.

    Attributes:
        name: of the data set, or the folder.
        how: what was done, a line for each kind of result.
        only: what restricts which scans these are, as it was asked for; empty: nothing.
        again: the command that makes pages for those that have none.
    """

    name: str = ""
    how: Sequence[str] = ()
    only: str = ""
    again: str = ""


def of(task: Task, root: Path) -> Scan:
    """What is told of a scan: of its record, of its page, and why it has no result or failed when last tried.

    Args:
        task: the scan, its result and its page.
        root: the folder that its name is told below.
    """
    made = None if task.wrong and not task.page else record.read(task.out)
    inside = task.source.relative_to(root) if task.source.is_relative_to(root) else task.source
    key, picture = pages.about(task.page) if task.page and made else ("", "")
    is_of_it = made is not None and key == made.key
    status, reason = _status(task, made)
    scan: Scan = {
        "source": inside.as_posix(),
        "status": status,
        "verdict": made.verdict if made else None,
        "record_verdict": made.claimed if made else None,
        "reason": reason.replace(f"{root}{os.sep}", ""),
        "result": task.out if made else None,
        "page": task.page if is_of_it else None,
        "picture": picture if is_of_it else "",
        "checks": [asdict(check) for check in made.checks] if made else [],
    }
    if made:
        names = ("method", "weights", "weights_sha256", "version", "seconds", "kspace_support")
        scan |= {name: getattr(made, name) for name in names}
        stated = {name: made.facts.get(name.capitalize(), "") for name in ("description", "resolution")}
        scan |= {name: text for name, text in stated.items() if isinstance(text, str) and text}
        scan |= {"voxel_before": made.voxel_size_before, "voxel_after": made.voxel_size_after}
    return scan


def _status(task: Task, made: Record | None) -> tuple[str, str]:
    """One of `columns.STATUS`, and why it is not done."""
    if task.wrong:
        return "failed", task.wrong
    if not os.path.lexists(task.source):
        return "orphan", GONE
    if task.log is not None and task.log.is_file():
        return "failed", task.log.read_text("utf-8", "replace").strip().removeprefix(f"{task.source}: ")
    if made is None:
        return "missing", _lost(task)
    try:
        why = _outdated(task, made)
    except (BadInput, OSError) as error:  # the scan cannot be read now
        return "failed", str(error).removeprefix(f"{task.source}: ")
    return ("outdated", why) if why else ("done", "")


def _lost(task: Task) -> str:
    """Why there is no result: not tried, or what is missing of it."""
    beside = record.sidecar(task.out)
    if not os.path.lexists(task.out):
        return f"its record is there, the result is gone: {task.out.name}" if beside.is_file() else UNKNOWN
    return record.fault(task.out) or f"no record beside it says that seran made {task.out.name}"


def _outdated(task: Task, made: Record) -> str:
    """What of scan and result is not as the record has it; read only where sizes or times are others."""
    now, images = resume.listed(task.source), record.outputs(task.out, made.maps)
    if not made.input_sha256 or resume.stamp(now, images) == made.stamp:
        return ""
    if made.input_sha256 != files.sha256_of(io.resolve(task.source).files):
        return CHANGED
    return "" if made.result_sha256 == record.digests(images) else ALTERED


def state(scan: Scan) -> str:
    """One of `ORDER`: its verdict, or why that does not count."""
    return scan["verdict"] if scan["status"] == "done" else scan["status"]


def wrong(scans: Sequence[Scan], strict: bool) -> bool:
    """Whether a scan failed, has no result or one of what it was, or, if that counts, a check says FAIL."""
    return any(state(scan) in ("failed", "missing", "outdated", "FAIL")[: 3 + strict] for scan in scans)


def counts(scans: Sequence[Scan]) -> str:
    """How many scans have a result, how many not and why, and how many of the results a FAIL or a WARN."""
    of_scans = [scan for scan in scans if scan["status"] != "orphan"]
    states, every = [state(scan) for scan in scans], {scan["source"] for scan in of_scans}
    done = sharpened(scans)
    told = [f"{len(done)} of {len(every)} scans are sharpened"]
    untried = sum(scan["reason"] == UNKNOWN for scan in scans)
    lost = states.count("missing") - untried
    older = sum(scan["status"] == "failed" and scan["result"] is not None for scan in scans)
    earlier = f" (a result of an earlier run is there for {older})" * bool(older)
    if states.count("failed") or states.count("missing"):
        told += [f"{states.count('failed')} failed{earlier}", f"{untried} not tried"]
    told += [f"{lost} lost"] * bool(lost)
    told += [f"{states.count(one)} {one}" for one in ("outdated", *BAD) if one in states]
    if "orphan" in states:
        told.append(f"{counted(states.count('orphan'), 'result')} of scans that are gone")
    kinds = [(scan["labels"], scan) for scan in of_scans if scan.get("labels")]
    if len(names := sorted({label for label, _ in kinds})) > 1:
        each = [f"{name} {len(sharpened([s for label, s in kinds if label == name]))}" for name in names]
        told[0] += f" ({', '.join(each)})"
    return ", ".join(told)


def disputed(scans: Sequence[Scan]) -> str:
    """Which results have a record that states another verdict than its checks, in a line; empty of none."""
    found = [scan for scan in scans if scan["record_verdict"]]
    named = [f"{s['result']} ({s['record_verdict']}, not {s['verdict']})" for s in found[:NAMED]]
    more = f" and {len(found) - NAMED} more (record_verdict in the table)" * (len(found) > NAMED)
    told = f"{counted(len(found), 'record')} with a verdict that is not the worst of the checks, which counts"
    return f"{told}: {', '.join(named)}{more}" * bool(found)


def sharpened(scans: Sequence[Scan]) -> set[str]:
    """The scans that have a result of what they are."""
    return {scan["source"] for scan in scans if scan["status"] == "done"}


def names(page: Path) -> list[Path]:
    """The page, and beside it the table, what its columns are, and the JSON."""
    return [page, *(page.with_suffix(end) for end in (".tsv", ".columns.json", ".json"))]


def refuse(page: Path, force: bool, resume: bool, tasks: Sequence[Task]) -> None:
    """Raise `BadInput` if these files could not be written, or would replace what must not go."""
    renew = force or (resume and pages.is_page(page))
    pages.refuse_page(page, renew)
    for path in names(page)[1:]:
        if path.exists() and not renew:
            raise BadInput(f"{path} exists; give --force to replace it, or name another page")
    taken = {path.absolute() for task in tasks for path in (task.page, record.sidecar(task.out)) if path}
    for path in names(page):
        if path.absolute() in taken:
            raise BadInput(f"{path}: would replace the page or record of a scan; name another page")


def write(scans: Sequence[Scan], page: Path, about: About = About()) -> None:
    """Write the page of many scans, and beside it a table (.tsv), what its columns are, and JSON of all.

    Args:
        scans: as `of` tells them, with whatever else shall be in table and JSON.
        page: the page; names of others are told from its folder on.
        about: what the page says of all of them.
    """
    told = [{k: _told(v, page.parent) for k, v in scan.items()} for scan in scans]
    head = columns.of(told)
    with files.together(*names(page)) as (web, tsv, dictionary, machine):
        columns.write(tsv, [columns.row(scan, _said(scan)) for scan in told], head)
        dictionary.write_text(columns.dictionary(head))
        kept = [{k: v for k, v in scan.items() if k not in ("picture", "labels")} for scan in told]
        software = {"Software": "seran", "Version": seran.__version__, "Scans": kept}
        machine.write_text(facts.dumps(software, indent=1) + "\n")
        beside = [path.name for path in names(page)[1:]]
        web.write_text(text(told, about, *beside), encoding="utf-8", errors="backslashreplace")


def _told(value: object, folder: Path) -> object:
    """A path as one from a folder, anything else as it is."""
    return Path(os.path.relpath(value, folder)).as_posix() if isinstance(value, Path) else value


def _said(scan: Mapping[str, Any]) -> list[str]:
    """The checks that say FAIL or WARN, in words, the worst first."""
    bad = sorted((c["verdict"], c["name"], c["text"]) for c in scan["checks"] if c["verdict"] in BAD)
    return [f"{verdict} {name}: {text}" for verdict, name, text in bad]


def text(scans: Sequence[Mapping[str, Any]], about: About, table: str, dictionary: str, machine: str) -> str:
    """The page; everything in it is escaped, and it asks for nothing but the pages it links to.

    Args:
        scans: as `of` tells them, paths as texts from the folder of the page on.
        about: what it says of all of them.
        table: the name of the table.
        dictionary: the name of what describes its columns.
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
    other = "method" if any(scan.get("labels") for scan in scans) else "labels"  # the labels say the method
    cells = {head: name for head, name in CELLS.items() if name != other}
    bare = sum(map(_is_bare, scans))
    again = f"{counted(bare, 'result')} without a page; this makes pages: {about.again}"
    notes = [*about.how, *[f"Only {about.only}"] * bool(about.only), *[again] * bool(bare and about.again)]
    return Template(template).substitute(
        trusted_script=trust(script),
        trusted_style=trust(style),
        counts=html.escape(counts([dict(scan) for scan in scans])),
        none="" if sharpened([dict(scan) for scan in scans]) else "none",
        name=html.escape(f"{plain(about.name)}, " if about.name else ""),
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
        notes="".join(f"<li>{html.escape(plain(note))}</li>" for note in notes),
        version=html.escape(seran.__version__),
        table=html.escape(table),
        dictionary=html.escape(dictionary),
        machine=html.escape(machine),
        filters=filters,
        heads="".join(
            f'<th scope="col"><button>{head}</button></th>' for head in ("scan", "verdict", "why", *cells)
        ),
        rows="\n".join(_row(scan, found, cells.values()) for scan, found in zip(scans, states, strict=True)),
        style=style,
        script=script,
    )


def _is_bare(scan: Mapping[str, Any]) -> bool:
    """Whether there could be a page, and is none."""
    return bool(scan["result"]) and not scan["page"] and scan["status"] != "orphan"


def _row(scan: Mapping[str, Any], found: str, names: Iterable[str]) -> str:
    """A row of the page, with these columns behind picture, scan, verdict and why."""
    picture = '<span class="none">no page</span>' if _is_bare(scan) else ""
    if re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", scan.get("picture", "")):
        picture = f'<img alt="before and after" loading="lazy" decoding="async" src="{scan["picture"]}">'
    name = re.sub("[/_]", r"\g<0><wbr>", html.escape(columns.cell(scan["source"])))  # where a line may end
    if scan.get("page"):
        link = html.escape(quote(scan["page"], errors="surrogateescape"))
        name = f'<a href="{link}">{name}</a>'
        picture = f'<a href="{link}" tabindex="-1" aria-hidden="true">{picture}</a>' if picture else ""
    stated = scan.get("record_verdict")
    told = (scan["reason"], f"its record was changed: it states {stated}" * bool(stated), *_said(scan))
    why = "".join(f"<li>{html.escape(plain(line))}</li>" for line in told if line)
    values = {**scan, "seconds": f"{scan['seconds']:.1f}" if "seconds" in scan else ""}
    for several in ("voxel_before", "voxel_after", "kspace_support"):
        values[several] = dimensions(scan.get(several, ()), ".3g", " x ")
    cells = [f'<td data-rank="{ORDER.index(found)}">{found}</td>', f"<td><ul>{why}</ul></td>"]
    cells += [f"<td>{html.escape(columns.cell(values.get(name)))}</td>" for name in names]
    start = f'<tr class="{found[:4]}" data-state="{found}">'
    return f'{start}<td>{picture}</td><th scope="row">{name}</th>{"".join(cells)}</tr>'
