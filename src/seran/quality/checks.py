"""Whether a result keeps what it promises: four checks of a scan before and after, each PASS, WARN or FAIL.

What cannot be known, because no record says how the one was made from the other, is "not known", never PASS.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, resample, scratch, sharpen, weights
from seran.degrade import DEGRADATIONS
from seran.volume import Volume

Verdict = Literal["PASS", "WARN", "FAIL", "not known"]

EXACT = 1e-4
"""Millimetres by which a corner of the field of view may move: float32 affines are not finer than that."""
RESIDUAL_WARN, RESIDUAL_FAIL = 0.01, 0.03
"""RMS of the degraded result less the input, as a part of the input's range.

On public scans at x2 the shipped networks leave less than 0.3 %, and bicubic enlargement, which blurs, 0.2 to
0.95 %. So 1 % is worse than no network at all; 3 % is the noise of a poor scan, beyond it is another image.
"""
RANGE_WARN, RANGE_FAIL = 0.15, 0.5
"""How much the range of the intensities (99.9th percentile over the offset) may grow or shrink."""
SEEN = weights.SHIPPED / "spacing.csv"
"""The spacings of the truths that weights were trained on, written by `paper/cards.py`."""
ROUNDED = 0.01
"""Part by which a spacing may leave what is stated with two decimals."""


@dataclass(frozen=True)
class Check:
    """One question, its answer, and the numbers behind it."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Made:
    """How a result came from its input, as its record says.

    Attributes:
        scale: of the network.
        axis: along which the slices are stacked.
        degradation: that the result is to undo.
        resampled: it was put on another grid than the network's.
        weights: their digest, empty for a classical method.
    """

    scale: int
    axis: int
    degradation: str
    resampled: bool
    weights: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Made | None":
        """From a record; None if it does not say all of this."""
        try:
            made = cls(
                int(record["Scale"]),
                int(record["SliceAxis"]),
                str(record["Degradation"]),
                bool(record["Resampled"]),
                str(record["WeightsSHA256"]),
            )
        except (KeyError, TypeError, ValueError):
            return None
        known = made.scale in (2, 3, 4) and made.axis in (0, 1, 2) and made.degradation in DEGRADATIONS
        return made if known else None

    @property
    def factors(self) -> tuple[float, float, float]:
        """Fine voxels for each coarse one, per array axis."""
        f = [1.0 if i == self.axis else float(self.scale) for i in range(3)]
        return f[0], f[1], f[2]


def apart(a: Float[ndarray, "8 3"], b: Float[ndarray, "8 3"]) -> float:
    """Largest distance in mm from a corner of one box to the nearest corner of the other."""
    between = np.linalg.norm(a[:, None] - b[None], axis=2)
    return float(max(between.min(0).max(), between.min(1).max()))


def geometry(before: Volume, after: Volume, made: Made | None) -> Check:
    """Whether the field of view stays."""
    old, new = (grid.corners(v.data.shape, v.affine) for v in (before, after))
    if made is not None and not made.resampled:
        anchor = DEGRADATIONS[made.degradation].anchor
        shape = tuple(round(n * f) for n, f in zip(before.data.shape, made.factors, strict=True))
        due = grid.corners(shape, grid.rescale(before.affine, made.factors, anchor))  # type: ignore[arg-type]
        off = float(np.linalg.norm(due - new, axis=1).max()) if shape == after.data.shape else np.inf
        what = {"corner": "the input's field of view", "center": "the centre of the input's first voxel"}
        text = f"corners within {off:.2g} mm of where {what[anchor]} puts them (at most {EXACT:g})"
        if shape != after.data.shape:
            text = f"expected {_x(shape)} voxels, got {_x(after.data.shape)}"
        return Check("geometry", "PASS" if off <= EXACT else "FAIL", text)
    off = apart(old, new)
    text = f"corners of the field of view up to {off:.2g} mm apart"
    if off <= EXACT:
        return Check("geometry", "PASS", f"the same field of view: corners within {off:.2g} mm")
    shared = _overlap(before, after)
    if shared == 0:
        return Check("geometry", "FAIL", f"{text}; the two do not overlap at all")
    if made is not None and off <= grid.spacing(before.affine).max():
        return Check("geometry", "PASS", f"{text}: less than a voxel, as another grid was asked for")
    return Check("geometry", "WARN", f"{text}; they share {shared:.0%} of the first one's")


def _overlap(before: Volume, after: Volume) -> float:
    """Part of the first field of view that the second one covers, by a coarse sample of points."""
    steps = [(np.arange(16) + 0.5) / 16 * n - 0.5 for n in before.data.shape]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    to = np.linalg.inv(after.affine) @ before.affine
    index = points @ to[:3, :3].T + to[:3, 3]
    inside = (index >= -0.5) & (index <= np.array(after.data.shape) - 0.5)
    return float(inside.all(1).mean())


def limits(volume: Volume) -> tuple[float, float]:
    """Least and greatest intensity, part by part."""
    low, high = np.inf, -np.inf
    for at in scratch.blocks(volume.data):
        low, high = min(low, float(volume.data[at].min())), max(high, float(volume.data[at].max()))
        scratch.release(volume.data)
    return low, high


