"""Lesions, in the plane and across slices: whether they stay as bright and as large, vanish or appear.

    python paper/lesions.py MANIFEST.csv --pictures pictures

A truth (see `acquisitions`) is acquired at half of its resolution in the plane and, apart from that, loses
slices along an axis of its plane as in `isotropic`. Patients of the training split, whom the weights have
seen, stand apart: they show what becomes of a lesion, not how well a network does on an unseen scan.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import isotropic
import numpy as np
from acquisitions import CASES, acquired, aligned, head, sources, truth
from figures import save
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy import ndarray
from results import Rows, markdown, placed, program, write
from scipy import ndimage
from tyro.conf import Positional
from ways import WAYS, digest, through

from seran import methods
from seran.engines import Engine

CASE, THICK = CASES["noise-1"], isotropic.Case(4)
PLANE, ACROSS = ("zerofill", "seran-bd", "native"), ("B-spline", "seran")
TITLES = {name: WAYS[name].title for name in PLANE} | {"B-spline": "B-spline, thick", "seran": "seran, thick"}
BLOB, FINE, NEAR = 0.1, (1, 4), 3  # of the 99.9th percentile; voxels
BESIDE, WIDE = 6, 30  # voxels beyond a lesion: what surrounds it, and where its noise is looked for
DEEP = 0.08  # of the shorter side of a slice: how far below the skin blobs and errors are looked for
FLAT = 0.25  # of the tissue, where it changes least
TIMES = 5  # sigma that an error is above
SIDE = 22  # voxels from the middle of a picture to its edge
PROTOCOL = (
    "Lesions were picked by eye on the truths before anything was scored, by somebody who is not a trained "
    "radiologist; their names say what they look like. The validation patient has multiple sclerosis, but no "
    "plaque that could be told for certain: bright dots of white matter of one to five voxels, probably "
    "perivascular spaces, stand for the smallest things there are",
    "Truths: whole stacks on the k-space that was measured, 99.9th percentile 1. In the plane: half of each "
    f"axis is acquired, x2, noise of {CASE.sigma:.0%}; the library measures it. Thick: slices along the "
    f"rows' axis, {THICK.factor} voxels apart, {isotropic.PART:.0%} as thick, profile slr, noise of "
    f"{isotropic.NOISE:.0%}. No result is made consistent with its scan afterwards",
    "A lesion is what is connected in the truth, in its slice and the two beside it, above half of its "
    f"height over its surroundings (median of {BESIDE} voxels around it). Contrast over the surroundings, "
    f"and volume above that level within {NEAR} voxels of the lesion, are parts of the truth's",
    f"CNR: contrast over the noise of flat tissue up to {WIDE} voxels away, the {FLAT:.0%} where the truth, "
    "smoothed by 2 voxels, changes least; noise: 1.4826 times the median of what a Gaussian of 3 voxels "
    "takes away. Smooth images have little noise: a high CNR is no proof of detail",
    f"Blobs: brighter by {BLOB} than what is around them (Gaussians of {FINE[0]} and {FINE[1]} voxels), in "
    f"the head; lost or new if the other image has less than half of that within {NEAR} voxels",
    "Largest error: voxels of the largest connected part of healthy tissue (in the head, more than "
    f"{BESIDE} voxels or two slices from lesions) with an error above {TIMES} sigma, then of its flat part "
    "alone. Sigma: noise of the truth's flat tissue and the noise that was added, together",
    "Weights: SERAN-BD {bd}, native {native}, across slices {across}",
)


@dataclass(frozen=True)
class Lesion:
    """One that was picked on a truth.

    Attributes:
        scan: a part of its file's name.
        peak: a voxel of it: slice, row, column.
        reach: voxels in the plane from there to where it ends for certain.
        what: it looks like.
    """

    scan: str
    peak: tuple[int, int, int]
    reach: int
    what: str


LESIONS = {
    "test": (
        Lesion("tcga-fg-6692_FLAIR", (15, 40, 147), 16, "mass in the cortex"),
        Lesion("tcga-fg-6692_FLAIR", (15, 61, 135), 11, "patch apart from it, with an edge"),
        Lesion("tcga-fg-6692_FLAIR", (17, 53, 156), 5, "bright core in the mass"),
        Lesion("tcga-fg-6692_FLAIR", (17, 60, 123), 4, "faint spot in white matter"),
        Lesion("tcga-fg-6692_T2", (15, 60, 154), 6, "nodule with a dark centre"),
        Lesion("tcga-fg-6692_T2", (17, 66, 167), 17, "ring in the mass"),
        Lesion("tcga-fg-6692_T2", (15, 77, 143), 11, "patch apart from it, pale"),
        Lesion("tcga-fg-6692_T1c", (15, 66, 128), 6, "enhancing spot"),
        Lesion("tcga-fg-6692_T1c", (16, 72, 128), 9, "enhancing knot"),
        Lesion("tcga-fg-6692_T1c", (17, 72, 128), 6, "enhancing patch, pale"),
        Lesion("tcga-fg-6692_T1c", (18, 83, 132), 8, "enhancing part of a ring"),
    ),
    "val": (
        Lesion("openms_patient04_study1_T2W", (32, 149, 158), 4, "dot in white matter"),
        Lesion("openms_patient04_study1_T2W", (33, 96, 158), 4, "dot in white matter"),
        Lesion("openms_patient04_study1_T2W", (32, 97, 158), 4, "dot in white matter"),
        Lesion("openms_patient04_study1_T2W", (32, 100, 184), 4, "dot in white matter"),
    ),
    "train": (
        Lesion("openms_patient03_study2_FLAIR", (33, 123, 180), 9, "plaque"),
        Lesion("openms_patient09_study2_FLAIR", (24, 167, 182), 8, "plaque"),
        Lesion("openms_patient19_study2_FLAIR", (33, 79, 221), 8, "plaque"),
    ),
}
"""Split -> lesions."""
HEADINGS = {
    "test": "Test: a glioma",
    "val": "Validation: dots, no lesions",
    "train": "Training, which the weights have seen: multiple sclerosis",
}


@dataclass(frozen=True)
class Place:
    """Where things lie about a lesion, which the truth alone says."""

    there: Bool[ndarray, "n h w"]
    near: Bool[ndarray, "n h w"]
    beside: Bool[ndarray, "n h w"]
    flat: Bool[ndarray, "n h w"]
    level: float


def flattest(x: Float[ndarray, "n h w"], where: Bool[ndarray, "n h w"]) -> Bool[ndarray, "n h w"]:
    """The part of a region where the truth changes least."""
    change = np.hypot(*np.gradient(ndimage.gaussian_filter(x, (0, 2, 2)), axis=(1, 2)))
    return where & (change <= np.quantile(change[where], FLAT))


def noise(image: Float[ndarray, "n h w"], flat: Bool[ndarray, "n h w"]) -> float:
    """Standard deviation of flat tissue, by the median, once what varies slowly is taken away."""
    rest = image - ndimage.gaussian_filter(image, (0, 3, 3))
    return 1.4826 * float(np.median(np.abs(rest[flat])))


def away(x: Float[ndarray, "n h w"], lesion: Lesion, slices: int) -> Float[ndarray, "n h w"]:
    """Voxels in the plane from a lesion's peak; infinite more than so many slices from it."""
    at, row, column = np.ogrid[tuple(slice(n) for n in x.shape)]
    far = np.hypot(row - lesion.peak[1], column - lesion.peak[2])
    return np.where(abs(at - lesion.peak[0]) <= slices, far, np.inf)


