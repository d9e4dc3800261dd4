"""Whether a result keeps what it promises: checks of a scan before and after, each PASS, WARN or FAIL.

What cannot be known, because no record says how the one was made from the other, is "not known", never PASS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, resample, scratch
from seran.acquisition import Acquisition, Window
from seran.degrade import DEGRADATIONS
from seran.quality.measures import LARGE, SMALL, Measures, measures
from seran.sharpen import Normalisation
from seran.volume import Volume

Verdict = Literal["PASS", "not known", "WARN", "FAIL"]  # from the best to the worst
Answer = tuple[Verdict, str]  # a verdict, and the numbers behind it
EXACT = 1e-4  # mm by which a corner of the field of view may move: float32 affines are not finer than that
# On public scans at x2 shipped networks leave below 0.3 %, bicubic up to 0.95 %; 3 % is a poor scan's noise.
RESIDUAL_WARN, RESIDUAL_FAIL = 0.01, 0.03  # RMS of the degraded result less the input, in the input's range
RANGE_WARN, RANGE_FAIL = 0.15, 0.5  # how much the 99.9th percentile over the offset may grow or shrink
# On public scans bicubic leaves 0.85 to 0.97 of the noise in tissue, weights for bicubic images up to 1.5.
NOISE_WARN, NOISE_FAIL = 0.05, 0.25  # by how much the noise of tissue or air may grow
OVERSHOOT_WARN, OVERSHOOT_FAIL = 0.012, 0.02  # share of pixels that leave their neighbourhood by 2 %
RIM_WARN, RIM_FAIL = 0.002, 0.02  # share of pixels beside a constant background that leave it by 10 %
MOST_WARN, MOST_FAIL = 0.6, 1.0  # of the range, by which the worst pixel may leave its neighbourhood
NOISIEST = 0.06  # of the range: native weights were not trained for more
FULL = 0.9  # of k-space: what weights that are not native may miss unseen
FINEST = 4.2  # times finer than what was measured: no network is trained for more


@dataclass(frozen=True)
class Check:
    """A question and its `Answer`."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Acquired:
    """What is known of a scan's acquisition."""

    fraction: tuple[float, ...]  # of k-space along rows and columns
    window: Window
    noise: float | None  # standard deviation as a part of the range
    background: float | None  # the value of a constant one
    undone: bool  # by native weights, and not merely known
    sharpened: bool  # the scan was a result of seran's


@dataclass(frozen=True)
class Provenance:
    """How a result came from its scan."""

    factors: tuple[int, int]  # of the network, along rows and columns
    axis: int  # along which the slices are stacked
    degradation: str  # that the result is to undo
    resampled: bool  # it was put on another grid than the network's
    weights: bool  # weights made it; else a classical method did
    acquired: Acquired

    def enlarged(self, scan: grid.Grid) -> grid.Grid:
        """The network's grid."""
        anchor = DEGRADATIONS[self.degradation].anchor
        return grid.Plan(scan, self.axis, self.factors, anchor).enlarged


def all_of(before: Volume, after: Volume, made: Provenance | None) -> list[Check]:
    """Every check.

    Args:
        before: the scan.
        after: what became of it, or any other one.
        made: how, if that is known.
    """
    return [
        Check("geometry", *_geometry(before, after, made)),
        Check("intensities", *_intensities(before, after, made)),
        Check("residual", *_residual(before, after, made)),
        *_against_slices(before, after, made),
        Check("signal", *_signal(made)),
        Check("resolution", *_resolution(before, after, made)),
    ]


def worst(checks: Sequence[Check]) -> Check:
    """The first of those with the worst verdict."""
    return max(checks, key=lambda check: get_args(Verdict).index(check.verdict))


def apart(a: Float[ndarray, "8 3"], b: Float[ndarray, "8 3"]) -> float:
    """Largest distance in mm from a corner of one box to the nearest corner of the other."""
    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    return float(max(between.min(0).max(), between.min(1).max()))


def limits(volume: Volume) -> tuple[float, float]:
    """Least and greatest intensity, part by part."""
    low, high = np.inf, -np.inf
    for at in scratch.blocks(volume.data):
        low, high = min(low, float(volume.data[at].min())), max(high, float(volume.data[at].max()))
        scratch.release(volume.data)
    return low, high


