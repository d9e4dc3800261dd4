"""NRRD and MetaImage: what SimpleITK writes and reads, what others write, and what hostile users write."""

import bz2
import gzip
import itertools
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seran import cli, grid, io
from seran.errors import BadInput
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_formats import FLIPPED, load

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
NUMBERS = np.arange(60, dtype="<i2")
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\nendian: little\n"
PLACED = (
    NRRD
    + "space: {}\nspace directions: (1,0,0) (0,2,0) (0,0.5,3)\nspace origin: (7,8,9)\nencoding: raw\n{}\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\n{}\nElementDataFile = LOCAL\n"
)
SERIES = NRRD.replace("dimension: 3\nsizes: 5 4 3", "dimension: 4\nsizes: {}")


def put(path: Path, header: str, body: bytes = NUMBERS.tobytes()) -> Path:
    path.write_bytes(header.encode("latin-1") + body)
    return path


def made(shape: tuple[int, ...], dtype: str) -> sitk.Image:
    """An oblique image, off the origin, of two to four axes."""
    data, n = (phantom(shape) % 200).astype(dtype), min(len(shape), 3)
    frames = [data] if len(shape) < 4 else [data[..., t] for t in range(shape[3])]
    lps = FLIPPED @ oblique(left_handed=True)
    spacing = grid.spacing(lps)
    images = [sitk.GetImageFromArray(np.ascontiguousarray(frame.T)) for frame in frames]
    turned = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]] if n == 2 else lps[:3, :3] / spacing
    for image in images:
        image.SetSpacing(spacing[:n].tolist())
        image.SetDirection(np.ravel(turned).tolist())
        image.SetOrigin(lps[:n, 3].tolist())
    return images[0] if len(shape) < 4 else sitk.JoinSeries(images, 1.5, 2.5)


