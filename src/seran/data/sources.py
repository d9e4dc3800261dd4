"""Raw scans and what is known of them: subject, contrast, split; from a manifest or from a folder."""

import csv
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seran import files, io
from seran.data.pairs import SPLITS
from seran.errors import BadInput
from seran.volume import Volume

SHARE = 0.1  # of the subjects of a folder that go to test, and to val
CONTRAST = re.compile(r"(T1c|T1|T2|PD|FLAIR)w?$", re.IGNORECASE)
COLUMNS = ("subject", "contrast", "split", "licence", "sha256", "source_repository")  # as `Source` has them


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


def is_list(source: Path) -> bool:
    """Whether scans are named one by one, not found in a folder."""
    return _manifest(source).is_file()


def _manifest(source: Path) -> Path:
    return source if source.suffix == ".csv" and source.is_file() else source / "MANIFEST.csv"


def find(source: Path) -> list[Source]:
    """What a CSV or a folder (with a MANIFEST.csv, or of scans) names; no subject may be in two splits."""
    manifest = _manifest(source)
    if not manifest.is_file() and not source.is_dir():
        raise BadInput(f"{source}: expected a folder of scans or a CSV manifest")
    found = _from_manifest(manifest) if manifest.is_file() else _from_folder(source)
    splits: dict[str, str] = {}
    for one in found:
        if splits.setdefault(one.subject, one.split) != one.split:
            raise BadInput(f"{source}: subject {one.subject} is in {splits[one.subject]} and in {one.split}")
    return found


def _from_manifest(path: Path) -> list[Source]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    missing = {"split", "path", "contrast", "subject"} - {k for row in rows[:1] for k, v in row.items() if v}
    if missing:
        raise BadInput(f"{path}: expected the columns split, path, contrast, subject; no {sorted(missing)}")
    return [Source(path.parent / row["path"], *(row.get(name, "") for name in COLUMNS)) for row in rows]


def _from_folder(root: Path) -> list[Source]:
    """Every file below ``root``; the hash of a subject's name alone decides its split, whoever is added."""
    found = []
    paths, lost = files.below(root)
    for path in sorted((*paths, *lost)):  # what is lost is told when it is read
        subject = _subject(path.relative_to(root))
        at = int(hashlib.sha256(os.fsencode(subject)).hexdigest()[:8], 16) / 16**8
        split = "test" if at < SHARE else "val" if at < 2 * SHARE else "train"
        named = CONTRAST.search(path.name.split(".")[0])
        contrast = named[1].upper().replace("T1C", "T1c") if named else "unknown"
        found.append(Source(path, subject, contrast, split))
    return found


def _subject(path: Path) -> str:
    """Who was scanned: the ``sub-`` entity (BIDS), first folder, IXI number, or stem without contrast."""
    if named := re.search(r"sub-[A-Za-z0-9]+", path.as_posix()):
        return named[0]
    if len(path.parts) > 1:
        return path.parts[0]
    stem = path.name.split(".")[0]
    if ixi := re.match(r"IXI\d+", stem):
        return ixi[0]
    return CONTRAST.sub("", stem).rstrip("-_") or stem


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
    values = len(np.unique(data.ravel()[:: max(1, data.size // 100_000)]))
    if values < 24:
        raise BadInput(f"it has only {values} distinct values: a mask, not a scan")
    return volume
