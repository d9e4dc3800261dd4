"""Zero-filling of k-space: the plain interpolation for scans whose k-space was truncated (TD)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import kspace


def zerofill(scale: int) -> Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]:
    """A predictor of the given scale; keeps the centre of voxel 0 (period: the field of view)."""

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        high = kspace.extend(low, (scale * low.shape[1], scale * low.shape[2]))
        return (high * scale**2).real.astype(np.float32)

    return predict
