"""Simulated acquisitions at x2: what is the truth of a scan, what is given of it, how results are compared.

A scan's central slices, on the k-space that was measured of them and with a 99.9th percentile of 1, are the
truth; half of each axis of their k-space is acquired. Results lie about other voxel centres than the truth
where method and acquisition have different anchors (see `seran.grid`): they are moved by half of a fine voxel
(`moved`). PSNR is of the slices of a volume together, both images held at 0 from below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import fft, ndimage

from seran.acquisition import NONE, Acquisition, Window
from seran.data.prepare import PrepareOptions, high_resolution
from seran.data.sources import Source, find, read_source
from seran.degrade import Bicubic
from seran.errors import BadInput
from seran.grid import Anchor
from seran.native import nearest

SCALE = 2
DEPTH = 0.04
"""How deep in the head the made mask begins, as a part of the shorter side: in bright tissue."""
HEAD = 0.1
"""Part of the range above which a smoothed slice shows the head."""


@dataclass(frozen=True)
class Case:
    """A column: how the given image is made of the truth.

    Attributes:
        title: in words.
        window: the scanner's filter.
        sigma: of the noise.
        filled: by the scanner, to the grid of the truth, which the result keeps.
        masked: by a mask of the head, before and after the acquisition.
        bicubic: reduced by antialiased bicubic interpolation instead of a scanner.
    """

    title: str
    window: Window = NONE
    sigma: float = 0.0
    filled: bool = False
    masked: bool = False
    bicubic: bool = False

    @property
    def scale(self) -> int:
        """What is asked for."""
        return 1 if self.filled else SCALE

    @property
    def anchor(self) -> Anchor:
        """What the given grid has in common with that of the truth."""
        return "corner" if self.bicubic else "center"


CASES = {
    "bicubic": Case("bicubic", bicubic=True),
    "truncation": Case("truncation"),
    "hamming-1": Case("Hamming 0.46, 1 %", Window("hamming", 0.46), 0.01),
    "tukey-2": Case("Tukey 0.4, 2 %", Window("tukey", 0.4), 0.02),
    "fermi-1": Case("Fermi 0.9 0.06, 1 %", Window("fermi", 0.9, 0.06), 0.01),
    "filled-tukey-2": Case("Tukey 0.4, 2 %, filled, ×1", Window("tukey", 0.4), 0.02, filled=True),
    "noise-1": Case("noise 1 %", sigma=0.01),
    "noise-2": Case("noise 2 %", sigma=0.02),
    "noise-3": Case("noise 3 %", sigma=0.03),
    "noise-5": Case("noise 5 %", sigma=0.05),
    "masked-1": Case("masked, 1 %", sigma=0.01, masked=True),
}


def sources(lists: Sequence[Path], split: str) -> list[Source]:
    """The scans of a split, of all lists."""
    found = [s for one in lists for s in find(one) if s.split == split]
    if not found:
        raise BadInput(f"{', '.join(map(str, lists))}: no scan of the split {split}")
    return found


def central(stack: Float[ndarray, "n h w"], slices: int) -> Float[ndarray, "m h w"]:
    """The central slices of a stack; all for 0."""
    first = max(0, (len(stack) - slices) // 2) if slices else 0
    return stack[first : first + slices] if slices else stack


def truth(source: Source, slices: int, stored: bool = False) -> Float[ndarray, "n h w"]:
    """A scan's central slices, their 99.9th percentile 1, on the k-space that was measured, or as stored."""
    stack, _, _ = high_resolution(read_source(source), PrepareOptions(fourier_crop=not stored), None)
    return central(stack / np.float32(np.percentile(stack, 99.9)), slices).astype(np.float32)


def head(x: Float[ndarray, "n h w"], depth: float = DEPTH) -> Bool[ndarray, "n h w"]:
    """The head in each slice, but for its outermost part, so deep: an edge that no scanner made."""
    made = np.zeros(x.shape, bool)
    for mask, one in zip(made, x, strict=True):
        labels, count = ndimage.label(ndimage.uniform_filter(one, 5) > HEAD)
        if count:
            largest = np.bincount(labels.ravel())[1:].argmax() + 1
            part = np.pad(ndimage.binary_fill_holes(labels == largest), 1)
            mask[...] = ndimage.distance_transform_edt(part)[1:-1, 1:-1] > depth * min(one.shape)
    return made


def acquired(x: Float[ndarray, "n h w"], case: Case) -> tuple[ndarray, ndarray]:
    """The truth of a case, and the image that is given."""
    h, w = x.shape[1] // SCALE, x.shape[2] // SCALE
    if case.bicubic:
        return x, Bicubic((SCALE, SCALE))(x)
    mask = head(x) if case.masked else np.ones(x.shape, bool)
    x = x * mask
    given = (x.shape[1], x.shape[2]) if case.filled else (h, w)
    s = Acquisition((h, w), case.window, given)(x, case.sigma, np.random.default_rng(0))
    return x, (s * nearest(mask, given)).astype(np.float32)


def moved(image: Float[ndarray, "*n h w"], by: float) -> Float[ndarray, "*n h w"]:
    """Slices sampled ``by`` pixels further along rows and columns, exactly.

    They are mirrored about their outer edges, so that what leaves at one side does not come in at the other.

    >>> moved(np.full((2, 4, 4), 3.0), 0.5).round(6).mean().item()
    3.0
    """
    if by == 0:
        return image
    for axis in (-2, -1):
        n = image.shape[axis]
        doubled = np.concatenate([image, np.flip(image, axis)], axis)
        ramp = np.exp(2j * np.pi * fft.rfftfreq(2 * n) * by)
        lines = fft.rfft(np.moveaxis(doubled, axis, -1).astype(np.float64)) * ramp
        image = np.moveaxis(fft.irfft(lines, 2 * n)[..., :n], -1, axis)
    return image


def aligned(
    made: Float[ndarray, "n h w"], anchor: Anchor, given: Anchor, scale: int
) -> Float[ndarray, "n h w"]:
    """A result about the voxel centres of the truth.

    Args:
        made: ``scale`` times as fine as the image it is made of.
        anchor: what its grid has in common with that of this image.
        given: what the grid of this image has in common with that of the truth.
        scale: of the result.
    """
    return moved(made, ((anchor == "corner") - (given == "corner")) * (scale - 1) / 2)


def psnr(x: Float[ndarray, "n h w"], made: Float[ndarray, "n h w"]) -> float:
    """Of slices together, against a peak of 1."""
    error = float(((np.maximum(made, 0) - np.maximum(x, 0)) ** 2).mean(dtype=np.float64))
    return -10 * float(np.log10(max(error, 1e-30)))
