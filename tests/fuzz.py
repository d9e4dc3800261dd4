"""Fuzzing that knows headers: ``python -m tests.fuzz --cases 10000``.

Sound files of every format get one to three damages: a field of the header another value, of the field's
type or hostile; a bit of packed voxels flipped; bytes written, cut, inserted. A process of its own reads
and sharpens each. Counted are tracebacks, deaths, hangs, more than `LARGEST`, messages of more than one
line, damaged packed voxels that pass, and results that lie elsewhere than an independent reader says.
"""

import contextlib
import gzip
import io as text
import multiprocessing
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
import tyro
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from seran import cli, io
from tests.conftest import oblique, phantom
from tests.test_dicom import enhanced, series
from tests.test_formats import FLIPPED, save

SECONDS = 20
"""After which a case counts as hanging."""
LARGEST = 2 * 2**30
"""Bytes of memory that a case may take beyond what the process had when it began."""
APART = 1e-3
"""Millimetres between our corners and an independent reader's, in parts of the field of view."""
HOW = ("--method", "bicubic", "--fill", "0", "--strict", "off")
"""How all are sharpened; what the checks say of the damaged ones is no fault."""
WORDS = [
    "", "0", "-1", "1", "2", "nan", "inf", "1e308", "2147483648", "99999999999999999999", "(1,0,0)", "none",
    "x" * 1000, "é", "\x1b[31m", "../../etc/passwd", "1,5", "1\\2", "0.5 0.5", "LOCAL", "[]", "\x00", "-0",
    "1e-30",
]  # fmt: skip
Files = dict[str, bytes]


@dataclass(frozen=True)
class Sound:
    """A scan that nothing is wrong with, in files of one format."""

    name: str
    end: str  # of the file that is read; empty for a folder of DICOM
    files: Files
    header: Callable[[bytes, np.random.Generator], bytes]  # gives one field another value
    packed: range | None = None  # bytes that hold packed voxels
    voxels: bytes = field(default=b"", repr=False)  # of what is read of the sound files


