"""NRRD (.nrrd) and MetaImage (.mha), voxels in the same file: read through SimpleITK, written here.

ITK counts mm along LPS+; a `Volume` is RAS+: the first two coordinates change their sign. A header that names
another file for its voxels is refused: whoever wrote it would choose what is read. SimpleITK would write a
series only as one array; here it goes to the file volume by volume.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib

from seran import files, grid
from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver
from seran.machine import needed
from seran.volume import Volume

READERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}
HEADER_BYTES = 1 << 20
"""Bytes of a header that are looked at."""
OWN = ("ITK_", "NRRD_", "content", "space")
"""Beginnings of the names of texts that ITK writes itself."""


NAMES = {
    "8-bit unsigned integer": "u1", "8-bit signed integer": "i1", "16-bit unsigned integer": "u2",
    "16-bit signed integer": "i2", "32-bit unsigned integer": "u4", "32-bit signed integer": "i4",
    "64-bit unsigned integer": "u8", "64-bit signed integer": "i8",
    "32-bit float": "f4", "64-bit float": "f8",
}  # fmt: skip
"""SimpleITK's names of real numbers, as numpy's."""
META = {
    "u1": "UCHAR", "i1": "CHAR", "u2": "USHORT", "i2": "SHORT", "u4": "UINT", "i4": "INT",
    "f4": "FLOAT", "f8": "DOUBLE",
}  # fmt: skip
"""MetaImage's names of them."""
RESERVED = re.compile(
    "ObjectType|ObjectSubType|NDims|Name|ID|ParentID|Binary.*|Compress.*|Transform.*|Offset|Position|Origin"
    "|Orientation|Rotation|Center.*|Element.*|Dim.*|Anatomical.*|Modality|Header.*|Sequence.?ID|Color|Comment",
    re.IGNORECASE,
)
"""Names in a MetaImage that mean something else than a text."""


@dataclass(frozen=True)
class Kept:
    """What a file says besides its voxels and their places.

    Attributes:
        texts: by name.
        step: of the fourth axis, in its own unit.
        start: of the fourth axis.
    """

    texts: dict[str, str]
    step: float = 1.0
    start: float = 0.0


def _library() -> Any:  # noqa: ANN401
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        raise needed("reading NRRD or MetaImage", error) from error
    return SimpleITK


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Around ITK's calls: what its readers print by themselves, the exception says.

    Raises:
        BadInput: for what they raise.
    """
    try:
        with files.quiet(2):
            yield
    except RuntimeError as error:
        text = " ".join(voxels.printable(error).split()).rsplit("ITK ERROR: ", 1)[-1]
        raise BadInput(f"{path}: cannot be read as {path.suffix[1:].upper()} ({text})") from error


def _compressed(path: Path) -> bool:
    """Whether the voxels are compressed.

    Raises:
        BadInput: if they lie in another file.
    """
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    text = start.decode("latin-1")
    if path.suffix.lower() == ".nrrd":
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
        apart = re.search(r"^\s*data ?file\s*:", text, re.MULTILINE | re.IGNORECASE) is not None
        compressed = not re.search(r"^encoding: *raw *\r?$", text, re.MULTILINE | re.IGNORECASE)
    else:
        where = re.findall(r"^\s*ElementDataFile\s*[=:]\s*(.*?)\s*$", text, re.MULTILINE)
        apart = set(where) != {"LOCAL"}
        compressed = bool(re.search(r"^\s*CompressedData\s*[=:]\s*True", text, re.MULTILINE | re.IGNORECASE))
    if apart:
        raise BadInput(f"{path}: expected the voxels in the same file; save it as one file (.nrrd, .mha)")
    return compressed


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    sitk = _library()
    compressed = _compressed(path)
    reader = sitk.ImageFileReader()
    with _readable(path):
        reader.SetFileName(str(path))
        reader.SetImageIO(READERS[path.suffix.lower()])
        reader.ReadImageInformation()
        kind, size = sitk.GetPixelIDValueAsString(reader.GetPixelID()), reader.GetSize()
    if kind not in NAMES:
        raise BadInput(f"{path}: expected one real number per voxel, got {kind}; save each channel by itself")
    dtype = np.dtype(NAMES[kind])
    x, y, z, count = voxels.shaped(path, size, dtype)
    voxels.refuse_oversized(path, x * y * z * count * dtype.itemsize, compressed)
    matrix = voxels.usable_affine(path, _affine(reader))
    with _readable(path):
        image = reader.Execute()
    names = [k for k in image.GetMetaDataKeys() if k.isascii() and k.isprintable() and not k.startswith(OWN)]
    fourth = (image.GetSpacing()[3], image.GetOrigin()[3]) if image.GetDimension() > 3 else ()
    kept = Kept({name: image.GetMetaData(name) for name in names}, *fourth)

    def volume(t: int) -> Volume:
        array = sitk.GetArrayViewFromImage(image).T.reshape((x, y, z, count), order="F")
        return Volume(voxels.filled(path, array[..., t].__getitem__, (x, y, z), how), matrix, kept)

    return count, volume


def _affine(reader: Any) -> np.ndarray:  # noqa: ANN401
    """RAS+ from ITK's directions, spacing and origin; an image of two axes lies in the plane z = 0."""
    n = reader.GetDimension()
    m = min(n, 3)
    affine = np.eye(4)
    affine[:m, :m] = (np.reshape(reader.GetDirection(), (n, n)) * reader.GetSpacing())[:m, :m]
    affine[:m, 3] = reader.GetOrigin()[:m]
    return grid.lps(affine)


