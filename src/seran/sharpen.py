"""From a predictor on stacks of slices to a scan on its finer grid: the one path of library and command.

A predictor is a function ``low (n, h, w) -> high (n, sh, sw)``: a network on any engine, bicubic
interpolation, and every wrapper around either, are this one thing. It may give an `Estimate` instead, which
has a spread beside the image. A `Method` is a predictor with all that must be known to use it rightly.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray

from seran import resample, scratch
from seran.errors import BadInput
from seran.grid import Anchor, Plan
from seran.scratch import Allocator
from seran.volume import Volume

Progress = Callable[[int], None]
"""Called with the number of slices that have just been finished."""

CHUNK_PIXELS = 1 << 23
"""High-resolution pixels asked of a predictor at a time: bounds memory for any number of slices."""
EXTREME = 0.001
"""Part of the voxels beyond the percentiles that bound a scan's intensities."""
SMALLEST = 4
"""Slices below this many pixels a side carry no plane to sharpen."""


@dataclass(frozen=True)
class Estimate:
    """What a predictor that knows its own error returns.

    Attributes:
        image: the intensities.
        spread: how far each may be off, in the same units; none where the predictor does not say.
    """

    image: Float[ndarray, "n sh sw"]
    spread: Float[ndarray, "n sh sw"] | None = None


Predict = Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"] | Estimate]


@dataclass(frozen=True)
class Method:
    """A predictor and what must be known of it.

    Attributes:
        name: as `seran methods` lists it; a trailing + says that it is self-ensembled.
        factors: fine pixels for each pixel, along rows and columns.
        predict: the predictor, on intensities of about [0, 1].
        degradation: what it undoes.
        anchor: the grid convention of its result.
        context: neighbouring slices that it looks at on either side; None: all of the stack.
        spread: it gives an `Estimate`.
        weights: what the weights are called, empty for classical methods.
        sha256: digest stated and verified in the weights file.
        engine: what runs it, in words.
        precision: of its convolutions.
        scans: what the weights were trained on, see `seran.weights.Card`.
        spacings: mm that the weights saw, see `seran.weights.Evidence`.
    """

    name: str
    factors: tuple[int, int]
    predict: Predict
    degradation: str
    anchor: Anchor
    context: int | None = 0
    spread: bool = False
    weights: str = ""
    sha256: str = ""
    engine: str = "numpy"
    precision: str = "f32"
    scans: Sequence[dict[str, str]] = ()
    spacings: tuple[float, float, float, float] | None = None

    @property
    def scale(self) -> int:
        """The factor of the finer axis."""
        return max(self.factors)

    def __repr__(self) -> str:
        return f"Method({self.name}, x{self.scale}, {self.weights or self.degradation}, {self.engine})"


def tails(stack: Float[ndarray, "n h w"]) -> tuple[ndarray, ndarray]:
    """The least intensities, ascending, and the greatest, descending: `EXTREME` of them, and one more."""
    keep = int(EXTREME * (stack.size - 1)) + 2
    ends = {sign: np.empty(0, np.float32) for sign in (1, -1)}
    for at in scratch.blocks(stack):
        voxels = stack[at].ravel()
        for sign, kept in ends.items():
            part = sign * voxels
            if kept.size == keep:
                part = part[part < kept.max()]
            kept = np.concatenate([kept, part])
            ends[sign] = np.partition(kept, keep)[:keep] if kept.size > keep else kept
        scratch.release(stack)
    return np.sort(ends[1]), -np.sort(ends[-1])


