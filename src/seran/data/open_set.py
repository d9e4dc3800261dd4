"""The open benchmark: 61 scans that anyone may download, listed in ``open_sources.csv`` beside this file.

Every row names a repository, a commit, a path in it, and the split of its subject. Most are NIfTI files, of
known size and sha256. Four sources are DICOM series, which every program converts to other bytes: of them a
digest of the voxels (`digest`) and the size of a voxel are known. Their path is a prefix, for which a listing
of the repository says which files there are. The prefixes come from public indices of the repositories, which
do not say what lies there at this very commit. So the voxels decide: of all series, echoes and parts in the
folders with this prefix the one is taken that fits. The knee is looked for in ``MESE_T2_dicom_data_anon`` and
then in its twin without ``_anon``.

A listing is not trusted: its paths go into addresses only; on disk a file is called by its git SHA-1 and
verified against that and its size.
"""

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from seran import files, grid, io
from seran.data import fetch
from seran.data.sources import Source
from seran.errors import BadInput
from seran.io import dicom
from seran.volume import Volume

ADDRESS = "https://raw.githubusercontent.com"
LISTINGS = "https://api.github.com/repos"
ROWS = Path(__file__).with_name("open_sources.csv")
LONGEST = 1 << 25
"""Bytes of a listing, at most; GitHub's end at 7 MB."""
LARGEST = 1 << 30
"""Bytes of a series, at most."""
SERIES = ".series"
"""Folder of a series' files, in that of the sources, until all series are converted."""
LINK = "120000"
"""Mode of a symbolic link in git."""
NAME = re.compile(r"[^.]+|.+\.dcm", re.IGNORECASE)
"""DICOM files have no ending or this one; others are not asked for."""


@dataclass(frozen=True)
class Row:
    """One scan of the list.

    Attributes:
        path: below the folder of sources.
        source_path: in the repository; of a series the beginning of its files' paths.
        size: bytes of the file; of a series nothing.
        sha256: of the file; of a series nothing.
        voxels: `digest` of a series.
        voxel_mm: size of a series' voxels.
    """

    split: str
    path: str
    contrast: str
    subject: str
    source_repository: str
    source_commit: str
    source_path: str
    licence: str
    size: str
    sha256: str
    voxels: str
    voxel_mm: str

    @property
    def origin(self) -> tuple[str, str, str]:
        """Where it comes from; the parts and echoes of a series have it in common."""
        return self.source_repository, self.source_commit, self.source_path

    def url(self, address: str, path: str) -> str:
        """Where a file of its repository is downloaded from."""
        return f"{address.rstrip('/')}/{self.source_repository}/{self.source_commit}/{quote(path)}"


class Blob(NamedTuple):
    """A file of a repository, as listed."""

    path: str
    size: int
    sha1: str


def rows() -> list[Row]:
    """The list."""
    with ROWS.open(newline="") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def digest(volume: Volume) -> str:
    """sha256 of a scan's shape and voxels, float32, the axes turned to point right, anterior and superior."""
    world = grid.world_axes(volume.affine)
    data = np.transpose(volume.data, np.argsort(world))
    backwards = tuple(w for w in range(3) if volume.affine[w, world.index(w)] < 0)
    data = np.flip(data, backwards) + np.float32(0)  # -0 is 0
    return hashlib.sha256(f"{data.shape}".encode() + data.astype("<f4").tobytes("C")).hexdigest()


def fits(volume: Volume, row: Row) -> bool:
    """Whether this is the scan of a row that is a series."""
    sizes = sorted(float(mm) for mm in row.voxel_mm.split("x"))
    same = np.allclose(sorted(grid.spacing(volume.affine)), sizes, rtol=0, atol=0.002)
    return same and digest(volume) == row.voxels


