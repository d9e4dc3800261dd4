"""A program of its own, which decodes packed pixels: on damaged ones native decoders may abort or never end.

It reads paths from its standard input, and answers each: for every frame a list of its type and size, then
its pixels, and at last an error, or an empty text. All but pixels are lines of JSON. It imports nothing of
seran, so that it starts soon.
"""

import json
import os
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels

MEMORY = 2 << 30  # bytes
LONGEST = 500  # characters of an error
J2K, SIZE, SCAN = b"\xff\x4f\xff\x51", ">4xIIII18xB", 0xDA
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of JPEG and JPEG-LS that state a size


def coded(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and bits as packed pixels state them themselves: JPEG, JPEG-LS, JPEG 2000."""
    at = data.find(J2K, 0, 256)  # behind the boxes of a JP2 file, if it is one
    if at >= 0:
        right, bottom, left, top, bits = struct.unpack_from(SIZE, data, at + 4)
        return bottom - top, right - left, bits % 128 + 1  # above is whether they are signed
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != SCAN:
        if data[at + 1] in FRAMES:
            bits, rows, columns = struct.unpack_from(">BHH", data, at + 4)
            return rows, columns, bits
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def frames(path: str) -> Iterator[np.ndarray]:
    """The frames of a file, one after the other."""
    image = pydicom.dcmread(path, force=True)
    said = image.Rows, image.Columns, image.BitsStored
    for data in generate_frames(image.PixelData, number_of_frames=int(image.get("NumberOfFrames") or 1)):
        found = coded(data)
        if found and (found[:2] != said[:2] or found[2] > 8 >= said[2]):  # 16 bits for 12 do no harm
            header, pixels = ("{} rows, {} columns and {} bits".format(*one) for one in (said, found))
            raise ValueError(f"its header says {header}, its pixels say {pixels}")
    yield from iter_pixels(image)


def main() -> None:
    """Answer every path."""
    with suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", message=".*(excess|padding|larger)")  # more pixels than there should be
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # native decoders print
    for line in sys.stdin.buffer:
        error = ""
        try:
            for frame in frames(json.loads(line)):
                _say(out, [frame.dtype.str, *frame.shape])
                out.write(np.ascontiguousarray(frame).data)
        except Exception as raised:
            error = str(raised) or type(raised).__name__
        _say(out, error[:LONGEST])


def _say(out: BinaryIO, said: object) -> None:
    out.write(json.dumps(said).encode() + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