def intensities(before: Volume, after: Volume, made: Made | None) -> Check:
    """Whether there are negative values where none were, and whether the range stays.

    Two scans of which neither is known to come from the other promise nothing: what differs is a WARN.
    """
    worst: Verdict = "FAIL" if made is not None else "WARN"
    low, high = limits(after)
    least, _ = limits(before)
    if least >= 0 > low:
        return Check("intensities", worst, f"down to {low:.4g}, and the scan before has no negative voxel")
    (offset, gain), (_, grown) = (sharpen.unit(v.data) for v in (before, after))
    if gain == 0:
        return Check("intensities", "WARN", "the scan before is one value throughout")
    ratio = grown / gain
    text = (
        f"99.9th percentile {ratio:.3f} times what it was ({gain + offset:.4g}); all of it within "
        f"{low:.4g} and {high:.4g}"
    )
    change = max(ratio, 1 / ratio) - 1 if ratio > 0 else np.inf
    verdict = _graded(change, RANGE_WARN, RANGE_FAIL)
    return Check("intensities", worst if verdict == "FAIL" else verdict, text)


def residual(before: Volume, after: Volume, made: Made | None) -> Check:
    """Whether the result, degraded as its method declares, is the input again."""
    name = "residual"
    if made is None:
        return Check(name, "not known", "no record says what the second scan is to be degraded by")
    low, high = limits(before)
    if high == low:
        return Check(name, "WARN", "the scan before is one value throughout")
    if made.resampled:
        rms, part = _resampled(before, after)
        how = f"antialiased cubic onto the input's grid ({part:.0%} of it)"
        if part < 0.5:
            return Check(name, "not known", f"the result covers {part:.0%} of the input")
    else:
        shape = tuple(round(n * f) for n, f in zip(before.data.shape, made.factors, strict=True))
        if shape != after.data.shape:
            return Check(name, "FAIL", f"expected {_x(shape)} voxels, got {_x(after.data.shape)}")
        rms, how = _degraded(before, after, made), f"degraded by {made.degradation} x{made.scale}"
    rms /= high - low
    text = (
        f"the result, {how}, is off the input by {rms:.2%} of its range (RMS; WARN from {RESIDUAL_WARN:.0%}, "
        f"FAIL from {RESIDUAL_FAIL:.0%})"
    )
    return Check(name, _graded(rms, RESIDUAL_WARN, RESIDUAL_FAIL), text)


def _degraded(before: Volume, after: Volume, made: Made) -> float:
    """RMS, slice by slice."""
    degrade, total = DEGRADATIONS[made.degradation]((made.scale, made.scale)), 0.0
    coarse, fine = (np.moveaxis(v.data, made.axis, 0) for v in (before, after))
    for low, high in zip(coarse, fine, strict=True):
        total += float(np.square(degrade(np.ascontiguousarray(high)) - low, dtype=np.float64).sum())
        scratch.release(after.data)
    return float(np.sqrt(total / before.data.size))


def _resampled(before: Volume, after: Volume) -> tuple[float, float]:
    """RMS where the result covers the input, and how much of it that is."""
    covers = after.on(np.ones(after.data.shape, np.float32), after.affine)
    there = resample.onto(covers, before.affine, before.data.shape).data > 0.999
    back = resample.onto(after, before.affine, before.data.shape).data
    error = np.square(back - before.data, where=there, out=np.zeros(there.shape), dtype=np.float64)
    return float(np.sqrt(error.sum() / max(1, there.sum()))), float(there.mean())


def spacing(before: Volume, made: Made | None) -> Check:
    """Whether the weights were trained on scans as fine as this one."""
    name = "spacing"
    if made is None:
        return Check(name, "not known", "no record says which weights made the second scan")
    if not made.weights:
        return Check(name, "PASS", "no weights: the method is made for any spacing")
    with SEEN.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sha256"] == made.weights]
    if not rows:
        return Check(name, "not known", "these weights do not say which spacings they saw")
    size = grid.spacing(before.affine)
    plane = [float(s) for i, s in enumerate(size) if i != made.axis]
    across = float(size[made.axis])
    seen = {n: float(rows[0][n]) for n in ("plane_from", "plane_to", "across_from", "across_to")}
    a, b = seen["plane_from"] * made.scale, seen["plane_to"] * made.scale
    inside = _within(plane, a, b) and _within([across], seen["across_from"], seen["across_to"])
    text = (
        f"{_x(plane, '.3g')} mm in the plane and {across:.3g} mm across; the weights saw {a:.2f} to {b:.2f} "
        f"and {seen['across_from']:.2f} to {seen['across_to']:.2f}"
    )
    return Check(name, "PASS" if inside else "WARN", text)


def _within(values: list[float], low: float, high: float) -> bool:
    return min(values) >= low * (1 - ROUNDED) and max(values) <= high * (1 + ROUNDED)


def _graded(value: float, warn: float, fail: float) -> Verdict:
    return "FAIL" if not value < fail else "WARN" if value >= warn else "PASS"


def _x(numbers: Any, form: str = "d") -> str:  # noqa: ANN401
    return " x ".join(f"{n:{form}}" for n in numbers)


def all_of(before: Volume, after: Volume, made: Made | None) -> list[Check]:
    """Every check."""
    return [
        geometry(before, after, made),
        intensities(before, after, made),
        residual(before, after, made),
        spacing(before, made),
    ]
