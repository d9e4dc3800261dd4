"""How much of the error the half-widths of `seran.uncertainty` cover: on the test split, and elsewhere.

    python paper/covered.py MANIFEST.csv NATIVE.csv

Each scan is acquired as in the calibration, and in ways that this was not made for; phantoms and a b0 image
come last.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from acquisitions import sources
from errors import Drawn, Plane, Thick
from jaxtyping import Bool
from numpy import ndarray
from results import Rows, load, markdown, ordered, program, write
from scipy import ndimage
from tyro.conf import Positional
from uncertainty import SLICES_OF, drawn_of, halves

from seran import methods
from seran.acquisition import Window
from seran.contrast import contrast_of
from seran.data.sources import Source
from seran.engines import Engine
from seran.errors import BadInput
from seran.quality.paired import FEWEST, interval
from seran.uncertainty import COVERED, TISSUE, Widths

PROTOCOL = (
    "Half-widths are to cover {covered:.0%} of the tissue voxels (above {tissue:.0%} of the range) on "
    "average over scans like those of the calibration; {slices} central slices or planes of each scan, the "
    "truth as in native_matrix (in the plane) and isotropic (slices); noise of 1 % unless it is stated",
    "Means over scans, 95 % intervals over subjects in brackets where there are {fewest} or more; least: of "
    "one scan; width: mean half-width in tissue, as a part of the range; edges: a fifth of the tissue voxels",
    "PSNR: scans that exceed the bound that is stated for 9 of 10 of them",
    "Weights: {weights}",
)
CASES: dict[str, Plane | Thick] = {
    "x2": Plane(2),
    "x3": Plane(3),
    "x4": Plane(4),
    "x1": Plane(1),
    "x2, no noise added": Plane(2, 0.0),
    "x2, noise 5 %": Plane(2, 0.05),
    "x2, Hamming 0.46": Plane(2, 0.01, Window("hamming", 0.46)),
    "x1, filled": Plane(1, filled=True),
    "slices 4": Thick(4),
    "slices 3": Thick(3),
    "slices 7": Thick(7),
    "slices 4, noise 5 %": Thick(4, 0.05),
    "slices 4, Gaussian": Thick(4, kind="gaussian"),
    "slices 4, 30 % thicker than stated": Thick(4, part=1.17),
}
LIKE = ("x2", "x3", "x4", "x1", "slices 4", "slices 3", "slices 7")
"""As in the calibration."""
EDGES = 0.8  # quantile of the gradient in tissue


@dataclass(frozen=True)
class Covered:
    """Of one scan and acquisition."""

    tissue: float
    edges: float
    air: float
    width: float
    bound: bool  # whether the PSNR of tissue exceeds what is stated


def covered(drawn: Drawn, widths: Widths) -> Covered:
    """What half-widths cover of the error of a result."""
    half = halves(drawn, widths.predict) * np.float32(widths.of(drawn.ending).factor)
    within, tissue = drawn.error <= half, drawn.high > TISSUE
    steep = np.stack([ndimage.gaussian_gradient_magnitude(one, 1.0) for one in drawn.high])
    edges = tissue & (steep > np.quantile(steep[tissue], EDGES))
    error, width = drawn.error[tissue].astype(np.float64), half[tissue].astype(np.float64)
    psnr, told = (-10 * np.log10(np.square(x).mean()) for x in (error, width))
    bound = bool(psnr >= told + widths.of(drawn.ending).psnr)
    return Covered(
        part(within, tissue), part(within, edges), part(within, ~tissue), float(width.mean()), bound
    )


def part(within: Bool[ndarray, "n h w"], where: Bool[ndarray, "n h w"]) -> float:
    """Of the voxels there; 1 where there are none."""
    return float(within[where].mean()) if where.any() else 1.0


def table(rows: Rows) -> list[str]:
    """By acquisition and contrast; then what is no test scan."""
    tests = [row["cells"] for row in rows.values() if row["split"] == "test"]
    held = [cells[case]["bound"] for cells in tests for case in LIKE if case in cells]
    lines = [
        f"Acquired as in the calibration, {sum(held)} of {len(held)} test scans exceed the bound of PSNR.",
        "",
    ]
    for split, title in (("test", "Test split"), ("phantom", "Phantoms"), ("train", "A b0 image, held out")):
        own = [row for row in rows.values() if row["split"] == split]
        if not own:
            continue
        lines += [f"## {title}", ""]
        body = []
        for case in CASES:
            for contrast in sorted({row["contrast"] for row in own}):
                scans = [r for r in own if r["contrast"] == contrast and case in r["cells"]]
                if scans:
                    body.append(
                        [case, f"{contrast} ({len(scans)})", *cells([r["cells"][case] for r in scans], scans)]
                    )
        columns = ("acquisition", "contrast", "covered", "least", "edges", "air", "width", "PSNR")
        lines += [*markdown(columns, body), ""]
    return lines


def cells(found: Sequence[dict[str, Any]], scans: Sequence[dict[str, Any]]) -> list[str]:
    """Of a row of the table."""
    subjects = [scan["subject"] for scan in scans]
    names = ("tissue", "edges", "air", "width")
    means = {name: float(np.mean([one[name] for one in found])) for name in names}
    told = f"{means['tissue']:.1%}"
    if len(set(subjects)) >= FEWEST:
        low, high = interval([one["tissue"] for one in found], subjects)
        told += f" [{low:.1%}, {high:.1%}]"
    return [
        told,
        f"{min(one['tissue'] for one in found):.1%}",
        f"{means['edges']:.1%}",
        f"{means['air']:.1%}",
        f"{means['width']:.2%}",
        f"{sum(one['bound'] for one in found)} of {len(found)}",
    ]


def main(
    lists: Positional[tuple[Path, ...]],
    only: str = "",
    threads: int = 0,
    out: Path = Path(__file__).parent,
) -> None:
    """Fill the table; what is done already is kept, if it is of the same weights.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        only: scans whose file names contain this.
        threads: of the CPU; 0: all.
        out: folder of ``covered.json`` and ``.md``.
    """
    engine = Engine(threads=threads)
    plane, slices = methods.method(methods.DEFAULT, 2, methods.NATIVE), methods.across(methods.DEFAULT)
    given = plane, slices
    known = [w for of in given if (w := methods.widths(of.weights, of.sha256, engine)) is not None]
    if len(known) < len(given):
        raise BadInput("half-widths are not calibrated for the shipped weights; see uncertainty.py")
    told = ", ".join(f"{of.weights} {of.sha256[:12]}" for of in given)
    facts = {"covered": COVERED, "tissue": TISSUE, "slices": SLICES_OF, "fewest": FEWEST, "weights": told}
    protocol = [line.format(**facts) for line in PROTOCOL]
    scans = [*sources(lists, "test"), *sources(lists, "phantom")]
    scans += [s for s in sources(lists, "train") if s.subject == "decubitus-01"]
    path = out / "covered.json"
    rows = load(path, protocol)
    for source in scans:
        if only in source.path.name and source.path.name not in rows:
            contrast = contrast_of(source.path.name)
            own = [replace(widths, contrast=contrast) for widths in known]
            rows[source.path.name] = row(source, own[0], own[1], engine)
            write(path, protocol, rows, table)
    write(path, protocol, ordered(rows, tuple(s.path.name for s in scans)), table)


def row(source: Source, plane: Widths, slices: Widths, engine: Engine) -> dict[str, Any]:
    """Of a scan, by acquisition."""
    cells: dict[str, dict[str, Any]] = {}
    for what, kind, widths in (("plane", Plane, plane), ("across", Thick, slices)):
        cases = {case: name for name, case in CASES.items() if isinstance(case, kind)}
        read = replace(source, split="test")  # phantoms are of no split that programs read
        for case, drawn in drawn_of(read, what, list(cases), engine):  # type: ignore[arg-type]
            if (drawn.high > TISSUE).any():
                cells[cases[case]] = vars(covered(drawn, widths))
                sys.stderr.write(f"{source.path.name}, {cases[case]}: {cells[cases[case]]}\n")
    return {n: getattr(source, n) for n in ("contrast", "subject", "split")} | {"cells": cells}


if __name__ == "__main__":
    program(main)
