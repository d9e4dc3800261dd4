"""How many bytes a sharpened scan takes on disk, in the type of voxel that it is written with.

python benchmarks/storage.py SCAN SCAN ...           # real scans: a made one packs otherwise
"""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import tyro
from measure import record


def main(scans: tuple[Path, ...], /, scale: int = 2) -> None:
    """Sharpen every scan as float32 and as int16; print the table and keep it in results.md.

    Args:
        scans: NIfTI files.
        scale: how many times finer.
    """
    lines = ["| scan | type | matrix | MB | bytes a voxel |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        for scan in scans:
            for dtype in ("float32", "int16"):
                out = Path(name) / f"{dtype}-{scan.name}"
                command = [sys.executable, "-m", "seran", "upscale", scan, out, "--dtype", dtype]
                subprocess.run(
                    [*command, "--scale", str(scale), "--strict", "off"], check=True, capture_output=True
                )
                image, size = nib.load(out), out.stat().st_size
                matrix, each = "x".join(map(str, image.shape)), size / math.prod(image.shape)
                lines.append(f"| {scan.name} | {dtype} | {matrix} | {size / 1e6:.1f} | {each:.2f} |")
    record("Storage", lines, ("openvino",))


if __name__ == "__main__":
    tyro.cli(main)
