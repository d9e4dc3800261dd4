"""Thick slices made thin by ours and by other programs, side by side: PSNR, SSIM, tissue volumes, seconds.

    python paper/peers.py MANIFEST.csv NATIVE.csv --eclare ECLARE/bin/run-eclare --unires UNIRES/bin/unires
    python paper/peers.py MANIFEST.csv --ways linear B-spline seran --factors 4 7     # some cells
    python paper/peers.py MANIFEST.csv --only sub-61 --images made --sheet peers.png  # what was kept, drawn

Peers are programs of their own environments, called with NIfTI files; nothing of them is imported here:

- ECLARE (GPL-3; Remedios et al. 2023): ``pip install eclare==1.0.1``.
- UniRes (MIT; Brudfors et al. 2019): github.com/brudfors/UniRes at a3c1f81 in an environment with nitorch
  (github.com/balbasty/nitorch at 74b48d5), which is not compiled.

Scans and slices are those of ``isotropic.py``. A cell is a scan, a factor and a way; each is kept when it is
done, so that two calls with other ``--ways`` or ``--only`` may fill one table.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from acquisitions import sources
from figures import busiest, save
from isotropic import LIT, NOISE, PART, Case, compared, made, thick, truth
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from results import Rows, load, markdown, program, write
from scipy import fft, ndimage, optimize
from tyro.conf import Positional

from seran import grid, methods, weights
from seran.data.sources import Source, read_source
from seran.engines import Engine
from seran.errors import BadInput
from seran.sharpen import sharpen

Stack = Float[ndarray, "n h w"]
SIDE, AIR, ENDS, EDGE = 96, 16, 2, 4
"""Voxels of a block along each axis; how far outside the head it ends; slices at either end and voxels at
either side that are given, but not scored."""
INSIDE = 0.05
"""Part of a slice that is lit where it cuts the head."""
SCALE = 1000
"""What the 99.9th percentile of a scan becomes in the files that peers read."""
PATCHES, BATCH = 8000, 64
"""ECLARE's: how many it learns from, and how many at once."""
PROTOCOL = (
    f"Isotropic T1 scans of the split test; noise of {NOISE:.0%} of the 99.9th percentile, slices {PART:.0%} "
    f"as thick as far apart, profile of a pulse; about {SIDE}³ voxels, up to {AIR} voxels outside the head, "
    "since programs estimate noise from air (it is 0 in masked scans: SSIM rewards who removes noise there)",
    f"Every way is given {ENDS} slices more at either end, which are not scored, nor are {EDGE} voxels at "
    "the sides: UniRes makes no thin slices for 3/2 (factor - 1) of them at one end",
    "Voxels are stated as cubes of their spacing across slices, since UniRes makes no others; truly an axis "
    "in the plane is 5 to 25 % finer",
    "UniRes 0.3 (a3c1f81, nitorch 74b48d5, not compiled): its defaults, slices as thick as far apart; ECLARE "
    "1.0.1: its default profile, Gaussian, of the true thickness; a short budget on the CPU, "
    f"{PATCHES} of its 1000000 patches",
    "seran: as --isotropic runs it, told profile, thickness and noise; in-plane, misused: the shipped "
    "network for planes (bicubic) enlarges reformatted slices along both axes, averaged back along one",
    "Results are put on the truth's grid by the affine that the program wrote: UniRes's lie half a voxel "
    "off at even factors, and B-splines of order 5 move them; slip: voxels along the slices, rows and "
    "columns by which a result is to be moved for the best PSNR",
    "One thread, beside other work, start of the program included: seconds of a core, and of the wall clock",
    "Weights: {weights}",
)
WEIGHTS = ("seran-isotropic", "seran-x3-bd", "seran-x4-bd")
FACTORS = (3, 4, 5, 7)
TITLES = {
    "linear": "linear",
    "B-spline": "B-spline",
    "unires": "UniRes",
    "eclare": "ECLARE, short budget",
    "in-plane": "seran in-plane, misused",
    "seran": "seran",
}


