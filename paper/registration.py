"""Rigid movements in the plane of slices: of one contrast by phase correlation, of others by information."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage, optimize

BINS = 48
"""Intensities of an image that `nmi` tells apart, unless it is told otherwise."""


@dataclass(frozen=True)
class Rigid:
    """In the plane of slices: where on the moving image a voxel of the fixed one lies.

    Attributes:
        angle: degrees about the middle of the field of view, from rows to columns.
        down: shift in mm along rows' axis.
        right: the same along columns' axis.
    """

    angle: float
    down: float
    right: float

    @property
    def turn(self) -> Float[ndarray, "2 2"]:
        """Its rotation."""
        a = np.deg2rad(self.angle)
        return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def placed(
    moving: Float[ndarray, "n h w"],
    rigid: Rigid,
    shape: tuple[int, int] | None = None,
    mm: tuple[float, float] = (1, 1),
    onto: tuple[float, float] | None = None,
    order: int = 3,
) -> Float[ndarray, "n a b"]:
    """Slices on the grid of a fixed image, whose field of view has the same middle before the movement.

    Args:
        moving: slices.
        rigid: the movement.
        shape: of the fixed grid; by default that of the moving one.
        mm: of a voxel of the moving image.
        onto: of a voxel of the fixed one; by default as of the moving one.
        order: of the splines.
    """
    shape, onto = shape or moving.shape[1:], onto or mm
    matrix = rigid.turn * np.array(onto) / np.array(mm)[:, None]
    middle = (np.array(shape) - 1) / 2
    centre = (np.array(moving.shape[1:]) - 1) / 2 + np.array([rigid.down, rigid.right]) / np.array(mm)
    offset = centre - matrix @ middle
    made = [
        ndimage.affine_transform(x.astype(np.float64), matrix, offset, shape, order=order) for x in moving
    ]
    return np.stack(made).astype(np.float32)


def hann(shape: tuple[int, int]) -> Float[ndarray, "h w"]:
    """A window that is nearly nothing at all edges."""
    rows, columns = (np.hanning(n + 2)[1:-1] for n in shape)
    return rows[:, None] * columns


def translation(
    fixed: Float[ndarray, "n h w"], moving: Float[ndarray, "n h w"]
) -> tuple[float, float, float]:
    """By phase correlation of all slices together: the shift in pixels, and how sharp its peak is."""
    h, w = fixed.shape[1:]
    window = hann((h, w))
    a, b = (np.fft.fft2((x - x.mean()) * window) for x in (fixed, moving))
    cross = (a.conj() * b).sum(0)
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)
    weight = np.exp(-(fy**2 + fx**2) / (2 * 0.15**2))  # the finest frequencies are mostly noise
    phase = weight * cross / np.maximum(np.abs(cross), 1e-12 * np.abs(cross).max())
    peak = np.fft.ifft2(phase).real
    start = [
        float((i + n // 2) % n - n // 2)
        for i, n in zip(np.unravel_index(peak.argmax(), peak.shape), (h, w), strict=True)
    ]

    def less(v: ndarray) -> float:
        rows, columns = np.exp(2j * np.pi * fy[:, 0] * v[0]), np.exp(2j * np.pi * fx * v[1])
        return -float((rows @ phase @ columns).real)

    simplex = np.array(start) + np.array([[0, 0], [0.4, 0], [0, 0.4]])
    made = optimize.minimize(
        less, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-4}
    )
    return float(made.x[0]), float(made.x[1]), -float(made.fun) / float(weight.sum())


def registered(
    fixed: Float[ndarray, "n h w"],
    moving: Float[ndarray, "n h w"],
    mm: tuple[float, float] = (1, 1),
    most: float = 4,
) -> Rigid:
    """The movement between two stacks of one contrast and grid: the angle at which their phases agree best.

    Args:
        fixed: slices.
        moving: slices of the same shape.
        mm: of their voxels.
        most: degrees that are looked at to either side.
    """

    def less(angle: float, order: int = 3) -> float:
        return -translation(fixed, placed(moving, Rigid(angle, 0, 0), mm=mm, order=order))[2]

    angles = np.arange(-most, most + 0.25, 0.5)
    best = float(angles[np.argmin([less(a, 1) for a in angles])])
    found = optimize.minimize_scalar(
        less, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 0.01}
    )
    angle = float(found.x)
    y, x, _ = translation(fixed, placed(moving, Rigid(angle, 0, 0), mm=mm))
    down, right = Rigid(angle, 0, 0).turn @ np.array([y * mm[0], x * mm[1]])
    return Rigid(angle, float(down), float(right))


def nmi(one: ndarray, other: ndarray, bins: int = BINS) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b), from 1 to 2 (Studholme 1999)."""
    edges = [np.linspace(*np.percentile(x, (0.5, 99.5)), bins - 1) for x in (one, other)]
    a, b = (np.searchsorted(e, x.ravel()) for e, x in zip(edges, (one, other), strict=True))
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins) / a.size

    def entropy(p: ndarray) -> float:
        p = p[p > 0]
        return -float((p * np.log(p)).sum())

    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / max(entropy(joint.ravel()), 1e-12)


def matched(
    fixed: Float[ndarray, "n h w"],
    mm: tuple[float, float],
    moving: Float[ndarray, "n a b"],
    other: tuple[float, float],
) -> Rigid:
    """The movement between stacks of unlike contrast and grid: the greatest `nmi`, coarse to fine.

    Args:
        fixed: slices.
        mm: of their voxels.
        moving: as many slices.
        other: mm of their voxels.
    """

    def score(fine: float) -> Callable[[ndarray], float]:
        # the moving image is not sampled coarsely: where two grids meet, information would leap
        a, b = (
            ndimage.gaussian_filter(x.astype(np.float64), (0, *(fine / s / 2 for s in size)))
            for x, size in ((fixed, mm), (moving, other))
        )
        shape = tuple(max(8, round(n * s / fine)) for n, s in zip(a.shape[1:], mm, strict=True))
        a = placed(a, Rigid(0, 0, 0), shape, mm, (fine, fine), order=1)

        def less(v: ndarray) -> float:
            return -nmi(a, placed(b, Rigid(*v), shape, other, (fine, fine), order=1), 24)

        return less

    first = score(4.0)
    starts = [
        np.array([a, y, x], float)
        for a in (-6, -3, 0, 3, 6)
        for y in range(-24, 25, 6)
        for x in range(-24, 25, 6)
    ]

    def refined(less: Callable[[ndarray], float], v: ndarray, size: float) -> tuple[float, ndarray]:
        simplex = v + size * np.array([[0, 0, 0], [1, 0, 0], [0, 1.5, 0], [0, 0, 1.5]])
        how = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-5}
        made = optimize.minimize(less, v, method="Nelder-Mead", options=how)
        return float(made.fun), made.x

    second, last = score(2.0), score(1.0)
    near = min((refined(second, v, 2) for v in sorted(starts, key=first)[:3]), key=lambda one: one[0])[1]
    turned = sorted((near + np.array([a, 0, 0]) for a in np.arange(-3, 3.1, 1)), key=last)[:2]
    best = min((refined(last, v, 0.7) for v in turned), key=lambda one: one[0])[1]
    return Rigid(*(float(x) for x in best))
