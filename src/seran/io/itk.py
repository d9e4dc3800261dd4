"""What NRRD and MetaImage share: a header of lines of text, by anyone, and the voxels that it describes.

Both are read in Python alone, because nothing that a header says may end or stall the process, choose a file
elsewhere, or take memory for voxels that are not there. Packed voxels are unpacked twice: first only to count
them, to the end and its checksum; then to memory (or a file), which is taken only when their number is known.
"""

import bz2
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from isal import igzip_lib, isal_zlib
from jaxtyping import Float
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import Opener
from numpy import ndarray

from seran import grid, progress, scratch
from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading
from seran.volume import Volume

HEADER_BYTES, LINE_BYTES = 1 << 20, 1 << 16  # that a header and a line of it may have
PART, PACKED_PART = 1 << 20, 1 << 16  # bytes of voxels, and of packed ones, that are held at a time
OWN = ("ITK_", "NRRD_")  # beginnings of the names of texts that ITK writes itself
EXTENT = re.compile(r"Segment\d+_Extent")  # Slicer's text of the voxels that a segment lies in
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
UNITS = {  # of length: how many millimetres each is
    r"|\?+|none|mm|millimet(er|re)s?": 1.0,
    r"[uµμ]m|microns?|micromet(er|re)s?": 1e-3,
    r"cm|centimet(er|re)s?": 10.0,
    r"m|met(er|re)s?": 1e3,
}
PACKED: dict[str, tuple[bytes, Callable[[], igzip_lib.IgzipDecompressor | bz2.BZ2Decompressor]]] = {
    # how a stream begins that may follow another (none), and what unpacks one and checks its checksum
    "gzip": (b"\x1f\x8b", lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)),
    "zlib": (b"", lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)),
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
}


@dataclass(frozen=True)
class Kept:
    """What a file says besides its voxels and their places, as it is written again."""

    texts: dict[str, str]
    step: float = 1.0  # of a fourth axis, and where it begins
    start: float = 0.0
    listed: bool = False  # whether volumes are a list (diffusion), not samples along an axis
    frame: tuple[tuple[float, ...], ...] = ()  # NRRD's measurement frame, in LPS+


@dataclass(frozen=True)
class Stored:
    """Where voxels are and how they are written, as a header says."""

    path: Path  # the file that has them
    start: int  # their first byte; below 0 for the last bytes of the file
    coding: str  # raw, or one of `PACKED`
    dtype: np.dtype
    sizes: tuple[int, ...]  # of four axes in the file, the fastest first
    order: tuple[int, ...] = (0, 1, 2, 3)  # which of them is x, y, z and that of volumes
    packed: int | None = None  # bytes that the packed voxels have


@contextmanager
def readable(path: Path, form: str) -> Iterator[None]:
    """Tell as `BadInput` what does not make sense in a header or is damaged in the voxels."""
    with voxels.readable(path, (form, (ValueError, OverflowError))):
        yield


def header(path: Path, last: Callable[[str], bool]) -> tuple[list[str], int]:
    """The lines of a header up to the ``last``, or the file's end; and where the next byte lies.

    Raises:
        ValueError: if a line or the header is too long, or has control characters.
    """
    lines: list[str] = []
    with path.open("rb") as file:
        while not lines or not last(lines[-1]):
            line = file.readline(LINE_BYTES)
            if not line:
                break
            where = f"line {len(lines) + 1} of its header"
            if len(line) == LINE_BYTES or file.tell() > HEADER_BYTES:
                raise ValueError(f"{where}: expected a line of text below {LINE_BYTES:,} bytes")
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text = line.decode("latin-1")
            text = text.removesuffix("\n").removesuffix("\r")
            if CONTROL.search(text):
                raise ValueError(f"{where}: expected text, got control characters")
            lines.append(text)
        return lines, file.tell()


