"""Patches for training, drawn from a prepared set.

Sample ``i`` of step ``k`` depends on (seed, k, i) and on nothing else: a resumed run sees what an
uninterrupted one sees, and n processes see together what one process with an n-fold batch sees.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Real
from numpy import ndarray
from torch import Tensor

from seran.degrade import DEGRADATIONS
from seran.errors import BadInput
from seran.prepare import Packed, PreparedSet

TRIES = 8
TEXTURE = 0.03
"""A patch whose standard deviation (in units of the scan's range) is below this counts as background."""


def dihedral(patch: Real[ndarray, "h w"], swap: bool, mirrored: tuple[bool, bool]) -> Real[ndarray, "a b"]:
    """One of the eight symmetries of the square: rows and columns mirrored or not, then exchanged or not."""
    turned = patch[:: -1 if mirrored[0] else 1, :: -1 if mirrored[1] else 1]
    return turned.T if swap else turned


@dataclass(frozen=True)
class Scan:
    """One training volume: memory-mapped pairs, and the way to about [0, 1]."""

    low: Real[ndarray, "n a b"]
    high: Real[ndarray, "n h w"]
    offset: float
    gain: float
    contrast: str


class Patches:
    """Random pairs of patches from one split of a prepared set.

    A contrast is drawn first (all alike, so that rare ones are not drowned), then a volume of it in
    proportion to the square root of its slices, then a slice, then up to `TRIES` positions until one
    is not background, then one of eight symmetries.

    Where voxel 0 keeps its centre (k-space truncation), s - 1 fine voxels follow the last coarse one of a
    patch and none precede the first. So that a mirrored pair has them at the same end, its high patch
    begins s - 1 voxels earlier.
    """

    def __init__(self, prepared: PreparedSet, split: str, scale: int, seed: int) -> None:
        self.scale, self.seed = scale, seed
        self.lead = (scale - 1) * (DEGRADATIONS[prepared.degradation](scale).anchor == "center")
        self.scans = [_scan(prepared, v, scale) for v in prepared.pick(split)]
        if not self.scans:
            raise BadInput(f"{prepared.root}: expected volumes in the split {split!r}, found none")
        self.groups = [
            [s for s in self.scans if s.contrast == c] for c in sorted({s.contrast for s in self.scans})
        ]

    def _fitting(self, patch: int) -> list[list[Scan]]:
        """The groups without the scans whose slices are smaller than a patch."""
        first = min(1, self.lead)
        fitting = [[s for s in g if min(s.low.shape[1:]) >= patch + first] for g in self.groups]
        if not any(fitting):
            raise BadInput(f"no training slice holds a patch of {patch}x{patch} low-resolution pixels")
        return [group for group in fitting if group]

    def batch(
        self, step: int, samples: range, patch: int
    ) -> tuple[Float[Tensor, "b 1 p p"], Float[Tensor, "b 1 sp sp"]]:
        """Samples of one step: low patches of ``patch`` pixels a side and their high patches."""
        pairs = [self._pair(np.random.default_rng((self.seed, step, i)), patch) for i in samples]
        low, high = (np.ascontiguousarray(np.stack(side)[:, None]) for side in zip(*pairs, strict=True))
        return torch.from_numpy(low), torch.from_numpy(high)

    def _pair(self, rng: np.random.Generator, patch: int) -> tuple[ndarray, ndarray]:
        groups = self._fitting(patch)
        group = groups[rng.integers(len(groups))]
        weight = np.sqrt([len(s.low) for s in group])
        scan = group[rng.choice(len(group), p=weight / weight.sum())]
        (n, h, w), p, s = scan.low.shape, patch, self.scale
        swap, rows, columns = (bool(bit) for bit in rng.integers(2, size=3))
        first = min(1, self.lead)
        for _ in range(TRIES):
            k = rng.integers(n)
            y, x = rng.integers(first * rows, h - p + 1), rng.integers(first * columns, w - p + 1)
            low = scan.low[k, y : y + p, x : x + p]
            if low.std() > TEXTURE * scan.gain:
                break
        top, left = s * y - self.lead * rows, s * x - self.lead * columns
        high = scan.high[k, top : top + s * p, left : left + s * p]
        turned = (dihedral(side, swap, (rows, columns)) for side in (low, high))
        return tuple(_unit(side, scan) for side in turned)  # type: ignore[return-value]


def _unit(patch: ndarray, scan: Scan) -> Float[ndarray, "h w"]:
    return ((patch - scan.offset) / scan.gain).astype(np.float32)


def _scan(prepared: PreparedSet, volume: Packed, scale: int) -> Scan:
    if str(scale) not in volume.unit:
        raise BadInput(f"{prepared.root}: it was prepared without x{scale}; run `seran prepare` again")
    offset, gain = volume.unit[str(scale)]
    return Scan(prepared.low(volume, scale), prepared.high(volume), offset, gain, volume.contrast)
