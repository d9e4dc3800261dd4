"""Thick slices made thin against interpolation: simulated thick scans, PSNR, SSIM, tissue volumes, seconds.

    python paper/isotropic.py MANIFEST.csv                 # the test split
    python paper/isotropic.py MANIFEST.csv --split val     # while something is being made

Isotropic scans (T1) lose slices along their third array axis; of other contrasts, which are thick, one axis
in the plane of the slices takes its part, and their thickness is the third direction. Slices are selected by
`seran.profiles`, which agrees with radifox-utils' ``degrade-slice-selection`` to 1e-3.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from acquisitions import sources
from jaxtyping import Float
from numpy import ndarray
from results import Rows, load, ordered, program, write
from scipy import ndimage
from tyro.conf import Positional

from seran import grid, isotropic, methods
from seran.data.sources import Source, read_source
from seran.engines import Engine
from seran.profiles import Profile, selection
from seran.quality import metrics

PROTOCOL = (
    "Split {split}, {slices} central slices of each scan in the third direction; truths have a 99.9th "
    "percentile of 1; noise of {noise:.0%} of it; both images held at 0 from below",
    "Slices are {part:.0%} as thick as far apart; each network is told the profile ``slr`` at this thickness "
    "and the noise, whatever is true",
    "Weights: {digest}",
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


def made(
    s: Float[ndarray, "m h w"], k: int, way: str, fine: bool, engine: Engine, weights: Path | None
) -> Float[ndarray, "n h w"]:
    """Thin slices by a way, k for each."""
    if way != "seran":
        return spline(s, k, 1 if way == "linear" else 3)
    across, profile = methods.across(methods.DEFAULT, weights, engine), Profile("slr", PART)
    if fine:
        return isotropic.thinner(s, across, k, profile, NOISE)
    planes = np.moveaxis(s, 2, 0)  # one direction is thick itself: its planes know no neighbours
    alone = [isotropic.thinner(p[..., None].repeat(2, 2), across, k, profile, NOISE) for p in planes[:0]]
    assert not alone
    said = isotropic.told(NOISE, profile, k)
    maps = np.broadcast_to(said[:, None, None], (len(planes), *said.shape, *planes.shape[1:]))
    high = across.heads(k).predict(np.concatenate([np.stack([planes] * 3, 1), maps], 1))
    return np.moveaxis(high, 0, 2)
