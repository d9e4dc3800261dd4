"""Thick slices made thin against interpolation: simulated thick scans, PSNR, SSIM, tissue volumes, seconds.

    python paper/isotropic.py MANIFEST.csv                 # the test split
    python paper/isotropic.py MANIFEST.csv --split val     # while something is being made

Isotropic scans (T1) lose slices along their third array axis; of other contrasts, which are thick, one axis
in the plane of the slices takes its part, and their thickness is the third direction. Slices are selected by
`seran.profiles`, which agrees with radifox-utils' ``degrade-slice-selection`` to 1e-3.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from acquisitions import sources
from jaxtyping import Float
from numpy import ndarray
from results import Rows, load, program, write
from scipy import ndimage
from tyro.conf import Positional

from seran import grid, isotropic, methods, native
from seran.data.sources import Source, read_source
from seran.engines import Engine
from seran.profiles import Profile, selection
from seran.quality import metrics

PROTOCOL = (
    "Split {split}, {slices} central slices of each scan in the third direction; truths have a 99.9th "
    "percentile of 1; noise of {noise:.0%} of it; both images held at 0 from below",
    "Slices are {part:.0%} as thick as far apart; each network is told the profile ``slr`` at this thickness "
    "and the noise, whatever is true",
    "At slice frequency: power there as a part of that at neighbouring frequencies, over the truth's; above "
    "1, bands",
    "Weights: {digest}; seconds of a core of the machine that made this table",
)
ISOTROPIC = 1.7
"""Times the finest spacing that the coarsest of an isotropic scan may have."""


@dataclass(frozen=True)
class Case:
    """Slices that are selected: how far apart they are, in voxels of the truth, and by which profile."""

    factor: int
    kind: str = "slr"

    @property
    def name(self) -> str:
        """In a table."""
        return f"{self.factor}" + f", {self.kind}" * (self.kind != "slr")


CASES = (Case(3), Case(4), Case(5), Case(7), Case(4, "gaussian"))
PART, NOISE = 0.9, 0.01
LIT = 0.1  # of the 99.9th percentile
WAYS = ("linear", "B-spline", "seran")


def truth(source: Source, slices: int) -> tuple[Float[ndarray, "n h w"], bool]:
    """Voxels whose first axis loses slices, and whether the third direction is as fine."""
    volume = read_source(source)
    size, axis = grid.spacing(volume.affine), grid.slice_axis(volume.affine, volume.data.shape, "auto")
    fine = bool(size.max() < ISOTROPIC * size.min())
    stack = np.moveaxis(volume.data, axis, 0) if fine else np.moveaxis(volume.data, axis, 2)
    x = stack.astype(np.float32) / np.float32(np.percentile(stack, 99.9))
    middle = x.shape[2] // 2
    return np.ascontiguousarray(x[:, :, max(0, middle - slices // 2) :][:, :, :slices]), fine


def thick(x: Float[ndarray, "n h w"], case: Case) -> Float[ndarray, "m h w"]:
    """What a scanner's slices see, with noise."""
    weights = selection(len(x), case.factor, Profile(case.kind, PART))  # type: ignore[arg-type]
    clean = np.tensordot(weights, x, 1)
    a, b = NOISE * np.random.default_rng(0).standard_normal((2, *clean.shape))
    return np.hypot(clean + a, b).astype(np.float32)


def spline(s: Float[ndarray, "m h w"], k: int, order: int) -> Float[ndarray, "n h w"]:
    """Interpolation that keeps the outer faces of the stack."""
    return ndimage.zoom(s, (k, 1, 1), order=order, mode="nearest", grid_mode=True)


def made(s: Float[ndarray, "m h w"], k: int, way: str, fine: bool, engine: Engine) -> Float[ndarray, "n h w"]:
    """Thin slices by a way, k for each.

    Args:
        s: thick slices.
        k: thin ones for each.
        way: of `WAYS`.
        fine: whether the third direction is as fine as the second; else planes have no neighbours in it.
        engine: how the network is run.
    """
    if way != "seran":
        return spline(s, k, 1 if way == "linear" else 3)
    across, profile = methods.across(methods.DEFAULT, None, engine), Profile("slr", PART)
    if fine:
        return isotropic.thinner(s, across, k, profile, NOISE)
    planes, said = np.moveaxis(s, 2, 0), isotropic.told(NOISE, profile, k)
    high = across.heads(k).predict(native.joined(np.stack([planes] * 3, 1), said))
    return np.moveaxis(high, 0, 2)


def compared(x: Float[ndarray, "n h w"], y: Float[ndarray, "n h w"]) -> dict[str, float]:
    """PSNR, SSIM and tissue of a result, against the truth."""
    scores = metrics.scores(x, y, 1.0)
    return {"psnr": scores["psnr"], "ssim": scores["ssim_volume"], "tissue": volumes(x, y)}


def volumes(x: Float[ndarray, "n h w"], y: Float[ndarray, "n h w"]) -> float:
    """Mean difference of the volumes of three classes of tissue, as a part of the truth's.

    Classes are by Otsu's thresholds of the truth's intensities above the background, which are `LIT`.
    """
    inside = x > LIT
    ends = otsu(x[inside])
    counts = [np.bincount(np.digitize(image[inside], ends), minlength=3) for image in (x, y)]
    return float(np.mean(np.abs(counts[1] - counts[0]) / counts[0]))