def place(x: Float[ndarray, "n h w"], inside: Bool[ndarray, "n h w"], lesion: Lesion) -> Place:
    """A lesion of a truth, and what is around it.

    Args:
        x: the truth.
        inside: of the head.
        lesion: where it is.
    """
    far = away(x, lesion, 0)
    beside = inside & (far > lesion.reach) & (far <= lesion.reach + BESIDE)
    around = float(np.median(x[beside]))
    level = around + (float(x[lesion.peak]) - around) / 2
    far = away(x, lesion, 1)
    marked = ndimage.label((x > level) & (far <= lesion.reach))[0]
    there = marked == marked[lesion.peak]
    near = ndimage.binary_dilation(there, np.ones((1, 3, 3), bool), iterations=NEAR)
    wide = inside & (far > lesion.reach) & (far <= lesion.reach + WIDE)
    return Place(there, near, beside, flattest(x, wide), level)


def measured(image: Float[ndarray, "n h w"], at: Place) -> dict[str, float]:
    """Contrast, volume in voxels, and CNR of a lesion in an image."""
    contrast = float(image[at.there].mean() - np.median(image[at.beside]))
    marked = ndimage.label(at.near & (image > at.level))[0]
    met = np.unique(marked[at.there & (marked > 0)])
    volume = float(np.isin(marked, met).sum())
    return {"contrast": contrast, "volume": volume, "cnr": contrast / max(noise(image, at.flat), 1e-9)}