def _geometry(before: Volume, after: Volume, made: Provenance | None) -> Answer:
    """Whether the field of view stays."""
    old, new = (grid.corners(v.data.shape, v.affine) for v in (before, after))
    if made is not None and not made.resampled:
        due = made.enlarged(before.grid)
        if due.shape != after.data.shape:
            return _unlike(due, after)
        off = float(np.linalg.norm(grid.corners(due.shape, due.affine) - new, axis=1).max())
        places = {"corner": "the input's field of view", "center": "the centre of the input's first voxel"}
        place = places[DEGRADATIONS[made.degradation].anchor]
        text = f"corners within {off:.2g} mm of where {place} puts them (at most {EXACT:g})"
        return "PASS" if off <= EXACT else "FAIL", text
    off = apart(old, new)
    text = f"corners of the field of view up to {off:.2g} mm apart"
    if off <= EXACT:
        return "PASS", f"the same field of view: corners within {off:.2g} mm"
    if (shared := grid.covered(before.grid, after.grid)) == 0:
        return "FAIL", f"{text}; the two do not overlap at all"
    if made is not None and off <= grid.spacing(before.affine).max():
        return "PASS", f"{text}: less than a voxel, as another grid was asked for"
    return "WARN", f"{text}; they share {shared:.0%} of the first one's"


def _intensities(before: Volume, after: Volume, made: Provenance | None) -> Answer:
    """Whether there are negative values where none were, and whether the range stays."""
    broken: Verdict = "FAIL" if made is not None else "WARN"  # two scans of anything promise nothing
    low, high = limits(after)
    if limits(before)[0] >= 0 > low:
        return broken, f"down to {low:.4g}, and the scan before has no negative voxel"
    old, new = (Normalisation.of(v.data) for v in (before, after))
    if old.gain == 0:
        return "WARN", "the scan before is one value throughout"
    ratio = new.gain / old.gain
    verdict = _graded(max(ratio, 1 / ratio) - 1 if ratio > 0 else np.inf, RANGE_WARN, RANGE_FAIL)
    text = f"99.9th percentile {ratio:.3f} times what it was ({old.gain + old.offset:.4g})"
    return broken if verdict == "FAIL" else verdict, f"{text}; all of it within {low:.4g} and {high:.4g}"


def _residual(before: Volume, after: Volume, made: Provenance | None) -> Answer:
    """Whether the result, degraded as its method declares, is the input again."""
    if made is None:
        return "not known", "no record says what the second scan is to be degraded by"
    low, high = limits(before)
    if high == low:
        return "WARN", "the scan before is one value throughout"
    if made.resampled:
        rms, part = _resampled(before, after)
        if part < 0.5:
            return "not known", f"the result covers {part:.0%} of the input"
        how = f"antialiased cubic onto the input's grid ({part:.0%} of it)"
    else:
        due = made.enlarged(before.grid)
        if due.shape != after.data.shape:
            return _unlike(due, after)
        times = grid.dimensions(dict.fromkeys(made.factors))
        how = (
            "acquired as the scan was" if made.acquired.undone else f"degraded by {made.degradation} x{times}"
        )
        rms = _degraded(before, after, made)
    rms /= high - low
    if made.acquired.undone and made.acquired.noise is not None:  # which is taken away
        gain = Normalisation.of(before.data).gain
        rms = np.sqrt(max(0.0, rms**2 - (made.acquired.noise * gain / (high - low)) ** 2))
        how += " and beyond its noise"
    bounds = f"WARN from {RESIDUAL_WARN:.0%}, FAIL from {RESIDUAL_FAIL:.0%}"
    text = f"the result, {how}, is off the input by {rms:.2%} of its range (RMS; {bounds})"
    return _graded(rms, RESIDUAL_WARN, RESIDUAL_FAIL), text


def _degraded(before: Volume, after: Volume, made: Provenance) -> float:
    coarse, fine = (np.moveaxis(v.data, made.axis, 0) for v in (before, after))
    degrade: Callable[[ndarray], ndarray] = DEGRADATIONS[made.degradation](made.factors)
    if made.acquired.undone:
        h, w = coarse.shape[1:]
        block = round(made.acquired.fraction[0] * h), round(made.acquired.fraction[1] * w)
        degrade = Acquisition(block, made.acquired.window, (h, w))
    total = 0.0
    for low, high in zip(coarse, fine, strict=True):
        total += float(np.square(degrade(np.ascontiguousarray(high)) - low, dtype=np.float64).sum())
        scratch.release(after.data)
    return float(np.sqrt(total / before.data.size))


