"""Which series lie in a folder, by the headers of its files."""

import struct
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.misc import is_dicom

from seran.errors import BadInput
from seran.io.voxels import printable, readable

UNREADABLE = (
    OSError, EOFError, InvalidDicomError, BytesLengthException, struct.error, AttributeError, LookupError,
    TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError, MemoryError,
)  # fmt: skip
"""What pydicom raises on damaged files and impossible headers, and what comes of converting their values."""


def decoded(path: Path) -> AbstractContextManager[None]:
    """Around pydicom's calls, and where values of a header become numbers: errors there are the file's."""
    return readable(path, "DICOM", UNREADABLE)


def header(path: Path, tags: list[str] | None = None, pixels: bool = False) -> pydicom.Dataset:
    """A file's header with every element decoded; those inside of sequences are not.

    Args:
        path: the file.
        tags: names of the elements that are wanted; all without it.
        pixels: read the pixels too.

    Raises:
        BadInput: if the file cannot be read.
    """
    with decoded(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on unusual values; what cannot be used is an exception
        found = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=tags)
        list(found)  # decodes it here, where remarks are ignored
        return found


@dataclass(frozen=True)
class Listed:
    """A series of MR images in a folder.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, as it is written.
        description: SeriesDescription.
        paths: its files.
    """

    uid: str
    number: str
    description: str
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.number} ({self.description or 'no description'}, {len(self.paths)} images)"


def series_of(folder: Path) -> list[Listed]:
    """The series of MR images below a folder, by their numbers; other files are passed over.

    Raises:
        BadInput: if there is none.
    """
    found: dict[str, list[tuple[Path, str, str]]] = {}
    others: set[str] = set()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_dicom(p)):
        said = header(path, ["Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows"])
        if said.get("Modality") == "MR" and "Rows" in said:
            number, text = (printable(said.get(f"Series{n}")) for n in ("Number", "Description"))
            found.setdefault(str(said.get("SeriesInstanceUID")), []).append((path, number, text))
        else:
            others.add(printable(said.get("Modality")) or "no modality")
    if not found:
        shown = f"only {', '.join(sorted(others))}" if others else "none"
        raise BadInput(f"{folder}: expected a folder with MR images in DICOM, found {shown}")
    listed = [Listed(uid, f[0][1], f[0][2], tuple(p for p, *_ in f)) for uid, f in found.items()]
    return sorted(listed, key=lambda s: (s.number.zfill(9), s.uid))


def picked(folder: Path, pick: str | None) -> Listed:
    """The one series of a folder, or the one that ``pick`` names by its number or UID.

    Raises:
        BadInput: if it is not clear which.
    """
    listed = series_of(folder)
    chosen = [s for s in listed if pick in (None, s.number, s.uid)]
    if len(chosen) != 1:
        raise BadInput(
            f"{folder}: expected one series, got {', '.join(map(str, chosen or listed))}; "
            "choose one with --series NUMBER or --series UID"
        )
    return chosen[0]
