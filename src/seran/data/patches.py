"""Patches for training, drawn from a prepared set: sample i of step k depends on (seed, k, i) alone."""

import functools
import math

import numpy as np
import torch
from jaxtyping import Float, Real
from numpy import ndarray
from scipy import fft
from torch import Tensor

from seran import degrade
from seran.data.pairs import PreparedSet
from seran.errors import BadInput
from seran.sharpen import Normalisation

TRIES = 8
TEXTURE = 0.03  # of the scan's range: a patch with a smaller standard deviation counts as background
RATIOS = (0.75, 1.35)  # pixels a side that a varied patch is made from, over those it has
POWERS = (0.5, 2.0)  # that intensities are raised to for another contrast; 1/2 brings bright tissues together
PARTS = (0.25, 1.4)  # of the range that the intensities of a patch of another contrast have
NEGATIVES = 0.2  # of the patches of another contrast: T1 has dark fluid, T2 bright
Scan = tuple[
    ndarray, ndarray, Normalisation
]  # low and high slices, memory-mapped, and the way to about [0, 1]


def _dihedral(patch: Real[ndarray, "h w"], swap: bool, mirrored: tuple[bool, bool]) -> Real[ndarray, "a b"]:
    """One of the eight symmetries of the square: rows and columns mirrored, then exchanged."""
    turned = patch[:: -1 if mirrored[0] else 1, :: -1 if mirrored[1] else 1]
    return turned.T if swap else turned


@functools.lru_cache(maxsize=1024)
def _resampling(n: int, size: int) -> Float[ndarray, "size n"]:
    """Keeps the lowest of ``n`` frequencies of the cosine transform, or adds zeros; means are preserved."""
    kept = min(n, size)
    spectrum = fft.dct(np.eye(n), norm="ortho", axis=0)[:kept]
    back = fft.idct(np.eye(size)[:, :kept], norm="ortho", axis=0)
    return (np.sqrt(size / n) * back @ spectrum).astype(np.float32)


def resampled(patch: Real[ndarray, "h w"], shape: tuple[int, int]) -> Float[ndarray, "a b"]:
    """A patch on another grid of the same outer edges: high frequencies were not measured, or zeros added.

    Cosines take the place of k-space's exponentials, because the edges of a patch do not meet. Never negative
    where no pixel of the patch was.
    """
    rows, columns = (_resampling(n, size) for n, size in zip(patch.shape, shape, strict=True))
    made = rows @ patch.astype(np.float32) @ columns.T
    return np.maximum(made, 0) if patch.min() >= 0 else made


def recontrasted(patch: Float[ndarray, "h w"], rng: np.random.Generator) -> Float[ndarray, "h w"]:
    """A patch of about [0, 1] as another contrast: a power of it, or the negative, on a part of the range."""
    curve, part = (math.exp(rng.uniform(*bounds)) for bounds in np.log((POWERS, PARTS)).tolist())
    least = rng.uniform(0, max(0.0, 1 - part))
    made = np.sign(patch) * np.abs(patch) ** curve
    if rng.random() < NEGATIVES:
        made = 1 - made
    return (least + part * made).astype(np.float32)


