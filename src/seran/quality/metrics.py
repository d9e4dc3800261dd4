"""Image quality, with the protocol in the name. The data range is always given, never guessed.

- ``psnr``: over the whole volume, range = max - min of the truth (CSN's evaluation script).
- ``ssim_volume``: 3-D Gaussian window (σ = 1.5, 11³), whole map, population covariance (the same script).
- ``ssim_slice``: 2-D Gaussian window per slice, whole map, mean over slices, the volume's range.
- ``hfen``: high-frequency error norm, see `hfen`; 0 is best.
- ``gmsd``: gradient magnitude similarity deviation, see `gmsd`; 0 is best.

Results are neither rounded nor clipped here; border voxels count. With a mask its voxels alone count, of the
same error and maps: what is outside still lies in the windows of voxels at the edge, and in the range.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import correlate1d, gaussian_filter, gaussian_filter1d, uniform_filter1d

METRICS = ("psnr", "ssim_volume", "ssim_slice", "hfen", "gmsd")
SIGMA, TRUNCATE = 1.5, 3.5
LOG_SIGMA, LOG_SIZE = 1.5, 15  # pixels, of the Laplacian of a Gaussian of `hfen`
STEADY = 170.0  # T of `gmsd`, for intensities of 0 to 255
BLOCK = 8  # slices, or rows, that a thread takes at once
Stack = Float[ndarray, "n h w"]
Mask = Bool[ndarray, "n h w"]
Part = TypeVar("Part")


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


def _over(part: Callable[[slice], Part], length: int) -> Iterator[Part]:
    """What a function makes of each block, on threads."""
    with ThreadPoolExecutor() as pool:
        yield from pool.map(part, [slice(i, i + BLOCK) for i in range(0, length, BLOCK)])


def _ssim(truth: Stack, test: Stack, span: float, mask: Mask | None) -> tuple[float, float]:
    """Means of the maps of SSIM, 3-D and 2-D. The 3-D window is the 2-D one, and then the same across slices.

    Args:
        truth: what is right.
        test: what is compared with it.
        span: the range of intensities.
        mask: the voxels that count; None: all.
    """
    means = np.empty((5, *truth.shape))
    size = truth.size if mask is None else np.count_nonzero(mask)

    def summed(found: Stack, at: tuple[slice, ...]) -> float:
        return float(found.sum(where=True if mask is None else mask[at]))

    def in_plane(at: slice) -> float:
        for mean, product in zip(means, products(truth[at], test[at]), strict=True):
            gaussian_filter(product, (0, SIGMA, SIGMA), truncate=TRUNCATE, output=mean[at])
        return summed(similarity(means[:, at], span), (at,))

    def across(at: slice) -> float:
        solid = gaussian_filter1d(means[:, :, at], SIGMA, axis=1, truncate=TRUNCATE)
        return summed(similarity(solid, span), (slice(None), at))

    flat, solid = (
        sum(_over(part, n)) / size for part, n in zip((in_plane, across), truth.shape, strict=False)
    )
    return solid, flat


def laplacian(stack: Stack, sigma: float = LOG_SIGMA, size: int = LOG_SIZE) -> Stack:
    """Slices filtered by the Laplacian of a Gaussian, as MATLAB's ``fspecial('log')``; borders are mirrored.

    The kernel is g(y) c(x) + c(y) g(x) less its mean, so that it sums to 0, with c = g (x² - σ²) / σ⁴.

    Args:
        stack: slices.
        sigma: of the Gaussian, in pixels.
        size: pixels along a side of the kernel.
    """
    at = np.arange(size) - size // 2
    g = np.exp(-(at**2) / (2 * sigma**2))
    g /= g.sum()
    c = g * (at**2 - sigma**2) / sigma**4
    flat = np.full(size, 1.0)
    terms = ((g, c), (c, g), (flat, -2 * c.sum() * flat / size**2))
    x = stack.astype(np.float64)
    return sum(correlate1d(correlate1d(x, rows, 1), columns, 2) for rows, columns in terms)


def hfen(truth: Stack, test: Stack, mask: Mask | None = None) -> float:
    """High-frequency error norm: ‖LoG(test) - LoG(truth)‖ / ‖LoG(truth)‖, 2-D per slice, over all slices.

    Ravishankar & Bresler, IEEE TMI 30 (2011): a Laplacian of a Gaussian of 15x15 pixels, σ 1.5; relative to
    the truth, as is usual since. 0 if equal, infinite for another image of a truth without structure.

    Args:
        truth: what is right.
        test: what is compared with it.
        mask: the voxels that count, after filtering; None: all.
    """

    def power(at: slice) -> ndarray:
        filtered = (laplacian(x) for x in (truth[at], test[at].astype(np.float64) - truth[at]))
        inside = True if mask is None else mask[at]
        return np.array([np.square(x).sum(where=inside) for x in filtered])

    right, wrong = np.sum([*_over(power, len(truth))], 0)
    return float(np.sqrt(wrong / right)) if right else 0.0 if wrong == 0 else float("inf")


def _halves(slices: ndarray) -> ndarray:
    """(n, h, 2, w, 2) of slices, their last row or column repeated where there is an odd number of them."""
    n, h, w = slices.shape
    even = np.pad(slices, ((0, 0), (0, h % 2), (0, w % 2)), "edge")
    return even.reshape(n, (h + 1) // 2, 2, (w + 1) // 2, 2)


def _steepness(slices: Stack) -> Float[ndarray, "n a b"]:
    """Magnitude of the gradient (Prewitt's filters) at half the resolution: means of 2x2 pixels."""
    half = _halves(slices.astype(np.float64)).mean((2, 4))
    along = (uniform_filter1d(correlate1d(half, [-1, 0, 1], a), 3, axis=3 - a) for a in (1, 2))
    return np.hypot(*along)


def gmsd(truth: Stack, test: Stack, span: float, mask: Mask | None = None) -> float:
    """Gradient magnitude similarity deviation, per slice, mean over slices; 0 if equal.

    Xue et al., IEEE TIP 23 (2014): the standard deviation over a slice of (2ab + T) / (a² + b² + T) for the
    gradients a and b of the two images, with the range of intensities as 255 and T = 170. Prewitt's filters
    follow a mean of 2x2 pixels and a step of two. Borders are mirrored; the authors fill them with 0, which
    is the same for a background of 0.

    Args:
        truth: what is right.
        test: what is compared with it.
        span: the range of intensities.
        mask: what counts: means of 2x2 pixels any of which lies in it, in slices that have any; None: all.
    """

    def deviations(at: slice) -> ndarray:
        a, b = (_steepness(x[at]) * (255 / span) for x in (truth, test))
        alike = (2 * a * b + STEADY) / (a * a + b * b + STEADY)
        if mask is None:
            return alike.std((1, 2))
        inside = _halves(mask[at]).max((2, 4))
        return np.array([one[there].std() for one, there in zip(alike, inside, strict=True) if there.any()])

    return float(np.concatenate([*_over(deviations, len(truth))]).mean())


def scores(truth: Stack, test: Stack, span: float, mask: Mask | None = None) -> dict[str, float]:
    """All `METRICS`.

    Args:
        truth: what is right.
        test: what is compared with it.
        span: the range of intensities of the truth, also where a mask is given.
        mask: the voxels that count, at least one; None: all.
    """
    chosen = ... if mask is None else mask
    found = psnr(truth[chosen], test[chosen], span), *_ssim(truth, test, span, mask)
    return dict(zip(METRICS, (*found, hfen(truth, test, mask), gmsd(truth, test, span, mask)), strict=True))
