"""Zero-filling of k-space: the plain interpolation for scans whose k-space was truncated (TD)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def zerofill(scale: int) -> Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]:
    """A predictor of the given scale; keeps the centre of voxel 0 (period: the field of view)."""

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        pad = [scale * n // 2 - n // 2 for n in low.shape[1:]]
        spectrum = np.fft.fftshift(np.fft.fft2(low), axes=(1, 2))
        wide = np.zeros((len(low), *(scale * n for n in low.shape[1:])), spectrum.dtype)
        wide[:, pad[0] : pad[0] + low.shape[1], pad[1] : pad[1] + low.shape[2]] = spectrum
        return (np.fft.ifft2(np.fft.ifftshift(wide, axes=(1, 2))) * scale**2).real.astype(np.float32)

    return predict
