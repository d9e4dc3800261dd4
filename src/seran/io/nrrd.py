"""NRRD (.nrrd; .nhdr with the voxels beside it), by https://teem.sourceforge.net/nrrd/format.html.

Millimetres are to LPS+ where `space` does not say otherwise, as ITK and 3D Slicer have it, and for
``scanner-xyz``, which is LPS+ of a patient who lies on the back, head first.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy import ndarray

from seran import grid
from seran.errors import BadInput
from seran.io import itk, voxels
from seran.io.itk import Kept, Stored, numbers, whole
from seran.io.voxels import Found, Reading, Receiver, Writer
from seran.volume import Volume

FORM = "NRRD"
FIELDS = {  # without spaces
    "type", "dimension", "sizes", "spacings", "thicknesses", "axismins", "axismaxs", "centers", "centerings",
    "labels", "units", "kinds", "endian", "encoding", "space", "spacedimension", "spaceunits", "spaceorigin",
    "spacedirections", "measurementframe", "datafile", "lineskip", "byteskip", "number", "sampleunits",
    "content", "min", "max", "oldmin", "oldmax", "blocksize",
}  # fmt: skip
TYPES = {  # numpy's name: NRRD's, without its prefix "signed", and "unsigned" as u
    "i1": "char int8", "u1": "uchar uint8", "i2": "short shortint int16", "u2": "ushort ushortint uint16",
    "i4": "int int32", "u4": "uint uint32", "i8": "longlong longlongint int64",
    "u8": "ulonglong ulonglongint uint64", "f4": "float", "f8": "double",
}  # fmt: skip
CODINGS = {"raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}
SPACES = {  # the signs of their axes in LPS+
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1), "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "scanner-xyz": (1, 1, 1),
    "3d-right-handed": (1, 1, 1),
}  # fmt: skip
SAMPLED = ("domain", "space", "none", "???")  # kinds of axes that are of space where nothing else says
WRITTEN = {f"f{n}": name for n, name in ((4, "float"), (8, "double"))}

labelled = itk.labelled


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    with itk.readable(path, FORM):
        fields, texts, file, start = _header(path)
        n = whole(fields["dimension"], 1)[0]
        if not 2 <= n <= 4:
            raise BadInput(f"{path}: expected two to four axes, got {n}")
        sizes, kinds = whole(fields["sizes"], n), fields.get("kinds", "??? " * n).lower().split()
        if len(kinds) != n:
            raise ValueError(f"expected the kinds of {n} axes")
        signs, dimension = _space(fields, n)
        vectors, origin, space = _placed(fields, kinds, dimension)
        affine, step, first = itk.placed(vectors * signs[: len(space)], origin * signs[: len(space)])
        series = [*space[3:], *(axis for axis in range(n) if axis not in space and sizes[axis] > 1)]
        for axis in series:
            if kinds[axis] not in (*SAMPLED, "list", "time") or len(series) > 1:
                raise BadInput(
                    f"{path}: expected one real number per voxel, got {sizes[axis]} ({kinds[axis][:60]!r}); "
                    "save each channel by itself"
                )
        spare = [axis for axis in range(4) if axis not in (*space, *series)]  # of one voxel
        order = [*space[:3], *spare[: 3 - len(space)], *series, *spare[3 - len(space) :]]
        frame = _vectors(fields.get("measurementframe", ""), 3) if dimension == 3 else []
        turned = tuple(tuple(signs[:3] * vector + 0.0) for vector in frame if vector is not None)
        listed = bool(series) and series[0] not in space and kinds[series[0]] != "time"
        stored = _stored(file, fields, start, (*sizes, 1, 1)[:4], tuple(order))
    return itk.found(path, FORM, stored, affine, Kept(texts, step, first, listed, turned), how)


def beside(path: Path) -> Path:
    """The file that has the voxels of a header that is a file of its own (.nhdr)."""
    with itk.readable(path, FORM):
        return _header(path)[2]


def _header(path: Path) -> tuple[dict[str, str], dict[str, str], Path, int]:
    """Fields by name, without spaces, and texts; the file with the voxels, and where they begin."""
    lines, end = itk.header(path, lambda line: not line)
    if not lines or not re.fullmatch(r"NRRD000[1-5]", lines[0]):
        raise ValueError("expected NRRD0001 to NRRD0005 in its first line")
    fields: dict[str, str] = {}
    texts: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 2):
        name, _, text = line.partition(":")
        field = name.strip().lower().replace(" ", "")
        if not line or line.startswith("#"):
            continue
        if field in FIELDS and not text.startswith("="):
            if fields.setdefault(field, text.strip()) != text.strip():
                raise ValueError(f"line {number} of its header says {field} again")
        elif ":=" in line:
            name, _, text = line.partition(":=")
            texts[name] = re.sub(r"\\([n\\])", lambda found: "\n" if found[1] == "n" else "\\", text)
        else:
            raise ValueError(f"line {number} of its header: expected a field of NRRD, got {line[:60]!r}")
    file = itk.voxels_file(path, fields.get("datafile", ""))
    if file == path and lines[-1]:
        raise ValueError("its header has no end")
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in fields:
            raise ValueError(f"its header does not say {name}")
    return fields, itk.kept(texts), file, end if file == path else 0


def _stored(
    file: Path, fields: dict[str, str], start: int, sizes: tuple[int, ...], order: tuple[int, ...]
) -> Stored:
    name = re.sub(r"\s|_t$", "", fields["type"].lower()).replace("unsigned", "u").removeprefix("signed")
    code = next((code for code, names in TYPES.items() if name in names.split()), None)
    coding = CODINGS.get(fields["encoding"].lower())
    endian = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    skip = whole(fields.get("byteskip", "0"), 1)[0]
    if code is None or coding is None:
        got = f"{name[:60]!r} in {fields['encoding'][:60]!r}"
        raise ValueError(f"expected real numbers, raw or packed by gzip or bzip2, got {got}; save them so")
    if code[1] != "1" and endian is None:
        raise ValueError("expected endian: little or big")
    if fields.get("lineskip", "0") != "0" or skip < -1 or (skip and coding != "raw"):
        raise ValueError("expected voxels without lines or bytes to skip before them")
    start = start + skip if skip >= 0 else -1
    return Stored(file, start, coding, np.dtype((endian or "<") + code), sizes, order)


def _space(fields: dict[str, str], n: int) -> tuple[ndarray, int]:
    """The signs of the axes of space in LPS+, and how many there are; 0 where axes have only spacings."""
    name = fields.get("space", "").lower()
    timed = name.endswith("-time") or name in ("rast", "last", "lpst")
    signs = SPACES.get(name.removesuffix("-time").removesuffix("t" * timed), None if name else (1, 1, 1))
    dimension = 3 + timed if name else whole(fields.get("spacedimension", "0"), 1)[0]
    if signs is None or not 0 <= dimension <= n:
        got = f"{name[:60]!r}, {dimension}-D, of {n} axes"
        raise ValueError(f"expected a space whose left and right are known (RAS, LAS, LPS), got {got}")
    return np.array([*signs, 1]), dimension


def _placed(fields: dict[str, str], kinds: list[str], dimension: int) -> tuple[ndarray, ndarray, list[int]]:
    """Of all axes that have a place, which are returned last: mm from voxel to voxel, and of the first.

    Args:
        fields: of the header.
        kinds: of all axes.
        dimension: of their space; 0 for none.
    """
    n = len(kinds)
    if dimension:
        found = _vectors(fields.get("spacedirections", ""), dimension)
        vectors = np.array([vector for vector in found if vector is not None])
        space = [axis for axis, vector in enumerate(found) if vector is not None]
        origin = np.array(_vectors(fields.get("spaceorigin", ""), dimension) or np.zeros((1, dimension)))
        units = _quoted(fields.get("spaceunits", '"" ' * dimension), dimension)
        if len(found) != n or len(space) != dimension or origin.shape != (1, dimension):
            raise ValueError(f"expected directions of {n} axes and an origin, in {dimension} dimensions")
        _refuse_placed_twice(fields, space, n)
        origin = origin[0]
    else:
        if "spacedirections" in fields or ("axismaxs" in fields and "spacings" not in fields):
            raise ValueError("expected a space, or spacings, got only directions or axis maxs")
        space = [axis for axis, kind in enumerate(kinds) if kind in SAMPLED]
        steps, starts = (np.array(numbers(fields.get(f, "nan " * n), n)) for f in ("spacings", "axismins"))
        centers = fields.get("centers", fields.get("centerings", "cell " * n)).lower().split()
        if len(centers) != n:
            raise ValueError(f"expected the centers of {n} axes")
        starts += np.where(np.array(centers) == "node", 0, steps / 2)
        vectors = np.diag(np.where(np.isnan(steps), 1, steps)[space])
        origin = starts[space] if np.isfinite(starts[space]).all() else np.zeros(len(space))
        units = [_quoted(fields.get("units", '"" ' * n), n)[axis] for axis in space]
    if len(space) < 2:
        raise ValueError("expected two axes of space or more")
    lengths = np.array([*map(itk.millimetres, units[:3]), 1])[: len(space)]
    return vectors * lengths, origin * lengths, space


def _refuse_placed_twice(fields: dict[str, str], space: list[int], n: int) -> None:
    """Raise `ValueError` for axes with a direction and what is for axes without one, as teem does.

    Args:
        fields: of the header.
        space: the axes that have directions.
        n: how many axes there are.
    """
    for field in ("spacings", "axismins", "axismaxs", "units"):
        words = _quoted(fields.get(field, "nan " * n), n)
        if any(words[axis].lower() not in ("", "nan") for axis in space):
            got = f"{field}: {fields[field][:60]}"
            raise ValueError(
                f"expected axes with space directions to say nothing else of their places, got {got}; "
                "take that line out, and give units as space units"
            )


def _vectors(text: str, size: int) -> list[ndarray | None]:
    """Vectors in brackets, or ``none``."""
    pattern = r"\(([^()]*)\)|\bnone\b"
    if re.sub(pattern, "", text.lower()).strip():
        raise ValueError(f"expected vectors of {size} numbers, got {text[:60]!r}")
    found = re.finditer(pattern, text.lower())
    return [None if f[1] is None else np.array(numbers(f[1].replace(",", " "), size)) for f in found]


def _quoted(text: str, n: int) -> list[str]:
    words = re.findall(r'"([^"]*)"', text) if '"' in text else text.split()
    if len(words) != n:
        raise ValueError(f"expected {n} words, got {text[:60]!r}")
    return words


def receive(out: Writer) -> Receiver:
    """Write volumes, compressed, with the texts that the first came with."""
    with out.path.open("wb") as file:
        first = yield
        file.write(_written(first, out).encode())
        with voxels.gzipping(fileobj=file) as packed:
            yield from voxels.stream(first, out.count, out.dtype.newbyteorder("<"), packed.write)


def _written(volume: Volume, out: Writer) -> str:
    kept, vectors, origin = itk.to_write(volume, len(out.shape))
    placed = 3 if kept.listed else len(out.shape)
    axes = [_vector(v[:placed]) for v in vectors[:placed]] + ["none"] * (len(out.shape) - placed)
    lines = [
        "NRRD0005",
        f"type: {WRITTEN.get(out.dtype.str[1:], out.dtype.name)}",
        f"dimension: {len(out.shape)}",
        "space: left-posterior-superior" if placed == 3 else f"space dimension: {placed}",
        f"sizes: {grid.dimensions(out.shape, by=' ')}",
        f"space directions: {' '.join(axes)}",
        f"kinds: {' '.join((['domain'] * placed + ['list'])[: len(out.shape)])}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(origin[:placed])}",
    ]
    if kept.frame and placed == 3:
        lines.append(f"measurement frame: {' '.join(map(_vector, kept.frame))}")
    for name, text in kept.texts.items():
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"{name}:={escaped}"] * (":" not in name and not name.startswith("#"))
    return "\n".join(lines) + "\n\n"


def _vector(numbers: Iterable[float]) -> str:
    return f"({grid.dimensions(numbers, '.17g', ',')})"
