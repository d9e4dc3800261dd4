"""Raw scans and what is known of them: subject, contrast, split; from a manifest or from a folder."""

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seran import files, io
from seran.data.pairs import SPLITS
from seran.errors import BadInput
from seran.volume import Volume

SHARE = 0.1
"""Of the subjects of a folder that go to test, and to val."""
CONTRAST = re.compile(r"(T1c|T1|T2|PD|FLAIR)w?$", re.IGNORECASE)
COLUMNS = ("subject", "contrast", "split", "licence", "sha256", "source_repository")
"""Of a manifest, beside the path, in the order of `Source`."""
SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)")


@dataclass(frozen=True)
class Source:
    """One raw volume and what is known about it."""

    path: Path
    subject: str
    contrast: str
    split: str
    licence: str = ""
    sha256: str = ""
    repository: str = ""


def from_manifest(path: Path) -> list[Source]:
    """Sources listed in a CSV with the columns split, path, contrast, subject (and licence, sha256)."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"split", "path", "contrast", "subject"} - {k for row in rows[:1] for k, v in row.items() if v}
    if missing:
        raise BadInput(f"{path}: expected the columns split, path, contrast, subject; no {sorted(missing)}")
    return [
        Source(path.parent / (row["path"] or ""), *(row.get(name) or "" for name in COLUMNS)) for row in rows
    ]


def from_folder(root: Path) -> list[Source]:
    """Every file below ``root``, split by subject: about a tenth each to val and test.

    The subject is the ``sub-`` entity of the path (BIDS); without one the first folder below ``root``; for
    files that lie in ``root`` itself the IXI number or the stem without its contrast. A subject's split
    follows from the hash of its name alone, so further subjects change nothing for those that are there.
    """
    paths = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
    found = []
    for path in paths:
        subject, stem = _subject(path.relative_to(root)), path.name.split(".")[0]
        at = int(hashlib.sha256(subject.encode()).hexdigest()[:8], 16) / 16**8
        split = "test" if at < SHARE else "val" if at < 2 * SHARE else "train"
        found.append(Source(path, subject, _contrast(stem), split))
    return found


def _subject(path: Path) -> str:
    """Who was scanned, from a path relative to the folder."""
    if named := SUBJECT.search(path.as_posix()):
        return named.group(1)
    if len(path.parts) > 1:
        return path.parts[0]
    stem = path.name.split(".")[0]
    if ixi := re.match(r"IXI\d+", stem):
        return ixi.group(0)
    return CONTRAST.sub("", stem).rstrip("-_") or stem


def _contrast(stem: str) -> str:
    found = CONTRAST.search(stem)
    return {"T1C": "T1c"}.get(found.group(1).upper(), found.group(1).upper()) if found else "unknown"


def read_source(source: Source) -> Volume:
    """Read and check one source; a `BadInput` says why it cannot be used for super-resolution."""
    if source.split not in SPLITS:
        raise BadInput(f"split {source.split}: expected train, val or test")
    if source.path.is_file() and source.sha256 and files.sha256(source.path) != source.sha256:
        raise BadInput("its sha256 is not the manifest's: a damaged or a different file")
    volume = io.read(source.path, affine="either")
    data = volume.data
    if data.min() == data.max():
        raise BadInput(f"every voxel is {data.flat[0]:g}")
    if data.min() < -500:
        raise BadInput(f"its minimum is {data.min():g}: Hounsfield units (CT), not MR")
    sample = data.ravel()[:: max(1, data.size // 100_000)]
    if len(np.unique(sample)) < 24:
        raise BadInput(f"it has only {len(np.unique(sample))} distinct values: a mask, not a scan")
    return volume


def find(source: Path) -> list[Source]:
    """The sources that a path names: a CSV, a folder with a MANIFEST.csv, or a folder of scans.

    Raises:
        BadInput: if the path is neither, or a subject would be in two splits.
    """
    manifest = source if source.suffix == ".csv" and source.is_file() else source / "MANIFEST.csv"
    if not manifest.is_file() and not source.is_dir():
        raise BadInput(f"{source}: expected a folder of scans or a CSV manifest")
    found = from_manifest(manifest) if manifest.is_file() else from_folder(source)
    splits: dict[str, str] = {}
    for one in found:
        if splits.setdefault(one.subject, one.split) != one.split:
            raise BadInput(f"{source}: subject {one.subject} is in {splits[one.subject]} and in {one.split}")
    return found
