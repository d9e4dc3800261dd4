"""MATLAB's ``imresize(x, k, 'bicubic')``, exactly: the operator of BD degradation and bicubic enlargement.

Output sample ``x`` (1-based) lies at the input coordinate ``u = x/k + (1 - 1/k)/2``, i.e. the outer
edges of the first and last sample stay where they are; MATLAB's ceil(k n) samples are what is asked for, as k
is an integer or its inverse here. The kernel is Keys' cubic with a = -0.5
(Keys, "Cubic convolution interpolation", 1981); when shrinking it is stretched by 1/k, which is
MATLAB's antialiasing. Indices beyond the border are reflected about the outer edge of the image.
"""

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

WIDE = 1 << 22
"""Weights from which a matrix is kept sparse; a smaller one is faster dense."""
Matrix = Any
"""Weights (size, n): an array, or a sparse array of scipy's where that is `WIDE`; both know ``@``."""


def cubic(t: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """Keys' cubic kernel, a = -0.5, support (-2, 2)."""
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t <= 2, far, 0.0))


def sampled(at: Float[ndarray, "size"], n: int, stretch: float, beyond: bool = True) -> Matrix:
    """Weights that sample a signal at coordinates on it; rows sum to one.

    Args:
        at: the coordinates, in samples from the first one.
        n: samples of the signal.
        stretch: at most 1; the kernel is wider by its inverse, against aliasing.
        beyond: whether the signal goes on, reflected, where it ends; else rows are 0 there.
    """
    u = at[:, None] + 1
    reach = 4 / stretch
    taps = np.floor(u - reach / 2) + np.arange(int(np.ceil(reach)) + 2)
    weights = stretch * cubic(stretch * (u - taps))
    weights /= weights.sum(1, keepdims=True)
    period = np.concatenate([np.arange(n), np.arange(n)[::-1]])
    columns = period[(taps.astype(int) - 1) % (2 * n)]
    if not beyond:
        weights[(at < -0.5) | (at > n - 0.5)] = 0
    if len(at) * n >= WIDE:
        from scipy.sparse import csr_array  # rarely needed

        rows = np.repeat(np.arange(len(at)), columns.shape[1])
        return csr_array((weights.ravel(), (rows, columns.ravel())), shape=(len(at), n))
    dense = np.zeros((len(at), n))
    np.add.at(dense, (np.arange(len(at))[:, None], columns), weights)
    return dense


@cache
def matrix(n: int, size: int) -> Matrix:
    """Weights that resize ``n`` samples to ``size``; rows sum to one. A cached array is read-only."""
    k = size / n
    made = sampled(np.arange(1, size + 1) / k + 0.5 * (1 - 1 / k) - 1, n, min(k, 1.0))
    if isinstance(made, ndarray):
        made.setflags(write=False)
    return made


def along(data: Float[ndarray, "..."], i: int, weights: Matrix) -> Float[ndarray, "..."]:
    """Weights (m, n) applied to axis ``i``, of n samples."""
    moved = np.moveaxis(data, i, 0)
    made = weights @ moved.reshape(len(moved), -1)
    return np.moveaxis(made.reshape(-1, *moved.shape[1:]), 0, i)


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


def _applied(rows: Matrix, image: ndarray, columns: Matrix) -> ndarray:
    dtype = image.dtype if image.dtype == np.float32 else np.float64
    rows, columns, image = rows.astype(dtype), columns.astype(dtype), image.astype(dtype, copy=False)
    if isinstance(rows, ndarray) and isinstance(columns, ndarray):
        return rows @ image @ columns
    return along(along(image, image.ndim - 2, rows), image.ndim - 1, columns.T)


@cache
def phases(scale: int) -> Float[ndarray, "scale 5"]:
    """Five-tap kernels of the ``scale`` sub-pixel phases of an enlargement by an integer.

    Sample ``scale * i + j`` of the result is ``sum_t phases[j, t] * x[i + t - 2]``.
    """
    offset = (np.arange(scale) + 0.5) / scale - 0.5
    kernels = cubic(offset[:, None] - np.arange(-2, 3))
    kernels.setflags(write=False)
    return kernels
