"""The open benchmark: 69 scans that anyone may download, listed in ``open_sources.csv`` beside this file.

Its first edition has 61 of them; the second adds scans for training (PD, T1c, neck), and none to the others.

Most are NIfTI files of known size and sha256. Of four DICOM series, which every program converts to other
bytes, a digest of the voxels and a prefix of the files' paths are known: of all series, echoes and parts that
a listing of the repository has there, the one is taken whose voxels fit. A listing is not trusted: its paths
go into addresses only; on disk a file is called by its git SHA-1 and verified against that and its size.
"""

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from urllib.parse import quote

import numpy as np

from seran import files, grid, io
from seran.data import fetch
from seran.data.sources import COLUMNS, Source
from seran.errors import BadInput
from seran.io import dicom
from seran.volume import Volume

ADDRESS = "https://raw.githubusercontent.com"
LISTINGS = "https://api.github.com/repos"
ROWS = Path(__file__).with_name("open_sources.csv")
LONGEST = 1 << 25  # bytes of a listing; GitHub's end at 7 MB
LARGEST = 1 << 30  # bytes of a series
NAME = re.compile(r"[^.]+|.+\.dcm", re.IGNORECASE)  # of DICOM files; others are not asked for
ORIGIN = attrgetter("source_repository", "source_commit", "source_path")  # parts and echoes share it


@dataclass(frozen=True)
class Row:
    """One scan of the list."""

    split: str
    path: str  # below the folder of sources
    contrast: str
    subject: str
    source_repository: str
    source_commit: str
    source_path: str  # in the repository; of a series the beginning of its files' paths
    licence: str
    size: str  # bytes; empty for a series, like sha256
    sha256: str
    voxels: str  # `digest` of a series
    voxel_mm: str  # of a series
    edition: str  # the first that has it

    def url(self, address: str, path: str) -> str:
        """Where a file of its repository is downloaded from."""
        return f"{address.rstrip('/')}/{self.source_repository}/{self.source_commit}/{quote(path)}"


def rows(edition: int = 2) -> list[Row]:
    """The list of an edition."""
    with ROWS.open(newline="") as file:
        return [row for row in (Row(**row) for row in csv.DictReader(file)) if int(row.edition) <= edition]


def digest(volume: Volume) -> str:
    """sha256 of a scan's shape and voxels, float32, the axes turned to point right, anterior and superior."""
    world = grid.world_axes(volume.affine)
    data = np.transpose(volume.data, np.argsort(world))
    backwards = tuple(w for w in range(3) if volume.affine[w, world.index(w)] < 0)
    data = np.flip(data, backwards) + np.float32(0)  # -0 is 0
    return hashlib.sha256(f"{data.shape}".encode() + data.astype("<f4").tobytes("C")).hexdigest()


def collect(
    folder: Path,
    address: str,
    listings: str,
    progress: Callable[[str], object] = lambda path: None,
    edition: int = 2,
) -> list[Source]:
    """Bring all scans into ``folder``, under the paths of the list; `BadInput` for a different file there.

    Args:
        folder: of the sources, made if need be; a series is kept in it while it is incomplete.
        address: what raw files are downloaded from, as ADDRESS/OWNER/REPOSITORY/COMMIT/PATH.
        listings: what series are listed by, as LISTINGS/OWNER/REPOSITORY/git/trees/COMMIT?recursive=1.
        progress: is told the path of each scan before it is looked at.
        edition: of the list.
    """
    found = rows(edition)
    series = folder / ".series"  # files of series, until all are converted
    for row in found:
        progress(row.path)
        path = folder / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not row.voxels:
            fetch.fetch(row.url(address, row.source_path), path, int(row.size), row.sha256)
        elif not path.exists():
            series.mkdir(exist_ok=True)
            missing = [r for r in found if ORIGIN(r) == ORIGIN(row) and not (folder / r.path).exists()]
            _convert(series, missing, address, listings)
        elif not _fits(io.read(path, affine="either"), row):
            raise BadInput(
                f"{path}: expected the voxels of {row.source_repository} at {row.source_commit[:7]}, got "
                "others; move it away and run the same command again to download it"
            )
    shutil.rmtree(series, ignore_errors=True)
    return [Source(folder / row.path, *(getattr(row, name) for name in COLUMNS)) for row in found]


def _fits(volume: Volume, row: Row) -> bool:
    """Whether this is the scan of a row that is a series."""
    sizes = sorted(float(mm) for mm in row.voxel_mm.split("x"))
    same = np.allclose(sorted(grid.spacing(volume.affine)), sizes, rtol=0, atol=0.002)
    return same and digest(volume) == row.voxels


def _convert(series: Path, left: list[Row], address: str, listings: str) -> None:
    """Download a series and write the scans of it that are left to write, beside its folder."""
    row, (repository, commit, prefix) = left[0], ORIGIN(left[0])
    groups = _listing(f"{listings.rstrip('/')}/{repository}/git/trees/{commit}?recursive=1", prefix)
    trouble = []
    for name, listed in sorted(groups.items(), reverse=True):  # ``…_anon`` before its twin without
        paths = [
            fetch.fetch(row.url(address, path), series / sha1, size, sha1)
            for sha1, (path, size) in listed.items()
        ]
        try:
            slices = [path for path in paths if dicom.is_dicom(path)]
            for volume in dicom.scans(slices) if slices else []:
                for fitting in [r for r in left if _fits(volume, r)]:
                    with files.atomic(series.parent / fitting.path) as part:
                        io.write(volume, part)
                    left.remove(fitting)
        except BadInput as error:
            trouble.append(f"{name}: {error}")
        if not left:
            return
    raise BadInput(
        f"{repository} at {commit[:7]}: expected the voxels of {', '.join(r.path for r in left)} in a DICOM "
        f"series of {', '.join(groups)}, got others; the list or the server is wrong. {' '.join(trouble)}"
    )


def _listing(url: str, prefix: str) -> dict[str, dict[str, tuple[str, int]]]:
    """Of a repository's files whose paths begin with ``prefix``: folder -> SHA-1 -> path and bytes."""
    groups: dict[str, dict[str, tuple[str, int]]] = {}
    try:
        tree = json.loads(fetch.read(url, LONGEST))
        if tree["truncated"]:
            raise BadInput(f"{url}: expected a whole listing, the server cuts it off; use another server")
        for entry in tree["tree"]:
            path, (parent, _, name) = entry["path"], entry["path"].rpartition("/")
            wanted = path.startswith(prefix) and NAME.fullmatch(name)
            if not wanted or entry["type"] != "blob" or entry["mode"] == "120000":  # a symbolic link
                continue
            size, sha1 = entry["size"], entry["sha"]
            inside = path.isprintable() and not {"", ".", ".."} & set(path.split("/"))
            if not inside or type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]{40}", sha1):
                raise BadInput(f"{url}: expected path, size and SHA-1 of a file in it, got {path[:200]!r}")
            groups.setdefault(parent, {})[sha1] = path, size
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{url}: expected a listing of a repository as JSON ({error!r})") from error
    if not groups:
        raise BadInput(f"{url}: expected DICOM files at {prefix}, the listing has none")
    total = sum(size for listed in groups.values() for _, size in listed.values())
    if total > LARGEST:
        raise BadInput(f"{url}: expected at most {LARGEST} bytes at {prefix}, it lists {total}")
    return groups
