"""Rigid movements in the plane of slices: of one contrast by phase correlation, of others by information.

And any between stacks that cross, found without interpolation across slices: slices of two stacks cross in
lines, along which each is as sharp as it ever is. Seen there by slices of the other one, in its own plane,
each stack shows the same; a shift for each place of the lines makes them agree (Lucas & Kanade 1981, on
intensities of local mean 0 and deviation 1, from wide windows to narrow ones).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage, optimize

from seran import grid
from seran.profiles import Profile, taps
from seran.volume import Volume

BINS = 48
"""Intensities of an image that `nmi` tells apart, unless it is told otherwise."""
LOCAL = 8.0  # mm, standard deviation of the windows in which stacks that cross are compared
FLOOR = 0.03  # of the 99th percentile: a deviation in a window that counts as nothing
PLAN = ((3.0, 64.0), (2.0, 32.0), (1.0, 16.0), (0.0, 12.0))
"""Standard deviations in mm: of what smooths the slices, and of the window that moves as one."""
ROUNDS = 4  # of each


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


@dataclass(frozen=True)
class Stack:
    """Thick slices.

    Attributes:
        volume: they.
        axis: along which they are stacked.
    """

    volume: Volume
    axis: int

    @classmethod
    def of(cls, volume: Volume) -> "Stack":
        """That of a scan."""
        return cls(volume, grid.slice_axis(volume.affine, volume.data.shape, "auto"))

    @cached_property
    def size(self) -> Float[ndarray, "3"]:
        """Spacing in mm."""
        return grid.spacing(self.volume.affine)

    @cached_property
    def peak(self) -> float:
        """The 99.9th percentile."""
        return float(np.percentile(self.volume.data, 99.9))

    @cached_property
    def given(self) -> Float[ndarray, "n b c"]:
        """Its slices."""
        return np.moveaxis(self.volume.data, self.axis, 0).astype(np.float64)

    def along(self, other: "Stack") -> int:
        """Its array axis in the direction in which slices of another one are stacked."""
        normal = other.volume.affine[:3, other.axis]
        return int(np.abs(normal @ self.volume.affine[:3, :3] / self.size).argmax())

    def crossed(self, other: "Stack", profile: Profile, smooth: float) -> Float[ndarray, "x y z"]:
        """Seen by slices of another one, in its own plane, where it is also smoothed (mm)."""
        axis = self.along(other)
        width = profile.thickness * other.size[other.axis] / self.size[axis]
        seen = ndimage.convolve1d(
            self.volume.data.astype(np.float64),
            taps(profile.kind, np.sqrt(width**2 - 1)),
            axis,
            mode="nearest",
        )
        return ndimage.gaussian_filter(seen, np.where(np.arange(3) == self.axis, 0, smooth / self.size))


@dataclass(frozen=True)
class Lines:
    """Where slices of two stacks cross: source slice i, target slice j, and places u along their line.

    Attributes:
        source: a stack.
        target: the one that it is moved to.
        images: both, seen by slices of each other.
    """

    source: Stack
    target: Stack
    images: tuple[Float[ndarray, "x y z"], Float[ndarray, "a b c"]]

    @classmethod
    def of(cls, source: Stack, target: Stack, profile: Profile, smooth: float = 0.0) -> "Lines":
        """Those of two stacks, whose slices are smoothed (mm)."""
        return cls(
            source, target, (source.crossed(target, profile, smooth), target.crossed(source, profile, smooth))
        )

    @property
    def along(self) -> int:
        """The target's array axis that the lines follow."""
        return 3 - self.target.axis - self.target.along(self.source)

    @property
    def step(self) -> int:
        """Pixels between places along a line: about 1 mm."""
        return max(1, round(1 / self.target.size[self.along]))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Source slices, target slices, places."""
        n = self.target.volume.data.shape
        return (
            self.source.volume.data.shape[self.source.axis],
            n[self.target.axis],
            -(-n[self.along] // self.step),
        )

    @property
    def size(self) -> Float[ndarray, "3"]:
        """Their distances in mm."""
        a, b = self.source, self.target
        return np.array([a.size[a.axis], b.size[b.axis], b.size[self.along] * self.step])

    def voxels(
        self, shift: Float[ndarray, "3 i j u"]
    ) -> tuple[Float[ndarray, "3 i j u"], Float[ndarray, "3 i j u"]]:
        """Where the places lie in the source and in the target, if mm of the target are shifted so."""
        inverse = np.linalg.inv(self.source.volume.affine)
        matrix, s = inverse @ self.target.volume.affine, self.source.axis
        i, j, u = np.indices(self.shape)
        shift = np.tensordot(inverse[:3, :3], shift, 1)
        to = np.zeros((3, *self.shape))
        to[self.target.axis], to[self.along] = j, u * self.step
        free = self.target.along(self.source)
        to[free] = (i - shift[s] - matrix[s, 3] - np.tensordot(matrix[s, :3], to, 1)) / matrix[s, free]
        at = carried(matrix, to) + shift
        at[s] = i  # to the bit: what lies outside is nothing
        return at, to

    def values(self, shift: Float[ndarray, "3 i j u"]) -> Float[ndarray, "2 i j u"]:
        """Of the source and the target; NaN outside."""
        return np.stack(
            [
                ndimage.map_coordinates(image, at, order=1, cval=np.nan)
                for image, at in zip(self.images, self.voxels(shift), strict=True)
            ]
        )

    def smoothed(self, x: Float[ndarray, "i j u"], mm: float) -> Float[ndarray, "i j u"]:
        """By a Gaussian window."""
        return ndimage.gaussian_filter(x, mm / self.size, mode="constant", truncate=2.5)

    def normal(
        self, shift: Float[ndarray, "3 i j u"]
    ) -> tuple[Float[ndarray, "2 i j u"], Float[ndarray, "2 i j u"], Bool[ndarray, "i j u"]]:
        """Values of local mean 0 and deviation 1, or 0 outside; local means; where both stacks are."""
        values = self.values(shift)
        there = np.isfinite(values).all(0)
        weight = np.maximum(self.smoothed(there.astype(float), LOCAL), 1e-6)
        normal, means = np.zeros_like(values), np.zeros_like(values)
        for k, x in enumerate(values):
            least = (FLOOR * np.percentile(x[there], 99)) ** 2
            x = np.where(there, x, 0)
            means[k] = self.smoothed(x, LOCAL) / weight
            deviation = np.maximum(self.smoothed(x * x, LOCAL) / weight - means[k] ** 2, 0)
            normal[k] = np.where(there, (x - means[k]) / np.sqrt(deviation + least), 0)
        return normal, means, there

    def difference(self, shift: Float[ndarray, "3 i j u"]) -> Float[ndarray, "i j u"]:
        """Of both stacks' normal values."""
        one, other = self.normal(shift)[0]
        return one - other

    def agreement(self, shift: Float[ndarray, "3 i j u"]) -> Float[ndarray, "2 i j u"]:
        """Local correlation, and the least of both stacks' local means as a part of its peak."""
        normal, means, there = self.normal(shift)
        one, other, both = (self.smoothed(x, LOCAL) for x in (normal[0] ** 2, normal[1] ** 2, normal.prod(0)))
        local = np.where(there, both / np.sqrt(np.maximum(one * other, 1e-12)), 0)
        peaks = np.array([self.source.peak, self.target.peak])[:, None, None, None]
        return np.stack([local, (means / peaks).min(0)])

    def nearer(self, shift: Float[ndarray, "3 i j u"], window: float) -> Float[ndarray, "3 i j u"]:
        """A Gauss-Newton step of the shift in each window; places that differ much count less."""
        off, h = self.difference(shift), 0.5
        axes = np.eye(3)[..., None, None, None]
        slope = [(self.difference(shift + h * e) - self.difference(shift - h * e)) / (2 * h) for e in axes]
        weight = 1 / (1 + off**2)
        force = np.stack([self.smoothed(weight * s * off, window) for s in slope], -1)
        tensor = np.empty((*self.shape, 3, 3))
        for k, m in itertools.combinations_with_replacement(range(3), 2):
            tensor[..., k, m] = tensor[..., m, k] = self.smoothed(weight * slope[k] * slope[m], window)
        least = 0.1 * np.trace(tensor, axis1=-2, axis2=-1).mean() / 3  # where nothing is seen, nothing moves
        made = np.linalg.solve(tensor + least * np.eye(3), force[..., None])[..., 0]
        return shift - np.moveaxis(made, -1, 0)


def aligned(source: Stack, target: Stack, profile: Profile) -> tuple[Lines, Float[ndarray, "3 i j u"]]:
    """The lines in which two stacks cross, and the shift from target to source with which they agree.

    Args:
        source: a stack.
        target: the one that it is moved to.
        profile: of the slices of both.
    """
    shift = np.zeros((3, *Lines.of(source, target, profile).shape))
    for smooth, window in PLAN:
        lines = Lines.of(source, target, profile, smooth)
        for _ in range(ROUNDS):
            shift = lines.nearer(shift, window)
    return lines, shift


def carried(affine: Float[ndarray, "4 4"], at: Float[ndarray, "3 *n"]) -> Float[ndarray, "3 *n"]:
    """Places of one grid in another one, or in mm."""
    return np.tensordot(affine[:3, :3], at, 1) + affine[:3, 3].reshape(3, *[1] * (at.ndim - 1))
