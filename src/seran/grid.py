"""Affines of voxel grids: where a sample lies, in millimetres, before and after a change of factor.

A finer grid keeps one of two anchors, which differ by (k - 1)/2 fine voxels (`nibabel.affines.rescale_affine`
keeps neither): ``corner`` (MATLAB's imresize), the outer corner of the field of view, with ``A_new =
A [[1/k, (1/k - 1)/2], [0, 1]]`` per axis; or ``center`` (truncation of k-space), the centre of voxel 0.
A grid that a predictor does not make by itself keeps neither, see `Kept`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Affine = Float[ndarray, "4 4"]
Anchor = Literal["corner", "center"]
Kept = Literal["corner", "center", "middle", "none"]  # middle: of the field of view; none: another's grid
Plane = Literal["auto", "axial", "coronal", "sagittal"]
MIDDLE = 1e-3  # voxels by which the middle of the field of view may move, where it stays
SPREAD = np.arange(1, 1 << 16)[:, None] * [0.8191725134, 0.6710436067, 0.5497004779] % 1
"""Points that fill the unit cube evenly (Kronecker's sequence with powers of the root of x^4 = x + 1)."""
NORMALS = {"sagittal": 0, "coronal": 1, "axial": 2}  # the world axis (R, A, S) that slices are stacked along


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie."""

    shape: tuple[int, int, int]  # voxels along each array axis
    affine: Affine  # voxel index to mm (RAS+)


@dataclass(frozen=True)
class Plan:
    """From the grid of a scan to that of its result; rows and columns are the other two axes, in order."""

    scan: Grid
    axis: int  # the array axis along which its slices are stacked
    factors: tuple[int, int]  # fine voxels for each voxel, along rows and columns, that the predictor makes
    anchor: Anchor  # what the predictor's grid has in common with that of the scan
    target: Grid | None = None  # the grid that is wanted, where that of the predictor is not

    @property
    def enlarged(self) -> Grid:
        """The predictor's grid."""
        a, b, c = np.insert(self.factors, self.axis, 1).tolist()
        x, y, z = self.scan.shape
        return Grid((a * x, b * y, c * z), rescale(self.scan.affine, (a, b, c), self.anchor))

    @property
    def kept(self) -> Kept:
        """What the grid of the result has in common with that of the scan."""
        if self.target is None:
            return self.anchor
        old, new = (corners(g.shape, g.affine) for g in (self.scan, self.target))
        near = MIDDLE * spacing(self.scan.affine).min()
        if np.abs(old - new).max() < near:
            return "corner"
        return "middle" if np.linalg.norm(old.mean(0) - new.mean(0)) < near else "none"

    @property
    def interpolated_across(self) -> float:
        """Slices of the target for each of the scan, across which nothing but interpolation is done."""
        if self.target is None:
            return 1.0
        to = np.linalg.inv(self.scan.affine[:3, :3]) @ self.target.affine[:3, :3]
        return float(1 / np.abs(to[self.axis]).max())

    @property
    def outside(self) -> float:
        """Part of the result's field of view that lies outside the scan's."""
        return 0.0 if self.target is None else 1 - covered(self.target, self.scan)


def spacing(affine: Affine) -> Float[ndarray, "3"]:
    """Voxel size per array axis in mm."""
    return np.sqrt((affine[:3, :3] ** 2).sum(0))


def rescale(affine: Affine, factors: tuple[float, float, float], anchor: Anchor) -> Affine:
    """Affine of the grid with more voxels, or fewer, in one field of view.

    Args:
        affine: voxel index to mm (RAS+).
        factors: voxels of the new grid for each voxel, per array axis.
        anchor: what stays where it is.

    >>> rescale(np.diag([2.0, 2, 5, 1]), (2, 2, 1), "corner")[:, 3].tolist()
    [-0.5, -0.5, 0.0, 1.0]
    """
    k = np.asarray(factors, float)
    change = np.diag([*(1 / k), 1.0])
    if anchor == "corner":
        change[:3, 3] = (1 / k - 1) / 2
    return affine @ change


def with_counts(scan: Grid, counts: Sequence[int] | ndarray) -> Grid:
    """The grid of so many voxels in the same field of view.

    >>> with_counts(Grid((4, 4, 3), np.diag([1.0, 1, 4, 1])), (4, 4, 12)).affine[2].tolist()
    [0.0, 0.0, 1.0, -1.5]
    """
    x, y, z = (int(n) for n in counts)
    a, b, c = (m / n for m, n in zip((x, y, z), scan.shape, strict=True))
    return Grid((x, y, z), rescale(scan.affine, (a, b, c), "corner"))


def corners(shape: tuple[int, int, int], affine: Affine) -> Float[ndarray, "8 3"]:
    """The eight outer corners of the field of view in mm (voxel faces, not voxel centres)."""
    voxels = np.array(list(product(*[(-0.5, n - 0.5) for n in shape])))
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def covered(grid: Grid, other: Grid) -> float:
    """Part of a grid's field of view that lies in that of another.

    >>> round(covered(Grid((4, 4, 4), np.eye(4)), Grid((3, 4, 9), np.eye(4))), 3)
    0.75
    """
    to = np.linalg.inv(other.affine) @ grid.affine
    index = (SPREAD * grid.shape - 0.5) @ to[:3, :3].T + to[:3, 3]
    return float(((index > -0.5) & (index < np.array(other.shape) - 0.5)).all(1).mean())


def world_axes(affine: Affine) -> tuple[int, int, int]:
    """The world axis (0 = R, 1 = A, 2 = S) that each array axis follows most closely, one each."""
    size = np.abs(affine[:3, :3] / spacing(affine))
    x, y, z = max(permutations(range(3)), key=lambda world: size[world, range(3)].sum())
    return x, y, z


def orientation(affine: Affine) -> str:
    """Where each array axis leads, as nibabel and FreeSurfer write it: ``RAS``, ``LPI``, ``ASR``, ..."""
    return "".join(("LPI" if affine[w, i] < 0 else "RAS")[w] for i, w in enumerate(world_axes(affine)))


def lps(affine: Affine) -> Affine:
    """An affine to RAS+ as one to LPS+, the millimetres of DICOM and ITK, or the other way round."""
    return affine * [[-1.0], [-1.0], [1.0], [1.0]]


def slice_axis(
    affine: Affine, shape: tuple[int, int, int], plane: Plane = "auto", named: int | None = None
) -> int:
    """The array axis along which slices are stacked.

    Args:
        affine: voxel index to mm (RAS+).
        shape: voxels along each array axis.
        plane: that which the slices lie in; or ``auto``: of a single slice, the axis with one voxel; else
            ``named``; else the last of the coarsest spacing (to 1 % of it): the plane has the two finest.
        named: the axis that the file names, see `Volume.slices`.
    """
    if plane != "auto":
        return world_axes(affine).index(NORMALS[plane])
    if shape.count(1) == 1:
        return shape.index(1)
    if named is not None:
        return named
    return int(np.flatnonzero(spacing(affine) >= 0.99 * spacing(affine).max())[-1])


def dimensions(numbers: Iterable[float], form: str = "d", by: str = "x") -> str:
    """Numbers along axes in words.

    Args:
        numbers: one for each axis.
        form: of each, as in a format string.
        by: what is between them.

    >>> dimensions((120, 120, 96))
    '120x120x96'
    """
    return by.join(f"{n:{form}}" for n in numbers)
