"""Arrays that may be larger than memory: kept on disk, used in `blocks`, with a `release` after each."""

import math
import mmap
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

LARGE = 1 << 27  # bytes from which an array is kept on disk
PART = 1 << 25  # bytes of float32 that a block has at most, where one slice is not larger
Allocator = Callable[[tuple[int, ...]], Float[ndarray, "*n"]]  # from a shape to a new float32 array


def memory(shape: tuple[int, ...]) -> Float[ndarray, "*n"]:
    """An `Allocator` of arrays in memory."""
    return np.empty(shape, np.float32)


def allocator(folder: Path) -> Allocator:
    """An `Allocator` whose arrays lie in memory, or from `LARGE` on in a nameless file in ``folder``."""

    def make(shape: tuple[int, ...]) -> Float[ndarray, "*n"]:
        size = 4 * math.prod(shape)
        if size < LARGE:
            return memory(shape)
        with tempfile.TemporaryFile(dir=folder) as file:
            # its space is taken now: a mapped file that met a full disk later would kill the process
            for start in range(0, size, 1 << 20):
                file.write(bytes(min(1 << 20, size - start)))
            file.flush()
            try:
                return np.memmap(file, np.float32, "r+", shape=shape)
            except OSError as error:  # no room for its addresses
                raise MemoryError(shape, np.dtype(np.float32)) from error

    return make


def turned(allocate: Allocator) -> Allocator:
    """An `Allocator` of stacks whose second axis varies fastest, as rows do in a file."""

    def make(shape: tuple[int, ...]) -> Float[ndarray, "*n"]:
        n, h, w = shape
        return allocate((n, w, h)).swapaxes(1, 2)

    return make


def typed(allocate: Allocator, shape: tuple[int, ...], dtype: np.dtype) -> Shaped[ndarray, "*n"]:
    """An array of any type, whose first axis varies fastest.

    Args:
        allocate: what gives the room for it.
        shape: of the array.
        dtype: of its values.
    """
    need = math.prod(shape) * dtype.itemsize
    return allocate((-(-need // 4),)).view(np.uint8)[:need].view(dtype).reshape(shape, order="F")


def blocks(array: ndarray, voxel: int = 4) -> Iterator[tuple[slice, ...]]:
    """Indices of the blocks of an array as they lie on disk: cuts across the axis of the largest stride.

    Args:
        array: that is cut.
        voxel: bytes that what is done takes for each voxel.
    """
    axis = int(np.argmax(np.abs(array.strides)))
    step = max(1, PART * array.shape[axis] // max(1, voxel * array.size))
    for start in range(0, array.shape[axis], step):
        yield (*[slice(None)] * axis, slice(start, start + step))


def parts(array: ndarray) -> Iterator[ndarray]:
    """Its `blocks`, one after the other, each taken out of memory again."""
    for at in blocks(array):
        yield array[at]
        release(array)


def limits(array: Float[ndarray, "*n"]) -> tuple[float, float]:
    """Its least and greatest value."""
    ends = [(float(part.min()), float(part.max())) for part in parts(array)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def release(array: ndarray) -> None:
    """Take an array of an `Allocator`, or a view of one, out of memory until it is used again."""
    base: object = array
    while isinstance(base, ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):  # not on Windows: there it stays
        base.madvise(mmap.MADV_DONTNEED)