def receive(path: Path, count: int, dtype: np.dtype) -> Receiver:
    """Write volumes, compressed, with the texts that the first came with.

    Args:
        path: the file.
        count: how many volumes.
        dtype: of a voxel.
    """
    meta, kind = path.suffix.lower() == ".mha", dtype.newbyteorder("<")
    with path.open("wb") as file:
        first = yield
        head = (_metaimage if meta else _nrrd)(first, count, dtype)
        file.write(head)
        if meta:
            begins, deflate = file.tell(), isal_zlib.compressobj(1)
            yield from voxels.stream(first, count, kind, lambda part: file.write(deflate.compress(part)))
            file.write(deflate.flush())
            size = file.tell() - begins
            file.seek(head.index(LATER))
            file.write(f"{size:{len(LATER)}}".encode())
        else:
            with voxels.packing(file, True) as packed:
                yield from voxels.stream(first, count, kind, packed.write)


LATER = b" " * 19 + b"0"
"""The place of a number that is known only at the end."""


def _axes(volume: Volume, count: int) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, spacing, origin, and a direction for each axis (rows); a fourth one is its own."""
    lps = grid.lps(volume.affine) + 0.0  # a text has no negative zeros
    n = 4 if count > 1 else 3
    kept = volume.header if isinstance(volume.header, Kept) else Kept({})
    spacing = np.array([*grid.spacing(lps), kept.step])[:n]
    origin = np.array([*lps[:3, 3], kept.start])[:n]
    directions = np.eye(n)
    directions[:3, :3] = (lps[:3, :3] / spacing[:3]).T
    return [*volume.data.shape, count][:n], spacing, origin, directions


def _texts(volume: Volume) -> dict[str, str]:
    return volume.header.texts if isinstance(volume.header, Kept) else {}


def _nrrd(volume: Volume, count: int, dtype: np.dtype) -> bytes:
    """A header of NRRD."""
    sizes, spacing, origin, directions = _axes(volume, count)

    def vector(values: np.ndarray) -> str:
        return f"({','.join(f'{v:.17g}' for v in values)})"

    n = len(sizes)
    kind = {"f4": "float", "f8": "double"}.get(dtype.str[1:], dtype.name)
    lines = [
        "NRRD0005",
        f"type: {kind}",
        f"dimension: {n}",
        "space: left-posterior-superior" if n == 3 else f"space dimension: {n}",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(map(vector, directions * spacing[:, None]))}",
        f"kinds: {' '.join(['domain'] * n)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vector(origin)}",
    ]
    for name, text in _texts(volume).items():
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"{name}:={escaped}"] * (":" not in name)
    return ("\n".join(lines) + "\n\n").encode()


def _metaimage(volume: Volume, count: int, dtype: np.dtype) -> bytes:
    """A header of MetaImage, in which the size of what follows is left open (`LATER`)."""
    sizes, spacing, origin, directions = _axes(volume, count)

    def numbers(values: np.ndarray) -> str:
        return " ".join(f"{v:.17g}" for v in values.ravel())

    fields = {
        "ObjectType": "Image",
        "NDims": str(len(sizes)),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": LATER.decode(),
        "TransformMatrix": numbers(directions),
        "Offset": numbers(origin),
        "CenterOfRotation": numbers(np.zeros(len(sizes))),
        "ElementSpacing": numbers(spacing),
    }
    for name, text in _texts(volume).items():
        if re.fullmatch(r"[\w-]+", name) and not RESERVED.fullmatch(name):
            fields[name] = " ".join(text.split())
    fields |= {
        "DimSize": " ".join(map(str, sizes)),
        "ElementType": f"MET_{META[dtype.str[1:]]}",
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{name} = {text}\n" for name, text in fields.items()).encode()
