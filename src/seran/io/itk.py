"""NRRD (.nrrd) and MetaImage (.mha) through SimpleITK, with their voxels in the same file.

ITK counts mm along LPS+; a `Volume` is RAS+: the first two coordinates change their sign. A header that names
another file for its voxels is refused: whoever wrote it would choose what is read.
"""

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seran.errors import BadInput
from seran.extras import needed
from seran.scratch import Room
from seran.volume import Series, Volume, cast, filled, placed, promised, series, shaped

READERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}
LONGEST = 1 << 20
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


def _library() -> Any:  # noqa: ANN401
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        raise needed("NRRD or MetaImage", error) from error
    return SimpleITK


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ITK's readers print by themselves: the exception says it."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _packed(path: Path) -> bool:
    """Whether the voxels are compressed.

    Raises:
        BadInput: if they lie in another file.
    """
    with path.open("rb") as file:
        start = file.read(LONGEST)
    text = start.decode("latin-1")
    if path.suffix.lower() == ".nrrd":
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
        apart = re.search(r"^\s*data ?file\s*:", text, re.MULTILINE | re.IGNORECASE) is not None
        packed = not re.search(r"^encoding: *raw *\r?$", text, re.MULTILINE | re.IGNORECASE)
    else:
        where = re.findall(r"^\s*ElementDataFile\s*[=:]\s*(.*?)\s*$", text, re.MULTILINE)
        apart = set(where) != {"LOCAL"}
        packed = bool(re.search(r"^\s*CompressedData\s*[=:]\s*True", text, re.MULTILINE | re.IGNORECASE))
    if apart:
        raise BadInput(f"{path}: expected the voxels in the same file; save it as one file (.nrrd, .mha)")
    return packed


def read(path: Path, affine: str, fill: float | None, room: Room, only: int | None) -> Series:
    """Read a scan or a series; see `seran.io.read_series`."""
    sitk = _library()
    packed = _packed(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(READERS[path.suffix.lower()])
    try:
        with _quiet():
            reader.ReadImageInformation()
        kind, size = sitk.GetPixelIDValueAsString(reader.GetPixelID()), reader.GetSize()
        dtype = np.dtype(NAMES.get(kind, "V1"))
        if dtype.kind == "V":
            raise BadInput(
                f"{path}: expected one real number per voxel, got {kind}; save each channel by itself"
            )
        x, y, z, count = shaped(path, size, dtype)
        promised(path, x * y * z * count, dtype.itemsize, packed)
        matrix = placed(path, _affine(reader))
        with _quiet():
            image = reader.Execute()
    except RuntimeError as error:
        text = " ".join(str(error).split()).rsplit("ITK ERROR: ", 1)[-1]
        raise BadInput(f"{path}: cannot be read as {path.suffix[1:].upper()} ({text})") from error
    names = [k for k in image.GetMetaDataKeys() if k.isascii() and k.isprintable() and not k.startswith(OWN)]
    texts = {name: image.GetMetaData(name) for name in names}

    def volume(t: int) -> Volume:
        voxels = sitk.GetArrayViewFromImage(image).T.reshape((x, y, z, count), order="F")
        return Volume(filled(path, voxels, t, (x, y, z), fill, room), matrix, texts)

    return series(path, count, volume, only)


def _affine(reader: Any) -> np.ndarray:  # noqa: ANN401
    """RAS+ from ITK's directions, spacing and origin; an image of two axes lies in the plane z = 0."""
    n = reader.GetDimension()
    m = min(n, 3)
    affine = np.eye(4)
    affine[:m, :m] = (np.reshape(reader.GetDirection(), (n, n)) * reader.GetSpacing())[:m, :m]
    affine[:m, 3] = reader.GetOrigin()[:m]
    affine[:2] *= -1
    return affine


def written(path: Path) -> list[Path]:
    """The file."""
    return [path]


def write(volumes: Iterable[Volume], count: int, path: Path, dtype: np.dtype) -> None:
    """Write volumes on their grid, compressed, with the texts they came with."""
    sitk = _library()
    stack = iter(volumes)
    first = next(stack)
    made = [
        sitk.GetImageFromArray(np.ascontiguousarray(cast(v.data, dtype).T))
        for v in itertools.chain([first], stack)
    ]
    lps = np.diag([-1.0, -1, 1, 1]) @ first.affine
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(0))
    for image in made:
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image = made[0] if count == 1 else sitk.JoinSeries(made)
    for name, text in (first.header if isinstance(first.header, dict) else {}).items():
        image.SetMetaData(name, text)
    sitk.WriteImage(image, str(path), useCompression=True)
