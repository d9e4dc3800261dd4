"""A scan as a value."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True)
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

    def on(self, data: Float[ndarray, "a b c"], affine: Float[ndarray, "4 4"]) -> "Volume":
        """The same scan with other voxels on another grid."""
        return replace(self, data=data, affine=affine)
