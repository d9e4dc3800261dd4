"""``seran prepare``."""

from pathlib import Path
from typing import Literal

from tqdm import tqdm

from seran import prepare as library
from seran.apps import Positional


def prepare(
    source: Positional[Path],
    out: Positional[Path],
    degradation: Literal["bd", "td"] = "bd",
    scales: tuple[int, ...] = (2, 3, 4),
    integer: bool = False,
    fourier_crop: bool = True,
) -> str:
    """Pack scans into pairs of high- and low-resolution slices for training and evaluation.

    Args:
        source: a folder of scans, or a CSV manifest with the columns split, path, contrast, subject.
        out: the prepared folder; must not exist.
        degradation: bd: MATLAB's antialiased bicubic; td: centred k-space truncation.
        scales: which low-resolution sets to write.
        integer: round and clip at 0, as the CSN data set does.
        fourier_crop: first take zero-filled scans to the k-space support that was really measured.
    """
    made = library.prepare(
        source, out, degradation, scales, integer, fourier_crop, report=lambda text: tqdm.write(text)
    )
    counts = {split: len(made.pick(split)) for split in library.SPLITS}
    cropped = sum(min(v.band) < 1 for v in made.volumes)
    return (
        f"{len(made.volumes)} volumes ({', '.join(f'{n} {s}' for s, n in counts.items())}) in {out}, "
        f"{cropped} zero-filled by the scanner, {len(made.skipped)} skipped"
    )
