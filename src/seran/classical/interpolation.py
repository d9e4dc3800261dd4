"""The plain interpolations, slice by slice: predictors of a given scale that gains are counted from."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import kspace
from seran.resize import imresize

Predict = Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]


def bicubic(scale: int) -> Predict:
    """Bicubic [2D], the paper's: MATLAB's imresize, which keeps the corners of the field of view."""
    return lambda low: imresize(np.asarray(low, np.float32), (scale * low.shape[1], scale * low.shape[2]))


def zerofill(scale: int) -> Predict:
    """Zeros around truncated k-space (TD): keeps the centre of voxel 0 (period: the field of view)."""

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        high = kspace.extend(low, (scale * low.shape[1], scale * low.shape[2]))
        return (high * scale**2).real.astype(np.float32)

    return predict
