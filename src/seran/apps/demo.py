"""The main job on a real image that comes with a dependency, with the truth at hand.

The image is ``s1045.ima.gz`` from matplotlib's sample data (its "MRI" gallery example): one sagittal T1-like
slice of a head, 256x256, 16-bit big-endian. Its voxel size is not recorded; 1 mm is assumed.
"""

import gzip
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

import seran
from seran import files, grid, io
from seran.degrade import Bicubic
from seran.engines import Engine
from seran.quality import metrics
from seran.volume import Volume

SOURCE = "matplotlib sample data, s1045.ima.gz (256x256, 16 bit)"
SCALE = 2
# Columns run from anterior to posterior, rows from superior to inferior, the one slice is sagittal.
AFFINE = np.array([[0, 0, 5, -30], [-1, 0, 0, 128], [0, -1, 0, 128], [0, 0, 0, 1]], float)


def sample() -> Volume:
    """The real slice as a scan of one sagittal slice on an assumed grid of 1 x 1 x 5 mm."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "s1045.ima.gz"
    raw = np.frombuffer(gzip.decompress(path.read_bytes()), ">u2").reshape(256, 256)
    return Volume(raw.T[:, :, None].astype(np.float32), AFFINE)


def _picture(path: Path, images: dict[str, ndarray], caption: str) -> None:
    """Write images (rows, columns) side by side, whole and enlarged, and error maps on one scale (PNG)."""
    truth = images["truth"]
    errors = {name: images[name] - truth for name in ("bicubic", "seran")}
    limit = np.percentile(np.abs(np.stack(list(errors.values()))), 99.8)
    grey = {"cmap": "gray", "vmin": 0, "vmax": max(image.max() for image in images.values())}
    figure = Figure(figsize=(12, 9.6), layout="constrained")
    axes = figure.subplots(3, len(images))
    for ax in axes.ravel():
        ax.set_axis_off()
    for (whole, part, error), (name, image) in zip(axes.T, images.items(), strict=True):
        h, w = image.shape
        whole.set_title(name)
        whole.imshow(image, **grey, interpolation="nearest")
        part.imshow(image[h // 4 : h * 9 // 16, w * 5 // 16 : w * 5 // 8], **grey, interpolation="nearest")
        if name in errors:
            shown = error.imshow(errors[name], cmap="RdBu_r", vmin=-limit, vmax=limit)
            error.set_title(f"{name} - truth")
    figure.colorbar(shown, ax=list(axes[2]), shrink=0.8, label="error, intensity units")
    figure.suptitle(caption)
    with files.atomic(path) as part_file:
        figure.savefig(part_file, dpi=90)


def demo(out: Path = Path("seran-demo"), engine: Engine = Engine()) -> str:  # noqa: B008
    """Sharpen a real MR slice that ships with matplotlib, and compare with the truth.

    Args:
        out: folder for the NIfTIs and the picture; files of the same names are replaced.
        engine: how the network is run.
    """
    out.mkdir(parents=True, exist_ok=True)
    truth = sample()
    stack = np.moveaxis(truth.data, 2, 0)
    affine = grid.rescale(truth.affine, (1 / SCALE, 1 / SCALE, 1), Bicubic.anchor)
    low = Volume(np.moveaxis(Bicubic((SCALE, SCALE))(stack), 0, 2), affine)
    made, scores, bicubic = {"truth": truth, "low": low}, {}, seran.Scanner("bicubic")
    for name in ("bicubic", "seran"):
        made[name] = seran.upscale((low.data, affine), method=name, scanner=bicubic, engine=engine).volume
        scores[name] = metrics.scores(stack, np.moveaxis(made[name].data, 2, 0), float(np.ptp(stack)))
    for name, volume in made.items():
        with files.atomic(out / f"{name}.nii.gz") as part:
            io.write(volume, part)
    caption = f"{SOURCE}, x{SCALE}: " + ", ".join(f"{n} {s['psnr']:.2f} dB" for n, s in scores.items())
    shown = {name: made[name].data[:, :, 0].T for name in ("low", "bicubic", "seran", "truth")}
    _picture(out / "demo.png", shown, caption)
    lines = [f"{SOURCE}, degraded by bicubic, x{SCALE} (one slice: PSNR range max - min, SSIM 2-D)"]
    lines += [f"{n:8} PSNR {s['psnr']:.2f} dB  SSIM {s['ssim_slice']:.4f}" for n, s in scores.items()]
    lines += [f"results: {out.resolve()} (truth, low, bicubic, seran as .nii.gz; demo.png)"]
    return "\n".join(lines)
