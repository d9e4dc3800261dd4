"""Labels, as masks and segmentations have them: names, so neither their values nor their type may change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from seran import scratch
from seran.errors import BadInput

ROUNDING = 1e-6  # by which the float32 of a slope may miss a whole number, or a part of it
WIDEST = 8  # bytes of a type that every format has


def put(
    path: Path,
    data: Real[ndarray, "x y z"],
    stored: Callable[[tuple[slice, ...]], ndarray],
    scaling: tuple[float, float],
) -> None:
    """Put the labels of a volume, block by block, into an array of the type that they are stored in.

    Args:
        path: the file.
        data: the array.
        stored: from the index of a block to its voxels in the file.
        scaling: slope and intercept that the header gives them.

    Raises:
        BadInput: for what is no whole number, or is none of its type's after scaling.
    """
    if data.dtype.itemsize > WIDEST:
        raise BadInput(f"{path}: expected labels of a common type, got {data.dtype}; save them as int32")
    slope, intercept = map(np.float64, scaling)
    for at in scratch.blocks(data, max(4, data.dtype.itemsize)):
        values = stored(at)
        if scaling != (1, 0):
            values = values * slope + intercept
            near = np.rint(values)
            values = np.where(np.isclose(values, near, ROUNDING, ROUNDING), near, values)
        if values.dtype.kind == "f" and (wrong := ~_are_whole(values)).any():
            got = f"expected labels, which are whole numbers, got {values[wrong][0]:g}"
            raise BadInput(
                f"{path}: {got}; save labels as whole numbers without a slope; a scan, or probabilities, are "
                "interpolated instead: seran upscale IN OUT --like SHARP"
            )
        with np.errstate(invalid="ignore"):  # of what its type cannot hold
            data[at] = values
        if (lost := data[at] != values).any():
            got = f"its slope {slope:g} makes {values[lost][0]:g} of a label of type {data.dtype}"
            raise BadInput(f"{path}: {got}, which cannot hold it; save the labels without a slope")
        scratch.release(data)


def _are_whole(values: ndarray) -> ndarray:
    return np.isfinite(values) & (values == np.rint(values))
