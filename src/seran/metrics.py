"""Image quality, with the protocol in the name. The data range is always given, never guessed.

- ``psnr``: over the whole volume, range = max - min of the truth (CSN's evaluation script).
- ``ssim_volume``: 3-D Gaussian window (σ = 1.5, 11³), whole map, population covariance (the same script).
- ``ssim_slice``: 2-D Gaussian window per slice, whole map, mean over slices, the volume's range.

Results are neither rounded nor clipped here; border voxels count.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter

SIGMA, TRUNCATE = 1.5, 3.5


def psnr(truth: Float[ndarray, "*n"], test: Float[ndarray, "*n"], span: float) -> float:
    """Peak signal-to-noise ratio in dB for intensities that span ``span``; infinite if equal."""
    error = float(np.mean(np.square(truth - test, dtype=np.float64)))
    return float("inf") if error == 0 else 10 * np.log10(span**2 / error)


def gaussian(x: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
    """The weighted mean around every sample."""
    return gaussian_filter(x, SIGMA, truncate=TRUNCATE)


def ssim_map(
    truth: Float[ndarray, "*n"],
    test: Float[ndarray, "*n"],
    span: float,
    mean: Callable[[ndarray], ndarray] = gaussian,
) -> Float[ndarray, "*n"]:
    """Wang et al., IEEE TIP 2004, eq. 13, with K1 = 0.01, K2 = 0.03 and population covariance."""
    x, y = truth.astype(np.float64), test.astype(np.float64)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    ux, uy = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - ux * ux, mean(y * y) - uy * uy, mean(x * y) - ux * uy
    return ((2 * ux * uy + c1) * (2 * vxy + c2)) / ((ux * ux + uy * uy + c1) * (vx + vy + c2))


def ssim_volume(truth: Float[ndarray, "n h w"], test: Float[ndarray, "n h w"], span: float) -> float:
    """Structural similarity with a 3-D window."""
    return float(ssim_map(truth, test, span).mean())


def ssim_slice(truth: Float[ndarray, "n h w"], test: Float[ndarray, "n h w"], span: float) -> float:
    """Structural similarity with a 2-D window, mean over slices."""
    pairs = zip(truth, test, strict=True)
    return float(np.mean([ssim_map(a, b, span).mean() for a, b in pairs]))


METRICS: dict[str, Callable[[ndarray, ndarray, float], float]] = {
    "psnr": psnr,
    "ssim_volume": ssim_volume,
    "ssim_slice": ssim_slice,
}
