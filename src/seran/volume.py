"""A scan as a value."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from seran.grid import Grid, dimensions, orientation, spacing


@dataclass(frozen=True, repr=False)
class Volume:
    """A 3-D scan: voxels, where they lie, and the header they came with.

    Attributes:
        data: intensities in the file's own units and axis order.
        affine: voxel index to mm (RAS+).
        header: what the format needs to write the scan back; opaque to everything but `seran.io`.
    """

    data: Float[ndarray, "x y z"]
    affine: Float[ndarray, "4 4"]
    header: Any = None

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        x, y, z = self.data.shape
        return Grid((x, y, z), self.affine)

    def on(self, data: Float[ndarray, "a b c"], affine: Float[ndarray, "4 4"]) -> "Volume":
        """The same scan with other voxels on another grid."""
        return replace(self, data=data, affine=affine)

    def __repr__(self) -> str:
        size = dimensions(spacing(self.affine), ".3g")
        return f"Volume({dimensions(self.data.shape)}, {size} mm, {orientation(self.affine)})"


@dataclass(frozen=True, repr=False)
class Series:
    """What a file holds: one volume, or several on one grid (4-D).

    Attributes:
        count: how many volumes.
        volumes: one after the other, read as they are asked for.
    """

    count: int
    volumes: Iterator[Volume]

    def __repr__(self) -> str:
        return f"Series({self.count} volume{'s' * (self.count > 1)})"
