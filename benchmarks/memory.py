"""Peak resident memory of `seran upscale` against the number and the size of slices.

    python benchmarks/memory.py

Each volume is upscaled by a process of its own, from and to .nii.gz; what counts is the most that the process
ever held. Arrays that seran keeps on disk count while their pages are in memory.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import tyro
from measure import record

Precision = Literal["auto", "bf16", "f32", "int8"]
"""As `seran.engines.Precision`: what is imported here would count in every child's peak."""
SHAPES = ((128, 128, 24), (128, 128, 384), (256, 256, 24), (256, 256, 192), (512, 512, 8), (512, 512, 40))
AFFINE = np.array([[-0.7, 0.1, 0, 80], [0.1, 0.7, 0.2, -60], [0, -0.1, 3.0, 20], [0, 0, 0, 1]])


def peak(shape: tuple[int, int, int], scale: int, *options: str) -> int:
    """Bytes that the command held at most."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.nii.gz"
        rng = np.random.default_rng(0)
        nib.save(nib.Nifti1Image((rng.random(shape) * 1000).astype(np.int16), AFFINE), source)
        args = ["upscale", str(source), f"{folder}/out.nii.gz", "--scale", str(scale), *options]
        child = subprocess.Popen([sys.executable, "-m", "seran", *args], stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"seran {' '.join(args)} failed")
        return usage.ru_maxrss * 1024


def main(scales: tuple[int, ...] = (2, 4), method: str = "seran", precision: Precision = "auto") -> None:
    """Measure every shape; print the table and keep it in results.md.

    Args:
        scales: of 2, 3 and 4.
        method: which upscales.
        precision: of its convolutions.
    """
    head = " | ".join(f"x{scale}, MB" for scale in scales)
    lines = [f"| voxels | {head} |", "|---" * (1 + len(scales)) + "|"]
    options = ("--method", method, "--precision", precision, "--strict", "off")
    for shape in SHAPES:
        cells = [f"{peak(shape, scale, *options) / 1e6:.0f}" for scale in scales]
        lines.append(f"| {'x'.join(map(str, shape))} | {' | '.join(cells)} |")
    record(f"Peak memory, {method}" + f", {precision}" * (precision != "auto"), lines, ("openvino",))


if __name__ == "__main__":
    tyro.cli(main)