@dataclass(frozen=True)
class Given:
    """What every way starts from.

    Attributes:
        thick: the slices, their 99.9th percentile about 1.
        k: thin slices for each.
        mm: side of a voxel of the truth, which is a cube.
    """

    thick: Float[ndarray, "m h w"]
    k: int
    mm: float

    @property
    def fine(self) -> tuple[int, int, int]:
        """Voxels of the truth, the slices last, as in a file."""
        m, h, w = self.thick.shape
        return h, w, m * self.k

    @property
    def wanted(self) -> grid.Affine:
        """Of the truth, the slices last."""
        return np.diag([self.mm, self.mm, self.mm, 1.0])

    def write(self, path: Path) -> None:
        """As a scanner's file: the same outer faces."""
        affine = grid.rescale(self.wanted, (1, 1, 1 / self.k), "corner")
        nibabel.save(nibabel.Nifti1Image(SCALE * np.moveaxis(self.thick, 0, 2), affine), path)

    def read(self, path: Path) -> Stack:
        """What a peer wrote, on the truth's grid by its affine; untouched if it lies there."""
        image = nibabel.load(path)
        to = np.linalg.inv(image.affine) @ self.wanted
        data, near = image.get_fdata(dtype=np.float32) / SCALE, np.abs(to - to.round()).max() < 1e-3
        to = to.round() if near else to
        where = {"output_shape": self.fine, "mode": "nearest"}
        moved = ndimage.affine_transform(data, to[:3, :3], to[:3, 3], order=0 if near else 5, **where)
        return np.moveaxis(moved, 2, 0)


Way = Callable[[Given], Stack]


def called(command: Sequence[str | Path], threads: int) -> None:
    """Run a peer; what it says is shown only if it fails."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    told = subprocess.run(
        [str(word) for word in command],
        env=os.environ | dict.fromkeys(names, str(threads)),
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise BadInput(f"{command[0]} ended with status {told.returncode}: {told.stderr[-2000:]}")


def by_eclare(given: Given, path: Path, threads: int) -> Stack:
    """What ECLARE makes of slices; their thickness is stated in voxels of the plane."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "thick.nii")
        given.write(file)
        options = {"relative-slice-thickness": PART * given.k, "n-patches": PATCHES, "batch-size": BATCH}
        options |= {"gpu-id": -1, "in-fpath": file, "out-dir": folder}
        called([path, *(word for name, value in options.items() for word in (f"--{name}", value))], threads)
        return given.read(file.with_stem("thick_eclare"))


