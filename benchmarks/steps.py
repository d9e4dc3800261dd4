"""What is not the network, on 240x240x96 voxels: NLM, metrics, degradation, k-space, reading, writing.

python benchmarks/steps.py                     # on a quiet machine
"""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import tyro
from command import AFFINE, phantom
from measure import in_turn, record, table

from seran import io, kspace, sharpen
from seran.degrade import DEGRADATIONS
from seran.methods import method
from seran.quality import metrics


def main(repeats: int = 3) -> None:
    """Time every step in turn; print the table and keep it in results.md.

    Args:
        repeats: of each.
    """
    volume = phantom((240, 240, 96)).astype(np.float32)
    high = np.ascontiguousarray(volume.transpose(2, 0, 1))
    low = DEGRADATIONS["bd"]((2, 2))(high)
    nlm, bicubic = method("nlm", 2), method("bicubic", 2)
    near = sharpen.sharpen(low, bicubic).image
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nib.save(nib.Nifti1Image(volume, AFFINE), folder / "in.nii.gz")
        scan = next(io.read_series(folder / "in.nii.gz").volumes)
        ways = {
            "NLM x2": lambda: sharpen.sharpen(low, nlm),
            "bicubic x2": lambda: sharpen.sharpen(low, bicubic).image,
            "metrics of evaluate": lambda: metrics.scores(high, near, float(np.ptp(high))),
            "bicubic degradation x2": lambda: DEGRADATIONS["bd"]((2, 2))(high),
            "k-space truncation x2": lambda: DEGRADATIONS["td"]((2, 2))(high),
            "k-space support": lambda: kspace.support(high),
            "reading .nii.gz": lambda: next(io.read_series(folder / "in.nii.gz").volumes),
            "writing .nii.gz": lambda: io.write(scan, folder / "out.nii.gz"),
        }
        seconds = in_turn(ways, repeats)
    record("Steps beside the network", table("step | seconds", seconds), ("numpy", "numba"))


if __name__ == "__main__":
    tyro.cli(main)
