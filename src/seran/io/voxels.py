"""What is checked of every scan whatever its format, and how voxels are read and written part by part."""

import gzip
import logging
import math
import warnings
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from io import SEEK_END, BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, isal_zlib
from jaxtyping import Float, Real
from nibabel import arrayproxy, filebasedimages, freesurfer, spatialimages, wrapstruct
from numpy import ndarray

from seran import progress, scratch
from seran.errors import BadInput, counted
from seran.grid import dimensions, spacing
from seran.io import labels
from seran.machine import short_of_memory
from seran.scratch import Allocator
from seran.volume import Volume

GZIP_RATIO = 1100  # bytes that a byte of gzip holds at most, about
BEYOND = 1 << 28  # bytes besides its voxels that a file may hold: headers, extensions, tags
LARGEST_MM = 1e9  # beyond nothing lies
FINEST_MM, COARSEST_MM = 1e-4, 1e4  # of a voxel, of microscopes that mean microns, too
FLAT = 1e-6  # volume of a voxel with sides of 1 that turn into one another, below which they lie in a plane
TINY = float(np.finfo(np.float32).tiny)  # below, float32 loses digits
APART = 1 << 12  # steps of float32 that intensities must span, as many as scanners tell apart
LEVELS = 64  # whole numbers that intensities must span for their rounding not to show
MAXIMUM = 1e30  # beyond is damage: sums of such intensities leave the range of float32
DAMAGED: tuple[Any, ...] = gzip.BadGzipFile, zlib.error, isal_zlib.IsalError  # what is raised on bad gzip
UNREADABLE = (  # what nibabel raises on damaged files and impossible headers
    OSError, EOFError, OverflowError, ValueError, TypeError, KeyError, np.linalg.LinAlgError,
    *DAMAGED, wrapstruct.WrapStructError, spatialimages.HeaderDataError,
    filebasedimages.ImageFileError, freesurfer.mghformat.MGHError,
)  # fmt: skip
gzipping = partial(igzip.IGzipFile, "", "wb", 1, mtime=0)  # to a ``fileobj``, without a name or a time

Form = tuple[str, tuple[Any, ...]]  # the name of a format, and what its library raises on damaged files
Found = tuple[int, Callable[[int], Volume]]  # how many volumes a file holds, and what reads one, from 0
Receiver = Generator[None, Volume, None]  # writes volumes as they are sent; with the last it ends its files


@dataclass(frozen=True)
class Reading:
    """How a file is read; see `seran.io.read_series`."""

    affine: str
    fill: float | None
    allocate: Allocator
    voxels: bool = True  # else the grid is enough, and all voxels are 0
    labels: bool = False  # whether they are names, and not intensities


def packed(path: Path) -> bool:
    """Whether a file is gzip as a whole, by its name."""
    return path.name.lower().endswith((".gz", ".mgz"))


def files_of(path: Path) -> list[Path]:
    """The file, or both files of a pair, the header first."""
    if path.suffix.lower() not in (".hdr", ".img"):
        return [path]
    return [
        path.with_suffix(end) for end in ((".HDR", ".IMG") if path.suffix.isupper() else (".hdr", ".img"))
    ]


def printable(value: object) -> str:
    """A text from outside on one line without control characters; empty for None."""
    return "".join(c if c.isprintable() else " " for c in str("" if value is None else value)).strip()


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """A file to read, unpacked if it is gzip; `ValueError` for a stream that is damaged or ends too early."""
    if not packed(path):
        with path.open("rb") as file:
            yield file
        return
    with igzip.IGzipFile(path, "rb") as file:
        try:
            yield file
        except EOFError as error:
            raise ValueError("its gzip stream is cut off, or other bytes follow it; copy it again") from error
        except DAMAGED as error:
            text = f"its gzip stream is damaged: {error}; copy it again"
            if "Not a gzipped" in str(error):
                text = (
                    "other bytes follow its gzip stream; pack it again" if file.tell() else "not a gzip file"
                )
            raise ValueError(text) from error


