"""Memory of `seran upscale` against the number and the size of slices, and what it tells of that beforehand.

    python benchmarks/memory.py
    python benchmarks/memory.py --threads 1 --slices 6

Each volume is upscaled by a process of its own, from and to .nii.gz. Three numbers of each: the most that the
process ever held in memory (resident), where arrays that seran keeps on disk count while their pages are
there; the most that it took for itself (own), which is what ``--mem-mb`` bounds, looked at every 5 ms; and
what it told (told).
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import tyro
from measure import record

from seran import machine

Precision = Literal["auto", "bf16", "f32", "int8"]
"""As `seran.engines.Precision`: what is imported here would count in every child's peak."""
SHAPES = ((128, 128, 24), (128, 128, 384), (256, 256, 24), (256, 256, 192), (512, 512, 8), (512, 512, 40))
AFFINE = np.array([[-0.7, 0.1, 0, 80], [0.1, 0.7, 0.2, -60], [0, -0.1, 3.0, 20], [0, 0, 0, 1]])
TOLD = re.compile(r"about (\d[\d.]*) ([MG]B) of memory")
OFTEN = 0.005  # s
KINDS = ("resident", "own", "told")


def taken(shape: tuple[int, int, int], *options: str) -> tuple[float, ...]:
    """Of one command the MB of all `KINDS`."""
    with tempfile.TemporaryDirectory() as folder:
        source, log = Path(folder) / "in.nii.gz", Path(folder) / "log"
        away = np.hypot(*np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j])[..., None]
        head = 600 / (1 + np.exp((away - 0.7) * 30)) + 60 * np.cos(40 * away)
        noisy = np.abs(head + np.random.default_rng(0).normal(0, 12, shape))
        nib.save(nib.Nifti1Image(noisy.astype(np.int16), AFFINE), source)
        args = ["upscale", str(source), f"{folder}/out.nii.gz", "--log", str(log), *options]
        child = subprocess.Popen([sys.executable, "-m", "seran", *args], stderr=subprocess.DEVNULL)
        own = 0
        while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            with suppress(OSError, StopIteration):  # at its very beginning, or its end
                own = max(own, machine.held(Path(f"/proc/{child.pid}/status")))
            time.sleep(OFTEN)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"seran {' '.join(args)} failed")
        [(told, unit)] = TOLD.findall(log.read_text())
        return usage.ru_maxrss * 1024 / 1e6, own / 1e6, float(told) * {"MB": 1, "GB": 1000}[unit]


def main(
    scales: tuple[int, ...] = (2, 4),
    method: str = "seran",
    precision: Precision = "auto",
    threads: int = 0,
    slices: int = 0,
) -> None:
    """Measure every shape; print the table and keep it in results.md.

    Args:
        scales: of 2, 3 and 4.
        method: which upscales.
        precision: of its convolutions.
        threads: of the network, and of linear algebra; 0: as many as there are CPUs.
        slices: at most so many of each volume; 0: all.
    """
    head = " | ".join(f"x{scale}, {kind}, MB" for scale in scales for kind in KINDS)
    lines = [f"| voxels | {head} |", "|---" * (1 + len(scales) * len(KINDS)) + "|"]
    options = ["--method", method, "--precision", precision, "--strict", "off"]
    if threads:
        options += ["--threads", str(threads)]
        os.environ["OMP_NUM_THREADS"] = str(threads)
    off = []
    for shape in dict.fromkeys((h, w, min(n, slices or n)) for h, w, n in SHAPES):
        cells = []
        for scale in scales:
            found = taken(shape, *options, "--scale", str(scale))
            cells += [f"{size:.0f}" for size in found]
            off.append(found[2] / found[1] - 1)
        lines.append(f"| {'x'.join(map(str, shape))} | {' | '.join(cells)} |")
    lines += ["", f"What is told is {min(off):+.0%} to {max(off):+.0%} off what the process took for itself."]
    of = f", {precision}" * (precision != "auto") + f", {threads} threads" * (threads > 0)
    record(f"Memory, {method}{of}", lines, ("openvino",))


if __name__ == "__main__":
    tyro.cli(main)
