"""Thick slices to isotropic voxels: the network across slices, on both reformatted stacks of a scan.

A scan of n slices with the distance d and pixels p has two stacks of reformatted slices, whose rows are its
slices: one at each of its columns, one at each of its rows. The network makes k = d/p rows of each, k the
next of `FACTORS`; the mean of both stacks goes to the wanted grid in one exact resampling. The outer faces
of the field of view stay where they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import consistency, grid, methods, resample
from seran.errors import BadInput
from seran.grid import Grid
from seran.native import background, joined
from seran.profiles import SOFTNESS, Profile
from seran.progress import counting, detail, unseen
from seran.quality.measures import NOISIEST
from seran.scratch import Allocator, memory, release, turned
from seran.sharpen import CHUNK_PIXELS, Across, Method, Normalisation, Progress
from seran.uncertainty import Widths
from seran.volume import Volume

FACTORS = (2, 3, 4, 5, 6, 7, 8)
THINNEST = 1.2  # times the wanted spacing, that slices are apart at least
THICKEST = 8.2  # the same, at most
SHORT = 0.03  # part of a factor by which an ending may stay below what is wanted
SQUARE = 1.6  # times the other spacing in the plane: beyond that, two axes are thick
FEWEST = 4  # slices


def wanted(scan: Grid, axis: int, mm: float | None) -> Grid:
    """The grid of about isotropic voxels in the field of view of a scan; `BadInput` if it has no thick axis.

    Args:
        scan: its grid.
        axis: along which its slices are stacked.
        mm: spacing, along every axis as near to it as whole voxels allow; without it the finest of the scan.
    """
    size = grid.spacing(scan.affine)
    plane = np.delete(size, axis)
    goal, distance = float(plane.min()) if mm is None else mm, float(size[axis])
    times = distance / goal
    if plane.max() > SQUARE * plane.min():
        raise BadInput(
            f"--isotropic: expected one thick axis, which slices are stacked along, got slices along axis "
            f"{axis + 1} of voxels of {grid.dimensions(size, '.3g')} mm; leave --plane out, or resample the "
            "other axis first"
        )
    if times < THINNEST:
        most = distance / THINNEST
        if mm is None or plane.min() > most:
            raise BadInput(
                f"--isotropic: slices {distance:.3g} mm apart are not {THINNEST:g} times as far apart as the "
                f"pixels, {plane.min():.3g} mm: the scan has no thick axis; leave --isotropic out, and give "
                "--scale or --spacing"
            )
        raise BadInput(
            f"--isotropic {mm:g}: slices {distance:.3g} mm apart become thinner at {most:.3g} mm or less"
        )
    if times > THICKEST:
        raise BadInput(
            f"--isotropic: slices {distance:.3g} mm apart are {times:.1f} times voxels of {goal:.3g} mm, and "
            f"no network is trained for more than 8; give --isotropic {distance / 8:.2g} or more"
        )
    if scan.shape[axis] < FEWEST:
        raise BadInput(f"--isotropic: expected {FEWEST} slices or more, got {scan.shape[axis]}")
    counts = [max(1, round(n * s / goal)) for n, s in zip(scan.shape, size, strict=True)]
    return grid.with_counts(scan, counts)


def factor(scan: Grid, target: Grid, axis: int) -> int:
    """The ending for the rows that are wanted of each slice: the next, or one hardly below."""
    times = target.shape[axis] / scan.shape[axis]
    return next((k for k in FACTORS if k >= times * (1 - SHORT)), FACTORS[-1])


def told(sigma: float, profile: Profile, k: int) -> Float[ndarray, "4"]:
    """What the network is told: the noise, the profile's thickness and softness, the factor; 0 to about 1.

    Args:
        sigma: standard deviation of the noise, as a part of the scan's range.
        profile: of the slices.
        k: rows for each slice.
    """
    noise = np.sqrt(20 * min(sigma, NOISIEST))
    return np.array([noise, profile.thickness, SOFTNESS[profile.kind], k / 8], np.float32)


@dataclass(frozen=True)
class Thin:
    """How thick slices become thin ones."""

    network: Across
    k: int  # thin slices for each
    profile: Profile  # of the thick ones
    by: str  # what their thickness is known by: stated, header, json or assumed
    final: Grid
    plane: Grid | None  # the same in the plane of the slices, if that is not the scan's
    adapted: tuple[int, float, str] | None = None  # steps of tuning, dB that they gained, why not used

    def __call__(
        self,
        volume: Volume,
        axis: int,
        sigma: float,
        empty: float | None,
        sd: float | None,
        progress: Progress,
        allocate: Allocator,
    ) -> tuple[Volume, int, Volume | None]:
        """See `thinner` and `half_widths`; the volume is fine in the plane of its slices.

        They are made consistent with the thick ones where the noise ``sd`` of these is given, see
        `seran.consistency.project_across`, from which the number is; again on the final grid, where that has
        other slices, since what resampling does to them counts as well.
        """
        stack, make = np.moveaxis(volume.data, axis, 0), turned(allocate)
        thin = thinner(stack, self.network, self.k, self.profile, sigma, empty, progress, make)
        changed = 0 if sd is None else consistency.project_across(thin, stack, self.profile, sd, empty)
        counts = np.where(np.arange(3) == axis, self.k, 1) * volume.data.shape
        affine = grid.with_counts(volume.grid, counts).affine
        fine = volume.on(np.moveaxis(thin, 0, axis), affine)
        half = None
        if self.network.widths is not None:
            detail("half-widths")
            norm = Normalisation.of(stack)
            said = told(sigma / (norm.gain or 1.0), self.profile, self.k)
            off = half_widths(thin, stack, norm, self.network.widths, self.k, said, empty, allocate=make)
            half = self._placed(volume.on(np.moveaxis(off, 0, axis), affine), allocate)
        thickness = float(grid.spacing(self.final.affine)[axis])
        placed = replace(self._placed(fine, allocate), thickness=thickness)
        last = np.moveaxis(placed.data, axis, 0)
        if sd is not None and len(last) != len(thin) and last.shape[1:] == thin.shape[1:]:
            changed = max(changed, consistency.project_across(last, stack, self.profile, sd, empty))
        return placed, changed, half

    def _placed(self, fine: Volume, allocate: Allocator) -> Volume:
        """On the final grid."""
        return fine if fine.data.shape == self.final.shape else resample.onto(fine, self.final, allocate)

    @property
    def alone(self) -> Method:
        """What changes nothing in the plane of the slices."""
        same = ("weights", "sha256", "scans", "spacings")
        facts = {name: getattr(self.network, name) for name in same}
        running = self.network.heads(self.k)
        facts |= {"engine": running.engine, "precision": running.precision}
        return Method(methods.DEFAULT, (1, 1), lambda low: low, "td", "center", **facts)

    @property
    def facts(self) -> dict[str, Any]:
        """What a record states of it."""
        facts: dict[str, Any] = {
            "slice_factor": self.k,
            "slice_profile": str(self.profile),
            "slice_thickness_by": self.by,
            "slice_weights": self.network.weights,
            "slice_weights_sha256": self.network.sha256,
        }
        if self.adapted is not None:
            facts["adapt_steps"], facts["adapt_gain"], facts["adapt_kept"] = self.adapted
        return facts


def thinner(
    stack: Float[ndarray, "n h w"],
    across: Across,
    k: int,
    profile: Profile,
    sigma: float = 0.0,
    empty: float | None = None,
    progress: Progress = unseen,
    allocate: Allocator = memory,
) -> Float[ndarray, "kn h w"]:
    """K thin slices for each thick one, in the units of the scan; never negative where the scan is not.

    Args:
        stack: the slices.
        across: the network.
        k: of `FACTORS`.
        profile: what the slices have seen.
        sigma: standard deviation of their noise, in their units.
        empty: the value of a constant background, which the result keeps.
        progress: called with parts of the slices, as a network finishes planes.
        allocate: makes the array of the result.
    """
    n, h, w = stack.shape
    made, norm = allocate((k * n, h, w)), Normalisation.of(stack)
    if norm.gain == 0:
        made[:] = norm.offset
        progress(n)
        return made
    predict, said = across.heads(k).predict, told(sigma / norm.gain, profile, k)
    for axis in (2, 1):
        planes, out = np.moveaxis(stack, axis, 0), np.moveaxis(made, axis, 0)
        step = max(1, CHUNK_PIXELS // (k * planes[0].size))
        for start in range(0, len(planes), step):
            at = np.arange(start, min(start + step, len(planes)))
            near = [norm.apply(planes[np.clip(at + d, 0, len(planes) - 1)]) for d in (-1, 0, 1)]
            with counting(n * len(at) / (h + w), len(at), progress):
                high = predict(joined(np.stack(near, 1), said)) / 2
            out[at] = high if axis == 2 else out[at] + high
            for array in (stack, made):
                release(array)
    _finish(made, stack, norm, k, empty)
    return made


def half_widths(
    thin: Float[ndarray, "kn h w"],
    stack: Float[ndarray, "n h w"],
    norm: Normalisation,
    widths: Widths,
    k: int,
    said: Float[ndarray, "4"],
    empty: float | None = None,
    axes: Sequence[int] = (2, 1),
    allocate: Allocator = memory,
) -> Float[ndarray, "kn h w"]:
    """How far thin slices may be off, see `seran.uncertainty`: the geometric mean over both stacks.

    Args:
        thin: slices, k for each thick one.
        stack: these.
        norm: of these.
        widths: what gives half-widths.
        k: of `FACTORS`.
        said: what the network was told.
        empty: the value of a constant background, where nothing is off.
        axes: along which planes are stacked.
        allocate: makes the array of the result.
    """
    made, place = allocate(thin.shape), np.abs((np.arange(len(thin)) % k + 0.5) * 2 / k - 1)
    told = np.concatenate([np.broadcast_to(said[:, None], (4, len(thin))), place[None]]).astype(np.float32)
    for axis in axes:
        planes, out = np.moveaxis(thin, axis, 0), np.moveaxis(made, axis, 0)
        step = max(1, CHUNK_PIXELS // planes[0].size)
        for start in range(0, len(planes), step):
            at = slice(start, start + step)
            off = widths.logarithm(norm.apply(planes[at]), told, f"k{k}") / len(axes)
            out[at] = off if axis == axes[0] else out[at] + off
            for array in (thin, made):
                release(array)
    mask = None if empty is None else background(stack, empty)
    for i, half in enumerate(made):
        np.exp(half, out=half)
        half *= np.float32(norm.gain)
        below, above = between(i, k, len(stack))
        if mask is not None:
            half[mask[below] & mask[above]] = 0
        release(made)
    return made


def _finish(
    made: Float[ndarray, "kn h w"],
    stack: Float[ndarray, "n h w"],
    norm: Normalisation,
    k: int,
    empty: float | None,
) -> None:
    """Back to the units of the scan, in place; not negative where it is not, empty where it is."""
    mask = None if empty is None else background(stack, empty)
    for i, thin in enumerate(made):
        norm.undo(thin)
        below, above = between(i, k, len(stack))
        np.maximum(thin, 0, out=thin, where=(stack[below] >= 0) & (stack[above] >= 0))
        if mask is not None:
            thin[mask[below] & mask[above]] = empty
        release(made)


def between(i: int, k: int, n: int) -> tuple[int, int]:
    """The thick slices of n around the i-th thin one, k for each; at the ends the same twice."""
    below = (2 * i + 1 - k) // (2 * k)
    return max(below, 0), min(below + 1, n - 1)
