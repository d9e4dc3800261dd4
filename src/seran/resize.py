"""MATLAB's ``imresize(x, k, 'bicubic')``, exactly: the operator of BD degradation and bicubic enlargement.

Output sample ``x`` (1-based) lies at the input coordinate ``u = x/k + (1 - 1/k)/2``, i.e. the outer
edges of the first and last sample stay where they are; MATLAB's ceil(k n) samples are what is asked for, as k
is an integer or its inverse here. The kernel is Keys' cubic with a = -0.5
(Keys, "Cubic convolution interpolation", 1981); when shrinking it is stretched by 1/k, which is
MATLAB's antialiasing. Indices beyond the border are reflected about the outer edge of the image.
"""

from functools import cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def cubic(t: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """Keys' cubic kernel, a = -0.5, support (-2, 2)."""
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t <= 2, far, 0.0))


def sampled(at: Float[ndarray, "size"], n: int, stretch: float) -> Float[ndarray, "size n"]:
    """Weights that sample a signal at coordinates on it; rows sum to one.

    Args:
        at: the coordinates, in samples from the first one.
        n: samples of the signal.
        stretch: at most 1; the kernel is wider by its inverse, against aliasing.
    """
    u = at[:, None] + 1
    reach = 4 / stretch
    taps = np.floor(u - reach / 2) + np.arange(int(np.ceil(reach)) + 2)
    weights = stretch * cubic(stretch * (u - taps))
    weights /= weights.sum(1, keepdims=True)
    period = np.concatenate([np.arange(n), np.arange(n)[::-1]])
    columns = period[(taps.astype(int) - 1) % (2 * n)]
    dense = np.zeros((len(at), n))
    np.add.at(dense, (np.arange(len(at))[:, None], columns), weights)
    return dense


@cache
def matrix(n: int, size: int) -> Float[ndarray, "size n"]:
    """Weights that resize ``n`` samples to ``size``; rows sum to one. The cached array is read-only."""
    k = size / n
    dense = sampled(np.arange(1, size + 1) / k + 0.5 * (1 - 1 / k) - 1, n, min(k, 1.0))
    dense.setflags(write=False)
    return dense


def imresize(image: Float[ndarray, "*n h w"], shape: tuple[int, int]) -> Float[ndarray, "*n a b"]:
    """Resize the last two axes to ``shape``; float32 stays float32, everything else is float64.

    >>> imresize(np.array([[0.0, 0, 1, 1]]), (1, 2)).round(4).tolist()
    [[0.0547, 0.9453]]
    """
    h, w = image.shape[-2:]
    return _applied(matrix(h, shape[0]), image, matrix(w, shape[1]).T)


def adjoint(image: Float[ndarray, "*n a b"], shape: tuple[int, int]) -> Float[ndarray, "*n h w"]:
    """The transpose of `imresize` from ``shape`` to the shape of ``image``; its types are the same."""
    a, b = image.shape[-2:]
    return _applied(matrix(shape[0], a).T, image, matrix(shape[1], b))


def _applied(rows: Float[ndarray, "a h"], image: ndarray, columns: Float[ndarray, "w b"]) -> ndarray:
    dtype = image.dtype if image.dtype == np.float32 else np.float64
    return rows.astype(dtype) @ image.astype(dtype, copy=False) @ columns.astype(dtype)


@cache
def phases(scale: int) -> Float[ndarray, "scale 5"]:
    """Five-tap kernels of the ``scale`` sub-pixel phases of an enlargement by an integer.

    Sample ``scale * i + j`` of the result is ``sum_t phases[j, t] * x[i + t - 2]``.
    """
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    kernels = cubic(offset[:, None] - np.arange(-2, 3))
    kernels.setflags(write=False)
    return kernels