class Patches:
    """Random pairs of patches from one split of a prepared set.

    A contrast is drawn first (all alike, so that rare ones are not drowned), then a volume of it in
    proportion to the square root of its slices, then a slice and a place that is not background (after
    `TRIES` any), then one of eight symmetries.

    A fraction ``augment`` of the patches is varied before it is degraded: half of them made from more or
    fewer pixels along each axis (`resampled`), half of them given another contrast (`recontrasted`).

    Where voxel 0 keeps its centre, s - 1 fine voxels follow the last coarse one of a patch; without voxel 0,
    coarse and fine, they precede the first: so a pair is cut that will be mirrored.
    """

    def __init__(self, prepared: PreparedSet, split: str, scale: int, seed: int, augment: float = 0) -> None:
        self.made_of = (prepared, split, scale, seed, augment)
        self.scale, self.seed, self.augment = scale, seed, augment
        self.degrade = degrade.named(prepared.degradation)((scale, scale))
        if augment and not self.degrade.local:
            raise BadInput(f"--augment degrades patches apart; {self.degrade.words} needs the whole slice")
        self.groups: dict[str, list[Scan]] = {}
        for packed in sorted(prepared.pick(split), key=lambda packed: packed.contrast):
            scan = prepared.low(packed, scale), prepared.high(packed), Normalisation(*packed.unit[str(scale)])
            self.groups.setdefault(packed.contrast, []).append(scan)
        if not self.groups:
            raise BadInput(f"{prepared.root}: expected volumes in the split {split!r}, found none")

    def __reduce__(self) -> tuple[type["Patches"], tuple[object, ...]]:
        """Another process opens the files itself; pickled, memory-mapped arrays would be copied whole."""
        return type(self), self.made_of

    def batch(
        self, step: int, samples: range, patch: int
    ) -> tuple[Float[Tensor, "b 1 p p"], Float[Tensor, "b 1 sp sp"]]:
        """Pairs of patches.

        Args:
            step: of training, from 0.
            samples: which of this step.
            patch: low-resolution pixels a side.
        """
        pairs = [self._pair(np.random.default_rng((self.seed, step, i)), patch) for i in samples]
        low, high = (np.ascontiguousarray(np.stack(side)[:, None]) for side in zip(*pairs, strict=True))
        return torch.from_numpy(low), torch.from_numpy(high)

    def _pair(self, rng: np.random.Generator, p: int) -> tuple[ndarray, ndarray]:
        s, centred = self.scale, self.degrade.anchor == "center"
        large = [[v for v in group if min(v[0].shape[1:]) >= p + centred] for group in self.groups.values()]
        groups = [group for group in large if group]
        if not groups:
            raise BadInput(
                f"no training slice holds a patch of {p}x{p} low-resolution pixels; choose a smaller --patch"
            )
        group = groups[rng.integers(len(groups))]
        weight = np.sqrt([len(low) for low, _, _ in group])
        low, high, unit = group[rng.choice(len(group), p=weight / weight.sum())]
        swap, rows, columns = (bool(bit) for bit in rng.integers(2, size=3))
        if self.augment and rng.random() < self.augment:
            high = _dihedral(_varied(rng, high, unit, s * p), swap, (rows, columns))
            return self.degrade(high), high
        low, high = (side[:, centred * rows :, centred * columns :] for side in (low, high))
        k, y, x = _place(rng, low, (p, p), unit.gain)
        low, high = low[k, y : y + p, x : x + p], high[k, s * y : s * (y + p), s * x : s * (x + p)]
        low, high = (unit.apply(_dihedral(side, swap, (rows, columns))) for side in (low, high))
        return low, high


def _varied(
    rng: np.random.Generator, stack: Real[ndarray, "n h w"], unit: Normalisation, size: int
) -> Float[ndarray, "size size"]:
    resample, recontrast = (bool(bit) for bit in rng.integers(2, size=2))
    least, most = np.log(RATIOS)
    ratio = np.exp(rng.uniform(least, most, size=2)) if resample else np.ones(2)
    h, w = (min(round(size * r), n) for r, n in zip(ratio, stack.shape[1:], strict=True))
    k, y, x = _place(rng, stack, (h, w), unit.gain)
    cut = stack[k, y : y + h, x : x + w]
    high = unit.apply(resampled(cut, (size, size)) if resample else cut)
    return recontrasted(high, rng) if recontrast else high


def _place(
    rng: np.random.Generator, stack: Real[ndarray, "n h w"], shape: tuple[int, int], gain: float
) -> tuple[int, int, int]:
    """Slice, row and column of a patch that is not background, if `TRIES` find one."""
    (n, h, w), (a, b) = stack.shape, shape
    for _ in range(TRIES):
        k = rng.integers(n)
        y, x = rng.integers(h - a + 1), rng.integers(w - b + 1)
        if stack[k, y : y + a, x : x + b].std() > TEXTURE * gain:
            break
    return int(k), int(y), int(x)
