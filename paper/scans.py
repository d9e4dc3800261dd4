"""Real scans as they are stored, and what methods make of them at x2: for the parts of `real.py`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from acquisitions import SCALE, aligned
from jaxtyping import Float
from numpy import ndarray
from ways import WAYS, as_scan, found

from seran import grid, io
from seran.engines import Engine
from seran.job.steps import Fitted, Steps
from seran.sharpen import sharpen

NAMES = ("bicubic", "seran-bd", "seran-td", "native")
Made = dict[str, Float[ndarray, "n h w"]]


def result(
    stack: Float[ndarray, "n h w"], chosen: Float[ndarray, "m h w"], name: str, engine: Engine
) -> tuple[Float[ndarray, "m sh sw"], Fitted]:
    """What a method makes of some slices, and how the library went about it.

    Args:
        stack: the whole scan, on which the library measures.
        chosen: the slices that are sharpened.
        name: of the method, see `WAYS`.
        engine: of the networks.
    """
    fitted = Steps(as_scan(stack), WAYS[name].options(SCALE), engine).fit(stack)
    return sharpen(chosen, fitted.method).image, fitted


def made_of(
    stack: Float[ndarray, "n h w"],
    chosen: Float[ndarray, "m h w"],
    engine: Engine,
    names: Sequence[str] = NAMES,
) -> tuple[Made, Fitted]:
    """Results of methods about the voxel centres of the scan, see `result`; how the last came about."""
    made: Made = {}
    for name in names:
        image, fitted = result(stack, chosen, name, engine)
        made[name] = aligned(image, fitted.method.anchor, "center", SCALE).astype(np.float32)
    return made, fitted


def known(fitted: Fitted) -> dict[str, Any]:
    """What the library measured on a scan."""
    return found(fitted.known, fitted.gain)


def stack_of(path: Path) -> tuple[Float[ndarray, "n h w"], tuple[float, float]]:
    """Slices of a scan as stored, and the mm of rows and columns."""
    volume = io.read(path, affine="either")
    axis = grid.slice_axis(volume.affine, volume.data.shape, named=volume.slices)
    mm = np.delete(grid.spacing(volume.affine), axis).tolist()
    return np.ascontiguousarray(np.moveaxis(volume.data, axis, 0), np.float32), (mm[0], mm[1])


def say(text: str) -> None:
    """A line for who watches."""
    sys.stderr.write(text + "\n")
