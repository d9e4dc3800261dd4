"""Pages about results (`seran.quality.report`): made of files, and found again beside them."""

import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from seran import __version__, files, io, scratch
from seran.errors import BadInput, counted
from seran.job import record
from seran.job.options import ReadOptions
from seran.job.record import Record
from seran.quality import checks, report
from seran.quality.checks import Check
from seran.quality.report import Side

VIEWER = "viewer"  # the folder of what pages share
HEAD = 1 << 16  # bytes of a page in which lies what `about` reads
KEY = re.compile(r'<meta name="key" content="(\w+)">')
THUMBNAIL = re.compile(r'<meta name="thumbnail" content="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)">')


@dataclass(frozen=True)
class Found:
    """What was checked when a page was made."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...]  # what must be said besides
    page: Path

    def words(self) -> str:
        """A line for each check, and for the page."""
        told = [*(f"{c.verdict:9} {c.name}: {c.text}" for c in self.checks), *self.notes]
        size = self.page.stat().st_size / 1e6
        return "\n".join([*told, f"{self.page}: {report.summary(self.checks)}, {size:.1f} MB"])

    def stated(self) -> dict[str, Any]:
        """The same for programs, in the names of a record."""
        told = {"Software": "seran", "Version": __version__, "Verdict": checks.worst(self.checks).verdict}
        listed = [asdict(check) for check in self.checks]
        return {**told, "Checks": listed, "Notes": list(self.notes), "Page": str(self.page)}

    @property
    def failed(self) -> list[str]:
        """The checks that say FAIL."""
        return [check.name for check in self.checks if check.verdict == "FAIL"]


def refuse_page(out: Path, force: bool, *others: Path) -> None:
    """Raise `BadInput` if the page could not be made or written, or would replace what must not go."""
    report.viewer()
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"{out}: must end in .html")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such folder; create it first")
    if out.is_dir() or any(out.exists() and other.exists() and out.samefile(other) for other in others):
        raise BadInput(f"{out}: the report would replace a folder or a scan; name another file")
    if out.exists() and not force:
        raise BadInput(f"{out} exists; give --force to replace it")


def is_page(out: Path) -> bool:
    """Whether there is a page that seran made."""
    return out.is_file() and b"<p>Made by seran " in out.read_bytes()


def share(folder: Path) -> None:
    """Put the viewer, with its licence, where the pages below a folder look for it; one for all of them."""
    version, source = report.viewer()
    place = folder / VIEWER
    script, licence = place / _script(version), place / "niivue.LICENSE"
    if script.is_file() and licence.is_file() and script.read_bytes() == source.encode():
        return
    place.mkdir(parents=True, exist_ok=True)
    with files.together(script, licence) as (one, other):
        one.write_bytes(source.encode())
        other.write_text((report.VIEWER / licence.name).read_text())


def _script(version: str) -> str:
    return f"niivue-{version}.js"


def about(out: Path) -> tuple[str, str]:
    """The key of the result that a page is about, and its picture as a data URI; empty if it is none."""
    if not out.is_file():
        return "", ""
    with out.open("rb") as file:
        head = file.read(HEAD).decode("utf-8", "replace")
    key, picture = KEY.search(head), THUMBNAIL.search(head)
    return (key[1], picture[1]) if key and picture else ("", "")


def write(
    before: Path,
    after: Path,
    out: Path,
    reading: ReadOptions,
    shared: Path | None = None,
    above: Path | None = None,
) -> Found:
    """Draw and write, with the checks of the record beside the second file, if it is of these two files.

    So a result has one verdict, that of its record, wherever it is asked for. Else the checks are made here.
    The scan is read as the record says that it was.

    Args:
        before: the scan.
        after: the other one.
        out: the page.
        reading: how ``before`` is read, where the record leaves that open.
        shared: a folder whose viewer (`share`) the page uses; None: the page is complete in itself.
        above: the page of all scans, which may come later, to which this one leads back.
    """
    sides, notes, beside = [], [], record.read(after)
    old, made, reading = _read_as(before, beside, reading)
    new = io.resolve(after)
    if fault := record.fault(after):
        notes.append(f"{after.name}: {fault}; so how it was made is not known.")
    if made is None and beside is not None:
        notes.append(f"The record beside {after.name} is of another scan: {beside.input}.")
    allocate, provenance = scratch.allocator(out.parent), made.provenance if made else None
    for source, how in (old, reading), (new, ReadOptions(fill=reading.fill)):
        series = io.read_series(source, how.affine, how.fill, allocate, how.volume)
        sides.append(Side(source.path.name, next(series.volumes), series.count, how.volume))
    first, second = sides
    if first.chosen is not None:
        notes.append(f"Of {first.name} volume {first.chosen}, counted from 0, is shown and checked.")
    images = record.outputs(after, made.maps) if made else []
    now = record.digests(images)
    found, said = _checked(made, after, now, first.count)
    notes += said
    if max(first.count, second.count) > 1:
        whole = "the checks are those of the volume where each is worst" if found else "and checked"
        notes.append(f"A series: its first volume is shown{';' if found else ''} {whole}.")
    found = found or checks.all_of(first.volume, second.volume, provenance)
    stated = {k: v for k, v in made.stated().items() if k != "Checks"} if made else {}
    off = None
    if made is not None and "uncertainty" in made.maps:
        at = 1 + made.maps.index("uncertainty")
        off = next(io.read_series(io.resolve(images[at]), allocate=allocate).volumes)
        if now[at : at + 1] != made.result_sha256[at : at + 1]:
            notes.append(f"{images[at].name} is not as the record has it (SHA-256), and not drawn.")
            off = None
    script = shared / VIEWER / _script(report.viewer()[0]) if shared else None
    addresses = [_address(path, out) if path else "" for path in (script, above)]
    text = report.page(first, second, found, provenance, stated, notes, off, *addresses)
    with files.atomic(out) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # of names of files
    return Found(tuple(found), tuple(notes), out)


def _read_as(
    before: Path, made: Record | None, reading: ReadOptions
) -> tuple[io.Source, Record | None, ReadOptions]:
    """The files of a scan, the record of its result, unless that is of another scan, and how it is read."""
    if made is not None:
        stated = {k: v for k, v in asdict(made.read_as).items() if getattr(reading, k) in (None, "auto")}
        again = replace(reading, **stated)
        with suppress(BadInput):  # there is no such series: told below, if the folder has several
            found = io.resolve(before, again.series)
            if made.input_sha256 == files.sha256_of(found.files):
                return found, made, again
    return io.resolve(before, reading.series), None, reading


def _address(path: Path, page: Path) -> str:
    """What a page calls another file."""
    return quote(Path(os.path.relpath(path, page.parent)).as_posix(), errors="surrogateescape")


def _checked(
    made: Record | None, after: Path, now: tuple[str, ...], volumes: int
) -> tuple[list[Check], list[str]]:
    """The checks of a record, if they are of these volumes as they are now, and what must be said of that.

    Args:
        made: the record.
        after: the result.
        now: digests of it and of its maps.
        volumes: how many the scan has.
    """
    if made is None or not made.checks:
        return [], []
    if made.volumes != volumes:
        told = f"was made of {counted(made.volumes, 'volume')} of the scan, and this is about {volumes}"
        return [], [f"{after.name} {told}: the checks were made anew."]
    if made.result_sha256 != now:
        told = "or a map beside it, is not as its record has it: the checks were made anew."
        return [], [f"{after.name}, {told}"]
    notes = [f"{after.name}: {made.disputed}."] * bool(made.disputed)
    if made.version != __version__:
        notes.append(f"The checks are those of the record, by seran {made.version}.")
    return [*made.checks], notes