def corners(volume: Volume, image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """Of the field of view in mm (LPS+): ours, and by SimpleITK."""
    n = min(image.GetDimension(), 3)
    places = grid.corners(volume.data.shape, volume.affine) * [-1, -1, 1]
    ends = itertools.product(*[(-0.5, m - 0.5) for m in (*image.GetSize(), 1)[:3]])
    rest = (0,) * (image.GetDimension() - 3)
    theirs = [image.TransformContinuousIndexToPhysicalPoint((*end[:n], *rest))[:3] for end in ends]
    return places, np.array([(*place, *places[i, n:]) for i, place in enumerate(theirs)])


@pytest.mark.parametrize("end", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 5), (9, 7, 5, 3)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes(end: str, shape: tuple[int, ...], packed: bool, tmp_path: Path) -> None:
    for dtype in DTYPES:
        image = made(shape, dtype)
        sitk.WriteImage(image, str(tmp_path / f"in{end}"), useCompression=packed)
        series = io.read_series(tmp_path / f"in{end}")
        volumes = list(series.volumes)
        expected = sitk.GetArrayFromImage(image).T.reshape((*shape, 1, 1)[: max(4, len(shape))], order="F")
        data = np.stack([volume.data for volume in volumes], -1)
        np.testing.assert_array_equal(data.ravel("F"), expected.ravel("F").astype(np.float32))
        for volume in volumes:
            np.testing.assert_allclose(*corners(volume, image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        *(PLACED.format(name, "") for name in ("RAS", "left-anterior-superior", "LPS", "scanner-xyz", "LAS")),
        PLACED.format("right-anterior-superior", "kinds: space space space\n"),
        PLACED.format("LPS", 'units: "" "" ""\nspacings: nan NaN nan\nspace units: "mm" "mm" "mm"\n'),
        PLACED.format("3D-right-handed", "content: a: b := c\nnumber: 60\nold min: 0\n"),
        NRRD + "spacings: 1.5 2 3\naxis mins: 3 4 5\nencoding: raw\n\n",
        NRRD + "spacings: 1.5 2 3\naxis mins: 3 4 5\ncenters: node cell node\nencoding: raw\n\n",
        NRRD + "spacings: 1.5 -2 NaN\nencoding: raw\n\n",
        NRRD + "byte skip: -1\nencoding: raw\n\n-skipped-",
        NRRD.replace("little", "big").replace("\n", "\r\n") + "encoding: raw\r\n\r\n",
        NRRD.replace("short", "unsigned short int") + "encoding: raw\n# a\r\nx:=\xe9\n\n",
    ],
)
def test_headers_of_nrrd_as_simpleitk_reads_them(header: str, tmp_path: Path) -> None:
    path = put(tmp_path / "in.nrrd", header)
    volume, image = io.read(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(*corners(volume, image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        "TransformMatrix = 0 1 0 0 0 1 1 0 0\nPosition = 1 2 3\nElementSpacing = 1 2 3",
        "Orientation = 1 0 0 0 0.8 -0.6 0 0.6 0.8\nOrigin = 1 2 3\nElementSize = 1 2 3",
        "CenterOfRotation = 5 5 5\nAnatomicalOrientation = RAS\nOffset = 1 2 3",
        "ElementByteOrderMSB = True\nElementSpacing: 4 5 6",
        "ElementSize = 2 2 2\nElementSpacing = 1 2 3\nOffset = 1 2 3\nOrigin = 1.0 2 3.00\nPosition = 1 2 3",
        "BinaryData=True\nBinaryDataByteOrderMSB=False\nHeaderSize = -1\nElementNumberOfChannels = 1",
        "SequenceID = 0 0 0 0\nColor = 1 1 1 1\nElementMin = 0\nElementSpacing = 3 2 1",
        "Note = two\nlines of a text\r\nName = caf\xe9",
    ],
)
def test_headers_of_metaimage_as_simpleitk_reads_them(more: str, tmp_path: Path) -> None:
    path = put(tmp_path / "in.mha", META.format(more))
    volume, image = io.read(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(*corners(volume, image), rtol=0, atol=1e-6)


SAID_TWICE = {
    "Offset = 10 20 30\nOrigin = 1 2 3": "Offset and Origin to be the same, got Offset = 10 20 30, Origin",
    "Origin = 10 20 30\nPosition = 1 2 3": "Position and Origin to be the same",
    "ImagePosition = 10 20 30\nOffset = 1 2 3": "Offset and ImagePosition to be the same",
    "Offset = 10 20 30\nOffset = 1 2 3": "says Offset again, '1 2 3'",
    "ElementSpacing = 10 20 30\nElementSpacing = 1 2 3": "says ElementSpacing again",
    "Rotation = 1 0 0 0 1 0 0 0 1\nTransformMatrix = 0 1 0 1 0 0 0 0 1": "TransformMatrix and Rotation to be",
    "Orientation = 1 0 0 0 1 0 0 0 1\nRotation = 0 1 0 1 0 0 0 0 1": "Rotation and Orientation to be the",
    "BinaryDataByteOrderMSB = False\nElementByteOrderMSB = True": "ByteOrderMSB to be the same",
}
"""Lines of MetaImage of which each is read alone by SimpleITK, and what is said of both."""


@pytest.mark.parametrize("more", SAID_TWICE)
def test_a_header_that_contradicts_itself_is_refused(more: str, tmp_path: Path) -> None:
    """SimpleITK takes one of the two, another than other readers do; alone, each is read as it reads it."""
    with pytest.raises(BadInput, match=SAID_TWICE[more]):
        io.read(put(tmp_path / "in.mha", META.format(more)))
    for line in more.splitlines():
        path = put(tmp_path / "in.mha", META.format(line))
        volume, image = io.read(path), sitk.ReadImage(str(path))
        np.testing.assert_array_equal(volume.data, sitk.GetArrayFromImage(image).T)
        np.testing.assert_allclose(*corners(volume, image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "twice", ['units: "cm" "cm" "cm"', "spacings: 1 2 3", "axis mins: 0 nan 0", "axis maxs: 1 1 1"]
)
def test_axes_with_directions_have_no_other_lengths(twice: str, tmp_path: Path) -> None:
    """Nor does SimpleITK read that."""
    path = put(tmp_path / "in.nrrd", PLACED.format("LPS", f"{twice}\n"))
    with pytest.raises(BadInput, match=f"got {twice.replace(' m', 'm')}; take that line out"):
        io.read(path)
    with pytest.raises(RuntimeError, match="has a direction vector"):
        sitk.ReadImage(str(path))


@pytest.mark.parametrize(
    ("unit", "length"), [("um", 1e-3), ("µm", 1e-3), ("microns", 1e-3), ("m", 1e3), ("cm", 10)]
)
def test_lengths_are_millimetres_whatever_their_unit(unit: str, length: float, tmp_path: Path) -> None:
    """Where NRRD and MetaImage say one; the inside of a file is never guessed."""
    mm = oblique((0.9, 0.8, 3.3))
    lps = FLIPPED @ mm / length
    axes = " ".join(f"({','.join(map(str, lps[:3, i]))})" for i in range(3))
    header = f"{NRRD}space: LPS\nspace directions: {axes}\nspace origin: ({','.join(map(str, lps[:3, 3]))})\n"
    header += "space units: " + f'"{unit}" ' * 3 + "\nencoding: raw\n\n"
    np.testing.assert_allclose(io.read(put(tmp_path / "a.nrrd", header)).affine, mm, atol=1e-9)
    header = f'{NRRD}spacings: 1 2 3\naxis mins: 3 4 5\nunits: "{unit}" "{unit}" "{unit}"\nencoding: raw\n\n'
    expected = np.array([[-1, 0, 0, -3.5], [0, -2, 0, -5], [0, 0, 3, 6.5], [0, 0, 0, 1 / length]]) * length
    np.testing.assert_allclose(io.read(put(tmp_path / "b.nrrd", header)).affine, expected, atol=1e-9)
    if unit in ("um", "cm"):
        header = META.format(f"DistanceUnits = {unit}\nElementSpacing = 1 2 3\nOffset = 3.5 5 6.5")
        scan = io.read(put(tmp_path / "c.mha", header))
        np.testing.assert_allclose(scan.affine, expected, atol=1e-9)
        io.write(scan, tmp_path / "d.mha")
        np.testing.assert_allclose(load(tmp_path / "d.mha")[1], expected, atol=1e-9)


@pytest.mark.parametrize("coding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("axis", range(4))
def test_diffusion_as_slicer_stores_it(axis: int, coding: str, tmp_path: Path) -> None:
    """The list of directions is any axis, often the first; what its directions mean goes along."""
    data = np.stack([phantom((26, 22, 5), t) for t in range(3)], -1).astype("<i2")
    affine = oblique(left_handed=True)
    vectors = [f"({','.join(map(str, affine[:3, i]))})" for i in range(3)]  # RAS
    vectors.insert(axis, "none")
    kinds = ["space"] * 3
    kinds.insert(axis, "list")
    stored = np.moveaxis(data, 3, axis)
    header = SERIES.format(" ".join(map(str, stored.shape))) + (
        f"space: right-anterior-superior\nspace directions: {' '.join(vectors)}\nkinds: {' '.join(kinds)}\n"
        f"space origin: ({','.join(map(str, affine[:3, 3]))})\nmeasurement frame: (0,1,0) (1,0,0) (0,0,-1)\n"
        f"encoding: {coding}\nDWMRI_b-value:=1000\nDWMRI_gradient_0000:=1 0 0\n\n"
    )
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[coding]
    path, out = put(tmp_path / "in.nrrd", header, pack(stored.tobytes("F"))), tmp_path / "out.nrrd"
    for volume, expected in zip(io.read_series(path).volumes, np.moveaxis(data, 3, 0), strict=True):
        np.testing.assert_array_equal(volume.data, expected)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    with io.writer(out, 3, "int16") as writer:
        for volume in io.read_series(path).volumes:
            writer.add(volume)
    image = sitk.ReadImage(str(out))
    np.testing.assert_array_equal(np.moveaxis(sitk.GetArrayFromImage(image), 3, 0).T, data)
    np.testing.assert_allclose(*corners(volume, image), rtol=0, atol=1e-6)
    text = out.read_bytes().split(b"\n\n")[0].decode()
    assert "kinds: domain domain domain list" in text
    assert "\nmeasurement frame: (0,-1,0) (-1,0,0) (0,0,-1)\n" in text
    assert text.endswith("\nDWMRI_b-value:=1000\nDWMRI_gradient_0000:=1 0 0")
    again = list(io.read_series(out).volumes)
    assert again[2].header == volume.header


def test_several_numbers_per_voxel_are_refused(tmp_path: Path) -> None:
    for kind in ("vector", "RGB-color", "3-vector", "scalar", "complex", "3D-symmetric-matrix"):
        header = SERIES.format("3 5 2 2") + f"kinds: {kind} domain domain domain\nencoding: raw\n\n"
        with pytest.raises(BadInput, match=r"expected one real number per voxel, got 3 \("):
            io.read(put(tmp_path / "in.nrrd", header))
    with pytest.raises(BadInput, match="expected one real number per voxel"):
        io.read(put(tmp_path / "in.mha", META.format("ElementNumberOfChannels = 3")))
    with pytest.raises(BadInput, match="expected no slope"):
        io.read(put(tmp_path / "in.mha", META.format("ElementToIntensityFunctionSlope = 2")))


@pytest.mark.parametrize("end", [".nhdr", ".mhd"])
def test_voxels_beside_a_header(end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain name in the same folder, and nothing else; the record is of both files."""
    folder = tmp_path / "in"
    folder.mkdir()
    sitk.WriteImage(made((26, 22, 5), "i2"), str(folder / f"a{end}"), useCompression=True)
    (data,) = set(folder.iterdir()) - {folder / f"a{end}"}
    assert io.resolve(folder / f"a{end}").files == (folder / f"a{end}", data)
    assert (
        cli.run(["upscale", str(folder), str(tmp_path / "out"), "--method", "bicubic", "--strict", "off"])
        == 0
    )
    one = {".nhdr": ".nrrd", ".mhd": ".mha"}[end]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"a{one}", "a.json"}
    assert cli.run(["upscale", str(folder / f"a{end}"), str(tmp_path / f"b{end}")]) == 2
    assert f"in one file; name it {one}" in capsys.readouterr().err
    text = (folder / f"a{end}").read_text()
    (tmp_path / "secret").write_bytes(data.read_bytes())
    (folder / "folder").mkdir()
    for where in (
        "../secret", str(tmp_path / "secret"), "", ".", "..", "folder", "gone.raw", "LIST", "LIST 2",
        "%03d.raw 1 3 1", "file:secret", "..\\secret", "a\x00b", "x" * 1000, "é" * 200,
    ):  # fmt: skip
        (folder / f"a{end}").write_text(text.replace(data.name, where))
        with pytest.raises(BadInput, match=rf"a\{end}: (expected the name of one file|cannot be read as)"):
            io.read(folder / f"a{end}")


ALONE = """
import contextlib, io, json, sys, time
from pathlib import Path
from seran import cli
from seran.classical import bicubic

def peak():
    words = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {word[0]: int(word[1]) * 1024 for word in words if word[0] in ("VmHWM:", "VmRSS:")}

for path in sorted(Path(sys.argv[1]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")
    before, began, told = peak()["VmRSS:"], time.perf_counter(), io.StringIO()
    with contextlib.redirect_stderr(told):
        words = ["upscale", str(path), sys.argv[2], "--method", "bicubic", "--no-label-check", "--force"]
        status = cli.run(words)
    seconds = time.perf_counter() - began
    print(json.dumps([path.name, status, told.getvalue(), seconds, peak()["VmHWM:"] - before]), flush=True)
"""


def told(folder: Path) -> dict[str, tuple[int, str]]:
    """The exit status and what is said, of every file, in a process that must outlive them all."""
    out = folder.with_name("out.nii")
    alone = [sys.executable, "-c", ALONE, str(folder), str(out)]
    shown = subprocess.run(alone, capture_output=True, text=True, timeout=240)
    cases = [json.loads(line) for line in shown.stdout.splitlines() if line.startswith("[")]
    assert shown.returncode == 0, shown.stderr
    assert len(cases) == len(list(folder.iterdir()))
    for name, status, text, seconds, memory in cases:
        assert len(text.splitlines()) == (status != 0), (name, text)
        assert text.isascii() or text.strip().isprintable()
        assert len(text) < 1000, name
        assert seconds < 20, name
        assert memory < 200 * 2**20, name
    return {name: (status, text) for name, status, text, *_ in cases}


HOSTILE = {
    "#x\rdata file: /etc/passwd\nencoding: raw\n\n": "control characters",
    "k:=v\rdata file: /etc/passwd\nencoding: raw\n\n": "control characters",
    "k:=v\r\rdata file: /etc/passwd\nencoding: raw\n\n": "control characters",
    "data file: /etc/passwd\nencoding: raw\n\n": "expected the voxels in the same file, got '/etc/passwd'",
    " DataFile : /etc/passwd\nencoding: raw\n\n": "expected the voxels in the same file",
    "data file: LIST\n/etc/passwd\nencoding: raw\n\n": "expected a field of NRRD",
    "#\n" * (1 << 20) + "data file: /etc/passwd\nencoding: raw\n\n": "below 65,536 bytes",
    "#" * (1 << 20) + "\ndata file: /etc/passwd\nencoding: raw\n\n": "below 65,536 bytes",
    "A" * 1000 + "\nencoding: raw\n\n": "expected a field",
    "A" * 1000 + ": 1\nencoding: raw\n\n": "expected a field",
    "space directions: " + "(" * 60000 + "\nencoding: raw\n\n": "expected",
    "space: LPS\nspace directions: " + "(1,0,0)" * 8000 + "\nencoding: raw\n\n": "expected",
    "space directions: (nan,0,0) (0,1,0) (0,0,1)\nspace: LPS\nencoding: raw\n\n": "got nan x 1 x 1; correct",
    "space directions: (0,0,0) (0,0,0) (0,0,0)\nspace: LPS\nencoding: raw\n\n": "got 0 x 0 x 0; correct",
    "space directions: (1,0,0) (1,0,0) (0,0,1)\nspace: LPS\nencoding: raw\n\n": "invertible",
    "space: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: none\nencoding: raw\n\n": "origin",
    "space dimension: 1000000000\nencoding: raw\n\n": "expected",
    "space: 3D-left-handed\nencoding: raw\n\n": "left and right",
    "encoding: raw\nencoding: gzip\n\n": "again",
    "encoding: hex\n\n": "raw or packed by gzip or bzip2",
    "encoding: raw\nline skip: 3\n\n": "skip",
    "encoding: raw\nbyte skip: -5\n\n": "skip",
    "encoding: raw\n": "line 7 of its header",
    "encoding: raw\nspacings: 1 2 furlong\n\n": "expected numbers",
    'encoding: raw\nunits: "furlong" "mm" "mm"\n\n': "unit of length",
    "encoding: raw\nspacings: " + "9" * 60000 + " 2 3\n\n": "expected",
}
"""What follows a sound beginning of a header of NRRD, and what is said of it."""


@pytest.mark.slow
def test_hostile_headers_get_one_line(tmp_path: Path) -> None:
    folder, expected = tmp_path / "in", {}
    folder.mkdir()

    def case(name: str, header: str, text: str, body: bytes = NUMBERS.tobytes()) -> None:
        expected[put(folder / name, header, body).name] = text

    for i, (header, text) in enumerate(HOSTILE.items()):
        case(f"{i:02}.nrrd", NRRD + header, text)
    for field in (
        "type",
        "dimension",
        "sizes",
        "endian",
        "encoding",
        "data file",
        "spacings",
        "kinds",
        "byte skip",
    ):
        for filler in ("A", "9", "(", "%n", '"', "-", "\\"):
            name = f"long-{field}-{ord(filler[0])}.nrrd"
            lines = [line for line in NRRD.splitlines() if not line.startswith(field)] + ["encoding: raw"] * (
                field != "encoding"
            )
            case(
                name, "\n".join([*lines, f"{field}: {filler * 1000}"]) + "\n\n", "in.nrrd".removeprefix("in")
            )
    for n in (-1, 0, 1, 5, 16, 17, 100, 10**9, "x", "1e3", "nan", "inf"):
        case(f"n{n}.nrrd", NRRD.replace("dimension: 3", f"dimension: {n}") + "encoding: raw\n\n", "expected")
        case(f"n{n}.mha", META.format("").replace("NDims = 3", f"NDims = {n}"), "expected")
    for sizes in (
        "-5 4 3",
        "0 4 3",
        "5 4",
        "5 4 3 2",
        "99999999999999999999 4 3",
        "60000 60000 60000",
        "5.5 4 3",
    ):
        case(f"s{sizes}.nrrd", NRRD.replace("5 4 3", sizes) + "encoding: raw\n\n", ".nrrd: ")
        case(f"s{sizes}.mha", META.format("").replace("5 4 3", sizes), ".mha: ")
    for i, more in enumerate((
        "A" * 1000, "x" + " " * 65000 + "y", "A = " + "B" * 70000, "TransformMatrix = 0 0 0 0 0 0 0 0 0",
        "ElementSpacing = 1 2", "a\x1b[31m = b", "Offset = 1 2 " + "9" * 400, "ElementType = MET_STRING",
        "ObjectType = Tube", "CompressedDataSize = x\nCompressedData = True", "HeaderSize = 100",
        "HeaderSize = -2", "BinaryData = False", "ElementDataFile = /etc/passwd", "DistanceUnits = furlong",
        "k = v\rElementDataFile = /etc/passwd", "#\n" * 600_000,
        "Compse\nTransformMatrix = 0 1 0 1 0 0 0 0 1",
        "ElementSpacing =", "CenterOfRotation = 0.5 0.5", "ElementMin =", "Color = 1 1 1",
    )):  # fmt: skip
        case(f"m{i:02}.mha", META.format(more), ".mha: ")
    zeros = zlib.compress(bytes(10**8), 9)
    case(
        "bomb.mha",
        META.format(f"CompressedData = True\nCompressedDataSize = {len(zeros)}"),
        "more than",
        zeros,
    )
    case("bomb.nrrd", NRRD + "encoding: gzip\n\n", "more than", gzip.compress(bytes(10**8)))
    case("bomb2.nrrd", NRRD + "encoding: bzip2\n\n", "more than", bz2.compress(bytes(10**8)))
    case("many.nrrd", NRRD + "encoding: gzip\n\n", "cut off", gzip.compress(b"") * 50_000)
    for name, (status, text) in told(folder).items():
        fine = name in ("m00.mha", "m01.mha")  # a line that says nothing, as ITK has it
        assert status == (0 if fine else 2), (name, text)
        assert fine or expected[name] in text, (name, text)


@pytest.mark.slow
@pytest.mark.parametrize("end", [".nrrd", ".mha"])
def test_no_bit_of_packed_voxels_flips_unseen(end: str, tmp_path: Path) -> None:
    folder, data = tmp_path / "in", phantom((26, 22, 5))
    folder.mkdir()
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.rint(data).astype(np.int16).T))
    sitk.WriteImage(image, str(tmp_path / f"in{end}"), useCompression=True)
    content = (tmp_path / f"in{end}").read_bytes()
    start = content.index(b"\n\n") + 2 if end == ".nrrd" else content.index(b"LOCAL\n") + 6
    skip = 10 if end == ".nrrd" else 0  # gzip's header, with times that mean nothing
    bits = np.linspace(8 * (start + skip), 8 * len(content) - 1, 150).astype(int)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (folder / f"{bit}{end}").write_bytes(damaged)
    found = told(folder)
    for name, (status, text) in found.items():
        if status == 0:  # a bit that means nothing, after the last of a stream
            np.testing.assert_array_equal(io.read(folder / name).data, np.rint(data))
        else:
            assert "cannot be read as" in text
    assert sum(status == 2 for status, _ in found.values()) >= 140


@pytest.mark.parametrize("size", ["", "CompressedDataSize = {}", "CompressedDataSize = {}e0"])
def test_a_size_of_packed_voxels_that_is_there_is_true(size: str, tmp_path: Path) -> None:
    """Without it they end where their stream does."""
    packed = zlib.compress(NUMBERS.tobytes())
    good = META.format(f"CompressedData = True\n{size}")
    for body in (packed, gzip.compress(NUMBERS.tobytes())):
        scan = io.read(put(tmp_path / "in.mha", good.format(len(body)), body))
        np.testing.assert_array_equal(scan.data.ravel("F"), NUMBERS)
    for cut in range(len(packed)):
        with pytest.raises(BadInput, match=r"cut off|cannot be read as"):
            io.read(put(tmp_path / "in.mha", good.format(len(packed)), packed[:cut]))
    if size.endswith("{}"):
        for wrong in (1, len(packed) - 1, len(packed) + 1):
            with pytest.raises(BadInput, match=f"promises {wrong} bytes of packed voxels, but they have"):
                io.read(put(tmp_path / "in.mha", good.format(wrong), packed + b"more"))


@pytest.mark.parametrize("coding", ["raw", "gzip", "bzip2"])
def test_what_follows_voxels_is_said(coding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = np.rint(phantom((26, 22, 5))).astype("<i2")
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[coding]
    header, body = NRRD.replace("5 4 3", "26 22 5") + f"encoding: {coding}\n\n", pack(data.tobytes("F"))
    path, out = put(tmp_path / "in.nrrd", header, body + b"\0trailing"), tmp_path / "out.nii"
    assert cli.run(["upscale", str(path), str(out), "--method", "bicubic", "-q"]) == 0
    assert capsys.readouterr().err == f"seran: {path}: 9 bytes follow its voxels and are left out\n"
    np.testing.assert_array_equal(io.read(path).data, data)
    several = {"raw": body, "gzip": pack(data.tobytes("F")[:1000]) + pack(data.tobytes("F")[1000:])}
    np.testing.assert_array_equal(io.read(put(path, header, several.get(coding, body))).data, data)
    with pytest.raises(BadInput, match="cut off"):
        io.read(put(path, header, body[:-1]))


def test_a_large_file_is_read_in_parts(tmp_path: Path) -> None:
    """Its voxels are never twice in memory: packed, they lie in the allocator's arrays."""
    taken: list[tuple[int, ...]] = []

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        taken.append(shape)
        return np.empty(shape, np.float32)

    data = phantom((9, 8, 7))
    for packed, shapes in ((False, [(7, 8, 9)]), (True, [(504,), (7, 8, 9)])):
        sitk.WriteImage(
            sitk.GetImageFromArray(data.T.copy()), str(tmp_path / "a.nrrd"), useCompression=packed
        )
        taken.clear()
        np.testing.assert_array_equal(
            next(io.read_series(tmp_path / "a.nrrd", allocate=allocate).volumes).data, data
        )
        assert taken == shapes
