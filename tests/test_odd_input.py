"""What scanners, other programs and hostile users write: unusual, and read rightly or refused in one line."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import cli, grid, io, methods
from seran.classical import bicubic
from seran.engines import openvino
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
    assert upscale(scan, dangling) == 0
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
        assert cli.run(["upscale", str(tmp_path / "in.nii.gz"), str(tmp_path / out)]) == 0
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
