"""Image quality, with the protocol in the name. The data range is always given, never guessed.

- ``psnr``: over the whole volume, range = max - min of the truth (CSN's evaluation script).
- ``ssim_volume``: 3-D Gaussian window (σ = 1.5, 11³), whole map, population covariance (the same script).
- ``ssim_slice``: 2-D Gaussian window per slice, whole map, mean over slices, the volume's range.

Results are neither rounded nor clipped here; border voxels count.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

METRICS = ("psnr", "ssim_volume", "ssim_slice")
SIGMA, TRUNCATE = 1.5, 3.5
BLOCK = 8  # slices, or rows, that a thread takes at once


def psnr(truth: Float[ndarray, "*n"], test: Float[ndarray, "*n"], span: float) -> float:
    """Peak signal-to-noise ratio in dB; infinite if equal.

    Args:
        truth: what is right.
        test: what is compared with it.
        span: the range of intensities.

    >>> round(psnr(np.zeros(4), np.full(4, 0.1), 1.0), 6)
    20.0
    """
    error = float(np.mean(np.square(truth - test, dtype=np.float64)))
    return float("inf") if error == 0 else float(10 * np.log10(span**2 / error))


def products(truth: Float[ndarray, "*n"], test: Float[ndarray, "*n"]) -> list[Float[ndarray, "*n"]]:
    """What the windows of SSIM average: x, y, x², y², xy."""
    x, y = truth.astype(np.float64), test.astype(np.float64)
    return [x, y, x * x, y * y, x * y]


def similarity(means: Float[ndarray, "5 *n"], span: float) -> Float[ndarray, "*n"]:
    """SSIM from means of `products`: Wang et al., IEEE TIP 2004, eq. 13, K1 = 0.01, K2 = 0.03."""
    ux, uy, xx, yy, xy = means
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    square = ux * ux + uy * uy
    return ((2 * ux * uy + c1) * (2 * (xy - ux * uy) + c2)) / ((square + c1) * (xx + yy - square + c2))


def scores(truth: Float[ndarray, "n h w"], test: Float[ndarray, "n h w"], span: float) -> dict[str, float]:
    """All `METRICS`. The 3-D window is the 2-D one, and then the same across slices.

    Args:
        truth: what is right.
        test: what is compared with it.
        span: the range of intensities.
    """
    means = np.empty((5, *truth.shape))

    def in_plane(at: slice) -> float:
        for mean, product in zip(means, products(truth[at], test[at]), strict=True):
            gaussian_filter(product, (0, SIGMA, SIGMA), truncate=TRUNCATE, output=mean[at])
        return float(similarity(means[:, at], span).sum())

    def across(at: slice) -> float:
        solid = gaussian_filter1d(means[:, :, at], SIGMA, axis=1, truncate=TRUNCATE)
        return float(similarity(solid, span).sum())

    with ThreadPoolExecutor() as pool:
        flat, solid = (
            sum(pool.map(part, [slice(i, i + BLOCK) for i in range(0, length, BLOCK)])) / truth.size
            for part, length in zip((in_plane, across), truth.shape, strict=False)
        )
    return dict(zip(METRICS, (psnr(truth, test, span), solid, flat), strict=True))
