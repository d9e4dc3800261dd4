"""NRRD (.nrrd) and MetaImage (.mha), voxels in the same file: read through SimpleITK, written here.

A header that names another file for its voxels is refused: whoever wrote it would choose what is read.
SimpleITK would write a series only as one array; here it goes to the file volume by volume.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import isal_zlib

from seran import files, grid
from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver, Writer, readable
from seran.machine import needed
from seran.volume import Volume

READERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}
HEADER_BYTES = 1 << 20  # of a file, that are looked at
OWN = ("ITK_", "NRRD_", "content", "space")  # beginnings of the names of texts that ITK writes itself
KINDS = {"unsigned integer": "u", "signed integer": "i", "float": "f"}  # SimpleITK's names: numpy's
META = {  # numpy's names of real numbers: MetaImage's
    "u1": "UCHAR", "i1": "CHAR", "u2": "USHORT", "i2": "SHORT", "u4": "UINT", "i4": "INT",
    "f4": "FLOAT", "f8": "DOUBLE",
}  # fmt: skip
FREE = re.compile(  # names of texts in a MetaImage: the others mean something else
    r"(?i)(?!(Object(Sub)?Type|NDims|Name|(Parent)?ID|Binary.*|Compress.*|Transform.*|Offset|Position|Origin|Color"
    r"|Orientation|Rotation|Center.*|Element.*|Dim.*|Anatomical.*|Modality|Header.*|Sequence.?ID|Comment)$)[\w-]+"
)
LATER = " " * 19 + "0"  # the place of a number that is known only at the end


@dataclass(frozen=True)
class Kept:
    """What a file says besides its voxels and their places: texts by name, and where a fourth axis lies."""

    texts: dict[str, str]
    step: float = 1.0
    start: float = 0.0


def _compressed(path: Path) -> bool:
    """Whether the voxels are compressed; refused if they lie in another file."""
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES).decode("latin-1")
    if path.suffix.lower() == ".nrrd":
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
        apart = bool(re.search(r"(?im)^\s*data ?file\s*:", text))
        compressed = not re.search(r"(?im)^encoding: *raw *\r?$", text)
    else:
        apart = set(re.findall(r"(?m)^\s*ElementDataFile\s*[=:]\s*(.*?)\s*$", text)) != {"LOCAL"}
        compressed = bool(re.search(r"(?im)^\s*CompressedData\s*[=:]\s*True", text))
    if apart:
        raise BadInput(f"{path}: expected the voxels in the same file; save it as one file (.nrrd, .mha)")
    return compressed


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        raise needed("reading NRRD or MetaImage", error) from error
    compressed, form = _compressed(path), (path.suffix[1:].upper(), (RuntimeError,))
    reader = SimpleITK.ImageFileReader()
    with readable(path, form), files.quiet(2):  # what ITK prints, its exception says
        reader.SetFileName(str(path))
        reader.SetImageIO(READERS[path.suffix.lower()])
        reader.ReadImageInformation()
        kind, size = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()), reader.GetSize()
    bits, _, number = kind.partition("-bit ")
    if not bits.isdigit():
        raise BadInput(f"{path}: expected one real number per voxel, got {kind}; save each channel by itself")
    dtype = np.dtype(f"{KINDS[number]}{int(bits) // 8}")
    x, y, z, count = voxels.shaped(path, size, dtype, compressed)
    affine, n, m = np.eye(4), len(size), min(len(size), 3)  # an image of two axes lies in the plane z = 0
    affine[:m, :m] = (np.reshape(reader.GetDirection(), (n, n)) * reader.GetSpacing())[:m, :m]
    affine[:m, 3] = reader.GetOrigin()[:m]
    matrix = voxels.usable_affine(path, grid.lps(affine))
    with readable(path, form), files.quiet(2):
        image = reader.Execute()
    names = [k for k in image.GetMetaDataKeys() if k.isascii() and k.isprintable() and not k.startswith(OWN)]
    fourth = (image.GetSpacing()[3], image.GetOrigin()[3]) if n > 3 else ()
    kept = Kept({name: image.GetMetaData(name) for name in names}, *fourth)

    def volume(t: int) -> Volume:
        array = SimpleITK.GetArrayViewFromImage(image).T.reshape((x, y, z, count), order="F")
        return Volume(voxels.filled(path, array, t, how), matrix, kept)

    return count, volume


def receive(out: Writer) -> Receiver:
    """Write volumes, compressed, with the texts that the first came with."""
    meta, little = out.path.suffix.lower() == ".mha", out.dtype.newbyteorder("<")
    with out.path.open("wb") as file:
        first = yield
        header = _header(first, out, meta).encode()
        file.write(header)
        if not meta:
            with voxels.gzipping(fileobj=file) as packed:
                yield from voxels.stream(first, out.count, little, packed.write)
            return
        deflate = isal_zlib.compressobj(1)
        yield from voxels.stream(first, out.count, little, lambda part: file.write(deflate.compress(part)))
        file.write(deflate.flush())
        size = file.tell() - len(header)
        file.seek(header.index(LATER.encode()))
        file.write(f"{size:{len(LATER)}}".encode())


def _header(volume: Volume, out: Writer, meta: bool) -> str:
    """Of a MetaImage, in which the size of what follows is left open (`LATER`), or of NRRD."""
    kept = volume.header if isinstance(volume.header, Kept) else Kept({})
    lps = grid.lps(volume.affine) + 0.0  # a text has no negative zeros
    n, sizes, code = len(out.shape), grid.dimensions(out.shape, by=" "), out.dtype.str[1:]
    spacing, origin = np.array([[*grid.spacing(lps), kept.step], [*lps[:3, 3], kept.start]])[:, :n]
    directions = np.eye(n)  # one for each axis; that of a fourth is its own
    directions[:3, :3] = (lps[:3, :3] / spacing[:3]).T
    if meta:
        fields = {
            "ObjectType": "Image",
            "NDims": n,
            "BinaryData": True,
            "BinaryDataByteOrderMSB": False,
            "CompressedData": True,
            "CompressedDataSize": LATER,
            "TransformMatrix": grid.dimensions(directions.ravel(), ".17g", " "),
            "Offset": grid.dimensions(origin, ".17g", " "),
            "CenterOfRotation": grid.dimensions([0] * n, by=" "),
            "ElementSpacing": grid.dimensions(spacing, ".17g", " "),
            **{name: " ".join(text.split()) for name, text in kept.texts.items() if FREE.fullmatch(name)},
            "DimSize": sizes,
            "ElementType": f"MET_{META[code]}",
            "ElementDataFile": "LOCAL",
        }
        return "".join(f"{name} = {text}\n" for name, text in fields.items())
    vectors = (*(directions * spacing[:, None]), origin)
    *axes, place = (f"({grid.dimensions(vector, '.17g', ',')})" for vector in vectors)
    lines = [
        "NRRD0005",
        f"type: {META[code].lower() if code[0] == 'f' else out.dtype.name}",
        f"dimension: {n}",
        "space: left-posterior-superior" if n == 3 else f"space dimension: {n}",
        f"sizes: {sizes}",
        f"space directions: {' '.join(axes)}",
        f"kinds: {' '.join(['domain'] * n)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {place}",
    ]
    for name, text in kept.texts.items():
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"{name}:={escaped}"] * (":" not in name)
    return "\n".join(lines) + "\n\n"
