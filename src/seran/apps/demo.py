"""The main job on a real image that comes with a dependency, with the truth at hand.

The image is ``s1045.ima.gz`` from matplotlib's sample data (its "MRI" gallery example): one sagittal T1-like
slice of a head, 256x256, 16-bit big-endian. Its voxel size is not recorded; 1 mm is assumed.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from seran import files, grid, io
from seran.apps import FLAT
from seran.degrade import Bicubic
from seran.engines import Engine
from seran.grid import Plan
from seran.methods import method
from seran.quality import metrics
from seran.sharpen import upscale
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


@dataclass(frozen=True)
class Score:
    """One method on the demo image."""

    method: str
    psnr: float
    ssim: float


def picture(path: Path, images: dict[str, ndarray], errors: dict[str, ndarray], caption: str) -> None:
    """Write images (rows, columns) side by side, whole and enlarged, and error maps on one scale (PNG)."""
    figure = Figure(figsize=(12, 9.6), layout="constrained")
    axes = figure.subplots(3, len(images))
    top = max(image.max() for image in images.values())
    limit = np.percentile(np.abs(np.stack(list(errors.values()))), 99.8)
    for ax in axes.ravel():
        ax.set_axis_off()
    for (whole, part, error), (name, image) in zip(axes.T, images.items(), strict=True):
        h, w = image.shape
        box = image[h // 4 : h * 9 // 16, w * 5 // 16 : w * 5 // 8]
        whole.set_title(name)
        whole.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        part.imshow(box, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        if name in errors:
            shown = error.imshow(errors[name], cmap="RdBu_r", vmin=-limit, vmax=limit)
            error.set_title(f"{name} - truth")
    figure.colorbar(shown, ax=list(axes[2]), shrink=0.8, label="error, intensity units")
    figure.suptitle(caption)
    with files.atomic(path) as part_file:
        figure.savefig(part_file, dpi=90)


def compare(out: Path, engine: Engine) -> list[Score]:
    """Degrade the sample slice, upscale it with bicubic and SERAN, write NIfTIs and a picture into ``out``.

    Raises:
        OSError: if ``out`` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    truth = sample()
    low = Volume(
        np.moveaxis(Bicubic((SCALE, SCALE))(np.moveaxis(truth.data, 2, 0)), 0, 2),
        grid.rescale(truth.affine, (1 / SCALE, 1 / SCALE, 1), Bicubic.anchor),
    )
    made = {"truth": truth, "low": low}
    scores = []
    span = float(np.ptp(truth.data))
    for name in ("bicubic", "seran"):
        chosen = method(name, SCALE, engine=engine)
        made[name], _ = upscale(low, chosen, Plan(low.grid, 2, chosen.factors, chosen.anchor))
        right, got = (np.moveaxis(made[key].data, 2, 0) for key in ("truth", name))
        found = metrics.scores(right, got, span)
        scores.append(Score(name, found["psnr"], found["ssim_slice"]))
    for name, volume in made.items():
        with files.atomic(out / f"{name}.nii.gz") as part:
            io.write(volume, part)
    shown = {key: made[key].data[:, :, 0].T for key in ("low", "bicubic", "seran", "truth")}
    errors = {key: shown[key] - shown["truth"] for key in ("bicubic", "seran")}
    caption = f"{SOURCE}, x{SCALE}: " + ", ".join(f"{s.method} {s.psnr:.2f} dB" for s in scores)
    picture(out / "demo.png", shown, errors, caption)
    return scores


def demo(
    out: Path = Path("seran-demo"),
    engine: Annotated[Engine, FLAT] = Engine(),  # noqa: B008
) -> str:
    """Sharpen a real MR slice that ships with matplotlib, and compare with the truth.

    Args:
        out: folder for the NIfTIs and the picture; files of the same names are replaced.
        engine: how the network is run.
    """
    scores = compare(out, engine)
    lines = [f"{SOURCE}, degraded by bicubic, x{SCALE} (one slice: PSNR range max - min, SSIM 2-D)"]
    lines += [f"{s.method:8} PSNR {s.psnr:.2f} dB  SSIM {s.ssim:.4f}" for s in scores]
    lines += [f"results: {out.resolve()} (truth, low, bicubic, seran as .nii.gz; demo.png)"]
    return "\n".join(lines)
