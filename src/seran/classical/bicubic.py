"""Bicubic [2D], the paper's first baseline: every slice enlarged by MATLAB's imresize."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran.resize import imresize


def bicubic(scale: int) -> Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]:
    """A predictor of the given scale; keeps the corners of the field of view."""

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        return imresize(np.asarray(low, np.float32), (scale * low.shape[1], scale * low.shape[2]))

    return predict
