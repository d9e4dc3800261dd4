"""The series of a folder by the headers of its files; and files that may be slices, but cannot be read."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from seran import files, progress
from seran.errors import BadInput, counted
from seran.io.dicom.elements import START, begins, header, texts
from seran.io.voxels import printable

IMAGES = {"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"}  # classes of grey images of MR
ENDS = (".dcm", ".dicom", ".ima")  # of names that only DICOM has
NAMING = ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
TAGS = ("SOPClassUID", "Modality", "Rows", *NAMING)


@dataclass(frozen=True)
class Listed:
    """A series of MR images in a folder, with what its headers say as it is written there."""

    folder: Path
    uid: str
    number: str
    description: str
    paths: list[Path]
    lost: dict[Path, str] = field(default_factory=dict)  # what may be slices of it, and why it cannot be read

    def __str__(self) -> str:
        return f"{self.number} ({self.description or 'no description'}, {counted(len(self.paths), 'image')})"


def series_of(folder: Path) -> list[Listed]:
    """The series of MR images below a folder, at least one, by their numbers; other files are passed over."""
    found: dict[str, Listed] = {}
    others, bare = set[str](), 0
    paths, lost = files.below(folder)
    for path in paths:
        try:
            said = _told(path)
        except BadInput as error:
            lost[path] = str(error).removeprefix(f"{path}: ")
            continue
        bare += bool(said and said.preamble is None)
        if said and texts(said, "Modality") == ["MR"] and "Rows" in said:
            uid, number, text = ("\\".join(texts(said, name)) for name in NAMING)
            found.setdefault(uid, Listed(folder, uid, number, text, [])).paths.append(path)
        elif said:
            others.update(texts(said, "Modality") or ["no modality"])
    if bare:
        progress.log.info("%s: %s without a preamble, read all the same", folder, counted(bare, "DICOM file"))
    if not found:
        shown = f"only {', '.join(sorted(others))}" if others else "none"
        if lost:
            path, why = min(lost.items())
            shown += f"; {counted(len(lost), 'file')} cannot be read, such as {path}: {why}"
        raise BadInput(f"{folder}: expected a folder with MR images in DICOM, found {shown}")
    for series in found.values():
        near = (p for p in sorted(lost) if p.is_dir() or _beside(p, series.paths))
        series.lost.update((path, lost[path]) for path in near)
    return sorted(found.values(), key=lambda s: (s.number.zfill(9), s.uid))


def _told(path: Path) -> pydicom.Dataset | None:
    """What a file says of its series; None if it is no DICOM, `BadInput` if it is damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    named = path.suffix.lower() in ENDS
    if not begins(start):
        if start.strip(b"\0") and not named:
            return None
        raise BadInput(f"{path}: {'it does not begin as DICOM does' if start else 'it is empty'}")
    try:
        said = header(path, TAGS)
    except BadInput:
        if named or start[-4:] == b"DICM":
            raise
        return None
    if "Rows" not in said and (not texts(said, "Modality") or IMAGES & {*texts(said, "SOPClassUID")}):
        raise BadInput(f"{path}: it is cut off in its header")
    return said


def _beside(path: Path, slices: Collection[Path]) -> bool:
    """Whether a file lies where slices lie, with a name like theirs."""

    def end(one: Path) -> str:
        return one.suffix.lower() if one.suffix[1:].isalpha() else ""  # the name may be a UID

    named = end(path) or any(c.isdigit() for c in path.name)
    return bool(named) and (path.parent, end(path)) in {(one.parent, end(one)) for one in slices}


def picked(folder: Path, pick: str | None) -> Listed:
    """The one series of a folder, or the one that ``pick`` names by its number or UID, with no slice lost."""
    listed = series_of(folder)
    chosen = [s for s in listed if pick in (None, s.number, s.uid)]
    if not chosen:
        there = " and ".join(map(str, listed)) if len(listed) < 3 else ", ".join(map(str, listed))
        verb = "are" if len(listed) > 1 else "is"
        raise BadInput(f"{folder}: no series {printable(pick)}; there {verb} {there}")
    if len(chosen) > 1:
        numbered = len({s.number for s in chosen}) == len(chosen)
        how = "NUMBER" if numbered else f"UID: {', '.join(s.uid for s in chosen)}"
        got = ", ".join(map(str, chosen))
        raise BadInput(f"{folder}: expected one series, got {got}; choose one with --series {how}")
    for path, why in chosen[0].lost.items():
        others = f" (and {len(chosen[0].lost) - 1} more)" * (len(chosen[0].lost) > 1)
        told = f"{why}{others}; it may be a slice of series {chosen[0]}"
        raise BadInput(f"{path}: {told}: complete the series, or move what is no part of it away")
    return chosen[0]