def numbers(text: str, size: int | None = None) -> list[float]:
    """The numbers in a text, ``size`` of them; else a `ValueError`."""
    words = text.split()
    if size is not None and len(words) != size:
        raise ValueError(f"expected {size} numbers, got {text[:60]!r}")
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"expected numbers, got {text[:60]!r}") from error


def whole(text: str, size: int | None = None) -> tuple[int, ...]:
    """`numbers` that are whole."""
    found = numbers(text, size)
    if not all(n.is_integer() for n in found):
        raise ValueError(f"expected whole numbers, got {text[:60]!r}")
    return tuple(map(int, found))


def millimetres(unit: str) -> float:
    """How many of them a unit of length is."""
    for pattern, length in UNITS.items():
        if re.fullmatch(pattern, unit.strip().lower()):
            return length
    raise ValueError(f"expected a unit of length (mm, um, cm, m), got {unit[:60]!r}; give lengths in mm")


def voxels_file(path: Path, name: str) -> Path:
    """The file with the voxels: that of the header, or for .nhdr and .mhd one in its folder; else `BadInput`.

    Args:
        path: the file with the header.
        name: of the other, as the header has it; empty for none.
    """
    if path.suffix.lower() not in (".nhdr", ".mhd"):
        if name:
            raise BadInput(
                f"{path}: expected the voxels in the same file, got {name[:60]!r}; save it as one file"
            )
        return path
    name = name.removeprefix("./")
    plain = 0 < len(name.encode()) < 256 and not re.search(r"[/\\:%]|^\.|^LIST\b", name)
    if not plain or not path.with_name(name).is_file():
        raise BadInput(
            f"{path}: expected the name of one file with the voxels, in the same folder, got {name[:60]!r}; "
            "save both as one file (.nrrd, .mha)"
        )
    return path.with_name(name)


def placed(vectors: Float[ndarray, "n n"], origin: Float[ndarray, "n"]) -> tuple[grid.Affine, float, float]:
    """The affine to RAS+ of two to four axes that are placed in LPS+; step and start of the fourth.

    Args:
        vectors: mm from one voxel to the next, of each axis in turn.
        origin: mm of the first voxel.
    """
    n, lps = min(len(vectors), 3), np.eye(4)  # an image of two axes lies in the plane z = 0
    if vectors[n:, :n].any() or vectors[:n, n:].any():
        raise ValueError("its fourth axis is mixed with those of space")
    lps[:n, :n], lps[:n, 3] = vectors[:n, :n].T, origin[:n]
    return grid.lps(lps), float(vectors[3, 3]) if len(vectors) > 3 else 1.0, float(origin[3:].sum())


def kept(texts: dict[str, str]) -> dict[str, str]:
    """The texts that are written again: not those that ITK makes itself, or whose names could mean more."""
    return {k: v for k, v in texts.items() if k.isascii() and k.isprintable() and not k.startswith(OWN)}


def to_write(volume: Volume, n: int) -> tuple[Kept, ndarray, ndarray]:
    """What came with a volume; mm from voxel to voxel along each of ``n`` axes, and of the first, in LPS+."""
    header = volume.header if isinstance(volume.header, Kept) else Kept({})
    lps = grid.lps(volume.affine) + 0.0  # a text has no negative zeros
    vectors = np.diag([1.0, 1, 1, header.step])
    vectors[:3, :3] = lps[:3, :3].T
    return header, vectors[:n, :n], np.array([*lps[:3, 3], header.start])[:n]


def labelled(labels: Volume, like: Volume) -> Kept | None:
    """What is written with labels on the grid of another volume, see `seran.io.relabelled`.

    Of texts that count voxels, which others crop segments by, it has those that crop nothing.
    """
    if not isinstance(labels.header, Kept):
        return None
    texts, all_of_it = dict(labels.header.texts), " ".join(f"0 {n - 1}" for n in like.data.shape)
    texts |= {name: all_of_it for name in texts if EXTENT.fullmatch(name)}
    texts |= {name: "0 0 0" for name in texts if name == "Segmentation_ReferenceImageExtentOffset"}
    return replace(labels.header, texts=texts)


