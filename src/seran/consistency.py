"""Data consistency: a result, put through what made the scan, is the scan again but for its noise.

For the operator A of an acquisition and its noise, the residual r = s - A x of a slice s and its result x
has at most the noise's power. Where it has more, x is projected: x + A⁺ f r, the filter f leaving in every
ring of k-space what noise explains, and taking the rest (a Wiener filter; without noise f = 1, the projection
of range-null space decomposition, Wang, Yu and Zhang, ICLR 2023). Across slices, where A is their selection,
f is a number for each slice.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Inexact
from numpy import ndarray
from scipy import ndimage

from seran import kspace, resize
from seran.acquisition import Acquisition
from seran.profiles import Profile, selection
from seran.scratch import PART, release
from seran.sharpen import Estimate, Method, Normalisation, Predict

RINGS = 24  # of k-space, from its centre to the edge
ALLOWED = 1.02  # times the noise's power, that a residual may have: the mean over a slice varies
MARGIN = 3  # pixels about a constant background that are not compared
ROUNDS = 2  # of the projection: a magnitude is not linear


@runtime_checkable
class Operator(Protocol):
    """What makes a slice of a scan from one of the result: `seran.acquisition.Acquisition`, a degradation."""

    def linear(self, high: Float[ndarray, "h w"], /) -> ndarray:
        """A x, which may be complex."""

    def pseudoinverse(self, low: Float[ndarray, "a b"], shape: tuple[int, int], /) -> ndarray:
        """A⁺ y on slices of this shape."""


def seen(operator: Operator, high: Float[ndarray, "h w"], magnitude: bool) -> Float[ndarray, "a b"]:
    """What the scanner would show of a slice: the magnitude, or the real part of what may be negative."""
    return _shown(operator.linear(np.ascontiguousarray(high)), magnitude)


def _shown(image: Inexact[ndarray, "a b"], magnitude: bool) -> Float[ndarray, "a b"]:
    return image if not np.iscomplexobj(image) else np.abs(image) if magnitude else image.real


def power(again: Float[ndarray, "*n"], sd: float, magnitude: bool) -> Float[ndarray, "*n"]:
    """Expected square of the residual: the noise's power, in the air of a magnitude image twice that.

    Args:
        again: what the result looks like to the scanner.
        sd: standard deviation of the noise in the scan.
        magnitude: the scan is one.
    """
    return np.where((np.abs(again) < sd) & magnitude, 2 * sd**2, sd**2)


def compared(low: Float[ndarray, "*n"], empty: float | None) -> Bool[ndarray, "*n"]:
    """Where a slice says what was measured: not in a constant background, nor within `MARGIN` of it.

    A mask is an edge that no scanner made: what the scan shows there is not what the operator makes of the
    result, which has the same edge.

    Args:
        low: a slice, or some voxels of one, which have no margin.
        empty: the value of the background, if there is one.
    """
    mask = low == np.float32(np.nan if empty is None else empty)
    if low.ndim > 1 and mask.any():
        mask = ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=MARGIN)
    return ~mask


def consistent(
    method: Method,
    operator: Operator,
    sd: float,
    magnitude: bool,
    background: float | None,
    tally: list[bool],
) -> Method:
    """A method whose results are consistent with the scan, see `projected`.

    Args:
        method: whose results are.
        operator: what made the scan.
        sd: standard deviation of the noise in the scan, in its units.
        magnitude: nothing of the scan is below 0.
        background: the value of a constant background, which the result keeps.
        tally: is told of every slice whether it was changed.
    """

    def adapt(norm: Normalisation) -> Predict:
        predict = method.adapt(norm) if method.adapt else method.predict
        empty = None if background is None else float(norm.apply(np.array([background]))[0])

        def predicted(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"] | Estimate:
            found = predict(low)
            image = found.image if isinstance(found, Estimate) else found
            for one, given in zip(image, low, strict=True):
                zero = -norm.offset / norm.gain
                made = projected(one, given, operator, sd / norm.gain, magnitude, zero, empty)
                tally.append(made is not one)
                one[...] = made
            return found

        return predicted

    return replace(method, adapt=adapt)


def averaged(scanner: Acquisition, shape: tuple[int, int]) -> float:
    """What `seran.resize.imresize` leaves of the noise of slices: the ratio of standard deviations.

    Args:
        scanner: what made the slices, whose noise has the spectrum that it lets pass.
        shape: rows and columns that they get.
    """
    given = scanner.given or scanner.acquired
    rows, columns = (
        np.square(np.abs(resize.matrix(n, m) @ np.fft.fft(np.eye(n)))).mean(0)
        for n, m in zip(given, shape, strict=True)
    )
    power = np.fft.ifftshift(_colour(scanner, given))
    return float(np.sqrt((rows[:, None] * columns * power).mean()))


def projected(
    high: Float[ndarray, "sh sw"],
    low: Float[ndarray, "h w"],
    operator: Operator,
    sd: float,
    magnitude: bool = True,
    zero: float = 0.0,
    empty: float | None = None,
) -> Float[ndarray, "sh sw"]:
    """A slice of the result, if need be changed, as little as makes it consistent with that of the scan.

    Args:
        high: of the result.
        low: of the scan, in the same units.
        operator: what made the scan.
        sd: standard deviation of the noise in the scan.
        magnitude: nothing of the scan is below 0, and the result does not fall below it, either.
        zero: the intensity 0 in these units.
        empty: the value of a constant background; it is not compared, and the result keeps its own there.
    """
    there = compared(low, empty)
    kept = high == np.float32(np.nan if empty is None else empty)
    made = high
    for _ in range(ROUNDS):
        image = operator.linear(np.ascontiguousarray(made - zero))
        again = _shown(image, magnitude)
        residual = np.where(there, low - zero - again, 0)
        due = float(power(again, sd, magnitude)[there].sum())
        if float(np.square(residual, dtype=np.float64).sum()) <= ALLOWED * due:
            break
        if np.iscomplexobj(image) and magnitude:  # a magnitude leaves the phase as it is
            residual = residual * np.exp(1j * np.angle(image))
        change = operator.pseudoinverse(_beyond(residual, due, _colour(operator, low.shape)), high.shape).real
        made = np.where(kept, high, made + change.astype(high.dtype))
        made = np.maximum(made, zero, out=made) if magnitude else made
    return made


def _colour(operator: Operator, shape: tuple[int, int]) -> Float[ndarray, "h w"]:
    """Mean square of the noise's spectrum, of mean 1: white, but for the scanner's filter and zeros."""
    if not isinstance(operator, Acquisition):
        return np.ones(shape)
    power = np.abs(kspace.fitted(operator.filter.astype(complex), shape)) ** 2
    made: Float[ndarray, "h w"] = power / power.mean()
    return made


def _beyond(
    residual: Inexact[ndarray, "h w"], due: float, colour: Float[ndarray, "h w"]
) -> Inexact[ndarray, "h w"]:
    """What noise does not explain of a residual, ring by ring of its k-space.

    Args:
        residual: of a slice.
        due: sum of the squares that noise has.
        colour: mean square of the noise's spectrum, of mean 1.
    """
    if due == 0:
        return residual
    found = kspace.spectrum(residual)
    axes = (np.abs(np.arange(n) - n // 2) / max(1, n / 2) for n in residual.shape)
    radius = np.hypot(*np.meshgrid(*axes, indexing="ij"))
    ring = np.minimum(radius * RINGS, RINGS * np.sqrt(2) - 1).astype(int)
    total, noise = (np.bincount(ring.ravel(), x.ravel()) for x in (np.square(np.abs(found)), due * colour))
    gain = 1 - np.minimum(noise, total) / np.maximum(total, np.finfo(float).tiny)
    made = kspace.image(found * gain[ring])
    return made if np.iscomplexobj(residual) else made.real


def project_across(
    thin: Float[ndarray, "m h w"],
    stack: Float[ndarray, "n h w"],
    profile: Profile,
    sd: float,
    empty: float | None = None,
) -> int:
    """Change thin slices in place, as little as makes thick ones see them as they are, but for noise.

    They do not fall below 0 where no slice of the scan does. Returns of how many thick ones this was so.

    Args:
        thin: of the same field of view.
        stack: thick slices.
        profile: of these.
        sd: standard deviation of their noise.
        empty: the value of a constant background, which stays.
    """
    see = selection(len(thin), len(thin) / len(stack), profile)
    back, magnitude = np.linalg.pinv(see).astype(np.float32), all(part.min() >= 0 for part in stack)
    see = see.astype(np.float32)
    step = max(1, PART // (4 * thin[:, 0].size))
    blocks = [np.s_[:, start : start + step] for start in range(0, thin.shape[1], step)]
    hidden = np.float32(np.nan if empty is None else empty)
    there = np.stack([compared(part, empty) for part in stack])

    def left(at: tuple[slice, slice]) -> tuple[Float[ndarray, "n b w"], Float[ndarray, "n b w"]]:
        """The residual, and the noise's power."""
        again = resize.along(thin[at], 0, see)
        return np.where(there[at], stack[at] - again, 0), np.where(there[at], power(again, sd, magnitude), 0)

    total = due = np.zeros(len(stack))
    for at in blocks:
        residual, noise = left(at)
        total = total + np.square(residual, dtype=np.float64).sum((1, 2))
        due = due + noise.sum((1, 2), dtype=np.float64)
    gain = 1 - np.sqrt(due / np.maximum(total, np.finfo(float).tiny))
    gain = np.where(total > ALLOWED * due, gain, 0).astype(np.float32)
    for at in blocks if gain.any() else []:
        made = thin[at] + resize.along(gain[:, None, None] * left(at)[0], 0, back)
        made = np.maximum(made, 0) if magnitude else made
        thin[at] = np.where(thin[at] == hidden, thin[at], made)
        for array in (thin, stack):
            release(array)
    return int(np.count_nonzero(gain))
