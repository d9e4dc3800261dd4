"""How far a voxel of a result may be off: half of the width of an interval that covers the error.

A small network looks at a result and at what its network was told, and gives the logarithm w of the quantile
`COVERED` of the error there; it was trained on errors of that network. The half-width is f exp(w). The factor
f is calibrated on subjects that the small network has not seen (conformal risk control, Angelopoulos et al.,
ICLR 2024, with the subject as the unit), so that on average over subjects like these, and over their choice,
`COVERED` of the tissue voxels are covered: not of every scan, nor of every lesion. Tissue is what is above
`TISSUE` of the range.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import fft

from seran import scratch
from seran.contrast import OTHER
from seran.engines import Predict
from seran.progress import passing, unseen

COVERED = 0.9  # of the tissue voxels
TISSUE = 0.1  # of the range of the scan
BANDS = ((0.15, 0.3), (0.3, 0.6), (0.6, 0.95), (1.05, 1.5))  # of k-space, whose edge as measured is at 1
LOGARITHM, TINY = 5.0, 1e-9  # of power: what is about 1, and what counts as nothing


@dataclass(frozen=True)
class Calibration:
    """What was found on calibration subjects, of what one ending makes.

    Attributes:
        factor: of the half-widths.
        psnr: dB to be added to `Expected` to have the PSNR that a part `COVERED` of these subjects exceed.
        most: the greatest mean half-width in tissue, as a part of the range.
        subjects: how many these were.
    """

    factor: float
    psnr: float
    most: float
    subjects: float  # a whole number


@dataclass(frozen=True)
class Widths:
    """What gives half-widths.

    Attributes:
        predict: of the small network, see `given`.
        calibrated: by ending and contrast, such as ``x2 T1`` or, across slices, ``k4 other``.
        contrast: of the scan, see `seran.contrast`.
    """

    predict: Predict
    calibrated: Mapping[str, Calibration]
    contrast: str = OTHER

    def of(self, ending: str) -> Calibration:
        """The calibration of an ending."""
        return self.calibrated[f"{ending} {self.contrast}"]

    def logarithm(
        self, high: Float[ndarray, "n h w"], told: Float[ndarray, "5 *h"], ending: str
    ) -> Float[ndarray, "n h w"]:
        """Of the half-widths of normalised slices that an ending has made, and of what it was told."""
        factor = np.float32(np.log(self.of(ending).factor))
        with passing(unseen):  # these slices count where they are made
            return self.predict(given(high, told, ending)) + factor


def given(
    high: Float[ndarray, "n h w"], told: Float[ndarray, "5 *h"], ending: str
) -> Float[ndarray, "n m h w"]:
    """The small network's input: slices of a result, what it is told, and `falling`, as maps.

    Args:
        high: normalised.
        told: five numbers, or five for each row of a slice.
        ending: see `Widths`.
    """
    own = falling(high, dict.fromkeys((1, 2) if ending[0] == "x" else (1,), float(ending[1:])))
    made = np.empty((len(high), 1 + len(told) + len(BANDS) - 1, *high.shape[1:]), np.float32)
    made[:, 0], made[:, 1 : 1 + len(told)] = high, told[..., None] if told.ndim == 2 else told[:, None, None]
    made[:, 1 + len(told) :] = own[:, :, None, None]
    return made


def falling(high: Float[ndarray, "n h w"], times: Mapping[int, float]) -> Float[ndarray, "n b"]:
    """How the power of each slice falls from one of the `BANDS` to the next.

    A sharp scan and a smooth one look alike to a network that sees a few voxels; their spectra do not.

    Args:
        high: slices of a result.
        times: by axis, as fine as what was measured; other axes do not count.
    """
    made = np.zeros((len(high), len(BANDS) - 1), np.float32)
    for axis, finer in times.items():
        n = high.shape[axis]
        lines = np.moveaxis(high, axis, -1) * np.hanning(n).astype(np.float32)
        power = np.square(np.abs(fft.rfft(lines, axis=-1))).mean(1)
        at = np.arange(power.shape[1]) * 2 * finer / n
        level = [np.log(power[:, _within(at, *band)].mean(1) + TINY) for band in BANDS]
        made += np.diff(np.stack(level, 1), axis=1) / (LOGARITHM * len(times))
    return made


def added(high: Float[ndarray, "n h w"], times: Mapping[int, float]) -> float:
    """Power beyond what was measured, against that just within it, in dB: the mean of slices.

    Args:
        high: slices of a result.
        times: see `falling`.
    """
    return float(falling(high, times)[:, -1].mean()) * LOGARITHM * 10 / np.log(10)


def _within(at: Float[ndarray, " f"], low: float, high: float) -> ndarray:
    """Which frequencies lie in a band, or next to its middle."""
    inside = np.flatnonzero((at >= low) & (at < high))
    return inside if len(inside) else np.array([np.abs(at - (low + high) / 2).argmin()])


def expected(
    image: Float[ndarray, "n h w"], half: Float[ndarray, "n h w"], offset: float, gain: float
) -> tuple[float, float] | None:
    """Mean half-width in tissue, as a part of the range, and the PSNR in dB if it were the error.

    None where there is no tissue.

    Args:
        image: a result.
        half: half-widths.
        offset: the intensity 0.
        gain: the range of the scan.
    """
    count, total, squares = 0, 0.0, 0.0
    for one, width in zip(image, half, strict=True):
        inside = width[one > offset + TISSUE * gain].astype(np.float64)
        count, total, squares = count + inside.size, total + inside.sum(), squares + np.square(inside).sum()
        for array in (image, half):
            scratch.release(array)
    if not total:
        return None
    return float(total / count / gain), float(-10 * np.log10(squares / count / gain**2))


def stated(
    image: Float[ndarray, "n h w"],
    half: Float[ndarray, "n h w"],
    offset: float,
    gain: float,
    found: Calibration,
    contrast: str,
) -> dict[str, float | str] | None:
    """What `seran.job.record.Record` states of a result, see `expected`."""
    if (known := expected(image, half, offset, gain)) is None:
        return None
    width, psnr = known
    bound = psnr + found.psnr
    facts: dict[str, float] = {"half_width": width, "half_width_most": found.most, "psnr_bound": bound}
    rounded = {name: round(value, 5) for name, value in facts.items()}
    return {**rounded, "calibrated_on": int(found.subjects), "calibrated_for": contrast}
