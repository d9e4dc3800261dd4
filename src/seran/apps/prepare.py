"""``seran prepare``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from seran import files, progress
from seran.data import exchange, open_set
from seran.data import ixi as ixi_set
from seran.data import prepare as library
from seran.data.fetch import fetch
from seran.data.pairs import SPLITS, PreparedSet, load_prepared
from seran.data.prepare import PrepareOptions
from seran.data.sources import is_list
from seran.errors import BadInput, Incomplete, counted


def bind(args: list[str]) -> tuple[Callable[..., str], list[str]]:
    """``seran prepare ixi …``, ``open …`` and ``to-nifti …`` are commands of their own."""
    own: dict[str, Callable[..., str]] = {"ixi": ixi, "open": benchmark, "to-nifti": to_nifti}
    return (own[args[0]], args[1:]) if args and args[0] in own else (prepare, args)


WITHOUT = {
    "train": "there is nothing to train on",
    "val": "nothing is validated during training",
    "test": "there is nothing to report scores on",
}
"""What a set without a split cannot do."""


def _summary(made: PreparedSet, out: Path) -> str:
    counts = ", ".join(f"{len(made.pick(split))} {split}" for split in SPLITS)
    cropped = len({v.sha256 for v in made.volumes if min(v.band) < 1})
    return (
        f"{counted(len(made.volumes), 'volume')} ({counts}) in {out}, {cropped} zero-filled by the scanner, "
        f"{len(made.skipped)} skipped"
    )


def ixi(
    out: Path,
    /,
    contrast: Literal["PD", "T1", "T2"],
    archives: Annotated[Path, "FOLDER"] = Path("ixi-archives"),
    address: Annotated[str, "URL"] = ixi_set.ADDRESS,
    options: PrepareOptions = PrepareOptions(integer=True, fourier_crop=False),  # noqa: B008
) -> str:
    """Make the IXI set of CSN and SERAN: 500, 70 and 6 volumes of 240x240x96 voxels, as integers.

    Args:
        out: the prepared folder; must not exist.
        contrast: which archive; the subjects of a split are the same for all three.
        archives: folder of the official archives (4 to 5 GB each); what is not there is downloaded.
        address: where the archives are downloaded from; a mirror must hold the same bytes.
        options: what pairs are made.
    """
    library.refuse_existing(out)
    archive = ixi_set.ARCHIVES[contrast]
    archives.mkdir(parents=True, exist_ok=True)
    with progress.bar(archive.size, "B", archive.name) as bar:
        path = fetch(
            address + archive.name,
            archives / archive.name,
            archive.size,
            archive.sha256,
            progress=lambda have: bar.update(have - bar.n),
        )
    found = ixi_set.sources(path, contrast)
    return _summary(library.prepare(found, out, options, progress.say, ixi_set.SHAPE), out)


def benchmark(
    out: Path,
    /,
    sources: Annotated[Path, "FOLDER"] = Path("open-sources"),
    address: Annotated[str, "URL"] = open_set.ADDRESS,
    listings: Annotated[str, "URL"] = open_set.LISTINGS,
    edition: Literal[1, 2] = 2,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008
) -> str:
    """Make the open benchmark: 69 public scans of T1, T2, PD and FLAIR, split by subject.

    Args:
        out: the prepared folder; must not exist.
        sources: folder of the scans (0.2 GB); what is not there is downloaded.
        address: where files are downloaded from, as ADDRESS/OWNER/REPOSITORY/COMMIT/PATH.
        listings: what lists DICOM series, as LISTINGS/OWNER/REPOSITORY/git/trees/COMMIT?recursive=1.
        edition: 1 has 61 scans, 2 eight more for training; the scans to test on are the same.
        options: what pairs are made.
    """
    library.refuse_existing(out)
    with progress.bar(len(open_set.rows(edition)), "scan", "sources") as bar:
        found = open_set.collect(sources, address, listings, lambda path: bar.update(), edition)
    return _summary(library.prepare(found, out, options, progress.say), out)


def to_nifti(
    pairs: Path,
    out: Path,
    /,
    scale: Literal[1, 2, 3, 4] = 2,
    split: Literal["train", "val", "test"] = "test",
) -> str:
    """Write the low slices of a prepared set as NIfTI files, for programs that `seran evaluate` is to score.

    Each is called NAME.nii.gz, by the name of its volume, and lies where the scan lies. What another program
    makes of them is scored under the same names: `seran evaluate PAIRS --predictions FOLDER`.

    Args:
        pairs: a folder made by `seran prepare`.
        out: the folder of the files; must not exist.
        scale: which low-resolution set; 1 for the truth, as to draw masks on, or to train on.
        split: of which volumes.
    """
    library.refuse_existing(out)
    data = load_prepared(pairs)
    chosen = data.pick(split)
    if not chosen:
        raise BadInput(f"{pairs}: the split {split!r} is empty")
    with files.together(out, force=False) as (folder,), progress.bar(len(chosen), "volume") as bar:
        folder.mkdir()
        for volume in chosen:
            exchange.write(data, volume, scale, folder / f"{volume.name}.nii.gz")
            bar.update()
    return f"{counted(len(chosen), 'image')} of the split {split} in {out}"


def prepare(source: Path, out: Path, /, options: PrepareOptions = PrepareOptions()) -> str:  # noqa: B008
    """Pack scans into pairs of high- and low-resolution slices for training and evaluation.

    `seran prepare ixi --help` and `seran prepare open --help` tell of the public sets, and
    `seran prepare to-nifti --help` of images for other programs.

    Args:
        source: a folder of scans, or a CSV manifest with the columns split, path, contrast, subject. If scans
            of a manifest cannot be used, the others are packed, and the exit status is 1.
        out: the prepared folder; must not exist.
        options: what pairs are made.
    """
    made = library.prepare(source, out, options, progress.say)
    if empty := [split for split in SPLITS if not made.pick(split)]:
        what = "; ".join(WITHOUT[split] for split in empty)
        told = "" if is_list(source) else "; name the splits in a CSV instead: split, path, contrast, subject"
        progress.say(f"seran: no volume in {' and '.join(empty)}: {what}{told}", "stderr")
    if made.skipped and is_list(source):
        progress.say(_summary(made, out))
        first = made.skipped[0]
        raise Incomplete(
            f"{counted(len(made.skipped), 'scan')} of the list cannot be used, and {out} is without; first "
            f"{first['source']}: {first['reason']}"
        )
    return _summary(made, out)