def length(file: BufferedIOBase, need: int) -> int:
    """The bytes in an open file; gzip is read to its end, and so checked: `ValueError` for far too many."""
    if not isinstance(file, igzip.IGzipFile):
        return file.seek(0, SEEK_END)
    while file.read(1 << 20):
        if file.tell() > need + BEYOND:
            raise ValueError(f"far more is packed in it than the {need:,} bytes that its header promises")
    return file.tell()


def refuse_cut(path: Path, need: int, has: int) -> None:
    """Raise `BadInput` if a file has fewer bytes of voxels than needed."""
    if has < need:
        promised = f"its header promises {need:,} bytes of voxels, but it has {max(0, has):,}"
        raise BadInput(f"{path}: {promised}; it is damaged or cut off")


@contextmanager
def without_remarks() -> Iterator[None]:
    """Without what nibabel remarks on unusual headers: what cannot be used is an exception."""
    log, nothing = logging.getLogger("nibabel.global"), logging.Filter("another logger's name")
    log.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(nothing)


@contextmanager
def readable(path: Path, form: Form) -> Iterator[None]:
    """Tell as `BadInput` what a library raises on a damaged file or for want of memory, ignoring remarks.

    It is for calls of libraries only: a mistake of ours is not told as damage.
    """
    name, errors = form
    try:
        with without_remarks():
            yield
    except MemoryError as error:
        raise BadInput(f"{path}: {short_of_memory(error)}") from error
    except errors as error:
        text = " ".join(printable(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise BadInput(f"{path}: cannot be read as {name} ({text})") from error


def shaped(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, gzipped: bool | None = None
) -> tuple[int, int, int, int]:
    """The shape as three axes and the number of volumes; refused if not of real numbers on at most four.

    Args:
        path: the file.
        shape: of its array, the axes of the volume first.
        dtype: of a voxel in the file.
        gzipped: whether the voxels are, in a file that must be large enough for them; None for no file.
    """
    if dtype.kind not in "iuf":
        raise BadInput(
            f"{path}: expected one real number per voxel, got {dtype}; "
            "save magnitude and phase (or each channel) as scans of their own"
        )
    if any(n < 1 for n in shape):
        raise BadInput(f"{path}: expected voxels, got an empty image {shape}")
    x, y, z, *more = (*shape, 1, 1, 1)[: max(3, len(shape))]
    if sum(n > 1 for n in more) > 1:
        raise BadInput(f"{path}: expected 3-D volumes, or one series of them, got {len(shape)}-D {shape}")
    need = math.prod(shape) * dtype.itemsize
    if gzipped is not None and need > (has := path.stat().st_size) * (GZIP_RATIO if gzipped else 1):
        raise BadInput(
            f"{path}: its header promises {need:,} bytes of voxels, but the file has {has:,}"
            f"{' packed ones' * gzipped}; it is damaged or cut off"
        )
    return x, y, z, math.prod(more)


def proxy(path: Path, shape: tuple[int, ...], dtype: np.dtype, start: int) -> arrayproxy.ArrayProxy:
    """The voxels in a file, of which only slices are read; the first axis varies fastest.

    Args:
        path: the file; if it is gzip it stays open, so that it is unpacked once for all parts in turn.
        shape: of its array.
        dtype: of a voxel in the file.
        start: the first byte.
    """
    file = igzip.IGzipFile(path, "rb") if packed(path) else path
    return arrayproxy.ArrayProxy(file, (shape, dtype, start), mmap=False)


def filled(
    path: Path,
    array: ndarray | arrayproxy.ArrayProxy,
    t: int,
    how: Reading,
    form: Form = ("", ()),
    scaling: tuple[float, float] = (1, 0),
) -> Real[ndarray, "x y z"]:
    """The voxels of one volume as float32, or labels in the type that they are stored in, read part by part.

    Args:
        path: the file.
        array: x, y, z, t, as they are stored; only slices of it are asked for.
        t: which volume.
        how: where they lie, and the value of those beyond `MAXIMUM`, refused without one.
        form: of a file that is read in parts.
        scaling: slope and intercept from what is stored to the file's own units.
    """
    if not how.voxels:
        return np.broadcast_to(np.float32(0), array.shape[:3])

    def stored_at(at: tuple[slice, ...]) -> ndarray:
        x, y, z = (*at, slice(None), slice(None))[:3]
        with readable(path, form):
            return np.asarray(array[x, y, z, t])

    if how.labels:
        with readable(path, ("", ())):
            named = scratch.typed(how.allocate, array.shape[:3], array.dtype.newbyteorder("="))
        labels.put(path, named, stored_at, scaling)
        return named
    with readable(path, ("", ())):
        data, bad = how.allocate(array.shape[2::-1]).T, 0
    slope, intercept = map(np.float64, scaling)
    exact, seen = scaling == (1, 0) and np.can_cast(array.dtype, np.float32), Seen()
    for at in scratch.blocks(data):
        with readable(path, form), np.errstate(over="ignore", invalid="ignore"):  # too large is infinite
            stored = stored_at(at)
            values = stored if scaling == (1, 0) else stored * slope + intercept
            block = values.astype(np.float32)
        wrong = ~(np.abs(block) <= MAXIMUM)
        bad += int(wrong.sum())
        if not exact and not wrong.all():
            seen.add(*(one[~wrong] if wrong.any() else one for one in (stored, values, block)))
        data[at] = np.where(wrong, np.float32(how.fill or 0), block)
        scratch.release(data)
        if isinstance(array, ndarray):
            scratch.release(array)
    if bad:
        _refuse_bad(path, bad, data.size, how.fill)
    seen.refuse_lost(path, float(slope))
    return data


def _refuse_bad(path: Path, bad: int, of: int, fill: float | None) -> None:
    """Say how many voxels are filled, or raise `BadInput` where no value is given for them, or all are bad.

    Args:
        path: the file.
        bad: how many voxels are NaN, infinite or beyond `MAXIMUM`.
        of: all of them.
        fill: what takes their place.
    """
    many = f"{counted(bad, 'voxel')} {'are' if bad > 1 else 'is'} NaN, infinite or beyond {MAXIMUM:g}"
    if fill is None:
        their = "their" if bad > 1 else "its"
        raise BadInput(f"{path}: {many}; say what takes {their} place with --fill 0")
    if bad == of:
        raise BadInput(f"{path}: expected intensities, got none: {many}; save it again from its source")
    progress.log.warning("%s: %s, and replaced by %g", path, many, fill)


@dataclass
class Seen:
    """What there was before and after intensities became float32."""

    stored: tuple[Any, Any] | None = None  # least and greatest, as exact as they are stored
    values: tuple[float, float] = (math.inf, -math.inf)  # the same in the file's own units
    changed: bool = False  # whether one of them is another number in float32
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))  # as stored

    def add(self, stored: ndarray, values: ndarray, block: Float[ndarray, "*n"]) -> None:
        """Take in some voxels as they are stored, in the file's own units, and as float32."""
        low, high = self.stored or (stored.flat[0].item(), stored.flat[0].item())
        self.stored = min(low, stored.min().item()), max(high, stored.max().item())
        self.values = min(self.values[0], float(values.min())), max(self.values[1], float(values.max()))
        self.changed = self.changed or bool((values != block).any())
        self.dtype = stored.dtype

    def refuse_lost(self, path: Path, slope: float) -> None:
        """Raise `BadInput` if intensities that differ became alike: an offset swallows them, or 0 does."""
        low, high = self.stored or (0, 0)
        span, most = float(high - low) * abs(slope), max(map(abs, self.values))
        rounding = 1e-12 * most if self.dtype.kind == "f" else 0.0  # of voxels that are all alike
        step = max(float(np.spacing(np.float32(most))), TINY)
        alike = np.float32(self.values[0]) == np.float32(self.values[1])
        if rounding < span < APART * step and (self.changed or alike):
            ends = f"{self.values[0]:.9g} to {self.values[1]:.9g}"
            raise BadInput(
                f"{path}: expected intensities that float32 tells apart, got {ends}; "
                "subtract the offset that they share, or scale them up"
            )