def by_unires(given: Given, path: Path, threads: int) -> Stack:
    """What UniRes makes of slices."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "thick.nii")
        given.write(file)
        called([path, "--vx", str(given.mm), "--device", "cpu", file], threads)
        return given.read(file.with_stem("u_thick"))


def misused(given: Given, engine: Engine) -> Stack:
    """Reformatted slices enlarged along both axes by the network for planes, then averaged back along one."""
    method = methods.method(methods.DEFAULT, given.k, engine=engine)
    high = sharpen(np.moveaxis(given.thick, 2, 0), method).image
    return np.moveaxis(high.reshape(*high.shape[:2], -1, given.k).mean(-1), 0, 2)


def runners(eclare: Path | None, unires: Path | None, threads: int) -> dict[str, Way]:
    """All that can be run, the quickest first."""
    engine = Engine(threads=threads)
    found: dict[str, Way] = {
        name: lambda given, name=name: made(given.thick, given.k, name, True, engine)  # type: ignore[misc]
        for name in ("linear", "B-spline", "seran")
    }
    found["in-plane"] = lambda given: misused(given, engine)
    if unires:
        found["unires"] = lambda given: by_unires(given, unires, threads)
    if eclare:
        found["eclare"] = lambda given: by_eclare(given, eclare, threads)
    return found


def exists(way: str, k: int) -> bool:
    """Whether a way makes k slices of one."""
    return way != "in-plane" or k in (3, 4)


def block(x: Stack, k: int) -> Stack:
    """Part of a scan: central, but for its second axis, which ends `AIR` voxels outside the head."""
    rows = (SIDE // k + 2 * ENDS) * k
    middle = (len(x) - rows) // 2
    part = x[middle : middle + rows]
    last = np.flatnonzero((part > LIT).mean((0, 2)) > INSIDE)[-1]
    end = min(int(last) + AIR, x.shape[1])
    return part[:, end - SIDE : end]


def core(x: Stack, k: int) -> Stack:
    """What of a block is scored."""
    return x[ENDS * k : -ENDS * k, EDGE:-EDGE, EDGE:-EDGE]


def slip(x: Stack, y: Stack, k: int, axis: int) -> float:
    """Voxels along an axis by which a result is to be moved for the best PSNR; it is mirrored at its ends."""
    n = y.shape[axis]
    lines = fft.rfft(np.concatenate([y, np.flip(y, axis)], axis), axis=axis)
    frequency = np.expand_dims(fft.rfftfreq(2 * n), tuple(range(1, 3 - axis)))

    def off(by: float) -> float:
        moved = fft.irfft(lines * np.exp(-2j * np.pi * frequency * by), 2 * n, axis)
        return float(np.mean((core(moved.take(range(n), axis), k) - core(x, k)) ** 2))

    return float(optimize.minimize_scalar(off, bounds=(-2, 2), method="bounded", options={"xatol": 0.01}).x)


def cell(x: Stack, given: Given, way: Way, kept: Path | None) -> dict[str, Any]:
    """A way's result compared with the truth, and kept as an image where that is asked for."""
    began, used = time.perf_counter(), sum(os.times()[:4])  # of this process and the programs it called
    y = np.maximum(way(given), 0).astype(np.float32)
    seconds, cpu = time.perf_counter() - began, sum(os.times()[:4]) - used
    if kept:
        np.save(kept, y)
    k = given.k
    scores = compared(np.ascontiguousarray(core(x, k)), np.ascontiguousarray(core(y, k)))
    return {**scores, "seconds": seconds, "cpu": cpu, "slip": [slip(x, y, k, axis) for axis in range(3)]}


def keep(path: Path, protocol: list[str], source: Source, at: tuple[str, str], found: dict[str, Any]) -> None:
    """Put a cell beside those that are there by now."""
    rows = load(path, protocol)
    row = rows.setdefault(source.path.name, {"contrast": source.contrast, "cells": {}})
    row["cells"].setdefault(at[0], {})[at[1]] = found
    write(path, protocol, rows, table)


def table(rows: Rows) -> list[str]:
    """Every scan by itself, since ways that take long are not run on each."""
    head = [
        "slices",
        "way",
        "PSNR, dB",
        "over B-spline",
        "SSIM",
        "tissue volumes off",
        "core",
        "wall",
        "slip",
    ]
    lines = []
    for name, row in rows.items():
        body = []
        for factor, way in ((str(k), way) for k in FACTORS for way in TITLES):
            cells = row["cells"].get(factor, {})
            if c := cells.get(way):
                gain = f"{c['psnr'] - cells['B-spline']['psnr']:+.2f}" if "B-spline" in cells else ""
                scores = (f"{c['psnr']:.2f}", gain, f"{c['ssim']:.4f}", f"{c['tissue']:.1%}")
                times = (f"{c['cpu']:.1f} s", f"{c['seconds']:.1f} s")
                body.append(
                    (factor, TITLES[way], *scores, *times, " ".join(f"{by:+.2f}" for by in c["slip"]))
                )
        lines += [f"## {name}", "", *markdown(head, body), ""]
    return lines


def image(folder: Path, source: Source, k: int, way: str) -> Path:
    """Where a result is kept."""
    return folder / f"{source.path.name.split('.nii')[0]}-{k}-{way}.npy"