def banding(y: Float[ndarray, "n h w"], thick: int) -> float:
    """Power at the frequency of the thick slices, as a part of that at neighbouring frequencies.

    Args:
        y: thin slices.
        thick: how many thick ones they were.
    """
    shown = (y - y.mean(0)) * np.hanning(len(y))[:, None, None]
    power = np.square(np.abs(np.fft.rfft(shown, axis=0))).mean((1, 2))
    near = np.r_[power[thick - 5 : thick - 2], power[thick + 3 : thick + 6]]
    return float(power[thick - 1 : thick + 2].mean() / near.mean())


def otsu(values: Float[ndarray, " n"], bins: int = 128) -> tuple[float, float]:
    """The two thresholds between three classes that leave the least variance within them."""
    counts, edges = np.histogram(values, bins)
    weight, middle = counts / counts.sum(), (edges[1:] + edges[:-1]) / 2
    w, m = np.cumsum(weight), np.cumsum(weight * middle)
    best, found = -1.0, (0, 1)
    for i in range(bins - 2):
        j = np.arange(i + 1, bins - 1)
        parts = (w[i], w[j] - w[i], 1 - w[j]), (m[i], m[j] - m[i], m[-1] - m[j])
        between = sum(b**2 / np.maximum(a, 1e-12) for a, b in zip(*parts, strict=True))
        if between.max() > best:
            best, found = float(between.max()), (i, int(j[between.argmax()]))
    return float(edges[found[0] + 1]), float(edges[found[1] + 1])


def scored(x: Float[ndarray, "n h w"], case: Case, fine: bool, engine: Engine) -> dict[str, dict[str, float]]:
    """Way -> PSNR, SSIM, tissue and seconds, of one scan."""
    x = x[: len(x) // case.factor * case.factor]  # so that both stacks have the same outer faces
    s, found = thick(x, case), {}
    for way in WAYS:
        began = time.process_time()
        y = np.maximum(made(s, case.factor, way, fine, engine), 0)
        seconds = time.process_time() - began
        bands = banding(y, len(s)) / banding(x, len(s))
        found[way] = {**compared(x, y), "banding": bands, "seconds": seconds}
    return found


def table(rows: Rows) -> list[str]:
    """Gains over B-splines of each contrast, then everything of T1."""
    lines, bars = [], {("T1", k): g for k, g in ((3, 2.5), (4, 2.3), (5, 2.0), (7, 1.5))}
    contrasts = sorted({row["contrast"] for row in rows.values()})
    for contrast in contrasts:
        own = [row for row in rows.values() if row["contrast"] == contrast]
        lines += [f"## {contrast} ({len(own)} scans)", ""]
        lines += ["| slices | way | PSNR, dB | over spline | SSIM | tissue off | slice frequency | seconds |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for case in CASES:
            cells = [row["cells"][case.name] for row in own if case.name in row["cells"]]
            for way in WAYS if cells else ():
                mean = {n: float(np.mean([c[way][n] for c in cells])) for n in cells[0][way]}
                gains = [c[way]["psnr"] - c["B-spline"]["psnr"] for c in cells]
                bar = bars.get((contrast, case.factor)) if case.kind == "slr" and way == "seran" else None
                told = f"{np.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})"
                told += f"; bar {bar:+.1f}" if bar else ""
                lines.append(
                    f"| {case.name} | {way} | {mean['psnr']:.2f} | {told} | {mean['ssim']:.4f} | "
                    f"{mean['tissue']:.1%} | {mean['banding']:.2f} | {mean['seconds']:.1f} |"
                )
        lines.append("")
    return lines


def main(
    lists: Positional[tuple[Path, ...]],
    split: str = "test",
    slices: int = 64,
    threads: int = 0,
    only: str = "",
    out: Path = Path(__file__).parent,
) -> None:
    """Fill the table; what is done already is kept, if it is of the same weights.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        split: of the scans.
        slices: central slices of each scan in the third direction.
        threads: of the CPU; 0: all.
        only: scans whose file names contain this.
        out: folder of ``isotropic.json`` and ``.md``; those of other splits bear their names.
    """
    engine = Engine(threads=threads)
    digest = methods.across(methods.DEFAULT).sha256[:12]
    facts = {"split": split, "slices": slices, "noise": NOISE, "part": PART, "digest": digest}
    protocol = [line.format(**facts) for line in PROTOCOL]
    path = out / f"isotropic{'' if split == 'test' else '-' + split}.json"
    rows = load(path, protocol)
    for source in sources(lists, split):
        if only in source.path.name and source.path.name not in rows:
            x, fine = truth(source, slices)
            cells = {case.name: scored(x, case, fine, engine) for case in CASES if len(x) >= 8 * case.factor}
            psnr = {name: {way: cell[way]["psnr"] for way in WAYS} for name, cell in cells.items()}
            rows[source.path.name] = {"contrast": source.contrast, "cells": cells, "psnr": psnr}
            gains = ", ".join(f"{n}: {p['seran'] - p['B-spline']:+.2f}" for n, p in psnr.items())
            sys.stderr.write(f"{source.path.name}: {gains} dB\n")
            write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
