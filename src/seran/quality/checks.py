"""Whether a result keeps what it promises: checks of a scan before and after, each PASS, WARN or FAIL.

What cannot be known, because no record says how the one was made from the other, is "not known", never PASS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import consistency, grid, scratch
from seran.degrade import DEGRADATIONS
from seran.quality.familiar import ASKED, central, numbers, unusual
from seran.quality.measures import LARGE, NOISIEST, SMALL, Measures, measures
from seran.quality.provenance import (
    Off,
    Provenance,
    in_plane,
    placed,
    plane,
    selected,
    shared,
    side_by_side,
    thin,
)
from seran.scratch import Allocator, memory
from seran.sharpen import offset_of
from seran.uncertainty import added
from seran.volume import Volume

Verdict = Literal["PASS", "not known", "WARN", "FAIL"]  # from the best to the worst
RANK = get_args(Verdict).index
ALIKE = "the scan before is one value throughout"
Answer = tuple[Verdict, str] | tuple[Verdict, str, float]
"""A verdict, the numbers behind it in words, and the first of these."""
EXACT = 1e-4  # mm by which a corner of the field of view may move: float32 affines are not finer than that
# On public scans at x2 shipped networks leave below 0.3 %, bicubic up to 0.95 %; 3 % is a poor scan's noise.
RESIDUAL_WARN, RESIDUAL_FAIL = 0.01, 0.03  # RMS of the degraded result less the input, in the input's range
EXTREME, SEEN = 0.001, 1 << 20  # the percentiles that bound a range, of about so many voxels evenly apart
RANGE_WARN, RANGE_FAIL = 0.15, 0.5  # of the range, by which either end may move
# On public scans bicubic leaves 0.85 to 0.97 of the noise in tissue, weights for bicubic images up to 1.5.
NOISE_WARN, NOISE_FAIL = 0.05, 0.25  # by how much the noise of tissue or air may grow
THIN = 0.2  # by how much more where slices became thin: they show what thick ones average
# On public scans, simulated at half their resolution too, native weights reach 1.9; those for bicubic images
# 2 to 5, where a scan is sharp or noisy.
OVERSHOOT_WARN, OVERSHOOT_FAIL = 2, 3  # times as many pixels as in zero-filling leave what is around by 2 %
FEW = 0.0025  # share of pixels, too small to compare, that is added to zero-filling's
HEIGHT_WARN, HEIGHT_FAIL = 0.08, 0.3  # part of the height that local maxima may lose
CHI_WARN, CHI_FAIL, BLOCK = 1.5, 4.0, 8
LOCAL = 2.0  # times that, in these alone: beyond a true end of k-space a scan has up to 3 times the noise
"""Times the noise's power that a residual has in so many slices in a row; 1 where all of it is noise."""
RIM_WARN, RIM_FAIL = 0.002, 0.02  # share of pixels beside a constant background that leave it by 10 %
MOST_WARN, MOST_FAIL = 0.6, 1.0  # of the range, by which the worst pixel may leave its neighbourhood
# Of what `paper/errors.py` draws of training scans; what is smooth has less.
LEAST_ADDED, MOST_ADDED, ADDED_WARN = -15, -4, -1.5  # dB, see `seran.uncertainty.added`
ADDING = 1.1  # times as fine as what was measured
WIDER = 0.2  # part of the greatest half-width of the calibration, by which one may be beyond
FULL = 0.9  # of k-space: what weights that are not native may miss unseen
TRAINED = (0.59, 1.21)  # of slices' distance: their thickness, as the network across them knows it
THINNER = 1.2  # times finer across slices, by interpolation
FINEST = 4.2  # times finer than what was measured: no network is trained for more


@dataclass(frozen=True)
class Check:
    """A question and its `Answer`."""

    name: str
    verdict: Verdict
    text: str
    value: float | None = None  # the number that the verdict is about, where it is one