def _number(rng: np.random.Generator, dtype: np.dtype) -> Any:
    """A value of a type that somebody may have forgotten."""
    if dtype.kind == "f":
        return rng.choice([0, -1, 1, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30, 352, 2, rng.normal() * 100])
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        many = [0, 1, 2, 3, 4, 5, 7, 8, info.max, info.min, info.max // 2, rng.integers(info.min, info.max)]
        return rng.choice(np.array(many, dtype=object))
    return rng.bytes(dtype.itemsize)


def binary(content: bytes, rng: np.random.Generator, kind: np.dtype) -> bytes:
    """For headers that are a record of this kind."""
    record = np.frombuffer(content[: kind.itemsize], kind).copy()
    name = str(rng.choice(list(kind.names or ())))
    with np.errstate(all="ignore"):
        if record[name][0].ndim:
            record[name][0, rng.integers(record[name].shape[1])] = _number(rng, record[name].dtype)
        else:
            record[name][0] = _number(rng, record[name].dtype)
    return record.tobytes() + content[kind.itemsize :]


def lines(content: bytes, rng: np.random.Generator, separator: bytes) -> bytes:
    """For headers of lines ``key SEPARATOR value``."""
    rows = content.split(b"\n")
    at = [i for i, row in enumerate(rows[:40]) if separator in row and len(row) < 200]
    if not at:
        return content
    i = int(rng.choice(at))
    key, _, value = rows[i].partition(separator)
    kind, word = rng.integers(5), str(rng.choice(WORDS)).encode()
    if kind == 0:
        rows[i] = key + separator + word
    elif kind == 1:  # one word of several
        parts = value.split(b" ")
        parts[rng.integers(len(parts))] = word
        rows[i] = key + separator + b" ".join(parts)
    elif kind == 2:
        del rows[i]
    elif kind == 3:
        rows.insert(i, rows[int(rng.choice(at))])
    else:
        rows.insert(i, word + separator + str(rng.choice(WORDS)).encode())
    return b"\n".join(rows)


def elements(content: bytes, rng: np.random.Generator) -> bytes:
    """For DICOM: another value, or none, for an element at some depth."""
    header = pydicom.dcmread(text.BytesIO(content), force=True)
    sets = [header, header.file_meta]
    for one in header.iterall():
        if one.VR == "SQ":
            sets += list(one.value)
    chosen = sets[int(rng.integers(len(sets)))] if rng.random() < 0.5 else header
    if not len(chosen):
        chosen = header
    element = chosen[rng.choice([e.tag for e in chosen])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if rng.random() < 0.15:
            del chosen[element.tag]
        elif element.VR in ("US", "SS", "UL", "SL", "FD", "FL"):
            kind = {"US": "<u2", "SS": "<i2", "UL": "<u4", "SL": "<i4", "FD": "<f8", "FL": "<f4"}[element.VR]
            element.value = np.array(_number(rng, np.dtype(kind))).astype(kind).item()
        elif element.VR in ("OB", "OW", "SQ", "UN"):
            element.value = [] if element.VR == "SQ" else bytes(element.value)[: int(rng.integers(0, 4000))]
        else:
            word = str(rng.choice(WORDS)).encode()
            raw = pydicom.dataelem.RawDataElement(element.tag, element.VR, len(word), word, 0, False, True)
            chosen._dict[element.tag] = raw  # as it would come from a file, whatever its type allows
        made = text.BytesIO()
        header.save_as(made, enforce_file_format=False)
    return made.getvalue()


def _spoilt(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes written, cut, inserted, removed or zeroed, mostly near the beginning."""
    made = bytearray(content)
    at = int(len(made) * (rng.random() * 0.02 if rng.random() < 0.5 else rng.random()))
    size, kind = int(rng.integers(1, 64)), rng.integers(5)
    if kind == 0:
        made[at : at + size] = rng.bytes(size)
    elif kind == 1:
        del made[at:]
    elif kind == 2:
        made[at:at] = rng.bytes(size)
    elif kind == 3:
        del made[at : at + size]
    else:
        made[at : at + 8 * size] = bytes(len(made[at : at + 8 * size]))
    return bytes(made)


def sound(folder: Path) -> list[Sound]:
    """A scan of every format, packed and plain."""
    data, made = phantom((26, 22, 5)).astype(np.int16), []

    def add(name: str, end: str, header: Callable[[bytes, np.random.Generator], bytes]) -> Path:
        place = folder / name
        place.mkdir()
        path = place / f"in{end}"
        if "nifti2" in name:
            nib.save(nib.Nifti2Image(data, oblique()), path)
        else:
            save(data, oblique(), path)
        files = {p.name: p.read_bytes() for p in place.iterdir()}
        made.append(Sound(name, end, files, header, _packed(path)))
        return path

    one, two = Nifti1Header.template_dtype, Nifti2Header.template_dtype
    for end in (".nii", ".nii.gz", ".hdr"):
        add(f"nifti1{end}", end, partial(binary, kind=one))
    add("nifti2.nii", ".nii", partial(binary, kind=two))
    mgh = MGHHeader.template_dtype.newbyteorder(">")
    add("mgh.mgh", ".mgh", partial(binary, kind=mgh))
    add("mgh.mgz", ".mgz", partial(binary, kind=mgh))
    add("nrrd.nrrd", ".nrrd", partial(lines, separator=b":"))
    add("mha.mha", ".mha", partial(lines, separator=b"="))
    for name, end, rule in (
        ("nrrd-packed", ".nrrd", partial(lines, separator=b":")),
        ("mha-packed", ".mha", partial(lines, separator=b"=")),
    ):
        path = add(name, end, rule)
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path), True)
        made[-1] = Sound(name, end, {path.name: path.read_bytes()}, rule, _packed(path))
    large = phantom((70, 66, 3)).astype(np.int16)
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless):
        paths = series(folder / f"dicom-{syntax.name}", large, oblique(), Modality="MR", SeriesNumber=3)
        for path in paths:
            slice_ = pydicom.dcmread(path)
            if syntax != ExplicitVRLittleEndian:
                slice_.compress(syntax)
            slice_.save_as(path)
        files = {path.name: path.read_bytes() for path in paths}
        made.append(Sound(f"dicom {syntax.name}", "", files, elements))
    path = enhanced(folder / "enhanced", large, oblique())
    made.append(Sound("dicom enhanced", "", {path.name: path.read_bytes()}, elements))
    return [_with_voxels(each, folder) for each in made]


def _packed(path: Path) -> range | None:
    """Where a file has packed voxels: behind the ten bytes of gzip's header, or behind a text header."""
    content = path.read_bytes()
    if path.name.endswith((".gz", ".mgz")):
        return range(10, len(content))
    if path.suffix == ".nrrd":
        at = content.find(b"\n\n") + 2
        return range(at + 10, len(content)) if b"encoding: gz" in content[:at] else None
    if path.suffix == ".mha":
        at = content.find(b"ElementDataFile = LOCAL\n") + 24
        return range(at, len(content)) if b"CompressedData = True" in content[:at] else None
    return None


def _with_voxels(one: Sound, folder: Path) -> Sound:
    source = _laid(one, one.files, Path(tempfile.mkdtemp(dir=folder)))
    read = next(io.read_series(source).volumes)
    return Sound(one.name, one.end, one.files, one.header, one.packed, read.data.tobytes("F"))


def _laid(one: Sound, files: Files, folder: Path) -> Path:
    """Files in a folder; what is to be read of them."""
    (folder / "in").mkdir()
    for name, content in files.items():
        (folder / "in" / name).write_bytes(content)
    return folder / "in" / f"in{one.end}" if one.end else folder / "in"


@dataclass(frozen=True)
class Case:
    """Damaged files and what was done."""

    scan: Sound = field(repr=False)
    files: Files = field(repr=False)
    what: str
    kind: str  # header, packed, bytes


def case(scans: list[Sound], seed: int, number: int) -> Case:
    """The case of this number: always the same."""
    rng = np.random.default_rng((seed, number))
    scan = scans[number % len(scans)]
    files = dict(scan.files)
    name = sorted(files)[rng.integers(len(files))]
    kind = str(rng.choice(["header", "header", "header", "packed", "bytes"]))
    if kind == "packed" and scan.packed is None:
        kind = "header"
    content, count = files[name], int(rng.integers(1, 4))
    if kind == "packed":
        assert scan.packed is not None
        at, bit = int(rng.integers(scan.packed.start, scan.packed.stop)), int(rng.integers(8))
        files[name] = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        return Case(scan, files, f"bit {bit} of byte {at}", kind)
    zipped = name.endswith((".gz", ".mgz")) and (kind == "header" or rng.random() < 0.5)
    plain = gzip.decompress(content) if zipped else content
    for _ in range(count):
        try:
            plain = (scan.header if kind == "header" and not name.endswith(".img") else _spoilt)(plain, rng)
        except Exception:  # a header that is spoilt already: whatever its library raises
            plain = _spoilt(plain, rng)
    files[name] = gzip.compress(plain, 1) if zipped else plain
    return Case(scan, files, f"{count} damages of {name}", kind)


def peak(name: str) -> int:
    """Bytes that this process holds (VmRSS), or the most since it was told to forget (VmHWM); Linux only."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(name))


def judged(one: Case, number: int, folder: Path) -> str:
    """What is wrong with how a case of this number ends; empty if nothing is."""
    source, out = _laid(one.scan, one.files, folder), folder / "out"
    out.mkdir()
    derived = not one.scan.end and number % 2  # a series of DICOM
    target = out / ("out" if derived else "out.nii")
    Path("/proc/self/clear_refs").write_text("5")
    before, shown = peak("VmRSS"), text.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(text.StringIO()):
        status = cli.run(["upscale", str(source), str(target), *HOW])
    said, left = shown.getvalue(), sorted(p.name for p in out.iterdir())
    if peak("VmHWM") - before > LARGEST:
        return "memory"
    if status == 3 or "Traceback" in said:
        return f"traceback: {said}"
    if status == 0:
        if left != sorted([target.name, "out.json"]):
            return f"left: {left}"
        if any("Warning" in line for line in said.splitlines()):
            return f"warning: {said}"
        return _elsewhere(one, source)
    if status not in (1, 2) or left:
        return f"status {status}, left {left}"
    rows = said.splitlines()  # the last one says why; what is said before is a warning of its own
    if not rows or not all(row.startswith("seran: ") and row.isprintable() for row in rows):
        return f"message: {said!r}"
    return ""


def _elsewhere(one: Case, source: Path) -> str:
    """Whether what was read is not what an independent reader reads; empty if that cannot read it either."""
    read = next(io.read_series(source, fill=0).volumes)
    if one.kind == "packed":
        return "" if read.data.tobytes("F") == one.scan.voxels else "damaged voxels pass"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(text.StringIO()):
            warnings.simplefilter("ignore")
            found = _asked(source, one.scan)
    except Exception:  # whatever it cannot read, it cannot judge
        return ""
    if found is None or found[0] != read.data.shape or not np.isfinite(found[1]).all():
        return "" if found is None else f"shape {read.data.shape}, not {found[0]}"
    ends = np.array([[0, 0, 0, 1], [*read.data.shape, 1], [read.data.shape[0], 0, 0, 1]], float).T
    ours, other = read.affine @ ends, found[1] @ ends
    wide = max(np.ptp(other[:3], axis=1).max(), 1e-9)
    off = np.abs(ours - other).max() / wide
    return "" if off < APART else f"elsewhere by {off:.3g} of the field of view"


def _asked(source: Path, scan: Sound) -> tuple[tuple[int, ...], np.ndarray] | None:
    """`independent`, in a process of its own: SimpleITK does not survive every header."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(independent, source, scan).result()


def independent(source: Path, scan: Sound) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape of the first volume and affine (RAS+, mm), by nibabel or SimpleITK; None where neither knows."""
    if scan.name.startswith(("nifti", "mgh")):
        image: Any = nib.load(source)
        if scan.name.startswith("mgh"):
            with (gzip.open if source.suffix == ".mgz" else open)(source, "rb") as stream:
                good = int.from_bytes(stream.read(30)[28:], "big", signed=True)
            if good <= 0:  # nibabel lays such a scan otherwise than FreeSurfer
                return None
        units = {1: 1000.0, 3: 1e-3}.get(int(image.header.get("xyzt_units", 0)) & 7, 1.0)
        affine = np.diag([units, units, units, 1]) @ image.affine
        shape = tuple(int(n) for n in image.shape[:3]) + (1,) * (3 - len(image.shape))
        return shape, affine
    if not scan.end or b"space units" in scan.files.get("in.nrrd", b""):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(source))
    reader.ReadImageInformation()
    n = min(3, reader.GetDimension())
    turn = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:n, :n]
    affine = np.eye(4)
    affine[:n, :n] = turn * np.array(reader.GetSpacing())[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    return (*reader.GetSize()[:n], *[1] * (3 - n)), FLIPPED @ affine


def _serve(link: Connection, scans: list[Sound], seed: int) -> None:
    """Judge cases as their numbers come."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        number = link.recv()
        folder = Path(tempfile.mkdtemp())
        try:
            answer = judged(case(scans, seed, number), number // len(scans), folder)
        except BaseException:  # an answer of its own
            answer = f"traceback: {traceback.format_exc()}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        link.send(answer)


def answers(scans: list[Sound], seed: int, numbers: range) -> Iterator[tuple[int, str]]:
    """Number and what is wrong, for each that is wrong."""
    context = multiprocessing.get_context("spawn")
    worker: Any = None
    for number in numbers:
        if worker is None:
            link, other = context.Pipe()
            worker = context.Process(target=_serve, args=(other, scans, seed))
            worker.start()
            other.close()
        link.send(number)
        try:
            answer = link.recv() if link.poll(SECONDS) else "hangs"
        except EOFError:
            worker.join()
            answer = f"dies ({worker.exitcode})"
        if answer.startswith(("hangs", "dies")):
            worker.kill()
            worker.join()
            worker = None
        if answer:
            yield number, answer
    if worker is not None:
        worker.kill()


def run(cases: int, seed: int = 0, first: int = 0, show: bool = True) -> Counter[str]:
    """How many cases go wrong, by kind; each is shown as it comes."""
    folder, found = Path(tempfile.mkdtemp()), Counter[str]()
    try:
        scans = sound(folder)
        for number, answer in answers(scans, seed, range(first, first + cases)):
            found[answer.split(":")[0].split(" by ")[0]] += 1
            if show:
                one = case(scans, seed, number)
                what = f"{number} {one.scan.name}, {one.what} ({one.kind})"
                sys.stdout.write(f"{what}: {answer.strip()[-600:]}\n")
                sys.stdout.flush()
    finally:
        shutil.rmtree(folder)
    return found


def main(cases: int = 10000, seed: int = 0, first: int = 0) -> None:
    """Fuzz, and exit with 1 if anything goes wrong.

    Args:
        cases: how many.
        seed: of all that is drawn.
        first: the number of the first case; a number and a seed give the same case again.
    """
    found = run(cases, seed, first)
    sys.stdout.write(f"{cases} cases: {dict(found) or 'all end as they should'}\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    tyro.cli(main)