def kept(x: Float[ndarray, "n h w"], y: Float[ndarray, "n h w"], at: Place) -> dict[str, float]:
    """Contrast and volume of a lesion as parts of the truth's; its CNR."""
    old, new = measured(x, at), measured(y, at)
    return {name: new[name] / old[name] for name in ("contrast", "volume")} | {"cnr": new["cnr"]}


def blobs(x: Float[ndarray, "n h w"], inside: Bool[ndarray, "n h w"]) -> Float[ndarray, "n h w"]:
    """By how much voxels are brighter than what is around them, slice by slice; 0 outside."""
    narrow, wide = (ndimage.gaussian_filter(x, (0, sd, sd)) for sd in FINE)
    return np.where(inside, narrow - wide, 0)


def missing(a: Float[ndarray, "n h w"], b: Float[ndarray, "n h w"]) -> int:
    """How many blobs of one image the other is without."""
    near = ndimage.maximum_filter(b, (1, 2 * NEAR + 1, 2 * NEAR + 1))
    marked, count = ndimage.label(a > BLOB)
    left = ndimage.maximum(near, marked, np.arange(1, count + 1)) if count else np.empty(0)
    return int((np.asarray(left) < BLOB / 2).sum())


def healthy(
    x: Float[ndarray, "n h w"], inside: Bool[ndarray, "n h w"], lesions: list[Lesion]
) -> Bool[ndarray, "n h w"]:
    """The inside of the head without its lesions."""
    for lesion in lesions:
        inside = inside & (away(x, lesion, 2) > lesion.reach + BESIDE)
    return inside


def largest(wrong: Bool[ndarray, "n h w"]) -> int:
    """Voxels of the largest connected part."""
    marked, count = ndimage.label(wrong)
    return int(np.bincount(marked.ravel())[1:].max()) if count else 0


def scored(
    x: Float[ndarray, "n h w"], images: dict[str, Float[ndarray, "n h w"]], lesions: list[Lesion]
) -> dict[str, Any]:
    """What becomes of a scan's lesions, and of its healthy tissue, in what each way made of the truth."""
    inside = head(x, DEEP)
    well, old = healthy(x, inside, lesions), blobs(x, inside)
    flat = flattest(x, well)
    sigma = float(np.hypot(noise(x, flat), CASE.sigma))
    found = []
    for lesion in lesions:
        at = place(x, inside, lesion)
        ways = {way: kept(x, y, at) for way, y in images.items()}
        facts = {"peak": list(lesion.peak), "what": lesion.what, "voxels": int(at.there.sum())}
        found.append({**facts, "cnr": measured(x, at)["cnr"], "ways": ways})
    whole = {}
    for way, y in images.items():
        new = blobs(y, inside)
        wrong = np.abs(y - x) > TIMES * sigma
        errors = {"error": largest(wrong & well), "flat": largest(wrong & flat)}
        whole[way] = {"lost": missing(old, new), "new": missing(new, old), **errors}
    return {"sigma": sigma, "blobs": int(ndimage.label(old > BLOB)[1]), "lesions": found, "ways": whole}


def made(x: Float[ndarray, "n h w"], engine: Engine) -> dict[str, Float[ndarray, "n h w"]]:
    """What each way makes of a truth that is acquired at half of its resolution, or in thick slices."""
    x, s = acquired(x, CASE)
    images = {}
    for way in PLANE:
        image, fitted = through(s, WAYS[way], CASE.scale, engine)
        images[way] = aligned(image, fitted.method.anchor, CASE.anchor, CASE.scale)
    s = isotropic.thick(np.moveaxis(x, 0, 2), THICK)
    for way in ACROSS:
        images[way] = np.moveaxis(isotropic.made(s, THICK.factor, way, False, engine), 2, 0)
    return {way: np.maximum(image, 0).astype(np.float32) for way, image in images.items()}