def _resampled(before: Volume, after: Volume) -> tuple[float, float]:
    """RMS where the result covers the input, and how much of it that is."""
    covers = after.on(np.ones(after.data.shape, np.float32), after.affine)
    there = resample.onto(covers, before.grid).data > 0.999
    back = resample.onto(after, before.grid).data
    error = np.square(back - before.data, where=there, out=np.zeros(there.shape), dtype=np.float64)
    return float(np.sqrt(error.sum() / max(1, there.sum()))), float(there.mean())


def _against_slices(before: Volume, after: Volume, made: Provenance | None) -> list[Check]:
    """Whether noise grows, and whether pixels leave what the scan shows around them."""
    names = "noise", "overshoot"
    if made is None:
        return [Check(name, "not known", "no record says how the second scan was made") for name in names]
    gain = Normalisation.of(before.data).gain
    if made.resampled or gain == 0 or made.enlarged(before.grid).shape != after.data.shape:
        why = "one value throughout" if gain == 0 else "the result is not on a grid of whole factors"
        return [Check(name, "not known", why) for name in names]
    coarse, fine = (np.moveaxis(v.data, made.axis, 0) for v in (before, after))
    anchor = DEGRADATIONS[made.degradation].anchor
    found = measures(coarse, fine, gain, anchor, made.acquired.background)
    return [Check("noise", *_noise(found)), Check("overshoot", *_overshoot(found))]


def _noise(found: Measures) -> Answer:
    ratios = {"tissue": found.tissue, "air": found.air}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if not known:
        return "not known", "no flat tissue and no air to measure it on"
    text = " and ".join(f"{ratio:.2f} times the scan's in {name}" for name, ratio in known.items())
    limits = f"WARN from {1 + NOISE_WARN:.2f}, FAIL from {1 + NOISE_FAIL:.2f}"
    return _graded(max(known.values()) - 1, NOISE_WARN, NOISE_FAIL), f"{text} ({limits})"


def _overshoot(found: Measures) -> Answer:
    parts = [(found.overshoot, OVERSHOOT_WARN, OVERSHOOT_FAIL), (found.most, MOST_WARN, MOST_FAIL)]
    text = (
        f"{found.overshoot:.2%} of pixels leave the 3x3 pixels around them by over {SMALL:.0%} of the range"
    )
    text += f", at most by {found.most:.0%}"
    if found.rim is not None:
        parts.append((found.rim, RIM_WARN, RIM_FAIL))
        text += f"; by over {LARGE:.0%} beside the constant background {found.rim:.2%}"
    return max((_graded(*part) for part in parts), key=get_args(Verdict).index), text


def _signal(made: Provenance | None) -> Answer:
    """Whether the scan has signal enough for a gain."""
    if made is not None and made.acquired.sharpened:
        return "WARN", "the scan is a result of seran's already, by the record beside it"
    if made is not None and not made.weights:
        return "PASS", "no weights: nothing is estimated from the signal"
    if made is None or made.acquired.noise is None:
        return "not known", "the noise of the scan is not known"
    text = f"noise of {made.acquired.noise:.1%} of the scan's range"
    if made.acquired.noise >= NOISIEST:
        return "WARN", f"{text}: no gain in detail to expect beyond {NOISIEST:.0%}"
    return "PASS", text


def _resolution(before: Volume, after: Volume, made: Provenance | None) -> Answer:
    """What the result claims against what was acquired."""
    if made is None:
        return "not known", "no record says what of the second scan was measured"
    sizes = np.delete(grid.spacing(before.affine), made.axis) / made.acquired.fraction
    new = np.delete(grid.spacing(after.affine), made.axis)
    finer = float((sizes / new).max())
    text = (
        f"measured {grid.dimensions(sizes, '.3g', ' x ')} mm, shown {grid.dimensions(new, '.3g', ' x ')} mm"
    )
    if not made.weights:
        return "PASS", f"{text}: no weights, no claim"
    if not made.acquired.undone and min(made.acquired.fraction) < FULL:
        return "WARN", f"{text}: these weights take all of k-space as measured; see --acquisition"
    if finer > FINEST:
        return "WARN", f"{text}: {finer:.1f} times finer, and networks are trained up to 4"
    return "PASS", text


def _graded(value: float, warn: float, fail: float) -> Verdict:
    return "FAIL" if not value < fail else "WARN" if value >= warn else "PASS"


def _unlike(due: grid.Grid, found: Volume) -> Answer:
    expected, got = (grid.dimensions(shape, by=" x ") for shape in (due.shape, found.data.shape))
    return "FAIL", f"expected {expected} voxels, got {got} voxels"