def refuse_sizes(path: Path, sizes: Float[ndarray, "n"], what: str = "voxels") -> None:
    """Raise `BadInput` for sizes that no scanner and no microscope makes.

    Args:
        path: the file.
        sizes: in mm.
        what: they are of, or the element of the header that states them.
    """
    if not all(FINEST_MM <= size <= COARSEST_MM for size in sizes.tolist()):
        got = dimensions(sizes.tolist(), ".6g", " x ")
        raise BadInput(
            f"{path}: expected {what} of {FINEST_MM:g} to {COARSEST_MM:g} mm, got {got}; correct its header"
        )


def usable_affine(path: Path, affine: Float[ndarray, "4 4"]) -> Float[ndarray, "4 4"]:
    """The affine in float64; refused if it cannot be inverted, or no scanner is so large."""
    affine = affine.astype(float)
    usable = bool((affine[3] == (0, 0, 0, 1)).all())
    if usable:
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = spacing(affine)
        refuse_sizes(path, sizes)
        usable = bool((np.abs(affine) < LARGEST_MM).all())
    if not usable or not abs(np.linalg.det(affine[:3, :3] / sizes)) >= FLAT:
        raise BadInput(
            f"{path}: expected an invertible affine below {LARGEST_MM:g} mm in it, got {affine.tolist()}"
        )
    return affine


