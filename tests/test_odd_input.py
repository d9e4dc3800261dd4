"""What scanners, other programs and hostile users write: unusual, and read rightly or refused in one line."""

import builtins
import errno
import gzip
import io as io_module
import os
import random
import re
import resource
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import cli, grid, io, machine, methods
from seran.classical import bicubic
from seran.engines import openvino
from seran.errors import BadInput
from seran.io import voxels
from tests.conftest import enlarged, oblique, phantom
from tests.test_formats import blob, centroid, save

SHAPE = (26, 34, 5)


def upscale(source: Path, out: Path, *more: str) -> int:
    return cli.run(["upscale", str(source), str(out), "--method", "bicubic", *more])


def refused(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *more: str) -> str:
    """One line, and nothing but what was there."""
    before = sorted(out.parent.rglob("*"))
    assert upscale(source, out, *more) == 2
    assert sorted(out.parent.rglob("*")) == before
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    return shown


@pytest.mark.parametrize(
    ("kind", "order", "shift", "shape"),
    [
        (nib.Nifti1Image, ">", 0, (30, 34, 12)),
        (nib.Nifti2Image, ">", 0, (30, 34, 12)),
        (nib.Nifti2Image, "<", 0, (30, 34, 12)),
        (nib.Nifti1Image, "<", 123_456, (30, 34, 12)),
        (nib.Nifti1Image, "<", -9e5, (30, 34, 12)),
        (nib.Nifti1Image, "<", 0, (30, 34, 1)),
    ],
    ids=["big-endian", "NIfTI-2, big-endian", "NIfTI-2", "far away", "farther", "one slice"],
)
@pytest.mark.parametrize("sheared", [False, True])
def test_a_blob_keeps_its_millimetres_in_unusual_nifti(
    tmp_path: Path, kind: type, order: str, shift: float, shape: tuple[int, int, int], sheared: bool
) -> None:
    """Read, upscale, write; nibabel reads the result. A qform is float32: 0.06 mm at 900 m."""
    affine = oblique(left_handed=True)
    affine[:3, 3] += [shift, -shift / 3, shift / 7]
    if sheared:
        affine = affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    data = blob(shape) if shape[2] > 1 else blob((*shape[:2], 3))[:, :, 1:2]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(order + "f4"))
    image = kind(data, None, header)
    image.set_sform(affine, 1)
    if not sheared:
        image.set_qform(affine, 1)
    nib.save(image, tmp_path / "in.nii")
    assert (tmp_path / "in.nii").read_bytes()[:4].startswith(b"\x00") == (order == ">")
    assert upscale(tmp_path / "in.nii", tmp_path / "out.nii.gz", "--plane", "axial") == 0
    made = nib.load(tmp_path / "out.nii.gz")
    assert isinstance(made, kind)
    expected = centroid(data, nib.load(tmp_path / "in.nii").affine)
    scale = max(1, abs(shift) / 1e5)
    assert np.abs(centroid(made.get_fdata(), made.affine) - expected).max() < 0.01 * scale
    before, after = (
        grid.corners(n, a)
        for n, a in ((shape, nib.load(tmp_path / "in.nii").affine), (made.shape, made.affine))
    )
    assert np.abs(after - before).max() < 1e-4 + 2e-7 * abs(shift)


