"""The whole command, from the start of its process: help, the first slice, a volume.

    python benchmarks/command.py                   # on a quiet machine

The volume is 120x120x96 voxels of int16 in a .nii.gz, upscaled by x2 to a .nii.gz. Network time is that of
the same slices in a warm process (`speed.py`), measured here again, between the commands.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import tyro
from measure import in_turn, record, table

from seran.engines import Engine
from seran.methods import method

AFFINE = np.array([[-1.8, 0.1, 0, 100], [0.1, 1.8, 0.1, -110], [0, -0.1, 1.5, -60], [0, 0, 0, 1]])


def phantom(shape: tuple[int, int, int]) -> np.ndarray:
    """A smooth head with structure and noise, which gzip can do something with: int16."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = x**2 / 0.7 + y**2 / 0.8 + z**2 / 0.9 < 1
    noise = np.random.default_rng(0).rayleigh(8, shape)
    return (inside * (300 + 100 * np.sin(20 * x) * np.cos(17 * y + 9 * z)) + noise).astype(np.int16)


def main(repeats: int = 5) -> None:
    """Time every command in turn; print the table and keep it in results.md.

    Args:
        repeats: of each.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, shape in (("one.nii.gz", (120, 120, 1)), ("all.nii.gz", (120, 120, 96))):
            nib.save(nib.Nifti1Image(phantom(shape), AFFINE), folder / file)

        def seran(*args: str) -> Callable[[], object]:
            command = [sys.executable, "-m", "seran", *args]
            return lambda: subprocess.run(command, check=True, capture_output=True, cwd=folder)

        upscale = ("--scale", "2", "--plane", "axial", "--force", "--strict", "off")
        network = method("seran", 2, engine=Engine())
        low = np.ascontiguousarray(phantom((120, 120, 96)).transpose(2, 0, 1), np.float32) / 500
        ways = {
            "`seran --help`": seran("--help"),
            "`seran upscale`, one slice": seran("upscale", "one.nii.gz", "one-out.nii.gz", *upscale),
            "`seran upscale`, 96 slices": seran("upscale", "all.nii.gz", "all-out.nii.gz", *upscale),
            "the network alone, 96 slices": lambda: network.predict(low),
        }
        began = time.perf_counter()
        seconds = in_turn(ways, repeats)
        total, alone = (median(seconds[way]) for way in list(ways)[2:])
    lines = [
        *table("what | seconds", seconds),
        "",
        f"The whole command takes {total / alone:.2f} times the network's time "
        f"({repeats} runs in turn, {time.perf_counter() - began:.0f} s in all).",
    ]
    record("Command", lines, ("openvino",))


if __name__ == "__main__":
    tyro.cli(main)
