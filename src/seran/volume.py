"""A scan as a value, and what is checked of every scan whatever its format."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from jaxtyping import Float
from numpy import ndarray

from seran import scratch
from seran.errors import BadInput
from seran.grid import Grid
from seran.scratch import Allocator

MOST = 1100
"""A byte of gzip holds at most about so many bytes."""
FARTHEST = 1e9
"""Millimetres beyond which nothing lies."""
STRONGEST = 1e30
"""Beyond which an intensity is damage: sums of such ones leave the range of float32."""


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

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        x, y, z = self.data.shape
        return Grid((x, y, z), self.affine)

    def on(self, data: Float[ndarray, "a b c"], affine: Float[ndarray, "4 4"]) -> "Volume":
        """The same scan with other voxels on another grid."""
        return replace(self, data=data, affine=affine)


@dataclass(frozen=True)
class Series:
    """What a file holds: one volume, or several on one grid (4-D).

    Attributes:
        count: how many volumes.
        volumes: one after the other, read as they are asked for.
    """

    count: int
    volumes: Iterator[Volume]


def shaped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int, int, int]:
    """The shape as three axes and the number of volumes.

    Raises:
        BadInput: for images without voxels, of more than four axes, or of anything but real numbers.
    """
    if dtype.kind not in "iuf":
        raise BadInput(
            f"{path}: expected one real number per voxel, got {dtype}; "
            "save magnitude and phase (or each channel) as scans of their own"
        )
    if 0 in shape:
        raise BadInput(f"{path}: expected voxels, got an empty image {shape}")
    x, y, z, *more = (*shape, 1, 1, 1)[: max(3, len(shape))]
    several = [n for n in more if n > 1]
    if len(several) > 1:
        raise BadInput(f"{path}: expected 3-D volumes, or one series of them, got {len(shape)}-D {shape}")
    return x, y, z, several[0] if several else 1


def refuse_oversized(path: Path, voxels: int, itemsize: int, packed: bool) -> None:
    """Refuse a header that promises more than the file can hold, before there is room made for it.

    Raises:
        BadInput: so.
    """
    need, has = voxels * itemsize, path.stat().st_size
    if need > has * (MOST if packed else 1):
        raise BadInput(
            f"{path}: its header promises {need:,} bytes of voxels, but the file has {has:,}"
            f"{' packed ones' * packed}; it is damaged or cut off"
        )


def filled(
    path: Path,
    voxels: Any,  # noqa: ANN401
    t: int,
    shape: tuple[int, int, int],
    fill: float | None,
    allocate: Allocator,
) -> Float[ndarray, "x y z"]:
    """Volume ``t`` of an array (x, y, z, t) or what is indexed like one, as float32, read part by part.

    Where it is not finite or beyond `STRONGEST` it becomes ``fill``.

    Raises:
        BadInput: if there are such and no ``fill``.
    """
    data, bad = allocate(shape[::-1]).T, 0
    for at in scratch.blocks(data):
        where = (*(*at, slice(None), slice(None))[:3], t)
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold counts as infinite
            values = np.asarray(voxels[where], np.float32)
        wrong = ~(np.abs(values) <= STRONGEST)
        bad += int(wrong.sum())
        data[at] = np.where(wrong, np.float32(fill or 0), values)
        scratch.release(data)
    if bad and fill is None:
        raise BadInput(
            f"{path}: {bad} voxels are NaN, infinite or beyond {STRONGEST:g}; give their value with --fill 0"
        )
    return data


def usable_affine(path: Path, affine: Float[ndarray, "4 4"]) -> Float[ndarray, "4 4"]:
    """An affine that can be trusted.

    Raises:
        BadInput: if it cannot be inverted, or no scanner is so large.
    """
    if not (np.abs(affine) < FARTHEST).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadInput(
            f"{path}: expected an invertible affine below {FARTHEST:g} mm in it, got {affine.tolist()}"
        )
    return affine


def cast(values: Float[ndarray, "*n"], dtype: np.dtype) -> ndarray:
    """As another type: rounded, and held at its limits where it is an integer."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def packing(file: BufferedIOBase, packed: bool) -> AbstractContextManager[BufferedIOBase]:
    """What to write to: the file itself, or gzip into it without a name or a time."""
    return igzip.IGzipFile("", "wb", 1, file, 0) if packed else nullcontext(file)


def stream(volumes: Iterable[Volume], dtype: np.dtype, write: Callable[[bytes], object]) -> None:
    """Write voxel after voxel, volume after volume; the first array axis varies fastest."""
    for volume in volumes:
        step = max(1, scratch.PART // max(1, 4 * math.prod(volume.data.shape[:2])))
        for z in range(0, volume.data.shape[2], step):
            write(cast(volume.data[:, :, z : z + step], dtype).tobytes("F"))
            scratch.release(volume.data)


def series(path: Path, count: int, volume: Callable[[int], Volume], only: int | None) -> Series:
    """All volumes of a file, or ``only`` one of them (counted from 0).

    Raises:
        BadInput: if there is no such volume.
    """
    if only is None:
        return Series(count, map(volume, range(count)))
    if not 0 <= only < count:
        raise BadInput(f"{path}: expected a --volume between 0 and {count - 1}, got {only}")
    return Series(1, map(volume, [only]))