@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"],
)
@pytest.mark.parametrize("scaling", [(1, 0), (0.25, -30), (-2, 7)], ids=str)
def test_every_type_and_scaling_gives_the_numbers_of_nibabel(
    tmp_path: Path, dtype: str, scaling: tuple[float, float]
) -> None:
    low = -100 if np.dtype(dtype).kind != "u" else 0
    stored = np.rint(phantom(SHAPE) / phantom(SHAPE).max() * 100 + low / 2).astype(dtype)
    image = nib.Nifti1Image(stored, oblique(), dtype=np.dtype(dtype))
    nib.save(image, tmp_path / "in.nii")
    content = bytearray((tmp_path / "in.nii").read_bytes())
    content[112:120] = np.array(scaling, "<f4").tobytes()
    (tmp_path / "in.nii").write_bytes(content)
    scan = io.read(tmp_path / "in.nii")
    assert nib.load(tmp_path / "in.nii").get_data_dtype() == dtype
    np.testing.assert_allclose(scan.data, stored.astype(float) * scaling[0] + scaling[1], rtol=1e-6)
    assert upscale(tmp_path / "in.nii", tmp_path / "out.nii") == 0
    made = nib.load(tmp_path / "out.nii").get_fdata()
    assert made.mean() == pytest.approx(float(scan.data.mean()), abs=0.03 * float(np.ptp(scan.data)))


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (np.nan, 0), (np.inf, 0), (np.nan, np.nan)])
def test_a_slope_that_means_nothing_is_none(tmp_path: Path, slope: float, intercept: float) -> None:
    """NIfTI: a slope of 0 is no scaling."""
    save(phantom(SHAPE).astype(np.int16), oblique(), tmp_path / "in.nii")
    content = bytearray((tmp_path / "in.nii").read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    (tmp_path / "in.nii").write_bytes(content)
    np.testing.assert_array_equal(io.read(tmp_path / "in.nii").data, phantom(SHAPE).astype(np.int16))


def test_numbers_of_16_bytes_and_an_intercept_of_nan_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(phantom(SHAPE).astype(np.int16), oblique(), tmp_path / "in.nii")
    good = (tmp_path / "in.nii").read_bytes()
    for at, what in ((70, np.array([1536, 128], "<i2")), (112, np.array([2, np.nan], "<f4"))):
        content = bytearray(good)
        content[at : at + what.nbytes] = what.tobytes()
        (tmp_path / "in.nii").write_bytes(content)
        assert "in.nii: " in refused(capsys, tmp_path / "in.nii", tmp_path / "out.nii")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bicubic", "seran"])
@pytest.mark.parametrize("what", ["negative", "bright", "16 bit", "tiny", "constant"])
def test_hard_intensities_stay_in_their_units(tmp_path: Path, method: str, what: str) -> None:
    """The result stays near the scan's range and mean; edges are as soft as a scanner's are.

    A single bright voxel is sharpened beyond itself, and changes no other slice.
    """
    soft = np.asarray(gaussian_filter(phantom(SHAPE), (0.7, 0.7, 0)))
    changed = {
        "negative": soft - 500,
        "bright": soft.copy(),
        "16 bit": soft / soft.max() * 65535,
        "tiny": soft * np.float32(1e-9),
        "constant": np.full(SHAPE, 321, np.float32),
    }
    data = changed[what]
    if what == "bright":
        data[12, 15, 2] = 1e6
    save(data, oblique(), tmp_path / "in.nii")
    out = tmp_path / "out.nii"
    assert cli.run(["upscale", str(tmp_path / "in.nii"), str(out), "--method", method]) == 0
    made = nib.load(out).get_fdata()
    span = float(np.ptp(data))
    most = 1.0 if what == "bright" else 0.3
    assert data.min() - most * span <= made.min()
    assert made.max() <= data.max() + most * span
    if what == "bright":  # it does not dim or spoil the rest
        save(soft, oblique(), tmp_path / "plain.nii")
        assert cli.run(["upscale", str(tmp_path / "plain.nii"), str(out), "--method", method, "--force"]) == 0
        plain = nib.load(out).get_fdata()
        assert np.abs(made - plain)[:, :, [0, 4]].max() < 0.02 * np.ptp(plain)
    else:
        assert made.mean() == pytest.approx(float(data.mean()), abs=0.03 * span + 1e-12)


STEPS = (phantom(SHAPE) / 20).astype(np.int32)
"""Few intensities, as whole numbers."""


@pytest.mark.parametrize("end", [".nii", ".nii.gz", ".mgz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    "data", [10**9 + 20 * STEPS, 7.0 + STEPS * 1e-9, STEPS * 1e-50, STEPS * 1e-40], ids=str
)
def test_intensities_that_float32_makes_alike_are_refused(
    end: str, data: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if end == ".mgz" and data.dtype.kind == "f":
        pytest.skip("MGH has no numbers of double precision")
    said = refused(capsys, save(data, oblique(), tmp_path / f"in{end}"), tmp_path / "out.nii")
    assert "in" + end in said
    assert "expected intensities that float32 tells apart, got " in said
    assert "subtract the offset that they share, or scale them up" in said


@pytest.mark.parametrize("data", [
    STEPS * 0.1 + 1000, STEPS * 10**6, STEPS * 1e15 + 7, STEPS * 1e-20, 0.1 + 1e-17 * STEPS,
    np.nextafter(0.3, STEPS), 2.0**30 + STEPS * 128, np.full(SHAPE, 0.1), np.full(SHAPE, 10**9 + 1, np.int32),
])  # fmt: skip
def test_intensities_that_float32_tells_apart_are_read(data: np.ndarray, tmp_path: Path) -> None:
    """Rounded to its seven digits, or held as they are; all alike, but for their last bits, they stay so."""
    path = save(data, oblique(), tmp_path / "in.nii")
    np.testing.assert_array_equal(io.read(path).data, data.astype(np.float32))


@pytest.mark.parametrize(
    ("slope", "intercept", "fine"),
    [
        (1e-20, 1, False),
        (1e-9, 1, False),
        (-1e-9, 1, False),
        (1e-3, 1000, False),
        (1e-3, 1, True),
        (0.1, -1000, True),
    ],
)
def test_an_intercept_that_swallows_intensities_is_refused(
    slope: float, intercept: float, fine: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(STEPS.astype(np.int16), oblique(), tmp_path / "in.nii")
    content = bytearray((tmp_path / "in.nii").read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    (tmp_path / "in.nii").write_bytes(content)
    if fine:
        expected = nib.load(tmp_path / "in.nii").get_fdata().astype(np.float32)
        np.testing.assert_array_equal(io.read(tmp_path / "in.nii").data, expected)
    else:
        said = refused(capsys, tmp_path / "in.nii", tmp_path / "out.nii")
        assert "expected intensities that float32 tells apart" in said


def test_filled_voxels_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has none that could be filled from is no scan."""
    data = phantom(SHAPE)
    data[3, 4, 1:3], data[5, 6, 2] = np.nan, -1e35
    scan, empty = save(data, oblique(), tmp_path / "in.nii"), np.full(SHAPE, np.nan, np.float32)
    assert upscale(scan, tmp_path / "out.nii", "--fill", "2.5") == 0
    said = capsys.readouterr().err
    assert said == f"seran: {scan}: 3 voxels are NaN, infinite or beyond 1e+30, and replaced by 2.5\n"
    save(empty, oblique(), tmp_path / "empty.nii")
    said = refused(capsys, tmp_path / "empty.nii", tmp_path / "none.nii", "--fill", "0")
    assert "empty.nii: expected intensities, got none: 4420 voxels are NaN, infinite or beyond" in said


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--scale", "1"), "--scale 1: keeps the grid, which only native weights do"),
        (("--scale", "0.5"), "--scale 0.5: must be 1 or more and at most 4"),
        (("--scale", "4.0001"), "--scale 4.0001: must be 1 or more and at most 4"),
        (("--scale", "-2"), "--scale -2: must be 1 or more and at most 4"),
        (("--scale", "nan"), "--scale nan: must be 1 or more and at most 4"),
        (("--spacing", "5"), "--spacing 5: 0.18 and 0.16 times as fine as the scan"),
        (("--spacing", "0.85"), "--spacing 0.85: 1.05882 and 0.941176 times as fine"),
        (("--spacing", "0.1"), "--spacing 0.1: 9 and 8 times as fine as the scan"),
        (("--scale", "2", "--spacing", "0.4"), "--scale and --spacing: give only one of them"),
        (("--like", "missing.nii"), "missing.nii: no such file"),
        (("--series", "3"), "a series is chosen in a folder of DICOM files"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_targets_out_of_reach(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], text: str
) -> None:
    assert text in refused(capsys, scan, tmp_path / "out.nii", *more)


def test_a_file_sharpened_into_a_folder_keeps_its_name_and_format(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ergebnis é 1"
    folder.mkdir()
    for name in ("a.mgz", "b c.mha"):
        source = save(phantom(SHAPE), oblique(), tmp_path / name)
        assert upscale(source, folder) == 0
        assert io.read(folder / name).data.shape == (52, 68, 5)
    assert "replace the input" in refused(capsys, scan, scan.parent)


def test_names_that_say_something_else(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.nii"
    plain = gzip.decompress(scan.read_bytes())
    cases = {
        "plain.nii.gz": (plain, "not a gzip file"),
        "packed.nii": (scan.read_bytes(), "cannot be read as NIfTI"),
        "scan.mgz": (scan.read_bytes(), "cannot be read as MGH"),
        "scan.nrrd": (scan.read_bytes(), "cannot be read as NRRD"),
        "scan.nhdr": (b"NRRD0004\ndata file: ../../secret\n", "in the same folder, got '../../secret'"),
        "scan.mhd": (b"ElementDataFile = /etc/passwd\n", "in the same folder, got '/etc/passwd'"),
        "scan.png": (b"\x89PNG", "must end in .nii"),
        "scan": (plain, "must end in .nii"),
        "one.dcm": (
            bytes(128) + b"DICM" + bytes(40),
            "a DICOM image is read with its series; name its folder",
        ),
    }
    for name, (content, text) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert text in refused(capsys, tmp_path / name, out), name
    for name, text in {
        "out.nii.bz2": "must end in",
        "out.png": "must end in",
        "out.nhdr": "in one file; name it .nrrd",
    }.items():
        assert text in refused(capsys, scan, tmp_path / name)


def test_links(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to the input is the input; one to another file is replaced, not followed."""
    content = scan.read_bytes()
    link, other, dangling = (tmp_path / f"{n}.nii.gz" for n in ("link", "other", "dangling"))
    link.symlink_to(scan)
    assert "replace the input" in refused(capsys, scan, link, "--force")
    assert "replace the input" in refused(capsys, link, scan, "--force")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    other.symlink_to(precious)
    assert upscale(link, other, "--force") == 0
    assert (precious.read_text(), other.is_symlink()) == ("precious", False)
    dangling.symlink_to(tmp_path / "nowhere.nii.gz")
    assert "dangling.nii.gz exists; give --force" in refused(capsys, scan, dangling)
    assert upscale(scan, dangling, "--force") == 0
    assert not dangling.is_symlink()
    assert not (tmp_path / "nowhere.nii.gz").exists()
    os.link(scan, tmp_path / "hard.nii.gz")
    assert "replace the input" in refused(capsys, scan, tmp_path / "hard.nii.gz", "--force")
    assert scan.read_bytes() == content
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    assert "loop.nii" in refused(capsys, tmp_path / "loop.nii", tmp_path / "x.nii")


def test_a_pair_whose_voxels_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(phantom(SHAPE), oblique(), tmp_path / "in.hdr")
    (tmp_path / "in.img").unlink()
    assert "in.img" in refused(capsys, tmp_path / "in.hdr", tmp_path / "out.nii")


def test_what_nibabel_remarks_on_a_header_is_not_shown(tmp_path: Path) -> None:
    """In a process of its own, whose stderr is that of nibabel's log too."""
    save(phantom(SHAPE), oblique(), tmp_path / "in.mgh")
    save(phantom(SHAPE), oblique(), tmp_path / "in.nii")
    for name, place, value in (
        ("in.mgh", 3, 2),
        ("in.nii", 254, 77),
    ):  # codes of nobody
        content = bytearray((tmp_path / name).read_bytes())
        content[place] = value
        (tmp_path / name).write_bytes(content)
    code = "from seran import cli\nprint(cli.run(['info', 'in.mgh']), cli.run(['info', '-q', 'in.nii']))"
    made = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert made.stdout == "2 0\n"
    assert made.stderr == "seran: in.mgh: cannot be read as MGH (Unknown MGH format version)\n"


def test_mgh_without_a_geometry_lies_as_freesurfer_says(tmp_path: Path) -> None:
    """Whose goodRASFlag is 0: a coronal scan of 1 mm about the origin, whatever the other fields hold."""
    image = nib.MGHImage(blob((24, 22, 20)), oblique())
    nib.save(image, tmp_path / "in.mgh")
    content = bytearray((tmp_path / "in.mgh").read_bytes())
    content[28:30] = b"\x00\x00"
    (tmp_path / "in.mgh").write_bytes(content)
    scan = io.read(tmp_path / "in.mgh")
    coronal = np.array([[-1, 0, 0, 12], [0, 0, 1, -10], [0, -1, 0, 11], [0, 0, 0, 1]])
    np.testing.assert_allclose(scan.affine, coronal)
    io.write(enlarged(scan, bicubic(2), 2, "corner"), tmp_path / "out.mgh")
    made = io.read(tmp_path / "out.mgh")
    expected = centroid(scan.data, scan.affine)
    np.testing.assert_allclose(centroid(made.data, made.affine), expected, atol=0.01)


@pytest.mark.parametrize(
    "where", ["../secret.raw", "/etc/passwd", "LIST", "https://example.org/a.raw", "%03d.raw"]
)
@pytest.mark.parametrize("end", [".nrrd", ".mha"])
def test_no_header_chooses_what_is_read(
    end: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {
        ".nrrd": f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 9 9 9\nencoding: raw\ndatafile: {where}\n\n",
        ".mha": f"NDims = 3\nDimSize = 9 9 9\nElementType = MET_UCHAR\nElementDataFile = {where}\n",
    }
    (tmp_path / "secret.raw").write_bytes(bytes(729))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a{end}").write_text(texts[end])
    assert "voxels in the same file" in refused(capsys, folder / f"a{end}", tmp_path / "out.nii")


@pytest.mark.slow
def test_a_dicom_folder_among_other_scans(shared: Path, tmp_path: Path) -> None:
    """--series says that the folder is one of DICOM, whatever else lies in it."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, path in enumerate(sorted((shared / "dicom/papaya_PDw_fse").iterdir())):
        (folder / f"{i}.img").write_bytes(path.read_bytes())  # an ending that old exports use
    assert upscale(folder, tmp_path / "a.nii") == 0
    save(phantom(SHAPE), oblique(), folder / "other.nii")
    assert upscale(folder, tmp_path / "b.nii", "--series", "2") == 0
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


@pytest.mark.slow
def test_one_network_for_all_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded once, and once for the next scan."""
    data = np.stack([phantom((16, 18, 3), t) for t in range(6)], -1)
    save(data, oblique(), tmp_path / "in.nii.gz")
    loaded, plain = [], openvino.load

    def counted(*args: object) -> object:
        loaded.append(args)
        return plain(*args)  # type: ignore[arg-type]

    methods.forget()
    monkeypatch.setattr(openvino, "load", counted)
    for out in ("out.nii", "again.nii"):
        assert cli.run(["upscale", str(tmp_path / "in.nii.gz"), str(tmp_path / out), "--strict", "off"]) == 0
        assert nib.load(tmp_path / out).shape == (32, 36, 3, 6)
    assert len(loaded) == 1


def test_the_header_of_a_time_series_is_kept(tmp_path: Path) -> None:
    """Oblique fMRI: repetition time, units, slice timing, description, extensions."""
    data = np.stack([phantom((26, 34, 8), t) for t in range(3)], -1).astype(np.int16)
    image = nib.Nifti1Image(data, oblique((2.2, 2.2, 3.6)))
    header = image.header
    header.set_xyzt_units("mm", "msec")
    header["pixdim"][4], header["toffset"] = 2150, 12.5
    header["slice_code"], header["slice_end"], header["slice_duration"] = 3, 7, 268.75
    header.set_dim_info(freq=0, phase=1, slice=2)
    header["descrip"], header["intent_name"] = b"TE=30;Time=1234", b"bold"
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b'{"EchoTime": 0.03}'))
    nib.save(image, tmp_path / "in.nii.gz")
    assert upscale(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz") == 0
    made = nib.load(tmp_path / "out.nii.gz").header
    assert made.get_data_shape() == (52, 68, 8, 3)
    np.testing.assert_allclose(made.get_zooms(), (1.1, 1.1, 3.6, 2150), rtol=1e-6)
    assert made.get_xyzt_units() == ("mm", "msec")
    for name in ("toffset", "slice_code", "slice_start", "slice_end", "slice_duration", "dim_info", "descrip",
                 "intent_name"):  # fmt: skip
        assert made[name] == header[name], name
    assert [e.get_content() for e in made.extensions] == [b'{"EchoTime": 0.03}']


@pytest.mark.parametrize("end", [".nii.gz", ".mgz"])
def test_a_gzip_stream_is_read_to_its_checksum(tmp_path: Path, end: str) -> None:
    """Of single bits that are flipped anywhere, those are told that change anything for Python's gzip."""
    good = save(phantom(SHAPE).astype(np.int16), oblique(), tmp_path / f"in{end}").read_bytes()
    right, passed = io.read(tmp_path / f"in{end}").data, 0
    chosen = random.Random(4)
    for place in [*range(10), *chosen.sample(range(10, len(good)), 60), *range(len(good) - 8, len(good))]:
        content = bytearray(good)
        content[place] ^= 1 << chosen.randrange(8)
        path = tmp_path / f"flipped{end}"
        path.write_bytes(content)
        try:
            same = gzip.decompress(content) == gzip.decompress(good)
        except (OSError, EOFError, zlib.error):
            same = False
        if same:
            np.testing.assert_array_equal(io.read(path).data, right)
            passed += 1
        else:
            with pytest.raises(BadInput, match=rf"flipped\{end}: ") as caught:
                io.read(path)
            assert len(str(caught.value).splitlines()) == 1
    assert passed < 10  # time and system in gzip's own header


@pytest.mark.parametrize("end", [".nii.gz", ".mgz"])
def test_a_gzip_stream_that_does_not_end_where_it_should(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    path = save(phantom(SHAPE).astype(np.int16), oblique(), tmp_path / f"in{end}")
    good, right = path.read_bytes(), io.read(path).data
    half = len(good) // 2
    cases = {
        "cut off": (good[:half], good[:-8], good[:-3], good[:5], good[:12]),
        "other bytes follow": (good + b"and more", good + b"and much more than a header", good + good[:2]),
        "is damaged: CRC": (good[:-8] + bytes(4) + good[-4:],),
        "is damaged: Incorrect length": (good[:-4] + bytes(4),),
    }
    for text, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            assert text in refused(capsys, path, tmp_path / "out.nii")
    cut = len(gzip.decompress(good)) // 2
    members = gzip.compress(gzip.decompress(good)[:cut]) + gzip.compress(gzip.decompress(good)[cut:])
    for content in (good + bytes(600), members):  # what gzip itself takes: padding, several members
        path.write_bytes(content)
        np.testing.assert_array_equal(io.read(path).data, right)


@pytest.mark.parametrize("end", [".nii.gz", ".mgz"])
def test_packed_files_are_not_trusted_to_be_as_large_as_they_could(tmp_path: Path, end: str) -> None:
    """One bit of a header makes them 50 MB, which so many bytes might hold; no array is made."""
    data = np.zeros((256, 256, 128), np.int16)
    data[:, :, :3] = np.random.default_rng(0).integers(0, 1 << 14, (256, 256, 3))
    path = save(data, oblique(), tmp_path / f"in{end}")
    content = bytearray(gzip.decompress(path.read_bytes()))
    if end == ".mgz":
        content[4:8] = np.array([256 | 512], ">i4").tobytes()
    else:
        content[42:44] = np.array([256 | 512], "<i2").tobytes()
    path.write_bytes(gzip.compress(content))
    need = 768 * 256 * 128 * 2
    assert need < voxels.GZIP_RATIO * path.stat().st_size
    tracemalloc.start()
    with pytest.raises(BadInput, match=f"promises {need:,} bytes of voxels, but it has 16,77"):
        io.read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20e6


def test_a_small_scan_with_much_packed_behind_it_is_left_early(tmp_path: Path) -> None:
    path = save(phantom(SHAPE), oblique(), tmp_path / "in.nii.gz")
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(1 << 29), 1))
    with pytest.raises(BadInput, match="far more is packed in it than the 17,680 bytes"):
        io.read(path)


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    """In a process of its own with a limit: nobody writes to the pipes, and whoever opened one would wait."""
    for link, device in (("null.nii", "null"), ("zero.nii.gz", "zero")):
        (tmp_path / link).symlink_to(f"/dev/{device}")
    for end in (".nii", ".mgz", ".nrrd", ".mha"):
        os.mkfifo(tmp_path / f"pipe{end}")
    save(phantom(SHAPE), oblique(), tmp_path / "pair.hdr")
    (tmp_path / "pair.img").unlink()
    os.mkfifo(tmp_path / "pair.img")
    save(phantom(SHAPE), oblique(), tmp_path / "good.nii")
    names = ["/dev/null", "/dev/zero", "/dev/stdin", "null.nii", "zero.nii.gz", "pair.hdr", "pair.img"]
    names += [f"pipe{end}" for end in (".nii", ".mgz", ".nrrd", ".mha")]
    runs = [["info", name] for name in names]
    runs += [["upscale", name, "out.nii", "--method", "bicubic"] for name in names]
    runs += [["upscale", "good.nii", "out.nii", "--method", "bicubic", "--like", name] for name in names]
    runs += [["compare", "good.nii", name, "page.html"] for name in names]
    code = f"from seran import cli\nprint([cli.run(words) for words in {runs}])"
    made = subprocess.run(
        [sys.executable, "-c", code], input="", cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert made.stdout == f"{[2] * len(runs)}\n"
    lines = made.stderr.splitlines()
    assert len(lines) == len(runs)
    for line, words in zip(lines, runs, strict=True):
        assert "expected a file or a folder, got a pipe or a device; save it as a file first" in line, words


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.4e9, 0.7e9])
def test_a_limit_of_memory_is_one_true_line(tmp_path: Path, limit: float) -> None:
    """A scan of 0.4 GB as float32, in processes that may take less than its work needs."""
    data = np.tile(phantom((128, 128, 16)), (4, 4, 25)).astype(np.int16)
    save(data, oblique(), tmp_path / "in.nii")
    words = [sys.executable, "-m", "seran", "upscale", "in.nii", "out.nii", "--method", "bicubic"]
    made = subprocess.run(
        words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit))),
    )
    assert made.returncode == 2
    text = made.stderr.splitlines()[-1]
    assert re.search(
        rf"needs (about [\d.]+ [GM]B )?more memory, and {machine.amount(limit)} are allowed", text
    )
    assert len(made.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.nii"]


@pytest.mark.parametrize("end", [".nii", ".nii.gz", ".mgz", ".img", ".nrrd", ".mha"])
@pytest.mark.parametrize("command", ["upscale", "info", "compare"])
def test_a_file_that_may_not_be_read_is_named_with_the_reason(
    tmp_path: Path,
    end: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever runs the tests may be allowed everything, so opening the file is what is forbidden."""
    path, good = save(phantom(SHAPE), oblique(), tmp_path / f"in{end}"), tmp_path / "good.nii"
    save(phantom(SHAPE), oblique(), good)
    plain = io_module.open

    def opening(file: object, *args: object, **more: object) -> object:
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return plain(file, *args, **more)

    monkeypatch.setattr(io_module, "open", opening)
    monkeypatch.setattr(builtins, "open", opening)
    words = {
        "upscale": [path, tmp_path / "out.nii"],
        "info": [path],
        "compare": [good, path, tmp_path / "out.html"],
    }
    assert cli.run([command, *map(str, words[command])]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(path) in told
    assert "Permission denied" in told


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(34, 40, 1), (600, 1, 1)], ids=str)
@pytest.mark.parametrize("plane", ["auto", "coronal", "sagittal", "axial"])
def test_stacks_of_one_give_no_warning_of_numpy(
    tmp_path: Path, shape: tuple[int, int, int], plane: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One slice, cut along it, and values along a surface (`lh.thickness.mgh`)."""
    save(phantom(shape), oblique(), tmp_path / "in.mgh")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cli.run(["info", str(tmp_path / "in.mgh"), "--plane", plane]) == 0
        for method in ("bicubic", "seran"):
            out = str(tmp_path / f"{method}.mgh")
            words = ["upscale", str(tmp_path / "in.mgh"), out, "--method", method, "--plane", plane]
            status = cli.run([*words, "--strict", "off"])
            assert status in (0, 2)
            if status == 0:
                cli.run(["compare", str(tmp_path / "in.mgh"), out])
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("seran: ") for line in told)
    for line in told:
        if "slices of" in line:
            assert "in.mgh: slices of" in line
