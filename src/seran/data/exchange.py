"""Volumes of a prepared set as images for other programs, and what those make of them as stacks again.

An image is called as its volume in the manifest: ``NAME.nii.gz``, or another format of `seran.io`. Its axes
are rows, columns and slices, and it lies where the scan lies. What other programs make of it may have its
axes in another order or direction, as its affine says; nothing is interpolated. An array, ``NAME.npy``, is a
stack as `seran.data.pairs` has them: slices, rows, columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import degrade, grid
from seran.data.pairs import Packed, PreparedSet
from seran.errors import BadInput
from seran.grid import Affine, Grid, dimensions
from seran.volume import Volume

ARRAY = ".npy"
SHOWN = 5  # names in an error


@dataclass(frozen=True)
class Images:
    """A folder with one image, or array, for each of some volumes.

    Attributes:
        name: what they are called, that of the folder.
        paths: by the name of the volume.
        off: voxels by which the affines of the images leave the grid of the truth, at most.
    """

    name: str
    paths: dict[str, Path]
    off: float = 0.0


def called(folder: Path) -> str:
    """The name of what lies in a folder."""
    return folder.resolve().name


def grid_of(data: PreparedSet, volume: Packed, scale: int) -> Grid:
    """Where the image of a volume lies; `BadInput` if the set does not say.

    Args:
        data: the prepared set.
        volume: one of them.
        scale: of its low slices; 1 for the truth.
    """
    if volume.affine is None:
        raise BadInput(
            f"{data.root}: it was prepared by an earlier version, which did not keep where scans lie; "
            f"run `seran prepare` again (arrays, NAME{ARRAY}, can be scored as it is)"
        )
    n, h, w = volume.shape
    fine = np.array(volume.affine)[:, [1, 2, 0, 3]]
    coarse = grid.rescale(fine, (1 / scale, 1 / scale, 1), degrade.named(data.degradation).anchor)
    return Grid((h // scale, w // scale, n), coarse)


def write(data: PreparedSet, volume: Packed, scale: int, path: Path) -> None:
    """Write the low slices of a volume as an image.

    Args:
        data: the prepared set.
        volume: one of them.
        scale: of its low slices; 1 for the truth.
        path: the file, in a format of `seran.io`.
    """
    from seran import io  # which training does without

    stack = data.high(volume) if scale == 1 else data.low(volume, scale)
    voxels = np.ascontiguousarray(np.moveaxis(np.asarray(stack, np.float32), 0, 2))
    io.write(Volume(voxels, grid_of(data, volume, scale).affine), path)


def images(folder: Path, volumes: Sequence[Packed], what: str) -> Images:
    """The images in a folder, one for each volume; `BadInput` names those that are missing or there twice.

    Args:
        folder: of the images; what is neither image nor array (a log), or of another name, is left out.
        volumes: that are to be scored.
        what: names the folder in errors, as ``--predictions``.
    """
    from seran import io  # which training does without

    if not folder.is_dir():
        raise BadInput(f"{what} {folder}: expected a folder with an image for each volume")
    ends = (ARRAY, *sorted(io.FORMATS, key=len, reverse=True))
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        end = next((end for end in ends if path.name.lower().endswith(end)), None)
        if end and path.is_file() and not path.name.startswith("."):
            found.setdefault(path.name[: -len(end)], []).append(path)
    wanted = [v.name for v in volumes]
    missing, extra = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
    if missing:
        names = _some([f"{n}.nii.gz or {n}{ARRAY}" for n in missing])
        others = f"; it has others: {_some(extra)}" * bool(extra)
        raise BadInput(
            f"{what} {folder}: expected one image for each of {len(wanted)} volumes, {len(missing)} missing: "
            f"{names}{others}"
        )
    if twice := next((found[name] for name in wanted if len(found[name]) > 1), None):
        raise BadInput(
            f"{what} {folder}: expected one image for each volume, got {_some([p.name for p in twice])}"
        )
    return Images(called(folder), {name: found[name][0] for name in wanted})


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + f" and {more} more" * (more > 0)


def stack_of(
    data: PreparedSet, volume: Packed, path: Path, tolerance: float
) -> tuple[Float[ndarray, "n h w"], float]:
    """An image as a stack on the grid of the truth, and by how many voxels its affine leaves that.

    Args:
        data: the prepared set.
        volume: that it is an image of.
        path: its file.
        tolerance: voxels that it may leave the grid by, in the plane; half a voxel across.
    """
    from seran import io  # which training does without

    if path.name.lower().endswith(ARRAY):
        return _array(path, volume), 0.0
    truth, image = grid_of(data, volume, 1), io.read(path, affine="either")
    turned = np.linalg.inv(truth.affine) @ image.affine
    axes = grid.world_axes(turned)  # of the truth, that each axis of the image follows
    order = [axes.index(i) for i in range(3)]
    voxels, affine = image.data.transpose(order), image.affine[:, [*order, 3]]
    for i in range(3):
        if turned[i, order[i]] < 0:
            voxels, affine = np.flip(voxels, i), _flipped(affine, i, voxels.shape[i])
    if voxels.shape != truth.shape:
        expected, got = dimensions(truth.shape), dimensions(voxels.shape)
        raise BadInput(f"{path}: expected {expected} voxels (rows, columns, slices), got {got}")
    apart = np.linalg.inv(truth.affine) @ (affine - truth.affine)
    off = np.abs(grid.corners(voxels.shape, apart)).max(0)
    if (off > (tolerance, tolerance, 0.5)).any():
        raise BadInput(
            f"{path}: its affine places it up to {off.max():.3g} voxels away from the truth; expected "
            f"that of its input, for finer voxels, or an array {volume.name}{ARRAY} (slices, rows, columns)"
        )
    return np.ascontiguousarray(np.moveaxis(voxels, 2, 0)), float(off.max())


def _flipped(affine: Affine, axis: int, length: int) -> Affine:
    """The affine of an array that is reversed along an axis."""
    change = np.eye(4)
    change[axis, axis], change[axis, 3] = -1, length - 1
    return affine @ change


def _array(path: Path, volume: Packed) -> Float[ndarray, "n h w"]:
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected an array of numbers ({' '.join(str(error).split())})") from error
    if found.shape != volume.shape or found.dtype.kind not in "biuf":
        wanted, got = dimensions(volume.shape), f"{dimensions(found.shape)} of {found.dtype}"
        raise BadInput(f"{path}: expected an array of {wanted} numbers (slices, rows, columns), got {got}")
    with np.errstate(over="ignore"):
        made = np.array(found, np.float32)
    if bad := made.size - np.count_nonzero(np.isfinite(made)):
        raise BadInput(f"{path}: expected finite values, got {bad:,} that are NaN or infinite")
    return made