def found(path: Path, form: str, stored: Stored, affine: grid.Affine, kept: Kept, how: Reading) -> Found:
    """What a reader returns.

    Args:
        path: the file that was named.
        form: the name of its format.
        stored: its voxels.
        affine: voxel index to mm (RAS+).
        kept: what is written again.
        how: how it is read.
    """
    sizes = tuple(stored.sizes[axis] for axis in stored.order)
    shape = voxels.shaped(stored.path, sizes, stored.dtype, stored.coding != "raw")
    matrix = voxels.usable_affine(path, affine)
    with readable(path, form):
        array = _array(stored, shape, how)
    return shape[3], lambda t: Volume(voxels.filled(path, array, t, how, (form, (ValueError,))), matrix, kept)


def _array(stored: Stored, shape: tuple[int, int, int, int], how: Reading) -> ndarray | ArrayProxy:
    """The voxels as x, y, z, t: slices of the file, if they lie there as such; else a copy."""
    need, has, at = math.prod(shape) * stored.dtype.itemsize, 0, 0
    start = stored.start if stored.start >= 0 else stored.path.stat().st_size - need
    raw, axes = stored.coding == "raw", [axis for axis in stored.order if stored.sizes[axis] > 1]

    def counted(part: bytes) -> None:
        nonlocal has
        has += len(part)
        if has > need:
            raise ValueError(f"its voxels have more than the {need:,} bytes that its header promises")

    def copied(part: bytes) -> None:
        nonlocal at
        room = held[at : at + len(part)]
        room[:] = np.frombuffer(part, np.uint8)[: len(room)]
        at += len(part)
        scratch.release(held)

    if raw:
        has = stored.path.stat().st_size - start
        left = has - need
    else:
        left = _unpacked(stored, start, counted)
    if start < 0 or has < need:
        raise ValueError(
            f"its header promises {need:,} bytes of voxels, but it has {max(has, 0):,}; it is cut off"
        )
    if left:
        progress.log.warning("%s: %s bytes follow its voxels and are left out", stored.path, f"{left:,}")
    if raw and axes == sorted(axes) and stored.path.suffix.lower() not in Opener.compress_ext_map:
        return ArrayProxy(stored.path, (shape, stored.dtype, start), mmap=False)
    if not how.voxels:
        return np.broadcast_to(np.zeros((), stored.dtype), shape)
    held = how.allocate((-(-need // 4),)).view(np.uint8)[:need]
    _unpacked(stored, start, copied)
    return held.view(stored.dtype).reshape(stored.sizes, order="F").transpose(stored.order)


def _unpacked(stored: Stored, start: int, put: Callable[[bytes], None]) -> int:
    """Unpack all voxels, part by part; the number of bytes after them.

    Args:
        stored: the voxels.
        start: their first byte in the file.
        put: what is given each part.
    """
    with stored.path.open("rb") as file:
        file.seek(start)
        if stored.coding == "raw":
            while part := file.read(PART):
                put(part)
            return 0
        data = file.read(PACKED_PART)
        gzip = data.startswith(PACKED["gzip"][0])  # MetaImage has it, too
        again, new = PACKED["gzip" if gzip else stored.coding]
        made = new()
        while True:
            with voxels.readable(stored.path, (stored.coding, (OSError, isal_zlib.IsalError))):
                part = made.decompress(data, PART)
            put(part)
            data = b""
            if made.eof:
                data = made.unused_data
                data += file.read(PACKED_PART) if len(data) < len(again) else b""
                if not again or not data.startswith(again):
                    break
                made = new()
            elif made.needs_input and not (data := file.read(PACKED_PART)):
                raise ValueError("its packed voxels are cut off")
        left = len(data) + stored.path.stat().st_size - file.tell()
        if stored.packed not in (None, has := file.tell() - len(data) - start):
            raise ValueError(
                f"its header promises {stored.packed} bytes of packed voxels, but they have {has}"
            )
        return left
