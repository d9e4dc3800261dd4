"""The picture of `docs/trust.md`: where an estimate is right, where it is wrong, and its half-widths.

    python paper/trust.py MANIFEST.csv

Places are those of `lesions.py`, picked before anything was scored; of them, these show most.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import isotropic as thick
import numpy as np
from acquisitions import CASES, acquired, sources, truth
from figures import save
from jaxtyping import Float
from lesions import LESIONS, SIDE, THICK, Lesion
from matplotlib.figure import Figure
from numpy import ndarray
from results import placed, program
from tyro.conf import Positional
from ways import WAYS, as_scan

from seran import isotropic, methods
from seran.engines import Engine
from seran.job.steps import Steps
from seran.profiles import Profile
from seran.sharpen import Normalisation, sharpen

CASE = CASES["noise-1"]
SHOWN = {
    "enhancing knot": "in the plane, ×2: right",
    "bright core in the mass": "in the plane, ×2: right",
    "faint spot in white matter": "slices 4 apart: lost",
    "patch apart from it, pale": "slices 4 apart: another shape",
}
"""Lesion -> what its row shows."""
MOST = 0.15  # of the range, in the pictures of errors
Images = dict[str, Float[ndarray, "n h w"]]


def in_plane(x: Float[ndarray, "n h w"], engine: Engine) -> Images:
    """A truth acquired at half of its resolution; the scan enlarged by zero-filling, result, half-widths."""
    x, s = acquired(x, CASE)
    options = replace(WAYS["native"].options(CASE.scale), uncertainty=True)
    steps = Steps(as_scan(s), options, engine)
    found = sharpen(s, steps.fit(s).method)
    plain = Steps(as_scan(s), WAYS["zerofill"].options(CASE.scale), engine)
    assert found.half_width is not None
    return {
        "truth": x,
        "scan, interpolated": sharpen(s, plain.fit(s).method).image,
        "result": found.image,
        "error": np.abs(found.image - np.maximum(x, 0)),
        "half-width": found.half_width,
    }


def across(x: Float[ndarray, "n h w"], engine: Engine) -> Images:
    """The same of thick slices along the rows' axis; interpolation is by cubic B-splines."""
    moved = np.moveaxis(x, 0, 2)
    moved = moved[: len(moved) // THICK.factor * THICK.factor]
    s, profile, k = thick.thick(moved, THICK), Profile("slr", thick.PART), THICK.factor
    made = np.maximum(thick.made(s, k, "seran", False, engine), 0)
    network = methods.across(methods.DEFAULT, None, engine)
    widths = methods.widths(network.weights, network.sha256, engine)
    assert widths is not None
    said = isotropic.told(thick.NOISE, profile, k)
    half = isotropic.half_widths(made, s, Normalisation(0.0, 1.0), widths, k, said, axes=(2,))
    spline = np.maximum(thick.spline(s, k, 3), 0)
    shown = {"truth": moved, "scan, interpolated": spline, "result": made}
    images = {**shown, "error": np.abs(made - np.maximum(moved, 0)), "half-width": half}
    return {name: np.moveaxis(image, 2, 0) for name, image in images.items()}


def draw(rows: Sequence[tuple[str, Images, Lesion]], path: Path) -> None:
    """A row for each place; errors and half-widths on one scale."""
    figure = Figure(figsize=(10.5, 2.25 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 5, squeeze=False)
    for i, (title, images, lesion) in enumerate(rows):
        line = axes[i]
        k, row, column = lesion.peak
        at = k, slice(max(0, row - SIDE), row + SIDE + 1), slice(max(0, column - SIDE), column + SIDE + 1)
        low, high = np.percentile(images["truth"][at], (1, 99.5))
        for ax, (name, image) in zip(line, images.items(), strict=True):
            grey = name not in ("error", "half-width")
            look = (
                {"cmap": "gray", "vmin": low, "vmax": high}
                if grey
                else {"cmap": "magma", "vmin": 0, "vmax": MOST}
            )
            ax.imshow(image[at], interpolation="nearest", **look)
            ax.set_title("" if i else name, fontsize=9)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize=8)
    save(figure, path)


def main(
    lists: Positional[tuple[Path, ...]],
    threads: int = 0,
    out: Path = Path(__file__).parents[1] / "docs" / "trust.png",
) -> None:
    """Draw.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        threads: of the CPU; 0: all.
        out: the picture.
    """
    engine, rows = Engine(threads=threads), []
    given = {source.path.name: source for source in sources(lists, "test")}
    for what, title in SHOWN.items():
        lesion = next(one for one in LESIONS["test"] if one.what == what)
        source = next(s for name, s in given.items() if lesion.scan in name)
        x = truth(source, 0)
        first = max(0, lesion.peak[0] - 4)
        if "plane" in title:
            images = in_plane(x, engine)
        else:
            images = across(x[first : first + 9], engine)
            lesion = replace(lesion, peak=(lesion.peak[0] - first, *lesion.peak[1:]))
        rows.append((f"{source.contrast}, {title}", images, lesion))
    draw(rows, placed(out))


if __name__ == "__main__":
    program(main)
