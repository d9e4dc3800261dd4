"""The results in a derivative data set, found by their names: of any options, made, tried or lost.

A name says which scan a result is of: the scan's entities, then ``res-`` and ``desc-``, then its suffix.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from seran import files, io
from seran.job import dataset, record
from seran.job.batch import Task
from seran.job.dataset import Naming, Selection

NAME = re.compile(
    r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_res-([A-Za-z0-9]+)_desc-([A-Za-z0-9]+)_([A-Za-z0-9]+)"
)
"""A result's name without its ending: the scan's entities, what ``res-`` and ``desc-`` say, the suffix."""
ENDS = ".nii.gz", ".nii", ".json"


class Labels(NamedTuple):
    """What the name of a result says."""

    scan: str  # the name of the scan, without its ending
    res: str
    desc: str


def labels(stem: str) -> Labels | None:
    """What the name of a result, without its ending, says; None if it is no such name."""
    if (matched := NAME.fullmatch(stem)) is None:
        return None
    entities, res, desc, suffix = matched.groups()
    return Labels(f"{entities}_{suffix}", res, desc)


def task(root: Path, out: Path, image: Path, name: str = "", wrong: str = "") -> Task:
    """A scan and its result of this name, with its page and the text that says why it failed.

    Args:
        root: the data set.
        out: the derivatives.
        image: of the data set.
        name: of the result; without it the scan has none.
        wrong: why nothing can become of the scan.
    """
    place = out / image.relative_to(root)
    if not name:
        return Task(image, place, wrong=wrong)
    made = place.with_name(name)
    stem = io.stem(made)
    return Task(image, made, wrong=wrong, page=out / f"{stem}.html", log=out / "logs" / f"{stem}.txt")


def tasks(root: Path, out: Path, wanted: Selection, names: Naming | None = None) -> list[Task]:
    """Every scan with each of its results, in order: made, tried in vain, or of a scan that is gone.

    Args:
        root: the data set.
        out: the derivatives.
        wanted: which scans; of suffixes beyond the usual ones, unless some are named, those with results.
        names: how the results are called that every scan shall have; None: whatever there is of each, and of
            a scan without any that it has none.
    """
    images = dataset.images(root, wanted, none=True)
    made = _made(root, out, images)
    found: list[Task] = []
    for image, wrong in images.items():
        there = sorted(made.pop(image, set()))
        if names is not None:
            there = [name for name in there if _fits(name, names)] if wrong else [names.of(image)]
        found += [task(root, out, image, name, wrong) for name in there or [""]]
    for image, others in made.items():
        if _is_wanted(image.relative_to(root), wanted) and not (os.path.lexists(image) and names):
            found += [task(root, out, image, name) for name in sorted(others) if _fits(name, names)]
    return sorted(found, key=lambda one: (one.source, one.out.name))


def _fits(name: str, names: Naming | None) -> bool:
    said = labels(io.stem(Path(name)))
    return names is None or (said is not None and said[1:] == (names.res, names.desc))


def _made(root: Path, out: Path, images: Mapping[Path, str]) -> dict[Path, set[str]]:
    """By scan, the names of its results: by an image, by a record whose image is gone, by a text in logs."""
    found: dict[Path, set[str]] = defaultdict(set)
    for place, stem, said, ends in _named(out):
        beside = [root / place / f"{said.scan}{end}" for end in ENDS[:2]]
        for end in [end for end in ENDS[:2] if end in ends] or [_ending(beside)]:
            found[root / place / f"{said.scan}{end}"].add(stem + end)
    by_stem = {io.stem(image): image for image in [*found, *images]}
    for text in sorted((out / "logs").glob("*.txt")):
        if (tried := labels(text.stem)) is not None:
            image = by_stem.get(tried.scan) or _scan_of(root, tried.scan)
            if image is not None:  # else it failed, and is gone: nothing is left to tell of it
                found[image].add(text.stem + image.name[len(tried.scan) :])
    return found


def _named(out: Path) -> Iterator[tuple[Path, str, Labels, set[str]]]:
    """Of all but maps: the folder, the name without its ending, what that says, and the endings there are."""
    seen: dict[tuple[Path, str], set[str]] = defaultdict(set)
    for top in sorted(path for path in out.glob("sub-*") if path.is_dir()):
        paths, lost = files.below(top)
        for path in (*paths, *lost):  # a link whose content is elsewhere is a result, too
            if end := next((end for end in ENDS if path.name.endswith(end)), ""):
                seen[path.parent.relative_to(out), path.name.removesuffix(end)].add(end)
    for (place, stem), ends in sorted(seen.items()):
        named = labels(stem)
        if named is not None and (".json" in ends or not named.desc.endswith(tuple(record.MAPS))):
            yield place, stem, named, ends


def _ending(beside: list[Path]) -> str:
    """That of a result whose record is left alone: its scan's, if it is there."""
    there = (path for path in beside if os.path.lexists(path))
    return next((end for path in there for end in ENDS if path.name.endswith(end)), ENDS[0])


def _scan_of(root: Path, stem: str) -> Path | None:
    """The image of this name in a data set."""
    folders = [entity for entity in stem.split("_") if entity.startswith(("sub-", "ses-"))]
    beside = sorted(root.joinpath(*folders).glob(f"*/{stem}.nii*"))  # links to nothing, too
    return next((path for path in beside if path.name.endswith(ENDS[:2])), None)


def _is_wanted(inside: Path, wanted: Selection) -> bool:
    """Whether a scan that has results is one of those that are asked for.

    Args:
        inside: its path in the data set, where it may be no more.
        wanted: which.
    """
    said = {*inside.parts, *io.stem(inside).split("_")}
    for prefix, asked in (("sub", wanted.participant_label), ("ses", wanted.session_label)):
        if asked and not said & {f"{prefix}-{label.removeprefix(f'{prefix}-')}" for label in asked}:
            return False
    suffix = io.stem(inside).rsplit("_", 1)[-1]
    of_suffix = suffix in wanted.suffix or wanted.suffix == dataset.SUFFIXES
    return of_suffix and dataset.passes(inside, wanted.filters())


def words(wanted: Selection) -> list[str]:
    """What restricts the scans, as it is asked for on the command line."""
    told = []
    for field in fields(Selection):
        value = getattr(wanted, field.name)
        if value != field.default:
            flag = f"--{field.name.replace('_', '-')}"
            told.append(" ".join([flag, *(value if isinstance(value, tuple) else [str(value)])]))
    return told
