"""The IXI data set as CSN and SERAN use it (brain-development.org, CC BY-SA 3.0).

Known of their preparation: 500 volumes train, 70 test and 6 serve quick validation, per contrast; each is
cut to 240x240x96 voxels and degraded slice by slice, as integers. Not published, so chosen here: the cut is
central, and of the subjects that have all of T1, T2 and PD, by number, the first 500 train, the next 70 test
and the next 6 validate (``ixi_subjects.csv`` beside this file, from public listings).
"""

import csv
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from seran.data.sources import Source
from seran.errors import BadInput

ADDRESS = "https://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI/"
LICENCE = "CC BY-SA 3.0"
REPOSITORY = "brain-development.org/ixi-dataset"
SHAPE = (96, 240, 240)  # slices, rows and columns of every volume
SUBJECTS = Path(__file__).with_name("ixi_subjects.csv")


class Archive(NamedTuple):
    """One official file; none has changed since 2014."""

    name: str
    size: int
    sha256: str


ARCHIVES = {
    contrast: Archive(f"IXI-{contrast}.tar", size, sha256)
    for contrast, size, sha256 in (
        ("T1", 4_840_816_640, "56bbe911fbe967f7d1b830a552995263bdba281e0a6eb78e62f1c38d88a946a9"),
        ("T2", 3_853_445_120, "39af50f87be8f7d0be2f166a64f5f59b5e43577255eb5613553dae37c348c2e4"),
        ("PD", 4_068_966_400, "c00124d2409b68f9800938ede547cff71cafb0d51e19bd5138d85a4c4e144130"),
    )
}


def splits() -> dict[str, str]:
    """Subject -> ``train``, ``test`` or ``val``."""
    with SUBJECTS.open(newline="") as file:
        return {row["subject"]: row["split"] for row in csv.DictReader(file)}


def sources(archive: Path, contrast: str) -> Iterator[Source]:
    """The scans of the listed subjects in one archive, each unpacked only while it is the latest one.

    Subjects without a scan in it come last, with a path at which there is nothing.
    """
    missing = splits()
    name = re.compile(rf"(IXI\d{{3}})-(?:Guys|HH|IOP)-\d{{4}}-{contrast}\.nii\.gz")
    with tempfile.TemporaryDirectory(prefix="seran-ixi-") as folder:
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    path = Path(folder, Path(member.name).name)
                    data = tar.extractfile(member) if member.isfile() else None
                    if data and (found := name.fullmatch(path.name)) and found[1] in missing:
                        path.write_bytes(data.read())
                        yield Source(path, found[1], contrast, missing.pop(found[1]), LICENCE, "", REPOSITORY)
                        path.unlink()
        except tarfile.TarError as error:
            text = f"{archive}: expected a tar archive of IXI scans ({error}); download it again"
            raise BadInput(text) from error
    for subject, split in missing.items():
        yield Source(archive / f"{subject}-{contrast}.nii.gz", subject, contrast, split, LICENCE)