def draw(images: dict[str, Float[ndarray, "n h w"]], lesions: list[Lesion], path: Path) -> None:
    """A row for each lesion, a column for each image; thick slices lie from top to bottom."""
    figure = Figure(figsize=(2.6 * len(images), 2.8 * len(lesions)), layout="constrained")
    axes = figure.subplots(len(lesions), len(images), squeeze=False)
    for line, lesion in zip(axes, lesions, strict=True):
        k, row, column = lesion.peak
        at = k, slice(max(0, row - SIDE), row + SIDE + 1), slice(max(0, column - SIDE), column + SIDE + 1)
        low, high = np.percentile(images["truth"][at], (1, 99.5))
        for ax, (name, image) in zip(line, images.items(), strict=True):
            ax.imshow(image[at], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            ax.set_title(TITLES.get(name, name), fontsize=9)
            ax.set_axis_off()
    save(figure, path)


def table(rows: Rows) -> list[str]:
    """Of each split: lesions, then healthy tissue."""
    lines = []
    for split in dict.fromkeys(row["split"] for row in rows.values()):
        own = {scan: row for scan, row in rows.items() if row["split"] == split}
        lines += [f"## {HEADINGS[split]}", "", "Contrast, volume, CNR:", ""]
        body = [
            [scan, f"{lesion['what']} ({' '.join(map(str, lesion['peak']))})", f"{lesion['voxels']}",
             f"{lesion['cnr']:.0f}", *(_cell(lesion["ways"][way]) for way in TITLES)]
            for scan, row in own.items() for lesion in row["lesions"]
        ]  # fmt: skip
        every = [lesion["ways"] for row in own.values() for lesion in row["lesions"]]
        means = [
            _cell({name: float(np.mean([one[way][name] for one in every])) for name in every[0][way]})
            for way in TITLES
        ]
        columns = ["scan", "lesion (slice row column)", "voxels", "truth's CNR", *TITLES.values()]
        lines += [*markdown(columns, [*body, ["mean", "", "", "", *means]]), ""]
        lines += ["Blobs lost, new; largest error in healthy tissue, in its flat part, voxels:", ""]
        body = [
            [scan, f"{row['blobs']}", f"{row['sigma']:.3f}",
             *(f"{one['lost']}, {one['new']}; {one['error']}, {one['flat']}" for one in row["ways"].values())]
            for scan, row in own.items()
        ]  # fmt: skip
        lines += [*markdown(["scan", "truth's blobs", "sigma", *TITLES.values()], body), ""]
    return lines[:-1]


def _cell(one: dict[str, float]) -> str:
    return f"{one['contrast']:.0%}, {one['volume']:.0%}, {one['cnr']:.0f}"


def main(
    lists: Positional[tuple[Path, ...]],
    splits: tuple[str, ...] = tuple(LESIONS),
    threads: int = 0,
    out: Path = Path(__file__).parent,
    pictures: Path | None = None,
) -> None:
    """Measure and draw.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        splits: whose lesions.
        threads: of the CPU; 0: all.
        out: folder of ``lesions.json`` and ``.md``.
        pictures: folder of a picture for each scan; without it none is drawn.
    """
    engine, rows, path = Engine(threads=threads), {}, placed(out / "lesions.json")
    digests = {"bd": digest("seran-bd"), "native": digest("native")}
    digests["across"] = methods.across(methods.DEFAULT).sha256
    protocol = [line.format(**{name: whole[:12] for name, whole in digests.items()}) for line in PROTOCOL]
    for split in splits:
        for scan in dict.fromkeys(lesion.scan for lesion in LESIONS[split]):
            [source] = [s for s in sources(lists, split) if scan + "." in s.path.name]
            own = [lesion for lesion in LESIONS[split] if lesion.scan == scan]
            x = truth(source, 0)
            images = made(x, engine)
            rows[scan] = {"split": split, "contrast": source.contrast, **scored(x, images, own)}
            sys.stderr.write(f"{scan}: {rows[scan]['ways']}\n")
            if pictures:
                pictures.mkdir(parents=True, exist_ok=True)
                draw({"truth": x, **images}, own, pictures / f"lesions-{scan}.png")
    write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