@dataclass(frozen=True)
class Normalisation:
    """What takes a scan's intensities to about [0, 1]: ``(x - offset) / gain``.

    Attributes:
        offset: 0, or the 0.1st percentile where that is negative.
        gain: the 99.9th percentile above it (the maximum, where nearly everything is background); 0 where all
            voxels are alike, whose value then is the offset. A few extreme voxels move neither.
    """

    offset: float
    gain: float

    @classmethod
    def of(cls, stack: Float[ndarray, "n h w"]) -> "Normalisation":
        """That of a scan."""
        least, greatest = tails(stack)
        if least[0] == greatest[0]:
            return cls(float(least[0]), 0.0)
        at = EXTREME * (stack.size - 1)
        low, high = (float(np.interp(at, np.arange(len(end)), end)) for end in (least, greatest))
        offset = min(0.0, low)
        gain = high - offset
        return cls(offset, gain if gain > 0 else float(greatest[0]) - offset)

    def apply(self, x: Real[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """From the scan's units."""
        return np.ascontiguousarray((x - self.offset) / self.gain, np.float32)

    def undo(self, x: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Back to the scan's units, in place."""
        x *= np.float32(self.gain)
        x += np.float32(self.offset)
        return x


def ensembled(method: Method) -> Method:
    """Geometric self-ensemble ("+"): the mean over the eight symmetries of the slice (EDSR §3.4).

    Where voxel 0 keeps its centre (``anchor`` is ``center``), the fine grid is not symmetric about the coarse
    one: s - 1 fine voxels follow the last coarse one, none precede the first. What a mirrored slice became
    then lies s - 1 fine voxels off along the mirrored axis; it is moved back, and the voxels at the end that
    it does not reach are the mean of the others.
    """
    even = method.factors[0] == method.factors[1]  # else rows and columns cannot be exchanged
    centred = method.anchor == "center"

    def mean(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"] | Estimate:
        totals: list[ndarray] = []
        for swap, *mirrored in itertools.product((False, True)[: 1 + even], (False, True), (False, True)):
            turn = (slice(None), *(slice(None, None, -1 if m else 1) for m in mirrored))
            view = low[turn].swapaxes(1, 2) if swap else low[turn]
            found = method.predict(np.ascontiguousarray(view))
            parts = [found] if isinstance(found, ndarray) else [found.image, found.spread]
            highs = [(p.swapaxes(1, 2) if swap else p)[turn] for p in parts if p is not None]
            if not totals:
                totals = [np.zeros_like(high) for high in highs]
                count = np.zeros(highs[0].shape[1:], highs[0].dtype)
            rows, columns = ((f - 1) * m * centred for f, m in zip(method.factors, mirrored, strict=True))
            for total, high in zip(totals, highs, strict=True):
                total[:, : high.shape[1] - rows, : high.shape[2] - columns] += high[:, rows:, columns:]
            count[: count.shape[0] - rows, : count.shape[1] - columns] += 1
        means = [total / count for total in totals]
        return Estimate(*means) if method.spread else means[0]

    return replace(method, predict=mean)


def sharpen(
    stack: Float[ndarray, "n h w"],
    method: Method,
    progress: Progress = lambda _: None,
    allocate: Allocator = scratch.memory,
) -> Estimate:
    """Apply a method to a stack in its own intensity units, a few slices at a time where it allows.

    The result is never negative where the input is not.

    Args:
        stack: every voxel finite.
        method: what is applied.
        progress: called as slices are finished.
        allocate: makes the arrays of the result.
    """
    n, h, w = stack.shape
    rows, columns = method.factors
    norm = Normalisation.of(stack)
    made = [allocate((n, rows * h, columns * w)) for _ in range(1 + method.spread)]
    if norm.gain == 0:  # an empty frame of a series
        for array, value in zip(made, (norm.offset, 0.0), strict=False):
            array[:] = value
        progress(n)
        return Estimate(*made)
    reach = n if method.context is None else method.context
    step = n if method.context is None else max(1, CHUNK_PIXELS // (rows * columns * h * w))
    for start in range(0, n, step):
        low, first = stack[start : start + step], max(0, start - reach)
        found = method.predict(norm.apply(stack[first : start + step + reach]))
        parts = (found.image, found.spread) if isinstance(found, Estimate) else (found, None)
        if method.spread == (parts[1] is None):
            raise ValueError(
                f"{method.name}: its predictor must give {'a' if method.spread else 'no'} spread"
            )
        image, spread = (None if p is None else p[start - first :][: len(low)] for p in parts)
        assert image is not None
        norm.undo(image)
        fine = (low >= 0).repeat(rows, 1).repeat(columns, 2) if norm.offset or low.min() < 0 else True
        made[0][start : start + step] = np.maximum(image, 0, out=image, where=fine)
        if spread is not None:
            made[1][start : start + step] = np.maximum(spread, 0) * np.float32(norm.gain)
        for array in (stack, *made):
            scratch.release(array)
        progress(len(low))
    return Estimate(*made)


def upscale(
    volume: Volume,
    method: Method,
    plan: Plan,
    progress: Progress = lambda _: None,
    allocate: Allocator = scratch.memory,
) -> tuple[Volume, Volume | None]:
    """Super-resolve a scan in the plane of its slices.

    Args:
        volume: the scan; every voxel finite.
        method: what sharpens it.
        plan: where the result lies, made for this method's factors and anchor.
        progress: called as slices are finished.
        allocate: makes the arrays of the result.

    Returns:
        The image and, of a method that gives one, its spread.

    Raises:
        BadInput: if its slices are too small.
        ValueError: if the plan is not one for this scan and method.
    """
    stack = plan.stack(volume.data)
    if min(stack.shape[1:]) < SMALLEST:
        raise BadInput(
            f"slices of {stack.shape[1]}x{stack.shape[2]} pixels along array axis {plan.axis}: must be at "
            f"least {SMALLEST}x{SMALLEST}; choose another --plane"
        )
    if (plan.scan.shape, plan.factors, plan.anchor) != (volume.data.shape, method.factors, method.anchor):
        raise ValueError(f"the plan is not one for {method.name} and a scan of {volume.data.shape}")

    def turned(shape: tuple[int, ...]) -> Float[ndarray, "n sh sw"]:
        n, h, w = shape  # in a file the first axis varies fastest
        return allocate((n, w, h)).swapaxes(1, 2)

    high = sharpen(stack, method, progress, turned)
    found = []
    for made in (high.image, high.spread):
        fine = None if made is None else volume.on(plan.unstack(made), plan.enlarged.affine)
        found.append(resample.onto(fine, plan.target) if fine and plan.target else fine)
    assert found[0] is not None
    return found[0], found[1]
