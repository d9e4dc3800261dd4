"""The pixels of one file: plain ones are read here, packed ones by `decode`, in a process of its own.

One such process decodes all files of a series, within limits of time and memory. If it dies of one, that is
an error of this file.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Num
from numpy import ndarray
from pydicom import Dataset, config
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from seran.errors import BadInput, counted
from seran.io.dicom.elements import FORM, LARGEST, header, numbers, texts
from seran.io.voxels import printable, readable

TAGS = (  # elements that say how pixels are stored
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
PACKED = 200  # bytes of pixels that a byte of a large packed file holds at most
SECONDS, RATE = 30, 1e6  # that a file may take to be decoded: so long, and its bytes at this rate
LINE = 1 << 16  # characters of an answer before the pixels
UNPACK = "unpack it first (gdcmconv --raw)"

Shape = tuple[int, int, int]  # frames, rows, columns
Decode = Callable[[Path, UID, Shape], list[ndarray]]


def stored(path: Path, image: Dataset, decode: Decode) -> list[Num[ndarray, "rows columns"]]:
    """The pixels of every frame as they are stored; `BadInput` if they are no grey ones, or not as promised.

    Args:
        path: the file.
        image: what it says by the elements `TAGS`.
        decode: what decodes packed pixels, see `decoder`.
    """
    colours = "\\".join(texts(image, "PhotometricInterpretation")) or "none"
    if colours != "MONOCHROME2" or texts(image, "SamplesPerPixel") != ["1"]:
        why = "a map in colours or a picture of the screen is no scan, leave it out"
        why = "its intensities are inverted, invert them first" if colours == "MONOCHROME1" else why
        raise BadInput(f"{path}: expected a grey-scale image (MONOCHROME2), got {colours}; {why}")
    frames = int(numbers(path, [image], "NumberOfFrames", default=1)[0])
    rows, columns, bits = (int(numbers(path, [image], n)[0]) for n in ("Rows", "Columns", "BitsAllocated"))
    used = int(numbers(path, [image], "BitsStored", default=bits)[0])
    high = int(numbers(path, [image], "HighBit", default=used - 1)[0])
    if high != used - 1 or not 0 < used <= bits:
        told = f"expected voxels of N bits that end at bit N-1, got {used} of {bits} that end at bit {high}"
        raise BadInput(f"{path}: {told}; correct BitsStored and HighBit")
    need, has = frames * rows * columns * bits // 8, path.stat().st_size
    if min(frames, rows, columns) < 1 or need > max(LARGEST, PACKED * has):
        told = f"{need:,}" if need < 10**15 else "over 10^15"
        raise BadInput(f"{path}: its header promises {told} bytes of pixels, but the file cannot hold them")
    syntax = UID("\\".join(texts(image.file_meta, "TransferSyntaxUID")), config.IGNORE)
    if not syntax.is_transfer_syntax:
        raise BadInput(f"{path}: its transfer syntax is unknown ({printable(syntax.name)}); {UNPACK}")
    if syntax.is_encapsulated:
        with readable(path, FORM):
            able = get_decoder(syntax).is_available
        if not able:
            told = f"its {printable(syntax.name)} needs a decoder; pip install 'seran[dicom]'"
            raise BadInput(f"{path}: {told}, or {UNPACK}")
        return decode(path, syntax, (frames, rows, columns))
    return _plain(path, (frames, rows, columns), need)


def _plain(path: Path, shape: Shape, need: int) -> list[Num[ndarray, "rows columns"]]:
    """Pixels that are not packed, of which there must be ``need`` bytes."""
    image = header(path, [*TAGS, *DATA], pixels=True)
    if any(name in image for name in DATA[1:]):
        raise BadInput(f"{path}: expected integers, got {DATA[1]} (a parametric map); convert it to NIfTI")
    with readable(path, FORM):
        packed, has = image["PixelData"].is_undefined_length, len(image.PixelData)
    if packed:
        raise BadInput(f"{path}: its pixels are packed, and no transfer syntax says how; {UNPACK}")
    if not need <= has < need + need // shape[0] // shape[1]:  # an odd number, or a few more, are padding
        raise BadInput(f"{path}: its header promises {need:,} bytes of pixels, but it has {has:,}")
    with readable(path, FORM):
        return list(image.pixel_array.reshape(shape))


@contextmanager
def decoder() -> Iterator[Decode]:
    """Yield what decodes a file's frames; its process starts with the first file and ends with the block."""
    children: list[subprocess.Popen[bytes]] = []

    def decode(path: Path, syntax: UID, shape: Shape) -> list[ndarray]:
        if not children:
            children.append(_started())
        kind, seconds = printable(syntax.name), SECONDS + 2 * math.prod(shape) / RATE
        timer = Timer(seconds, children[0].kill)
        timer.start()
        try:
            found, error = _answer(children[0], path, shape)
        except (OSError, ValueError, TypeError) as fault:
            why = "ended" if timer.is_alive() else f"took longer than {seconds:.0f} s"
            told = f"its pixels are damaged: their decoder ({kind}) {why}; replace the file"
            raise BadInput(f"{path}: {told}") from fault
        finally:
            timer.cancel()
        if error or len(found) != shape[0]:
            error = printable(error or f"expected {counted(shape[0], 'frame')}, got {len(found)}")
            raise BadInput(f"{path}: cannot be read as DICOM ({' '.join(error.split())})")
        return found

    try:
        yield decode
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _started() -> "subprocess.Popen[bytes]":
    one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    same = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # but not the current folder
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("decode.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | one_core | same,
    )


def _answer(child: "subprocess.Popen[bytes]", path: Path, shape: Shape) -> tuple[list[ndarray], str]:
    """The frames that the process answers to a path, and an error; ValueError, OSError if it has died."""
    asked, answers, found = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout), list[ndarray]()
    asked.write(json.dumps(os.fspath(path)).encode() + b"\n")
    asked.flush()
    while isinstance(said := json.loads(answers.readline(LINE)), list):
        dtype, *size = np.dtype(said[0]), *said[1:]
        if dtype.kind not in "iu" or size != [*shape[1:]] or len(found) == shape[0]:
            raise ValueError(f"got {said}")
        found.append(np.frombuffer(answers.read(math.prod(size) * dtype.itemsize), dtype).reshape(size))
    return found, said
