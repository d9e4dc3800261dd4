"""Whether a scan looks like those that weights were trained on: numbers of its slices against theirs.

One is unusual where something is wrong that no other check sees: images that were made finer, filtered or
packed before; stripes; ghosts; a head that is folded over; slices in disorder or lost; other intensities than
a scanner gives. What is usual is what the training and validation scans have, and a part of that range more
at either end: ``python paper/familiar.py MANIFEST.csv NATIVE.csv``.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage

from seran import kspace
from seran.sharpen import offset_of
from seran.volume import Volume

SLICES = 12  # central ones, that are looked at
FEWEST = 4  # slices that can be compared with each other
TISSUE = 0.15  # part of the range above which there is tissue
AIR, AROUND = 0.2, 7  # part of the range that means of 3x3 pixels do not reach in so many pixels a side: air
LEAST = 0.01  # part of the pixels that must be air for ghosts to be looked for in it
FAST = 0.1  # cycles per pixel, from which anatomy is not periodic
USUAL: dict[str, tuple[float, float]] = {
    "edge": (7.37, 14.88),
    "middle": (10.2, 16.64),
    "spike": (3.736, 10.71),
    "tissue": (0.1746, 0.6852),
    "median": (0.2613, 0.6921),
    "dark": (0.1704, 0.3607),
    "top": (5.651e-07, 0.1451),
    "period": (2.099, 7.414),
    "ghost": (0.0, 0.6852),
    "seam": (0.0, 0.119),
    "near": (0.006871, 0.199),
    "lone": (0.0003065, 0.1372),
    "alike": (0.7665, 0.9943),
    "odd": (0.0004586, 0.04156),
}
"""Least and greatest of the training and validation scans, see `numbers`."""
MORE = 0.2  # part of a range, by which a scan may leave it
WORDS = {
    "edge": "power falls by {:.0f} dB from the middle to the edge of k-space",
    "middle": "power falls by {:.0f} dB from the centre to the middle of k-space",
    "spike": "a sample of k-space is {:.0f} dB above those around it",
    "tissue": "{:.0%} of the pixels are tissue",
    "median": "half of the tissue is above {:.0%} of the range",
    "dark": "the darkest tenth of the tissue is below {:.0%} of the range",
    "top": "{:.0%} of the pixels have the greatest value",
    "period": "curvature has a period along rows or columns {:.0f} times as strong as others",
    "ghost": "air correlates by {:.2f} with what lies half a field of view away",
    "seam": "opposite edges of the slices share a pattern of {:.0%} of the range",
    "near": "neighbouring slices are more alike than those two apart by {:.3f}",
    "lone": "a slice is less like its neighbour than others by {:.2f}",
    "alike": "neighbouring slices correlate by {:.3f}",
    "odd": "every other slice differs in brightness by {:.0%}",
}
ASKED = {
    "edge": "fall of the spectrum to its edge",
    "middle": "and to its middle",
    "spike": "spikes in k-space",
    "tissue": "share of tissue",
    "median": "its median",
    "dark": "its darkest part",
    "top": "saturation",
    "period": "periods of interpolation and JPEG",
    "ghost": "ghosts",
    "seam": "folding",
    "near": "likeness of neighbouring slices",
    "lone": "of the least alike",
    "alike": "their correlation",
    "odd": "brightness of every other slice",
}
"""What these numbers are about."""
WIDEST, NARROWEST = 700.0, 40.0
"""Of fields of view in the plane of the slices, in mm: from a whole body to a finger or an eye."""


def central(stack: Float[ndarray, "n h w"]) -> Float[ndarray, "m h w"]:
    """The slices that are looked at."""
    return stack[max(0, (len(stack) - SLICES) // 2) :][:SLICES]


def numbers(volume: Volume, axis: int, fraction: Sequence[float]) -> dict[str, float]:
    """What is looked at, by its name in `WORDS`; empty for a scan of one value.

    Args:
        volume: the scan.
        axis: along which its slices are stacked.
        fraction: part of k-space that was measured, along rows and columns.
    """
    stack = central(np.moveaxis(volume.data, axis, 0)).astype(np.float64)
    low, high = np.quantile(stack, (0.001, 0.999)).tolist()
    offset = offset_of(low, high)
    if not high > offset:
        return {}
    x = (stack - offset) / (high - offset)
    tissue = x[x > TISSUE]
    found = {
        **_spectral(x.astype(np.float32), fraction),
        "tissue": tissue.size / x.size,
        "median": float(np.median(tissue)) if tissue.size else 0.0,
        "dark": float(np.quantile(tissue, 0.1)) if tissue.size else 0.0,
        "top": float((x > 0.99 * x.max()).mean()),
        "period": max(_period(x, 1), _period(x, 2)),
        "ghost": _ghost(x),
        "seam": max(_seam(x, 1), _seam(x, 2)),
    }
    return found | (_between(x) if len(x) >= FEWEST else {})


def _spectral(x: Float[ndarray, "n h w"], fraction: Sequence[float]) -> dict[str, float]:
    """Of the mean power of the slices, in a Hann window; 1 is the edge of what was measured."""
    x = kspace.strong(x)
    h, w = x.shape[1:]
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
    power = np.square(np.abs(kspace.spectrum((x - x.mean()) * window.astype(np.float32)))).mean(0)
    rows, columns = (
        np.abs(np.arange(n) - n // 2) / (n / 2) / f for n, f in zip((h, w), fraction, strict=True)
    )
    radius = np.hypot(rows[:, None], columns)
    decibel = 10 * np.log10(power + np.finfo(np.float32).tiny)

    def level(least: float, most: float) -> float:
        ring = power[(radius >= least) & (radius < most)]
        return float(10 * np.log10(ring.mean(dtype=np.float64) + 1e-30)) if ring.size else 0.0

    above = (decibel - ndimage.median_filter(decibel, 7))[(radius > 0.15) & (radius < 1)]
    centre, middle, edge = level(0.1, 0.2), level(0.35, 0.5), level(0.8, 0.95)
    return {
        "edge": middle - edge,
        "middle": centre - middle,
        "spike": float(above.max(initial=0.0)),
    }


def _period(x: Float[ndarray, "n h w"], axis: int) -> float:
    """The strongest period of second differences, as a multiple of the median one.

    Interpolation is smoother far from given pixels than near them (Gallagher, Detection of linear and cubic
    interpolation in JPEG compressed images, CRV 2005); JPEG has edges at every eighth pixel.
    """
    curved = np.abs(np.diff(x, 2, axis=axis)).mean(tuple({0, 1, 2} - {axis}))
    if not curved.any():
        return 0.0
    curved /= np.maximum(ndimage.median_filter(curved, 7), 0.1 * curved.mean())  # without what anatomy is
    found = np.abs(np.fft.rfft(curved - curved.mean()))[np.fft.rfftfreq(len(curved)) > FAST]
    return float(found.max() / max(np.median(found), 1e-3 * found.max())) if found.any() else 0.0


def _ghost(x: Float[ndarray, "n h w"]) -> float:
    """How alike air and what lies half a field of view away are: N/2 ghosts, of lines off by turns."""
    air = ndimage.maximum_filter(ndimage.uniform_filter(x, (0, 3, 3)), (1, AROUND, AROUND)) < AIR
    if air.mean() < LEAST or not np.ptp(x[air]):
        return 0.0
    found = [np.roll(x, x.shape[axis] // 2, axis)[air] for axis in (1, 2)]
    return max([0.0, *(float(np.corrcoef(x[air], other)[0, 1]) for other in found if np.ptp(other))])


def _seam(x: Float[ndarray, "n h w"], axis: int) -> float:
    """Square root of the covariance of opposite edges: what is folded over runs on at the other side."""
    first, last = (np.take(x, i, axis) - np.take(x, i, axis).mean(1, keepdims=True) for i in (0, -1))
    return float(np.sqrt(max(0.0, (first * last).mean())))


def _between(x: Float[ndarray, "n h w"]) -> dict[str, float]:
    """How slices are alike."""
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(float).tiny)
    one, two = ((flat[d:] * flat[:-d]).sum(1) for d in (1, 2))
    mean = x.mean((1, 2))
    odd = np.abs(mean[1:-1] - (mean[:-2] + mean[2:]) / 2) / max(mean.mean(), np.finfo(float).tiny)
    return {
        "near": float(one.mean() - two.mean()),
        "lone": float(np.median(one) - one.min()),
        "alike": float(np.median(one)),
        "odd": float(np.median(odd)),
    }


def unusual(found: dict[str, float], view: Sequence[float]) -> list[str]:
    """What is not as in training scans, each in words with what is usual.

    Args:
        found: see `numbers`.
        view: field of view in the plane of the slices, in mm.
    """
    said = []
    for name, value in found.items():
        least, most = USUAL[name]
        more = MORE * (most - least)
        if not max(least - more, 0.0) <= value <= most + more:
            ends = " to ".join(_number(WORDS[name], end) for end in (least, most))
            said.append(f"{WORDS[name].format(value)} (usual: {ends})")
    for mm in view:
        if not NARROWEST <= mm <= WIDEST:
            said.append(f"a field of view of {mm:.3g} mm (usual: {NARROWEST:g} to {WIDEST:g})")
    return said


def _number(words: str, value: float) -> str:
    """A value, as it stands in the words."""
    return words[words.index("{") : words.index("}") + 1].format(value)
