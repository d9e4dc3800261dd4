"""Which metrics did the paper use? Bicubic [2D] over prepared IXI sets, under every protocol that is likely.

    for c in PD T1 T2; do seran prepare ixi ixi-$c --contrast $c; done
    python paper/calibrate.py ixi-PD ixi-T1 ixi-T2          # writes calibration.json and calibration.md

The paper prints 18 numbers for Bicubic [2D]: PSNR and SSIM at x2, x3 and x4 for three contrasts. A protocol
is a choice of range, scope or window, border and rounding; the nearest has the smallest root mean square
difference from the nine numbers of its kind.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tyro
from numpy import ndarray
from published import CONTRASTS, TABLE3
from results import Rows, load, program, write
from scipy.ndimage import gaussian_filter, uniform_filter

from seran.classical import bicubic
from seran.data.pairs import PreparedSet, load_prepared
from seran.errors import BadInput
from seran.quality import metrics

RANGES: dict[str, Callable[[ndarray], float]] = {
    "max - min": lambda truth: float(np.ptp(truth)),
    "max": lambda truth: float(truth.max()),
    "99.9th percentile": lambda truth: float(np.percentile(truth, 99.9)),
}
WINDOWS: dict[str, Callable[[ndarray], ndarray]] = {
    "Gaussian": lambda x: gaussian_filter(x, metrics.SIGMA, truncate=metrics.TRUNCATE),
    "uniform 7": lambda x: uniform_filter(x, 7),
}
INNER = 5
"""Voxels that scikit-image leaves out on every side of the map of a Gaussian window."""
Scores = Iterator[tuple[str, float]]


def psnrs(truth: ndarray, test: ndarray, scale: int) -> Scores:
    """PSNR of one volume (n, h, w) under every protocol."""
    for border in (0, scale):
        inner = (slice(None), *[slice(border, -border or None)] * 2)
        t, x = truth[inner], test[inner]
        edge = f", {'no' if not border else 'scale'} pixels left out"
        for name, span in RANGES.items():
            whole = span(truth)
            yield f"PSNR of the volume, {name} of the volume{edge}", metrics.psnr(t, x, whole)
            slices = [metrics.psnr(a, b, whole) for a, b in zip(t, x, strict=True)]
            yield f"PSNR of slices, {name} of the volume{edge}", _finite_mean(slices)
            own = [metrics.psnr(a, b, span(c)) for a, b, c in zip(t, x, truth, strict=True) if span(c) > 0]
            yield f"PSNR of slices, {name} of the slice{edge}", _finite_mean(own)


def _finite_mean(scores: list[float]) -> float:
    """Without the slices that are reproduced exactly, such as empty ones."""
    return float(np.mean([s for s in scores if np.isfinite(s)]))


def similarity(truth: ndarray, test: ndarray, span: float, mean: Callable[[ndarray], ndarray]) -> ndarray:
    """SSIM around every sample, in a window of its own."""
    return metrics.similarity(np.stack([mean(product) for product in metrics.products(truth, test)]), span)


def ssims(truth: ndarray, test: ndarray) -> Scores:
    """SSIM of one volume (n, h, w) under every protocol."""
    for (window, mean), (name, span) in itertools.product(WINDOWS.items(), RANGES.items()):
        whole = span(truth)
        solid = similarity(truth, test, whole, mean)
        flat = np.stack([similarity(a, b, whole, mean) for a, b in zip(truth, test, strict=True)])
        crop = slice(INNER, -INNER)
        for words, part in (("whole map", slice(None)), (f"{INNER} voxels left out", crop)):
            inside = flat[:, part, part].mean()
            yield f"SSIM 3-D, {window}, {name} of the volume, {words}", float(solid[part, part, part].mean())
            yield f"SSIM 2-D, {window}, {name} of the volume, {words}", float(inside)


def scores(truth: ndarray, low: ndarray, scale: int) -> Scores:
    """Bicubic's scores for one volume, as it comes and rounded to integers that are not negative."""
    made = bicubic(scale)(np.asarray(low, np.float32))
    for words, test in (("", made), (", rounded", np.maximum(np.round(made), 0))):
        for name, value in itertools.chain(psnrs(truth, test, scale), ssims(truth, test)):
            yield name + words, value


