"""What one DICOM file says: its elements one by one, so that a value that is damaged harms no other.

A file without a preamble is read too, and one without a transfer syntax in the encoding that its elements
show. A deflated one is inflated as far as `LARGEST` and no further.
"""

import struct
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from seran.errors import BadInput
from seran.io.voxels import printable, readable

LARGEST = 1 << 26  # bytes that a deflated file may have
START = 132  # bytes of a preamble and its "DICM"
BARE = (b"\x02\0", b"\x08\0")  # how a file without them begins: with the lowest element
ENCODINGS: dict[
    tuple[bool | None, bool | None], UID
] = {  # by implicit representations and little-endian numbers
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
SHOWN = 40  # characters of a value in a message
FORM = "DICOM", (  # what pydicom raises on damaged files, and what comes of converting their values
    OSError, EOFError, InvalidDicomError, BytesLengthException, struct.error, AttributeError, LookupError,
    TypeError, ValueError, ArithmeticError, NotImplementedError, RecursionError, zlib.error,
)  # fmt: skip


def begins(start: bytes) -> bool:
    """Whether what begins so may be DICOM, with or without a preamble."""
    return start[START - 4 : START] == b"DICM" or start[:2] in BARE


def header(path: Path, tags: Sequence[str | int] | None = None, pixels: bool = False) -> pydicom.Dataset:
    """The elements of a file, with its transfer syntax in ``file_meta``; `BadInput` if there are none.

    Args:
        path: the file.
        tags: the elements that are wanted, by keyword or number; all without it.
        pixels: whether those of pixels are wanted, too.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    with file, readable(path, FORM):
        wanted: list[Any] | None = None if tags is None else [*tags]
        start = file.read(START)
        plain = _inflated(path, file, start)
        found = pydicom.dcmread(plain, stop_before_pixels=not pixels, force=True, specific_tags=wanted)
        found.preamble = start[:-4] if start[-4:] == b"DICM" else None
        if not found.file_meta.get("TransferSyntaxUID"):
            found.file_meta.TransferSyntaxUID = ENCODINGS[found.original_encoding]
        for tag in list(found.keys()):  # decodes it here, where warnings are ignored
            with suppress(*FORM[1]):
                found[tag]
        return found


def _inflated(path: Path, file: Any, start: bytes) -> Any:  # noqa: ANN401
    """The file, which begins with ``start``; of a deflated one, what follows its transfer syntax."""
    if not begins(start):
        raise InvalidDicomError("it begins with neither a preamble nor an element")
    file.seek(START if start[START - 4 :] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        packed = zlib.decompressobj(-zlib.MAX_WBITS)
        elements = packed.decompress(file.read(LARGEST), LARGEST)
        if not packed.eof:
            larger = f"unpacks to more than {LARGEST:,} bytes; unpack it first (gdcmconv --raw)"
            more = packed.unconsumed_tail or file.read(1)
            raise BadInput(f"{path}: it {larger if more else 'is cut off'}")
        return BytesIO(elements)
    file.seek(0)
    return file


def stated(holder: pydicom.Dataset, name: str | int) -> Any:  # noqa: ANN401
    """The value of an element, in bytes if it is none of its kind; None where it is absent or empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = holder[name].value if name in holder else None
        except FORM[1]:
            value = holder.get_item(name, keep_deferred=True).value
    return None if isinstance(value, (str, bytes, MultiValue)) and not value else value


def _words(value: Any) -> list[str]:  # noqa: ANN401
    each = value if isinstance(value, MultiValue) else [value]
    return [printable(v.decode("latin-1") if isinstance(v, bytes) else v) for v in each if v is not None]


def texts(holder: pydicom.Dataset, name: str | int) -> list[str]:
    """The values of an element, each as a text on one line."""
    return _words(stated(holder, name))


def items(holder: pydicom.Dataset, name: str) -> list[pydicom.Dataset]:
    """The items of a sequence; none where there is none."""
    value = stated(holder, name)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def numbers(
    path: Path, holders: Sequence[pydicom.Dataset], name: str, count: int = 1, default: float | None = None
) -> Float[ndarray, "_"]:
    """The numbers of an element; `BadInput` if that is not what it holds.

    Args:
        path: the file, for messages.
        holders: where the element may be, that which counts first.
        name: its keyword.
        count: how many numbers it has.
        default: what stands for each where there is no such element; without it, that is an error.
    """
    value = next((v for holder in holders if (v := stated(holder, name)) is not None), None)
    if value is None and default is not None:
        return np.full(count, float(default))
    with suppress(TypeError, ValueError, OverflowError):
        found = np.array(value, float).reshape(-1)
        if len(found) == count and np.isfinite(found).all():
            return found
    shown = repr("\\".join(_words(value))[:SHOWN]) if value is not None else "none"
    expected = f"{count} finite number{'s' * (count > 1)} as {name}"
    raise BadInput(f"{path}: expected {expected}, got {shown}; correct its header")