@dataclass(frozen=True)
class Residual:
    """Of a result, made what the scan is, less the scan."""

    rms: float  # as a part of the scan's whole range
    noise: float  # the same of the noise that the result is without
    chi2: float | None  # power per voxel, as a multiple of the noise's; None where that is not known
    worst: float | None  # the same of those `BLOCK` slices in a row that have most


@dataclass(frozen=True)
class Range:
    """Of intensities."""

    least: float
    low: float  # the 0.1st percentile
    high: float  # the 99.9th
    most: float

    @property
    def bounds(self) -> tuple[float, float]:
        """The percentiles; of a volume that hardly differs from one value the least and the greatest one."""
        return (self.low, self.high) if self.high > self.low else (self.least, self.most)

    @property
    def width(self) -> float:
        """Between the bounds; 0 where all voxels are alike."""
        return self.bounds[1] - self.bounds[0]


def all_of(
    before: Volume, after: Volume, made: Provenance | None, allocate: Allocator = memory
) -> list[Check]:
    """Every check.

    Args:
        before: the scan.
        after: what became of it, or any other one.
        made: how, if that is known.
        allocate: makes the arrays that are as large as the result.
    """
    with np.errstate(all="ignore"):  # intensities may be huge or tiny: what is no number then is a FAIL
        return _all_of(before, after, made, allocate)


def _all_of(before: Volume, after: Volume, made: Provenance | None, allocate: Allocator) -> list[Check]:
    old, new = _range(before), _range(after)
    found, left = _measured(before, after, made, old), _left(before, after, made, old, allocate)
    return [
        Check("geometry", *_geometry(before, after, made)),
        Check("intensities", *_intensities(old, new, made)),
        Check("residual", *_residual(before, after, made, left, found)),
        Check("consistency", *_consistency(made, left)),
        Check("noise", *_noise(made, found)),
        Check("overshoot", *_overshoot(found)),
        Check("signal", *_signal(made)),
        Check("familiar", *_familiar(before, made)),
        Check("added", *_added(before, after, made)),
        *([Check("uncertainty", *_uncertainty(made.off))] if made and made.off else []),
        Check("resolution", *_resolution(before, after, made)),
    ]


def worst(checks: Sequence[Check]) -> Check:
    """The first of those with the worst verdict."""
    return max(checks, key=lambda check: RANK(check.verdict))


def apart(a: Float[ndarray, "8 3"], b: Float[ndarray, "8 3"]) -> float:
    """Largest distance in mm from a corner of one box to the nearest corner of the other."""
    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    return float(max(between.min(0).max(), between.min(1).max()))