def draw(folder: Path, source: Source, k: int, path: Path) -> None:
    """A reformatted slice of the truth and of each kept result; below, the part with the most edges."""
    x, _ = truth(source, SIDE)
    shown = {"truth": block(x, k)}
    shown |= {TITLES[w]: np.load(p) for w in TITLES if (p := image(folder, source, k, w)).is_file()}
    flat = {title: core(y, k)[:, :, (SIDE - 2 * EDGE) // 2] for title, y in shown.items()}
    side = SIDE // 3
    top, left = busiest(ndimage.gaussian_filter(flat["truth"], 1), side)
    figure = Figure(figsize=(2.6 * len(flat), 5.4), layout="constrained")
    for column, (title, whole) in zip(figure.subplots(2, len(flat)).T, flat.items(), strict=True):
        for ax, part in zip(column, (whole, whole[top : top + side, left : left + side]), strict=True):
            ax.imshow(part, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
            ax.set_axis_off()
        column[0].set_title(title, fontsize=8)
    save(figure, path)


def fill(
    chosen: Sequence[Source], found: dict[str, Way], factors: Sequence[int], path: Path, images: Path | None
) -> None:
    """Every cell that is not there yet.

    Args:
        chosen: scans; those that are not isotropic are left out.
        found: ways.
        factors: voxels that slices are apart.
        path: of the results.
        images: folder to keep images in.
    """
    used = {key: weights.read(path).digest[:12] for key, path in weights.at_hand().items() if key in WEIGHTS}
    said = ", ".join(" ".join(one) for one in used.items())
    protocol = [line.format(weights=said) for line in PROTOCOL]
    for source in chosen:
        whole, fine = truth(source, SIDE)
        volume = read_source(source)
        axis = grid.slice_axis(volume.affine, volume.data.shape, "auto")
        mm = round(1024 * float(grid.spacing(volume.affine)[axis])) / 1024  # what a file of floats can state
        for way, k in ((way, k) for way in found for k in factors if fine and exists(way, k)):
            cells = load(path, protocol).get(source.path.name, {"cells": {}})["cells"]
            if way not in cells.get(str(k), {}):
                x = block(whole, k)
                kept = image(images, source, k, way) if images else None
                scores = cell(x, Given(thick(x, Case(k)), k, mm), found[way], kept)
                keep(path, protocol, source, (str(k), way), scores)
                told = ", ".join(f"{name} {value}" for name, value in scores.items())
                sys.stderr.write(f"{source.path.name}, {k}, {way}: {told}\n")


def main(
    lists: Positional[tuple[Path, ...]],
    eclare: Path | None = None,
    unires: Path | None = None,
    only: str = "",
    factors: tuple[int, ...] = FACTORS,
    ways: tuple[str, ...] = tuple(TITLES),
    threads: int = 1,
    images: Path | None = None,
    sheet: Path | None = None,
    out: Path = Path(__file__).parent,
) -> None:
    """Fill the table; cells that are done already are kept.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        eclare: the program ``run-eclare``.
        unires: the program ``unires``.
        only: scans whose file names contain this.
        factors: voxels that slices are apart.
        ways: their names, in this order; those whose program is not given are left out.
        threads: of the CPU.
        images: folder to keep results in.
        sheet: draw what ``images`` has of the first scan and factor here, and do no more.
        out: folder of ``peers.json`` and ``.md``.
    """
    if wrong := set(ways) - set(TITLES):
        raise BadInput(f"--ways {' '.join(sorted(wrong))}: expected some of {', '.join(TITLES)}")
    chosen = [s for s in sources(lists, "test") if s.contrast == "T1" and only in s.path.name]
    if sheet and not (images and chosen):
        raise BadInput("--sheet: expected --images and a scan, got none")
    if sheet and images:
        draw(images, chosen[0], factors[0], sheet)
        return
    if images:
        images.mkdir(parents=True, exist_ok=True)
    known = runners(eclare, unires, threads)
    fill(chosen, {way: known[way] for way in ways if way in known}, factors, out / "peers.json", images)


if __name__ == "__main__":
    program(main)