@dataclass
class Writer:
    """Volumes on one grid on their way to a file; see `seran.io.writer`."""

    path: Path
    count: int
    dtype: np.dtype
    receiver: Receiver = field(init=False)
    added: int = 0
    grid: tuple[int, ...] = ()
    words: str = ""  # what made the volumes, for headers that say it
    nth: int = 0  # 0: the image itself; from 1: which of the maps beside it, for headers that number them

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array in the file, which has a fourth axis for several volumes."""
        return (*self.grid, self.count)[: 4 if self.count > 1 else 3]

    def add(self, volume: Volume, words: str = "") -> None:
        """Write the next volume, which must not be one too many, and on the grid of those before."""
        self.added, self.words = self.added + 1, words
        self.grid = self.grid or volume.data.shape
        if self.added > self.count or volume.data.shape != self.grid:
            raise ValueError(
                f"{self.path}: expected {self.count} volumes of {dimensions(self.grid)} voxels, "
                f"got {dimensions(volume.data.shape)} as number {self.added}"
            )
        with suppress(StopIteration):  # the last
            self.receiver.send(volume)


@contextmanager
def created(path: Path) -> Iterator[BufferedIOBase]:
    """A new file to write to; gzip, where its name says so."""
    with path.open("wb") as plain, gzipping(fileobj=plain) if packed(path) else nullcontext(plain) as file:
        yield file


def stream(volume: Volume, count: int, dtype: np.dtype, write: Callable[[bytes], object]) -> Receiver:
    """Write voxel after voxel, volume after volume; the first array axis varies fastest.

    Args:
        volume: the first of the volumes; the others are sent.
        count: how many there are.
        dtype: of a voxel in the file, with its byte order; integers are rounded and held at their limits.
        write: what writes bytes to the file.
    """
    for left in reversed(range(count)):
        step = max(1, scratch.PART // max(1, 4 * math.prod(volume.data.shape[:2])))
        for z in range(0, volume.data.shape[2], step):
            write(cast(volume.data[:, :, z : z + step], dtype).tobytes("F"))
            scratch.release(volume.data)
        if left:
            volume = yield


def cast(values: Real[ndarray, "*n"], dtype: np.dtype) -> ndarray:
    """As another type: rounded, and held at its limits where it is an integer."""
    if dtype.kind == "f" or values.dtype == dtype.newbyteorder("="):
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def refuse_lossy(volume: Volume, dtype: np.dtype) -> None:
    """Raise `BadInput` if an integer type cuts intensities off, or rounds to few values what is not whole."""
    if dtype.kind == "f":
        return
    (low, high), limits, wrong = scratch.limits(volume.data), np.iinfo(dtype), ""
    if round(low) < limits.min or round(high) > limits.max:
        wrong = f"it holds {limits.min} to {limits.max}"
    elif high - low < LEVELS and any((part != np.rint(part)).any() for part in scratch.parts(volume.data)):
        wrong = f"rounding would leave fewer than {LEVELS} values"
    if wrong:
        span = f"intensities go from {low:.6g} to {high:.6g}"
        raise BadInput(f"--dtype {dtype}: {span}, and {wrong}; float32, the default, keeps them")
