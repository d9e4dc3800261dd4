"""Lesions in slices that are made thin: whether they stay as bright and as large, vanish or appear.

    python paper/lesions.py MANIFEST.csv --out pictures

Three multiple-sclerosis lesions of three patients in FLAIR, picked by eye on the truth. An axis in the plane
loses slices as in `isotropic`. The only patients with such lesions are in the training split, which the
weights have seen: this shows what becomes of a lesion, not how well the network does on an unseen scan.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import isotropic
import numpy as np
from acquisitions import sources
from figures import save
from isotropic import Case
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy import ndarray
from results import Rows, program, write
from scipy import ndimage
from tyro.conf import Positional

from seran import methods
from seran.engines import Engine

PROTOCOL = (
    "FLAIR of the open_ms set, split train; slices {factor} voxels apart along the first axis, {part:.0%} as "
    "thick, profile slr, noise of {noise:.0%} of the 99.9th percentile; weights {digest}",
    "A lesion is what lies, connected, above half of its height over its surroundings in the truth; contrast "
    "and volume above that level are parts of the truth's",
    "Blobs: brighter by {blob} of the 99.9th percentile than what is around them (Gaussians of 2 and 8 "
    "voxels), inside the head; lost or new if the other image has less than half of that within 3 voxels",
)
BLOB, NEAR = 0.1, 3  # of the 99.9th percentile; voxels
AROUND = 12  # voxels to what surrounds a lesion
SIDE = 24  # voxels from the middle of a picture to its edge
DEEP = 30  # voxels below the skin, where blobs are looked for


@dataclass(frozen=True)
class Lesion:
    """Where one is: a part of a file's name, and the voxel of its peak."""

    scan: str
    peak: tuple[int, int, int]


LESIONS = (
    Lesion("openms_patient03_study2_FLAIR", (193, 192, 33)),
    Lesion("openms_patient09_study2_FLAIR", (237, 201, 24)),
    Lesion("openms_patient19_study2_FLAIR", (124, 236, 33)),
)
CASE = Case(5)


def region(
    x: Float[ndarray, "n h w"], peak: tuple[int, int, int]
) -> tuple[Bool[ndarray, "n h w"], float, float]:
    """A lesion, the brightness around it, and half of its height above that."""
    box = tuple(slice(p - AROUND, p + AROUND + 1) for p in peak[:2])
    around = float(np.median(x[(*box, peak[2])]))
    level = around + (float(x[peak]) - around) / 2
    marked = ndimage.label(x > level)[0]
    return marked == marked[peak], around, level


def blobs(x: Float[ndarray, "n h w"], inside: Bool[ndarray, "n h w"]) -> Float[ndarray, "n h w"]:
    """By how much voxels are brighter than what is around them, slice by slice; 0 outside."""
    narrow, wide = (ndimage.gaussian_filter(x, (sd, sd, 0)) for sd in (2, 8))
    return np.where(inside, narrow - wide, 0)


def missing(a: Float[ndarray, "n h w"], b: Float[ndarray, "n h w"]) -> int:
    """How many blobs of one image the other is without."""
    near = ndimage.maximum_filter(b, (2 * NEAR + 1, 2 * NEAR + 1, 1))
    marked, count = ndimage.label(a > BLOB)
    kept = ndimage.maximum(near, marked, np.arange(1, count + 1)) if count else np.empty(0)
    return int((np.asarray(kept) < BLOB / 2).sum())


def scored(x: Float[ndarray, "n h w"], y: Float[ndarray, "n h w"], lesion: Lesion) -> dict[str, float]:
    """Contrast and volume of a lesion as parts of the truth's; blobs of the head that are lost or new."""
    there, around, level = region(x, lesion.peak)
    reach = ndimage.binary_dilation(there, iterations=NEAR)
    contrast = (float(y[there].mean()) - around) / (float(x[there].mean()) - around)
    head = ndimage.binary_fill_holes(ndimage.gaussian_filter(x, (3, 3, 0)) > isotropic.LIT)
    inside = ndimage.binary_erosion(head, np.ones((3, 3, 1)), DEEP)
    old, new = (blobs(image, inside) for image in (x, y))
    volume = float((y[reach] > level).sum() / there.sum())
    return {"contrast": contrast, "volume": volume, "lost": missing(old, new), "new": missing(new, old)}


def draw(rows: dict[str, dict[str, ndarray]], path: Path) -> None:
    """A row for each lesion, a column for each image; what is thick lies from top to bottom."""
    names = list(next(iter(rows.values())))
    figure = Figure(figsize=(2.6 * len(names), 2.8 * len(rows)), layout="constrained")
    for line, images in zip(
        figure.subplots(len(rows), len(names), squeeze=False), rows.values(), strict=True
    ):
        for ax, (name, image) in zip(line, images.items(), strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=float(images["truth"].max()), interpolation="nearest")
            ax.set_title(name, fontsize=9)
            ax.set_axis_off()
    save(figure, path)


def table(rows: Rows) -> list[str]:
    """A row for each lesion and way."""
    lines = ["| scan | voxel | way | contrast | volume | blobs lost | new |", "|---|---|---|---|---|---|---|"]
    for row in rows.values():
        lines += [
            f"| {row['scan']} | {' '.join(map(str, row['peak']))} | {way} | {one['contrast']:.0%} | "
            f"{one['volume']:.0%} | {one['lost']:.0f} | {one['new']:.0f} |"
            for way, one in row["ways"].items()
        ]
    return lines


def main(
    lists: Positional[tuple[Path, ...]],
    threads: int = 0,
    out: Path = Path("lesions"),
    results: Path = Path(__file__).parent,
) -> None:
    """Measure and draw.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        threads: of the CPU; 0: all.
        out: folder of ``lesions.png``.
        results: folder of ``lesions.json`` and ``.md``.
    """
    engine, rows, shown = Engine(threads=threads), {}, {}
    facts: dict[str, Any] = {"factor": CASE.factor, "part": isotropic.PART, "noise": isotropic.NOISE}
    facts |= {"blob": BLOB, "digest": methods.across(methods.DEFAULT).sha256[:12]}
    for lesion in LESIONS:
        [source] = [s for s in sources(lists, "train") if lesion.scan in s.path.name]
        x, fine = isotropic.truth(source, 1 << 10)
        x = x[: len(x) // CASE.factor * CASE.factor]
        s = isotropic.thick(x, CASE)
        ways = {way: isotropic.made(s, CASE.factor, way, fine, engine) for way in ("B-spline", "seran")}
        rows[lesion.scan] = {
            "scan": lesion.scan, "peak": list(lesion.peak),
            "ways": {way: scored(x, np.maximum(y, 0), lesion) for way, y in ways.items()},
        }  # fmt: skip
        a, b, z = lesion.peak
        at = slice(a - SIDE, a + SIDE), slice(b - SIDE, b + SIDE), z
        images = {"truth": x, "thick": s.repeat(CASE.factor, 0), **ways}
        shown[lesion.scan] = {name: image[at] for name, image in images.items()}
        sys.stderr.write(f"{lesion.scan}: {rows[lesion.scan]['ways']}\n")
    write(results / "lesions.json", [line.format(**facts) for line in PROTOCOL], rows, table)
    out.mkdir(parents=True, exist_ok=True)
    draw(shown, out / "lesions.png")


if __name__ == "__main__":
    program(main)
