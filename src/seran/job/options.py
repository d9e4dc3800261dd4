"""What can be asked for: how a scan is read, what sharpens it, and the grid of the result."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np

from seran import grid, io, methods, resample
from seran.errors import BadInput, refuse_unlisted

Transform = Literal["auto", "sform", "qform"]


@dataclass(frozen=True)
class ReadOptions:
    """How the input is read.

    Attributes:
        plane: which slices to sharpen; auto: the plane of the two axes with the finest spacing.
        affine: which transform of the header is right, when they disagree.
        fill: value for voxels that are NaN, infinite or beyond 1e30.
        fourier_crop: first take a scan whose k-space was filled with zeros to the grid that was measured.
        volume: which one of several (4-D, echoes), counted from 0; without it all, one after the other.
        series: which series of a DICOM folder, by number or UID (`seran info FOLDER` lists them).
        label_check: refuse what looks like a segmentation or a mask by its header, name or values.
    """

    plane: grid.Plane = "auto"
    affine: Transform = "auto"
    fill: Annotated[float | None, "VALUE"] = None
    fourier_crop: bool = False
    volume: int | None = None
    series: str | None = None
    label_check: bool = True

    def __post_init__(self) -> None:
        refuse_unlisted("plane", self.plane, get_args(grid.Plane))
        refuse_unlisted("affine", self.affine, get_args(Transform))


@dataclass(frozen=True)
class Target:
    """The grid of the result, by one of these; what is left out follows.

    Attributes:
        scale: how many times finer the slices become, above 1 and up to 4; 2, 3 and 4 by the network alone,
            others by the network of the next whole number and one antialiased resampling.
        spacing: of the result in the plane of the slices, in mm.
        like: an image whose grid the result is put on.
    """

    scale: float | None = None
    spacing: Annotated[float | None, "MM"] = None
    like: Annotated[Path | None, "FILE"] = None

    def __post_init__(self) -> None:
        given = [n for n in ("scale", "spacing", "like") if getattr(self, n) is not None]
        if len(given) > 1:
            raise BadInput(f"--{' and --'.join(given)}: give only one of them")
        if self.spacing is not None and not 0 < self.spacing < math.inf:
            raise BadInput(f"--spacing {self.spacing:g}: must be above 0")
        if self.scale is not None and not 1 < self.scale <= resample.LARGEST:
            raise BadInput(f"--scale {self.scale:g}: must be above 1 and at most {resample.LARGEST:g}")

    def reach(self, scan: grid.Grid, axis: int, default: int) -> tuple[int, grid.Grid | None]:
        """The whole factor of the network, and the grid to resample to, if that is not all.

        Args:
            scan: the grid of the scan.
            axis: along which its slices are stacked.
            default: the factor where nothing is asked for.
        """
        scale = self.scale or default
        if self.like is not None:
            to, name = next(io.read_series(self.like, "auto", 0.0).volumes).grid, f"--like {self.like}"
            if not resample.meets(scan, to):
                apart = "its field of view does not meet the scan's; is it of the same person?"
                raise BadInput(f"{name}: {apart}")
        elif self.spacing is None and scale in (2, 3, 4):
            return int(scale), None
        else:
            a, b = (self.spacing or s / scale for s in np.delete(grid.spacing(scan.affine), axis).tolist())
            to = resample.finer(scan, axis, (a, b))
            name = f"--spacing {self.spacing:g}" if self.spacing else f"--scale {scale:g}"
        return resample.factor(scan, axis, to, name), to


@dataclass(frozen=True)
class Options:
    """How a scan is sharpened.

    Attributes:
        method: `seran methods` lists them; without it that of the weights, or seran.
        weights: a weights file to use instead of those shipped for it, or a name of `seran weights list`.
        ensemble: average over the eight symmetries of a slice: a little better, eight times slower.
        dtype: type of a voxel of the result; integers are rounded and held at their limits.
        target: the grid of the result; without any of its options twice as fine.
        read: how the input is read.
    """

    method: str | None = None
    weights: Annotated[Path | None, "FILE"] = None
    ensemble: bool = False
    dtype: Literal["float32", "float64", "uint8", "int16", "uint16", "int32"] = "float32"
    target: Target = Target()
    read: ReadOptions = ReadOptions()

    def implied(self) -> tuple[str, int]:
        """The method's name, with its ``+`` where it is ensembled, and the scale where none is asked for."""
        name, scale = methods.implied(self.method, self.weights)
        return name + "+" * (self.ensemble and not name.endswith("+")), scale