def collect(
    folder: Path,
    address: str = ADDRESS,
    listings: str = LISTINGS,
    progress: Callable[[str], object] = lambda path: None,
) -> list[Source]:
    """Bring all scans into ``folder``, where they lie under the paths of the list; what is there is verified.

    Args:
        folder: of the sources, made if need be; a series is kept in it while it is incomplete.
        address: what raw files are downloaded from, as ADDRESS/OWNER/REPOSITORY/COMMIT/PATH.
        listings: what series are listed by, as LISTINGS/OWNER/REPOSITORY/git/trees/COMMIT?recursive=1.
        progress: is told the path of each scan before it is looked at.

    Raises:
        BadInput: a file that is there is not the one of the list, or a scan cannot be downloaded.
    """
    found = rows()
    for row in found:
        progress(row.path)
        path = folder / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not row.voxels:
            fetch.fetch(row.url(address, row.source_path), path, int(row.size), row.sha256)
        elif not path.exists():
            _convert(folder, [r for r in found if r.origin == row.origin], address, listings)
        elif not fits(io.read(path, affine="either"), row):
            raise BadInput(
                f"{path}: expected the voxels of {row.source_repository} at {row.source_commit[:7]}, got "
                "others; move it away and run the same command again to download it"
            )
    shutil.rmtree(folder / SERIES, ignore_errors=True)
    return [
        Source(folder / r.path, r.subject, r.contrast, r.split, r.licence, r.sha256, r.source_repository)
        for r in found
    ]


def _convert(folder: Path, wanted: list[Row], address: str, listings: str) -> None:
    """Download a series and write the scans of it that are wanted and not there."""
    repository, commit, prefix = wanted[0].origin
    place = folder / SERIES
    place.mkdir(exist_ok=True)
    groups = _listing(f"{listings.rstrip('/')}/{repository}/git/trees/{commit}?recursive=1", prefix)
    left = {row.path: row for row in wanted if not (folder / row.path).exists()}
    trouble = []
    for name, blobs in sorted(groups.items(), reverse=True):
        paths = [
            fetch.fetch(wanted[0].url(address, blob.path), place / blob.sha1, blob.size, blob.sha1)
            for blob in blobs.values()
        ]
        try:
            _write(folder, paths, left)
        except BadInput as error:
            trouble.append(f"{name}: {error}")
        if not left:
            return
    raise BadInput(
        f"{repository} at {commit[:7]}: expected the voxels of {', '.join(left)} in a DICOM series of "
        f"{', '.join(groups)}, got others; the list or the server is wrong. {' '.join(trouble)}"
    )


def _write(folder: Path, paths: Iterable[Path], left: dict[str, Row]) -> None:
    """Write what fits the rows of ``left``, and take these out."""
    paths = [path for path in paths if dicom.is_dicom(path)]
    for volume in dicom.scans(paths) if paths else []:
        for row in [row for row in left.values() if fits(volume, row)]:
            with files.atomic(folder / row.path) as part:
                io.write(volume, part)
            del left[row.path]


def _listing(url: str, prefix: str) -> dict[str, dict[str, Blob]]:
    """The files of a repository whose paths begin with ``prefix``: by folder, by SHA-1.

    Raises:
        BadInput: if the listing is not one, is cut off, or has paths or sizes that cannot be.
    """
    try:
        tree = json.loads(fetch.read(url, LONGEST))
        if tree["truncated"]:
            raise BadInput(f"{url}: expected a whole listing, the server cuts it off; use another server")
        groups: dict[str, dict[str, Blob]] = {}
        total = 0
        for entry in tree["tree"]:
            path, (parent, _, name) = entry["path"], entry["path"].rpartition("/")
            if entry["type"] != "blob" or entry["mode"] == LINK:
                continue
            if path.startswith(prefix) and NAME.fullmatch(name):
                size, sha1 = entry["size"], entry["sha"]
                inside = path.isprintable() and not {"", ".", ".."} & set(path.split("/"))
                if not inside or type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]{40}", sha1):
                    raise BadInput(
                        f"{url}: expected path, size and SHA-1 of a file in it, got {path[:200]!r}"
                    )
                groups.setdefault(parent, {})[sha1] = Blob(path, size, sha1)
                total += size
        if total > LARGEST:
            raise BadInput(f"{url}: expected at most {LARGEST} bytes at {prefix}, it lists {total}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{url}: expected a listing of a repository as JSON ({error!r})") from error
    if not groups:
        raise BadInput(f"{url}: expected DICOM files at {prefix}, the listing has none")
    return groups
