"""A scan as a value."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, Real
from numpy import ndarray

from seran.grid import Grid, dimensions, orientation, spacing


@dataclass(frozen=True, repr=False)
class Volume:
    """A 3-D scan; the header is what its format needs to write it back, opaque to all but `seran.io`."""

    data: Real[ndarray, "x y z"]  # in the file's own units and axis order; float32, but for labels
    affine: Float[ndarray, "4 4"]  # voxel index to mm (RAS+)
    header: Any = None
    slices: int | None = None  # the array axis that its file says 2-D slices were acquired along, if it does
    thickness: float | None = None  # of its slices in mm, where its file says it
    contrast: str = ""  # see `seran.contrast`, where its header says it

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        return Grid(self.data.shape, self.affine)

    def on(self, data: Real[ndarray, "a b c"], affine: Float[ndarray, "4 4"]) -> "Volume":
        """The same scan with other voxels on another grid."""
        return replace(self, data=data, affine=affine)

    def __repr__(self) -> str:
        size = dimensions(spacing(self.affine), ".3g")
        return f"Volume({dimensions(self.data.shape)}, {size} mm, {orientation(self.affine)})"


@dataclass(frozen=True, repr=False)
class Series:
    """What a file holds: one volume, or several on one grid (4-D), each read when it is asked for."""

    count: int
    volumes: Iterator[Volume]

    def __repr__(self) -> str:
        return f"Series({self.count} volume{'s' * (self.count > 1)})"
