"""MetaImage (.mha; .mhd with the voxels beside it), as ITK's MetaIO has it; millimetres are to LPS+."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from isal import isal_zlib
from numpy import ndarray

from seran import grid
from seran.errors import BadInput, counted
from seran.io import itk, voxels
from seran.io.itk import Kept, Stored, numbers, whole
from seran.io.voxels import Found, Reading, Receiver, Writer
from seran.volume import Volume

FORM = "MetaImage"
TYPES = {  # numpy's names of real numbers: MetaImage's; the first is written
    "u1": "UCHAR", "i1": "CHAR", "u2": "USHORT", "i2": "SHORT", "u4": "UINT ULONG", "i4": "INT LONG",
    "u8": "ULONG_LONG", "i8": "LONG_LONG", "f4": "FLOAT", "f8": "DOUBLE",
}  # fmt: skip
MEANT = re.compile(  # names that are no texts, since they mean something
    r"(?i)(Object(Sub)?Type|NDims|Name|(Parent)?ID|Binary.*|Compress.*|Transform.*|Offset|Position|Origin|Color"
    r"|Orientation|Rotation|Center.*|Element.*|Dim.*|Anatomical.*|Modality|Header.*|Sequence.?ID|Comment"
    r"|ImagePosition|DistanceUnits|AcquisitionDate)"
)
PLACES = re.compile(  # names that decide what the voxels are and where they lie
    r"NDims|Binary.*|Compress.*|Transform.*|(Image)?Position|O(ffset|rigin|rientation)|Rotation|DistanceUnits"
    r"|Element(Spac|Size|Num|Byte|To|Type).*|DimSize|HeaderSize"
)
TURNED = "TransformMatrix", "Rotation", "Orientation"  # names of one thing
ORIGINS = "Offset", "Position", "Origin", "ImagePosition"  # ITK takes the last of these, others the first
FREE = re.compile(rf"(?i)(?!({MEANT.pattern[4:]})$)[\w-]+")  # names of texts that can be written
COUNTS = {"Color": 4, "ElementMin": 1, "ElementMax": 1}
PER_AXIS = "CenterOfRotation", "ElementSize", "SequenceID"
"""Fields of so many numbers, or of one for each axis: of fewer, ITK takes the rest from the next lines."""
LAST = "ElementDataFile"
LATER = " " * 19 + "0"  # the place of a number that is known only at the end

labelled = itk.labelled


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    with itk.readable(path, FORM):
        fields, file, start = _header(path)
        n = whole(fields["NDims"], 1)[0]
        if not 2 <= n <= 4:
            raise BadInput(f"{path}: expected two to four axes, got {n}")
        length = itk.millimetres(fields.get("DistanceUnits", ""))
        spacing = numbers(_first(fields, "ElementSpacing", "ElementSize") or "1 " * n, n)
        turned = numbers(_agreed(fields, numbers, *TURNED) or _text(np.eye(n)), n * n)
        origin = numbers(_agreed(fields, numbers, *ORIGINS) or "0 " * n, n)
        for name, count in {**COUNTS, **dict.fromkeys(PER_AXIS, n)}.items():
            if len(fields.get(name, "0 " * count).split()) < count:
                got = f"{fields[name][:60]!r} in {name}"
                raise ValueError(f"expected {counted(count, 'number')}, got {got}, which hides what follows")
        lengths = np.array([length] * n)
        lengths[3:] = 1
        vectors = np.reshape(turned, (n, n)) * np.array(spacing)[:, None] * lengths
        affine, step, first = itk.placed(vectors, np.array(origin) * lengths)
        texts = {name: text for name, text in fields.items() if not MEANT.fullmatch(name)}
        stored = _stored(path, fields, file, start, (*whole(fields["DimSize"], n), 1, 1)[:4])
    return itk.found(path, FORM, stored, affine, Kept(itk.kept(texts), step, first), how)


def beside(path: Path) -> Path:
    """The file that has the voxels of a header that is a file of its own (.mhd)."""
    with itk.readable(path, FORM):
        return _header(path)[1]


def _header(path: Path) -> tuple[dict[str, str], Path, int]:
    """What the header says by name; the file with the voxels, and where they begin."""
    lines, end = itk.header(path, lambda line: bool(re.match(rf"\s*{LAST}\s*[=:]", line)))
    parts = [re.split("[=:]", line, maxsplit=1) for line in lines]
    for part, following in pairwise(parts):  # ITK takes both lines for one name, and loses what follows
        text, name = part[0].strip(), following[0].strip()
        if len(part) == 1 < len(following) and text and PLACES.fullmatch(name):
            raise ValueError(f"its line {text[:40]!r} says nothing, and hides {name} from other readers")
    fields: dict[str, str] = {}
    for name, text in (map(str.strip, part) for part in parts if len(part) > 1):  # others go on with a text
        if PLACES.fullmatch(name) and fields.get(name, text) != text:
            raise ValueError(f"its header says {name} again, {text[:60]!r}; leave the right one")
        fields[name] = text
    for name, text in fields.items():
        if not text and PLACES.fullmatch(name):
            raise ValueError(f"its {name} is empty")
    apart = fields.get(LAST, "LOCAL")
    file = itk.voxels_file(path, "" if apart == "LOCAL" else apart)
    for name in ("NDims", "DimSize", "ElementType", LAST):
        if name not in fields:
            raise ValueError(f"its header does not say {name}")
    return fields, file, end if file == path else 0


def _stored(path: Path, fields: dict[str, str], file: Path, start: int, sizes: tuple[int, ...]) -> Stored:
    kind, name = fields.get("ObjectType", "Image"), fields["ElementType"].removeprefix("MET_")
    code = next((code for code, names in TYPES.items() if name in names.split()), None)
    channels = whole(fields.get("ElementNumberOfChannels", "1"), 1)[0]
    if kind != "Image" or code is None or channels != 1:
        raise BadInput(
            f"{path}: expected one real number per voxel, got {kind[:60]!r}, {channels} {name[:60]!r}; "
            "save each channel by itself"
        )
    slope, shift = (fields.get(f"ElementToIntensityFunction{end}") for end in ("Slope", "Offset"))
    if float(slope or 1) != 1 or float(shift or 0) != 0:
        raise BadInput(f"{path}: expected no slope and offset of intensities; save it with both applied")
    if not _true(fields.get("BinaryData", "True")):
        raise BadInput(f"{path}: expected binary voxels, got text; save it with BinaryData = True")
    coding = "zlib" if _true(fields.get("CompressedData", "")) else "raw"
    skip = whole(fields.get("HeaderSize", "0"), 1)[0]
    if skip < -1 or (skip and coding != "raw") or (skip > 0 and file == path):
        raise ValueError(f"expected no HeaderSize here, got {skip}")
    start = start + skip if skip >= 0 else -1
    big = _true(_agreed(fields, _true, "BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    size = fields.get("CompressedDataSize", "0")  # old writers rounded it
    packed = None if "e" in size.lower() else whole(size, 1)[0] or None
    return Stored(file, start, coding, np.dtype("<>"[big] + code), sizes, packed=packed)


def _first(fields: dict[str, str], *names: str) -> str:
    return next((fields[name] for name in names if name in fields), "")


def _agreed(fields: dict[str, str], meaning: Callable[[str], object], *names: str) -> str:
    """What fields that mean the same thing say; `ValueError` if they contradict each other.

    Args:
        fields: of the header.
        meaning: from what a field says to a value.
        names: of the fields.
    """
    said = {name: fields[name] for name in names if name in fields}
    values = [meaning(text) for text in said.values()]
    if any(value != values[0] for value in values):
        got = ", ".join(f"{name} = {text[:60]}" for name, text in said.items())
        raise ValueError(f"expected {' and '.join(said)} to be the same, got {got}; leave the right one")
    return next(iter(said.values()), "")


def _true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


def receive(out: Writer) -> Receiver:
    """Write volumes, compressed, with the texts that the first came with."""
    with out.path.open("wb") as file:
        first = yield
        header, deflate = _written(first, out).encode(), isal_zlib.compressobj(1)
        file.write(header)
        little = out.dtype.newbyteorder("<")
        yield from voxels.stream(first, out.count, little, lambda part: file.write(deflate.compress(part)))
        file.write(deflate.flush())
        size = file.tell() - len(header)
        file.seek(header.index(LATER.encode()))
        file.write(f"{size:{len(LATER)}}".encode())


def _written(volume: Volume, out: Writer) -> str:
    """The header, in which the size of what follows is left open (`LATER`)."""
    n = len(out.shape)
    kept, vectors, origin = itk.to_write(volume, n)
    spacing = np.linalg.norm(vectors, axis=1)
    texts = {name: " ".join(text.split()) for name, text in kept.texts.items() if FREE.fullmatch(name)}
    fields = {
        "ObjectType": "Image",
        "NDims": n,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": True,
        "CompressedDataSize": LATER,
        "TransformMatrix": _text(vectors / spacing[:, None]),
        "Offset": _text(origin),
        "CenterOfRotation": _text(0 * origin),
        "ElementSpacing": _text(spacing),
        **texts,
        "DimSize": grid.dimensions(out.shape, by=" "),
        "ElementType": f"MET_{TYPES[out.dtype.str[1:]].split()[0]}",
        LAST: "LOCAL",
    }
    return "".join(f"{name} = {text}\n" for name, text in fields.items())


def _text(values: ndarray) -> str:
    return grid.dimensions(values.ravel(), ".17g", " ")
