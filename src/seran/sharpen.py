"""From a predictor on stacks of slices to a scan on its finer grid: the one path of library and command.

A predictor takes ``low (n, h, w)`` to ``high (n, sh, sw)``, or to an `Estimate`: a network on any engine,
bicubic interpolation, a wrapper around them. A `Method` is a predictor with all that must be known of it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray

from seran import resample
from seran.engines import Running
from seran.errors import BadInput
from seran.grid import Anchor, Plan, dimensions
from seran.progress import PASSED, Tell, counting, passing, unseen
from seran.scratch import Allocator, blocks, memory, release, turned
from seran.uncertainty import Widths
from seran.volume import Volume
from seran.weights import Weights

Progress = Tell  # called with the slices, or parts of one, that have just been finished
CHUNK_PIXELS = 1 << 23  # fine pixels asked of a predictor at a time: bounds memory for any number of slices
EXTREME = 0.001  # part of the voxels beyond the percentiles that bound a scan's intensities
FAR = 0.5  # part of the greatest intensities above which the least ones are an offset
SMALLEST = 4  # slices below this many pixels a side carry no plane to sharpen


@dataclass(frozen=True)
class Estimate:
    """An image, and where the predictor knows it, how far each intensity may be off, in its units."""

    image: Float[ndarray, "n sh sw"]
    half_width: Float[ndarray, "n sh sw"] | None = None


Predict = Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"] | Estimate]


@dataclass(frozen=True)
class Method:
    """A predictor and what must be known of it."""

    name: str  # as `seran methods` lists it; a trailing + says that it is self-ensembled
    factors: tuple[int, int]  # fine pixels for each pixel, along rows and columns
    predict: Predict  # on intensities of about [0, 1]
    degradation: str  # what it undoes
    anchor: Anchor  # the grid convention of its result
    context: int | None = 0  # neighbouring slices that it looks at on either side; None: all of the stack
    half_width: bool = False  # it gives an `Estimate` with half-widths
    weights: str = ""  # what the weights are called, empty for classical methods
    sha256: str = ""  # digest stated and verified in the weights file
    engine: str = "numpy"  # what runs it, in words
    precision: str = "f32"  # of its convolutions
    scans: Sequence[dict[str, str]] = ()  # what the weights were trained on, see `seran.weights.Card`
    spacings: tuple[float, float, float, float] | None = None  # mm seen, see `seran.weights.Evidence`
    heads: Callable[[int], Running] | None = (
        None  # native weights: the network of each factor, `seran.native`
    )
    widths: Widths | None = None  # what gives these to results of native weights, see `seran.uncertainty`
    adapt: Callable[["Normalisation"], Predict] | None = None  # makes the predictor, where a scan decides it

    @property
    def scale(self) -> int:
        """The factor of the finer axis."""
        return max(self.factors)

    def __repr__(self) -> str:
        return f"Method({self.name}, x{self.scale}, {self.weights or self.degradation}, {self.engine})"


@dataclass(frozen=True)
class Across:
    """The network across slices.

    Attributes:
        weights: what they are called.
        sha256: digest stated and verified in the weights file.
        heads: the network of each factor.
        scans: what the weights were trained on, see `seran.weights.Card`.
        spacings: mm seen, see `seran.weights.Evidence`.
        held: the weights of each factor, if it came from a file.
        widths: what gives half-widths to what it makes, if that was calibrated.
    """

    weights: str
    sha256: str
    heads: Callable[[int], Running]
    scans: tuple[dict[str, str], ...] = ()
    spacings: tuple[float, float, float, float] | None = None
    held: Callable[[int], Weights] | None = None
    widths: Widths | None = None


def _tails(stack: Float[ndarray, "n h w"]) -> tuple[ndarray, ndarray]:
    """The least intensities, ascending, and the greatest, descending: `EXTREME` of them, and one more."""
    keep = int(EXTREME * (stack.size - 1)) + 2
    ends = {sign: np.empty(0, np.float32) for sign in (1, -1)}
    for at in blocks(stack):
        voxels = stack[at].ravel()
        for sign, kept in ends.items():
            part = sign * voxels
            if kept.size == keep:
                part = part[part < kept.max()]
            kept = np.concatenate([kept, part])
            ends[sign] = np.partition(kept, keep)[:keep] if kept.size > keep else kept
        release(stack)
    return np.sort(ends[1]), -np.sort(ends[-1])


def offset_of(low: float, high: float) -> float:
    """What counts as 0 between these percentiles: the lower one where it is below 0, or `FAR` from it."""
    return low if low < 0 or low > FAR * high else 0.0


@dataclass(frozen=True)
class Normalisation:
    """What takes intensities to about [0, 1]: ``(x - offset) / gain``; a few extreme voxels move neither.

    >>> Normalisation.of(np.full((2, 4, 4), 3.0))
    Normalisation(offset=3.0, gain=0.0)
    """

    offset: (
        float  # the 0.1st percentile where that is negative or `FAR` from 0, else 0; the value of all alike
    )
    gain: float  # the 99.9th percentile above it, or maximum of mere background; 0 where all voxels are alike

    @classmethod
    def of(cls, stack: Float[ndarray, "n h w"]) -> "Normalisation":
        """That of a scan."""
        least, greatest = _tails(stack)
        if least[0] == greatest[0]:
            return cls(float(least[0]), 0.0)
        at = EXTREME * (stack.size - 1)
        low, high = (float(np.interp(at, np.arange(len(end)), end)) for end in (least, greatest))
        offset = offset_of(low, high)
        return cls(offset, (high if high > offset else float(greatest[0])) - offset)

    def apply(self, x: Real[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """From the scan's units."""
        return np.ascontiguousarray((x - self.offset) / self.gain, np.float32)

    def undo(self, x: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Back to the scan's units, in place."""
        x *= np.float32(self.gain)
        x += np.float32(self.offset)
        return x


def ensembled(method: Method, swap: bool = True) -> Method:
    """Geometric self-ensemble ("+"): the mean over the eight symmetries of the slice (EDSR §3.4).

    At the anchor ``center`` the fine grid is not symmetric about the coarse one: what a mirrored slice became
    is moved back by s - 1 fine voxels; the voxels at the end that it misses are the mean of the others.

    Args:
        method: what is ensembled.
        swap: whether rows and columns may be exchanged; without that four symmetries are left.
    """
    even = swap and method.factors[0] == method.factors[1]
    centred = method.anchor == "center"

    def mean(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"] | Estimate:
        totals: list[ndarray] = []
        passed, symmetries = PASSED.get(), 4 * (1 + even)
        for swapped, *mirrored in itertools.product((False, True)[: 1 + even], (False, True), (False, True)):
            turn = (slice(None), *(slice(None, None, -1 if m else 1) for m in mirrored))
            view = low[turn].swapaxes(1, 2) if swapped else low[turn]
            with passing(lambda slices: passed(slices / symmetries)):
                found = method.predict(np.ascontiguousarray(view))
            parts = [found.image, found.half_width] if isinstance(found, Estimate) else [found]
            highs = [(p.swapaxes(1, 2) if swapped else p)[turn] for p in parts if p is not None]
            if not totals:
                totals = [np.zeros_like(high) for high in highs]
                count = np.zeros(highs[0].shape[1:], highs[0].dtype)
            rows, columns = ((f - 1) * m * centred for f, m in zip(method.factors, mirrored, strict=True))
            for total, high in zip(totals, highs, strict=True):
                total[:, : high.shape[1] - rows, : high.shape[2] - columns] += high[:, rows:, columns:]
            count[: count.shape[0] - rows, : count.shape[1] - columns] += 1
        means = [total / count for total in totals]
        return Estimate(*means) if method.half_width else means[0]

    return replace(method, predict=mean)


def sharpen(
    stack: Float[ndarray, "n h w"], method: Method, progress: Progress = unseen, allocate: Allocator = memory
) -> Estimate:
    """Apply a method to a stack in its own intensity units; never negative where the input is not.

    Args:
        stack: every voxel finite; a few slices are taken at a time where the method allows.
        method: what is applied.
        progress: called as a network finishes each slice, or as several are finished without one.
        allocate: makes the arrays of the result.
    """
    n, h, w = stack.shape
    rows, columns = method.factors
    norm = Normalisation.of(stack)
    made = [allocate((n, rows * h, columns * w)) for _ in range(1 + method.half_width)]
    if norm.gain == 0:  # an empty frame of a series
        for array, value in zip(made, (norm.offset, 0.0), strict=False):
            array[:] = value
        progress(n)
        return Estimate(*made)
    predict = method.adapt(norm) if method.adapt else method.predict
    reach, step = method.context, max(1, CHUNK_PIXELS // (rows * columns * h * w))
    if reach is None:
        reach = step = n
    for start in range(0, n, step):
        low, first = stack[start : start + step], max(0, start - reach)
        given = norm.apply(stack[first : start + step + reach])
        with counting(len(low), len(given), progress):
            found = predict(given)
        found = found if isinstance(found, Estimate) else Estimate(found)
        if method.half_width == (found.half_width is None):
            said = "a" if method.half_width else "no"
            raise ValueError(f"{method.name}: its predictor must give {said} half-width")
        here, there = slice(start, start + step), slice(start - first, start - first + len(low))
        image = norm.undo(found.image[there])
        fine = (low >= 0).repeat(rows, 1).repeat(columns, 2) if norm.offset or low.min() < 0 else True
        made[0][here] = np.maximum(image, 0, out=image, where=fine)
        if found.half_width is not None:
            made[1][here] = np.maximum(found.half_width[there], 0) * np.float32(norm.gain)
        for array in (stack, *made):
            release(array)
    return Estimate(*made)


def refuse_small(scan: str, stack: Float[ndarray, "n h w"], axis: int) -> None:
    """Raise `BadInput` for a scan whose slices are too small.

    Args:
        scan: its name.
        stack: its slices.
        axis: the array axis along which they are stacked.
    """
    if min(stack.shape[1:]) < SMALLEST:
        got = f"slices of {dimensions(stack.shape[1:])} pixels along array axis {axis}"
        least = dimensions([SMALLEST] * 2)
        raise BadInput(f"{scan}: {got}: must be at least {least}; choose another --plane")


def upscale(
    volume: Volume, method: Method, plan: Plan, progress: Progress = unseen, allocate: Allocator = memory
) -> tuple[Volume, Volume | None]:
    """A scan sharpened in the plane of its slices, and half-widths if there are any; `BadInput` if too small.

    Args:
        volume: the scan; every voxel finite.
        method: what sharpens it.
        plan: where the result lies, made for this method's factors and anchor.
        progress: see `sharpen`.
        allocate: makes the arrays of the result.
    """
    stack = np.moveaxis(volume.data, plan.axis, 0)
    refuse_small("the scan", stack, plan.axis)
    if (plan.scan.shape, plan.factors, plan.anchor) != (volume.data.shape, method.factors, method.anchor):
        raise ValueError(f"the plan is not one for {method.name} and a scan of {volume.data.shape}")

    def placed(made: Float[ndarray, "n sh sw"]) -> Volume:
        fine = volume.on(np.moveaxis(made, 0, plan.axis), plan.enlarged.affine)
        return resample.onto(fine, plan.target, allocate) if plan.target else fine

    high = sharpen(stack, method, progress, turned(allocate))
    return placed(high.image), None if high.half_width is None else placed(high.half_width)