def _range(volume: Volume) -> Range:
    """That of a volume, part by part; the percentiles are of about `SEEN` voxels."""
    step = -(-volume.data.size // SEEN)
    least, most, seen = np.inf, -np.inf, []
    for part in scratch.parts(volume.data):
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        seen.append(part.ravel()[::step].copy())  # else all of it is held
    low, high = np.quantile(np.concatenate(seen).astype(np.float64), (EXTREME, 1 - EXTREME)).tolist()
    return Range(least, low, high, most)


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
        return "PASS" if off <= EXACT else "FAIL", text, off
    off = apart(old, new)
    text = f"corners of the field of view up to {off:.2g} mm apart"
    if off <= EXACT:
        return "PASS", f"the same field of view: corners within {off:.2g} mm", off
    if (shared := grid.covered(before.grid, after.grid)) == 0:
        return "FAIL", f"{text}; the two do not overlap at all", off
    if made is not None and off <= grid.spacing(before.affine).max():
        return "PASS", f"{text}: less than a voxel, as another grid was asked for", off
    part = f"{shared:.0%}" if shared >= 0.01 else "less than 1%"
    return "WARN", f"{text}; the second covers {part} of the first", off


def _intensities(old: Range, new: Range, made: Provenance | None) -> Answer:
    """Whether there are negative values where none were, and whether the range stays."""
    broken: Verdict = "FAIL" if made is not None else "WARN"  # two scans of anything promise nothing
    if old.least >= 0 > new.least:
        return broken, f"down to {new.least:.5g}, and the scan before has no negative voxel"
    if old.width == 0:
        return "WARN", ALIKE
    moved = max(abs(new.low - old.low), abs(new.high - old.high)) / old.width
    verdict = _graded(moved, RANGE_WARN, RANGE_FAIL)
    now, then, whole = (
        f"between {a:.5g} and {b:.5g}"
        for a, b in ((new.low, new.high), (old.low, old.high), (new.least, new.most))
    )
    text = f"99.8% of the voxels lie {now}, before {then}; all {whole}"
    for stops, end, beyond in (
        (old.low == old.least, old.least, old.least - new.least),
        (old.high == old.most, old.most, new.most - old.most),
    ):  # what one voxel of a thousand has is where the scan was cut off, or its background
        if stops and beyond >= LARGE * old.width:
            verdict = max(verdict, "WARN", key=RANK)
            text += f"; the scan stops at {end:.5g}, the result {beyond / old.width:.0%} of the range beyond"
    return broken if verdict == "FAIL" else verdict, text, moved


def _left(
    before: Volume, after: Volume, made: Provenance | None, old: Range, allocate: Allocator
) -> Residual | Answer:
    """What is left of the scan in the result, degraded as its method declares; or why it is not known.

    The magnitude of noise, in the air of a scan, has twice its power. What has the value of a constant
    background is exact.
    """
    if made is None:
        return "not known", "no record says what the second scan is to be degraded by"
    if old.width == 0:
        return "WARN", ALIKE
    if made.resampled:
        part = grid.covered(before.grid, after.grid)
        if part < 0.5:
            return "not known", f"the result covers {part:.0%} of the input"
    elif (due := made.enlarged(before.grid)).shape != after.data.shape:
        return _unlike(due, after)
    before, made = in_plane(before, after, made, allocate)
    hidden = np.float32(np.nan if made.acquired.background is None else made.acquired.background)
    magnitude, without = old.least >= 0, made.acquired.undone or made.across is not None
    sd = _sigma(made, old) * float(np.sqrt(made.acquired.window.passed if without else 1))
    if made.resampled:  # a coarser plane averages it
        sd *= np.sqrt(np.delete(shared(before.grid, after.grid) / before.data.shape, made.axis).prod())
    sums = []
    for again, given in side_by_side(before, after, made, magnitude, allocate):
        there = consistency.compared(given, made.acquired.background)
        error = np.square(again - given, dtype=np.float64)
        noise = consistency.power(again, sd, magnitude)
        parts = error, error[there], noise[given != hidden], noise[there]
        sums.append((*(part.sum(dtype=np.float64) for part in parts), given.size))
    whole, squares, all_noise, noise, count = np.array(sums).T
    rms, low = np.sqrt([whole.sum(), all_noise.sum() * without] / np.maximum(1, count.sum()))
    width = old.most - old.least
    if not noise.sum():
        return Residual(float(rms / width), 0.0, None, None)
    rows = [np.convolve(x, np.ones(min(BLOCK, len(x))), "valid") for x in (squares, noise)]
    worst = (rows[0] / np.maximum(rows[1], noise.sum() / len(noise))).max()  # slices of background have none
    return Residual(float(rms / width), float(low / width), float(squares.sum() / noise.sum()), float(worst))


def _residual(
    before: Volume, after: Volume, made: Provenance | None, left: Residual | Answer, found: Measures | str
) -> Answer:
    """Whether the result, degraded as its method declares, is the input again."""
    if not isinstance(left, Residual):
        return left
    assert made is not None  # else nothing would be known to be left
    if made.across is not None:
        how = f"seen by slices like the scan's ({made.across})"
        if kept := plane(before, after, made):
            pixels = np.delete(grid.spacing(kept.affine), made.axis)
            how += f" of pixels of {grid.dimensions(pixels, '.3g', ' x ')} mm"
    elif made.resampled:
        how = f"antialiased cubic onto the input's grid ({grid.covered(before.grid, after.grid):.0%} of it)"
    else:
        times = grid.dimensions(dict.fromkeys(made.factors))
        how = (
            "acquired as the scan was" if made.acquired.undone else f"degraded by {made.degradation} x{times}"
        )
    rms = left.rms
    if left.noise:
        rms, how = float(np.sqrt(max(0.0, rms**2 - left.noise**2))), f"{how} and beyond its noise"
    bounds = f"WARN from {RESIDUAL_WARN:.0%}, FAIL from {RESIDUAL_FAIL:.0%}"
    text = f"the result, {how}, is off the input by {rms:.2%} of its range (RMS; {bounds})"
    verdict = _graded(rms, RESIDUAL_WARN, RESIDUAL_FAIL)
    if isinstance(found, Measures) and found.height is not None:
        lost = _graded(1 - found.height, HEIGHT_WARN, HEIGHT_FAIL)
        verdict = max(verdict, lost, key=RANK)
        bounds = f"WARN below {1 - HEIGHT_WARN:.0%}, FAIL below {1 - HEIGHT_FAIL:.0%}"
        text += f"; its local maxima have {found.height:.1%} of their height ({bounds})"
    return verdict, text, rms


def _consistency(made: Provenance | None, left: Residual | Answer) -> Answer:
    """Whether the result leaves the scan by no more than its noise."""
    if not isinstance(left, Residual):
        return left
    assert made is not None  # else nothing would be known to be left
    if not made.weights:
        return "PASS", "no weights: nothing is estimated that could leave the scan"
    if made.acquired.noise == 0:
        return "PASS", "no noise is assumed that the residual could be held against"
    if left.chi2 is None or left.worst is None:
        return "not known", "the noise of the scan is not known"
    text = f"the residual has {left.chi2:.2f} times the power of the scan's noise"
    apart = not np.isclose(left.worst, left.chi2)  # with few slices it is the same
    text += f", at most {left.worst:.2f} in {BLOCK} slices in a row" * apart
    if made.resampled and made.across is None:
        return "PASS", f"{text}; with what resampling adds: it was compared before", left.chi2
    several = [f" or, in {BLOCK} slices in a row, {LOCAL * x:g}" * apart for x in (CHI_WARN, CHI_FAIL)]
    bounds = f"WARN from {CHI_WARN:g}{several[0]}; FAIL from {CHI_FAIL:g}{several[1]}"
    verdicts = _graded(left.chi2, CHI_WARN, CHI_FAIL), _graded(left.worst / LOCAL, CHI_WARN, CHI_FAIL)
    return max(verdicts, key=RANK), f"{text} ({bounds})", left.chi2


def _sigma(made: Provenance, old: Range) -> float:
    """Standard deviation of a scan's noise in its units; 0 where it is not known."""
    return (made.acquired.noise or 0.0) * (old.bounds[1] - offset_of(*old.bounds))


def _measured(before: Volume, after: Volume, made: Provenance | None, old: Range) -> Measures | str:
    """What is measured against the slices of the scan; or why it is not known."""
    if made is None:
        return "no record says how the second scan was made"
    if old.width == 0:
        return ALIKE
    if made.across is not None:
        return _measured_across(before, after, made, old)
    if (found := placed(before, after, made)) is None:
        return "the result is not on a grid of whole factors"
    fine, anchor = found
    coarse, known, offset = np.moveaxis(before.data, made.axis, 0), made.acquired, old.bounds[0]
    undone, sigma = made.undone(before.grid), _sigma(made, old)
    return measures(coarse, fine, old.width, anchor, known.background, offset, undone, sigma)


def _measured_across(before: Volume, after: Volume, made: Provenance, old: Range) -> Measures | str:
    """The same of thin slices: noise of those in the middle of thick ones, overshoot of the latter again."""
    assert made.across is not None
    kept = replace(made, across=None, resampled=True)
    again = _measured(before, selected(before, after, made.axis, made.across), kept, old)
    found = _measured(before, thin(before, after, made.axis), kept, old)
    if isinstance(again, str) or isinstance(found, str):
        return found if isinstance(found, str) else str(again)
    return replace(again, tissue=found.tissue, air=found.air, height=None)


def _noise(made: Provenance | None, found: Measures | str) -> Answer:
    """Whether noise grows; beyond what the scanner's filter had taken of it, where that was undone."""
    if isinstance(found, str) or made is None:
        return "not known", str(found)
    ratios = {"tissue": found.tissue, "air": found.air}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if not known:
        return "not known", "no flat tissue and no air to measure it on"
    text = " and ".join(f"{ratio:.2f} times the scan's in {name}" for name, ratio in known.items())
    more = 0.0 if made.across is None else THIN
    fail = (1 + NOISE_FAIL) / (np.sqrt(made.acquired.window.passed) if made.acquired.undone else 1) + more
    limits = f"WARN from {1 + NOISE_WARN + more:.2f}, FAIL from {fail:.2f}"
    most = max(known.values())
    return _graded(most, 1 + NOISE_WARN + more, fail), f"{text} ({limits})", most


def _overshoot(found: Measures | str) -> Answer:
    """Whether pixels leave what the scan shows around them."""
    if isinstance(found, str):
        return "not known", found
    warn, fail = (times * (found.filled + FEW) for times in (OVERSHOOT_WARN, OVERSHOOT_FAIL))
    parts = [(found.overshoot, warn, fail), (found.most, MOST_WARN, MOST_FAIL)]
    bounds = f"zero-filling {found.filled:.2%}; WARN from {warn:.2%}, FAIL from {fail:.2%}"
    text = (
        f"{found.overshoot:.2%} of pixels leave the 3x3 pixels around them by over {SMALL:.0%} of the range"
    )
    text += f" ({bounds}), at most by {found.most:.0%}"
    if found.rim is not None:
        parts.append((found.rim, RIM_WARN, RIM_FAIL))
        text += f"; by over {LARGE:.0%} beside the constant background {found.rim:.2%}"
    return max((_graded(*part) for part in parts), key=RANK), text, found.overshoot


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
        return "WARN", f"{text}: no gain in detail to expect beyond {NOISIEST:.0%}", made.acquired.noise
    return "PASS", text, made.acquired.noise


def _familiar(before: Volume, made: Provenance | None) -> Answer:
    """Whether the scan looks like those that weights are trained on."""
    if made is None:
        return "not known", "no record says whether weights made the second scan"
    if not made.weights:
        return "PASS", "no weights: nothing was learned from other scans"
    if not (found := numbers(before, made.axis, made.acquired.fraction)):
        return "WARN", ALIKE
    view = np.delete(grid.spacing(before.affine) * before.data.shape, made.axis).tolist()
    if strange := unusual(found, view):
        text = f"unlike the scans that the weights were trained on: {'; '.join(strange)}"
        return "WARN", text, len(strange)
    return "PASS", f"as in training scans: {', '.join(ASKED[name] for name in found)}", 0


def _added(before: Volume, after: Volume, made: Provenance | None) -> Answer:
    """Whether weights have put more beyond what was measured than they do on training scans."""
    if made is None:
        return "not known", "no record says what of the second scan was measured"
    if not made.weights:
        return "PASS", "no weights: nothing is added"
    if made.across is not None:
        stack = np.moveaxis(after.data, made.axis, 1)
        times = {1: after.data.shape[made.axis] / before.data.shape[made.axis]}
    elif (found := placed(before, after, made)) is None:
        return "not known", "the result is not on a grid of whole factors"
    else:
        stack, shape = found[0], np.delete(before.data.shape, made.axis)
        sizes = zip(stack.shape[1:], shape, made.acquired.fraction, strict=True)
        times = {axis: fine / coarse / part for axis, (fine, coarse, part) in enumerate(sizes, 1)}
    times = {axis: finer for axis, finer in times.items() if finer >= ADDING}
    if not times:
        return "PASS", "the result holds nothing beyond what was measured"
    part = central(stack)
    if not (most := float(np.abs(part).max())):
        return "not known", "the central slices are empty"
    level = added(part / np.float32(most), times)
    text = f"beyond what was measured the result has {level:.0f} dB of the power just within it"
    text += f" (on training scans {LEAST_ADDED} to {MOST_ADDED}; WARN from {ADDED_WARN})"
    return "WARN" if level >= ADDED_WARN else "PASS", text, level


def _uncertainty(off: Off) -> Answer:
    """Whether the error to expect is as small as on the scans that half-widths were calibrated on."""
    if off.half_width is None:
        return "not known", "no tissue to state half-widths of"
    limit = (1 + WIDER) * off.most
    text = f"9 of 10 tissue voxels are expected to be off by less than {off.half_width:.1%} of the range: "
    text += "a smaller difference between two of them may not be real (mean half-width; at most "
    text += f"{off.most:.1%} on the calibration's scans, WARN from {limit:.1%}); PSNR of tissue "
    text += f"{off.psnr:.1f} dB or more for 9 of 10 subjects like these {off.subjects} "
    text += f"({off.contrast} contrast)"
    return "WARN" if off.half_width >= limit else "PASS", text, off.half_width


def _resolution(before: Volume, after: Volume, made: Provenance | None) -> Answer:
    """What the result claims against what was acquired."""
    if made is None:
        return "not known", "no record says what of the second scan was measured"
    sizes = np.delete(grid.spacing(before.affine), made.axis) / made.acquired.fraction
    new = np.delete(grid.spacing(after.affine), made.axis)
    finer = float((sizes / new).max())
    measured, shown = (grid.dimensions(s, ".3g", " x ") for s in (sizes, new))
    text = f"measured at {measured} mm, shown at {shown} mm"
    a, b = (float(grid.spacing(v.affine)[made.axis]) for v in (before, after))
    if made.across is not None:
        text += f"; slices {a:.3g} mm apart, shown at {b:.3g} mm: what is between them is estimated"
    elif before.data.shape[made.axis] > 1 and made.resampled and a / b > THINNER:
        text += f"; slices {a:.3g} mm apart, shown at {b:.3g} mm by interpolation: they stay as thick"
        return "WARN", text, finer
    if not made.weights:
        return "PASS", f"{text}, by interpolation", finer
    if made.across is not None:
        least, most = TRAINED
        if least <= made.across.thickness <= most:
            return "PASS", text, finer
        part = f"{made.across.thickness:.2g} times as thick as apart"
        return "WARN", f"{text}; slices {part}, and the network knows {least:g} to {most:g}", finer
    if not made.acquired.undone and min(made.acquired.fraction) < FULL:
        return "WARN", f"{text}, by weights that take all of k-space as measured; see --acquisition", finer
    if finer > FINEST:
        return "WARN", f"{text}: {finer:.1f} times as fine, and no network is trained for more than 4", finer
    return "PASS", text, finer


def _graded(value: float, warn: float, fail: float) -> Verdict:
    return "FAIL" if not value < fail else "WARN" if value >= warn else "PASS"


def _unlike(due: grid.Grid, found: Volume) -> Answer:
    expected, got = (grid.dimensions(shape, by=" x ") for shape in (due.shape, found.data.shape))
    return "FAIL", f"expected {expected} voxels, got {got} voxels"