def measured(data: PreparedSet, scale: int, most: int, split: str) -> dict[str, float]:
    """Mean over the volumes of a split, per protocol."""
    found: dict[str, list[float]] = {}
    for volume in data.pick(split)[: most or None]:
        truth = np.asarray(data.high(volume), np.float32)
        for name, value in scores(truth, data.low(volume, scale), scale):
            found.setdefault(name, []).append(value)
    if not found:
        raise BadInput(f"{data.root}: the split {split!r} is empty")
    return {name: float(np.mean(values)) for name, values in found.items()}


def printed(kind: str, column: str) -> float:
    """The paper's PSNR or SSIM of Bicubic [2D], for a column like ``PD x2``."""
    contrast, scale = column.split(" x")
    cell = TABLE3[int(scale)]["bicubic"][CONTRASTS.index(contrast)]
    return float(cell.split(" / ")[kind == "SSIM"])


def table(rows: Rows) -> list[str]:
    """The nearest protocols of either kind, with the paper's numbers first."""
    columns = list(next(iter(rows.values()))["cells"])
    lines = [f"| protocol | rms difference | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for kind, digits in (("PSNR", 2), ("SSIM", 4)):
        right = [f"{printed(kind, column):.{digits}f}" for column in columns]
        lines.append(f"| **printed {kind}** | | {' | '.join(right)} |")
        group = {name: row for name, row in rows.items() if name.startswith(kind)}
        for name in sorted(group, key=lambda n: group[n]["rms"])[:8]:
            cells = [f"{v:.{digits}f}" for v in group[name]["cells"].values()]
            lines.append(f"| {name} | {group[name]['rms']:.{digits}f} | {' | '.join(cells)} |")
    return lines


def main(
    sets: tyro.conf.Positional[tuple[Path, ...]],
    scales: tuple[int, ...] = (2, 3, 4),
    most: int = 10,
    split: str = "test",
    out: Path = Path(__file__).parent,
) -> None:
    """Score Bicubic under every protocol and name the nearest to the printed numbers.

    Args:
        sets: folders made by `seran prepare ixi`, one per contrast.
        scales: 2, 3 and 4.
        most: volumes per contrast; 0 for all. A volume takes minutes.
        split: of the sets.
        out: folder of the table.
    """
    protocol = [
        f"Bicubic [2D], {f'the first {most}' if most else 'all'} volumes of the split {split!r} of "
        f"{', '.join(path.name for path in sets)}; rms over contrasts and scales"
    ]
    path = out / "calibration.json"
    load(path, protocol)  # refuses to replace what came about otherwise
    rows: Rows = {}
    for folder, scale in itertools.product(sets, scales):
        data = load_prepared(folder)
        contrast = data.volumes[0].contrast
        if {v.contrast for v in data.volumes} != {contrast} or contrast not in CONTRASTS:
            raise BadInput(f"{folder}: expected volumes of one contrast of {', '.join(CONTRASTS)}")
        for name, value in measured(data, scale, most, split).items():
            row = rows.setdefault(name, {"cells": {}, "rms": 0.0})
            row["cells"][f"{contrast} x{scale}"] = value
    for name, row in rows.items():
        off = [value - printed(name[:4], column) for column, value in row["cells"].items()]
        row["rms"] = float(np.sqrt(np.mean(np.square(off))))
    write(path, protocol, rows, table)
    for kind in ("PSNR", "SSIM"):
        best = min((n for n in rows if n.startswith(kind)), key=lambda n: rows[n]["rms"])
        print(f"{best}: rms {rows[best]['rms']:.4f}")  # noqa: T201


if __name__ == "__main__":
    program(main)
