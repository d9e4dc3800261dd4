import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

import seran
from seran import cli, grid, io
from seran.classical import bicubic, zerofill
from seran.errors import BadInput
from tests.conftest import enlarged, oblique, phantom, shifted

SHAPE = (26, 34, 5)


def save(path: Path, data: np.ndarray, sform: tuple | None, qform: tuple | None, kind: type) -> Path:
    header = kind.header_class()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_qform(*(qform or (oblique(), 0)))
    header.set_sform(*(sform or (oblique(), 0)))
    nib.save(kind(data, None, header), path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 0), (0, 1), (0, 3)])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_corners_and_codes_survive(
    tmp_path: Path, kind: type, codes: tuple[int, int], left: bool, scale: int
) -> None:
    """Read → upscale → write → read: every transform the input had still spans the same field of view."""
    affine = oblique((0.9, 0.8, 3.3), left)
    s, q = codes
    path = save(tmp_path / "a.nii", phantom(SHAPE), (affine, s), (affine, q), kind)
    source = io.read(path)
    result = enlarged(source, bicubic(scale), scale, "corner")
    out = tmp_path / "b.nii.gz"
    io.write(result, out)
    made = nib.load(out)
    assert isinstance(made, kind)
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == codes
    assert made.shape == (SHAPE[0] * scale, SHAPE[1] * scale, SHAPE[2])
    before = nib.load(path)
    for get in ("get_sform", "get_qform"):
        old, code = getattr(before.header, get)(coded=True)
        if code:
            new = getattr(made.header, get)(coded=True)[0]
            apart = grid.corners(made.shape, new) - grid.corners(SHAPE, old)
            assert np.abs(apart).max() < 1e-4, get
    expected = np.array(before.header.get_zooms()) / (scale, scale, 1)
    np.testing.assert_allclose(made.header.get_zooms(), expected, rtol=1e-5)
    np.testing.assert_allclose(grid.corners(made.shape, io.read(out).affine),
                               grid.corners(SHAPE, source.affine), atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("anchor", ["corner", "center"])
@pytest.mark.parametrize("thick", [0, 1, 2])
def test_a_blob_keeps_its_millimetres(tmp_path: Path, anchor: grid.Anchor, thick: int) -> None:
    """Read → upscale → write → read, for slices along every array axis."""
    spacing = [0.8, 0.9, 0.85]
    spacing[thick] = 3.0
    affine = oblique((spacing[0], spacing[1], spacing[2]), left_handed=True)
    shape = [40, 44, 48]
    shape[thick] = 9
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(float)
    center = np.array(shape) * 0.47
    width = np.where(np.arange(3) == thick, 1.5, 5.0)
    blob = np.exp(-((((index.T - center) / width) ** 2).sum(-1)).T).astype(np.float32) * 900
    path = tmp_path / "blob.nii"
    nib.save(nib.Nifti1Image(blob, affine), path)
    predict = {"corner": bicubic, "center": zerofill}[anchor](3)
    io.write(enlarged(io.read(path), predict, 3, anchor), tmp_path / "out.nii")
    made = io.read(tmp_path / "out.nii")
    expected = affine[:3, :3] @ center + affine[:3, 3]
    assert np.abs(_centroid(made.data, made.affine) - expected).max() < 0.02


def _centroid(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij")).astype(float)
    weight = np.where(image > 0.01 * image.max(), image, 0).astype(float)
    at = (index * weight).sum((1, 2, 3)) / weight.sum()
    return affine[:3, :3] @ at + affine[:3, 3]


def test_units_description_extension_and_scaling_survive(scan: Path, tmp_path: Path) -> None:
    source = io.read(scan)
    out = tmp_path / "out.nii.gz"
    io.write(enlarged(source, bicubic(2), 2, "corner"), out)
    made = nib.load(out)
    assert made.header.get_xyzt_units() == ("mm", "sec")
    assert bytes(made.header["descrip"]).startswith(b"made for tests")
    assert [e.get_content() for e in made.header.extensions] == [b"keep me"]
    assert made.get_data_dtype() == np.float32
    inside = np.asanyarray(made.dataobj)
    assert inside.min() >= 0
    assert inside.mean() == pytest.approx(source.data.mean(), rel=0.02)


def test_the_transform_that_was_not_chosen_may_be_impossible(tmp_path: Path) -> None:
    flat = np.diag([1.0, 1, 0, 1])
    volume = io.read(
        save(tmp_path / "in.nii", phantom(SHAPE), (flat, 1), (oblique(), 1), nib.Nifti1Image), "qform"
    )
    io.write(volume, tmp_path / "out.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, oblique(), atol=1e-4)
    far = np.diag([1e200, 1, 1, 1])  # its square is infinite
    path = save(tmp_path / "far.nii", phantom(SHAPE), (far, 1), (oblique(), 1), nib.Nifti2Image)
    with pytest.raises(BadInput, match="apart; say which is right"):
        io.read(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("size", [0, -0.9, np.nan, np.inf, 1e38, 2e4, 1e-30])
def test_voxels_of_no_size_are_refused(tmp_path: Path, kind: type, code: int, size: float) -> None:
    """Where they place the scan: other readers take 1 for 0, and some the absolute value."""
    path = save(tmp_path / "in.nii", phantom(SHAPE), None, (oblique(), code), kind)
    bare = kind.header_class(path.read_bytes()[: kind.header_class.sizeof_hdr], check=False)
    bare["pixdim"][2] = size
    path.write_bytes(bare.binaryblock + path.read_bytes()[bare["sizeof_hdr"] :])
    shown = (
        "expected voxels above 0 mm, got 0.9 x"
        if size <= 0
        else r"expected voxels of 0.0001 to 10000 mm, got"
    )
    with pytest.raises(BadInput, match=rf"{shown}.* x 3\.3.*; correct its header"):
        io.read(path)
    bare["sform_code"], bare["srow_x"], bare["srow_y"], bare["srow_z"] = 2, *oblique()[:3]
    bare["qform_code"] = 0
    path.write_bytes(bare.binaryblock + path.read_bytes()[bare["sizeof_hdr"] :])
    np.testing.assert_allclose(io.read(path).affine, oblique(), atol=1e-5)


def test_a_single_slice_needs_no_size_across_it(tmp_path: Path) -> None:
    path = save(tmp_path / "in.nii", phantom((*SHAPE[:2], 1)), None, (oblique(), 1), nib.Nifti1Image)
    bare = nib.Nifti1Header(path.read_bytes()[:348], check=False)
    bare["pixdim"][3] = 0
    path.write_bytes(bare.binaryblock + path.read_bytes()[348:])
    assert grid.spacing(io.read(path).affine)[2] == pytest.approx(1)


def test_sform_and_qform_that_disagree(tmp_path: Path) -> None:
    moved = shifted(oblique(), (0, 4, 0))
    path = save(tmp_path / "a.nii", phantom(SHAPE), (moved, 1), (oblique(), 1), nib.Nifti1Image)
    with pytest.raises(BadInput, match=r"3\.2 mm apart.*--affine sform"):
        io.read(path)
    for choice, right in (("sform", moved), ("qform", oblique())):
        volume = io.read(path, choice)
        np.testing.assert_allclose(volume.affine, right, atol=1e-4)
        io.write(volume, tmp_path / "out.nii")
        header = nib.load(tmp_path / "out.nii").header
        np.testing.assert_allclose(header.get_sform(), right, atol=1e-4)
        np.testing.assert_allclose(header.get_qform(), right, atol=1e-3)


def test_transforms_of_two_spaces_both_move(tmp_path: Path) -> None:
    standard = shifted(oblique(), (3, 4, 9))
    path = save(tmp_path / "a.nii", phantom(SHAPE), (standard, 4), (oblique(), 1), nib.Nifti1Image)
    volume = io.read(path)
    np.testing.assert_allclose(volume.affine, standard, atol=1e-4)
    io.write(enlarged(volume, bicubic(2), 2, "corner"), tmp_path / "out.nii")
    made = nib.load(tmp_path / "out.nii")
    for name, code, right in (("sform", 4, standard), ("qform", 1, oblique())):
        found, stored = getattr(made.header, f"get_{name}")(coded=True)
        assert stored == code
        assert np.abs(grid.corners(made.shape, found) - grid.corners(SHAPE, right)).max() < 1e-3


def test_two_spaces_do_not_mirror_each_other(tmp_path: Path) -> None:
    mirrored = np.diag([-1.0, 1, 1, 1]) @ oblique()
    path = save(tmp_path / "a.nii", phantom(SHAPE), (mirrored, 2), (oblique(), 1), nib.Nifti1Image)
    with pytest.raises(BadInput, match="apart; say which is right"):
        io.read(path)


@pytest.mark.parametrize("name", ["srow_z", "qoffset_x", "pixdim"])
def test_of_two_spaces_both_must_be_possible_and_of_one_size(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", phantom(SHAPE), (oblique(), 4), (oblique(), 1), nib.Nifti1Image)
    image = nib.load(path, mmap=False)
    image.header[name] = image.header[name] * 1.2 if name == "pixdim" else np.nan
    with path.open("r+b") as file:
        image.header.write_to(file)
    with pytest.raises(BadInput, match=r"a\.nii: "):
        io.read(path)


def test_a_transform_with_code_0_cannot_be_chosen(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", phantom(SHAPE), (oblique(), 1), None, nib.Nifti1Image)
    with pytest.raises(BadInput, match="qform code is 0"):
        io.read(path, "qform")


def test_without_any_code_the_centre_stays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", phantom(SHAPE), None, None, nib.Nifti1Image)
    source = io.read(path)
    io.write(enlarged(source, bicubic(2), 2, "corner"), tmp_path / "b.nii")
    made = nib.load(tmp_path / "b.nii")
    apart = grid.corners(made.shape, made.affine) - grid.corners(SHAPE, source.affine)
    assert np.abs(apart).max() < 1e-4
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (0, 0)


def test_shear_goes_to_the_sform_only(tmp_path: Path) -> None:
    sheared = oblique() @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii", phantom(SHAPE), (sheared, 1), None, nib.Nifti1Image)
    io.write(enlarged(io.read(path), bicubic(2), 2, "corner"), tmp_path / "b.nii")
    made = nib.load(tmp_path / "b.nii")
    apart = grid.corners(made.shape, made.affine) - grid.corners(SHAPE, sheared)
    assert np.abs(apart).max() < 1e-4


def _write(path: Path, data: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, oblique()), path)
    return path


def test_bad_files_are_named_and_explained(tmp_path: Path) -> None:
    good = _write(tmp_path / "good.nii.gz", phantom(SHAPE)).read_bytes()
    cases = {
        "missing.nii": (None, "no such file"),
        "text.nii": (b"not an image at all" * 40, "cannot be read as NIfTI"),
        "empty.nii.gz": (b"", "cannot be read as NIfTI"),
        "cut.nii.gz": (good[: len(good) // 2], "cannot be read as NIfTI"),
        "cut.nii": (gzip.decompress(good)[:4000], "promises 17,680 bytes of voxels, but the file has 4,000"),
        "image.png": (b"\x89PNG", "must end in .nii, .nii.gz"),
    }
    for name, (content, reason) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=reason) as caught:
            io.read(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(BadInput, match="expected a folder with MR images"):
        io.read(tmp_path)


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (70, b"\xd2\x04"),  # data type 1234
        (40, b"\x09\x00"),  # nine dimensions
        (42, b"\xf0\xff"),  # a negative one
        (42, b"\x30\x75\x30\x75\x30\x75"),  # 30000 x 30000 x 30000 voxels
        (108, b"\x00\x00\x20\x41"),  # voxels that begin inside the header
        (256, b"\x00\x00\x80\x40"),  # a quaternion outside of the unit ball
        (280, b"\x00\x00\xc0\x7f" * 12),  # an sform of NaN
    ],
)
def test_damaged_headers(tmp_path: Path, offset: int, content: bytes) -> None:
    path = save(tmp_path / "a.nii", phantom(SHAPE), (oblique(), 1), (oblique(), 1), nib.Nifti1Image)
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"a\.nii: "):
        io.read(path)


@pytest.mark.parametrize(("apart", "kept"), [(0.015, True), (0.03, False)])
def test_transforms_that_nearly_agree_still_do_on_finer_voxels(
    tmp_path: Path, apart: float, kept: bool
) -> None:
    """Neither transform is moved onto the other, unless the finer result would be refused for that."""
    moved = shifted(oblique(), (0, apart / 0.8, 0))
    path = save(tmp_path / "a.nii", phantom(SHAPE), (moved, 1), (oblique(), 1), nib.Nifti1Image)
    io.write(enlarged(io.read(path), bicubic(2), 2, "corner"), tmp_path / "b.nii")
    made = nib.load(tmp_path / "b.nii")
    for new, old in (
        (made.header.get_sform(), moved),
        (made.header.get_qform(), oblique() if kept else moved),
    ):
        assert np.abs(grid.corners(made.shape, new) - grid.corners(SHAPE, old)).max() < 2e-3
    assert io.read(tmp_path / "b.nii").data.shape == made.shape


def test_slice_timing_of_other_slices_is_dropped(scan: Path, tmp_path: Path) -> None:
    source = io.read(scan)
    source.header["slice_end"], source.header["slice_code"] = 4, 1
    io.write(enlarged(source, bicubic(2), 2, "corner", "sagittal"), tmp_path / "b.nii")
    header = nib.load(tmp_path / "b.nii").header
    assert int(header["slice_end"]) == int(header["slice_code"]) == 0


def test_shapes_and_types_that_are_not_one_scan(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a series of 2 volumes"):
        io.read(_write(tmp_path / "a.nii", np.ones((6, 7, 5, 2), np.float32)))
    with pytest.raises(BadInput, match="magnitude and phase"):
        io.read(_write(tmp_path / "b.nii", np.ones((6, 7, 5), np.complex64)))
    rgb = np.zeros((6, 7, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(BadInput, match="one real number per voxel"):
        io.read(_write(tmp_path / "c.nii", rgb))
    with pytest.raises(BadInput, match="empty image"):
        io.read(_write(tmp_path / "d.nii", np.ones((6, 0, 5), np.float32)))
    assert io.read(_write(tmp_path / "e.nii", phantom((6, 7, 5))[..., None])).data.shape == (6, 7, 5)
    assert io.read(_write(tmp_path / "f.nii", phantom((6, 7)))).data.shape == (6, 7, 1)


def test_voxels_that_are_not_finite(tmp_path: Path) -> None:
    data = phantom(SHAPE)
    data[3, 4, 1], data[5, 6, 2] = np.nan, np.inf
    path = _write(tmp_path / "a.nii", data)
    with pytest.raises(BadInput, match=r"2 voxels are NaN, infinite.*--fill 0"):
        io.read(path)
    filled = next(io.read_series(path, fill=7.5).volumes).data
    assert filled[3, 4, 1] == filled[5, 6, 2] == 7.5


def test_real_scans_keep_their_corners(shared: Path, tmp_path: Path) -> None:
    for name in ("tcga-fg-6692_T2", "ds000011_sub-12_inplaneT2", "papaya_PDw", "pymskt_knee_e8_T2"):
        path = shared / "test" / f"{name}.nii.gz"
        source = io.read(path)
        io.write(enlarged(source, bicubic(2), 2, "corner"), tmp_path / "out.nii")
        made = io.read(tmp_path / "out.nii")
        apart = grid.corners(made.data.shape, made.affine) - grid.corners(source.data.shape, source.affine)
        assert np.abs(apart).max() < 1e-4, name


def test_the_log_of_nibabel_is_as_before(tmp_path: Path) -> None:
    log = logging.getLogger("nibabel.global")
    before = log.level, list(log.filters)
    io.write(io.read(_write(tmp_path / "a.nii", phantom((6, 7, 5)))), tmp_path / "b.nii")
    assert (log.level, log.filters) == before


def _extended(path: Path, *contents: bytes) -> Path:
    """A NIfTI file with extensions."""
    image = nib.Nifti1Image(phantom(SHAPE), oblique())
    for content in contents:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", content))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
@pytest.mark.parametrize("contents", [(), (b"one",), (b"one", b"x" * 100)], ids=["none", "one", "two"])
def test_voxels_whose_place_is_not_said_lie_after_the_extensions(
    tmp_path: Path, contents: tuple[bytes, ...], end: str
) -> None:
    path = _extended(tmp_path / f"a{end}", *contents)
    right = nib.load(path).get_fdata()
    _patch(path, 108, np.float32(0))
    scan = io.read(path)
    np.testing.assert_array_equal(scan.data, right)
    io.write(scan, tmp_path / "b.nii")
    made = nib.load(tmp_path / "b.nii")
    assert [e.get_content() for e in made.header.extensions] == list(contents)
    np.testing.assert_array_equal(made.get_fdata(), right)


def _patch(path: Path, at: int, value: np.ndarray | np.generic) -> None:
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    content[at : at + value.nbytes] = value.tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("offset", [4, 100, 348, 351, 352, 360, 384, 400])
def test_voxels_that_would_begin_in_the_header_or_its_extensions_are_refused(
    tmp_path: Path, offset: int
) -> None:
    path = _extended(tmp_path / "a.nii", b"x" * 24, b"y" * 40)
    assert np.frombuffer(path.read_bytes(), np.float32, 1, 108) == 432
    _patch(path, 108, np.float32(offset))
    with pytest.raises(BadInput, match=r"a\.nii: .*(voxels after its header and extensions|too low)"):
        io.read(path)


def test_bytes_after_the_voxels_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for end in (".nii", ".nii.gz"):
        path = _extended(tmp_path / f"a{end}")
        content = path.read_bytes()
        more = gzip.compress(bytes(480)) if end == ".nii.gz" else bytes(480)  # a second member
        path.write_bytes(content + more)
        np.testing.assert_array_equal(io.read(path).data, phantom(SHAPE))
        assert f"a{end}: 480 bytes follow its voxels and are left out" in caplog.text


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("pair", [False, True])
def test_extensions_are_kept_as_bytes_whatever_is_in_them(tmp_path: Path, kind: type, pair: bool) -> None:
    """XML and DICOM that cannot be parsed; nothing is wrong with the image."""
    image = kind(phantom(SHAPE), oblique())
    contents = [
        (32, b"<CIFTI <broken"),
        (2, b"\x08\x00no DICOM"),
        (4, b"<?xml version='1.0'?><AFNI_"),
        (77, b"?"),
    ]
    for code, content in contents:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    path = tmp_path / f"a{'.hdr' if pair else '.nii'}"
    nib.save(kind(phantom(SHAPE), oblique(), image.header), path) if not pair else _save_pair(image, path)
    io.write(io.read(path), tmp_path / "b.nii")
    made = (tmp_path / "b.nii").read_bytes()
    for _, content in contents:
        assert content in made
    np.testing.assert_array_equal(io.read(tmp_path / "b.nii").data, phantom(SHAPE))


def _save_pair(image: nib.Nifti1Image, path: Path) -> None:
    kind = nib.Nifti2Pair if isinstance(image, nib.Nifti2Image) else nib.Nifti1Pair
    nib.save(kind(image.dataobj, image.affine, image.header), path)


@pytest.mark.parametrize(
    ("unit", "length"), [("meter", 1e3), ("micron", 1e-3), ("mm", 1.0), ("unknown", 1.0)]
)
@pytest.mark.parametrize("codes", [(2, 1), (1, 0), (0, 1)], ids=["both", "sform", "qform"])
def test_other_units_than_millimetres_become_them(
    tmp_path: Path, unit: str, length: float, codes: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """In every format, for the library and `info`; SimpleITK knows the units of NIfTI."""
    there = np.diag([1 / length] * 3 + [1]) @ oblique()
    path = save(tmp_path / "a.nii", phantom(SHAPE), (there, codes[0]), (there, codes[1]), nib.Nifti1Image)
    code = {"meter": 1, "mm": 2, "micron": 3, "unknown": 0}[unit]
    _patch(path, 123, np.uint8(code + 16))
    image = nib.load(path)
    assert image.header.get_xyzt_units() == (unit, "msec")
    scan = io.read(path)
    np.testing.assert_allclose(scan.affine, oblique(), atol=1e-4)
    for end in (".nii", ".mgz", ".nrrd", ".hdr"):
        io.write(scan, tmp_path / f"b{end}")
        np.testing.assert_allclose(io.read(tmp_path / f"b{end}").affine, oblique(), atol=1e-4)
    made = nib.load(tmp_path / "b.nii")
    np.testing.assert_allclose(made.header.get_zooms(), (0.9, 0.8, 3.3), rtol=1e-6)
    assert made.header.get_xyzt_units() == ("unknown" if unit == "unknown" else "mm", "msec")
    spacing = sitk.ReadImage(tmp_path / "b.nii").GetSpacing()
    np.testing.assert_allclose(spacing, (0.9, 0.8, 3.3), rtol=1e-5)
    if unit != "unknown":  # this oracle was not asked about what is not said
        np.testing.assert_allclose(sitk.ReadImage(path).GetSpacing(), (0.9, 0.8, 3.3), rtol=1e-5)
    np.testing.assert_allclose(
        seran.upscale(image, method="bicubic").to_nibabel().affine[:3, 2], oblique()[:3, 2], atol=1e-4
    )
    assert cli.run(["info", str(path)]) == 0
    assert "voxel_mm         0.9 0.8 3.3" in capsys.readouterr().out


@pytest.mark.parametrize("choice", ["sform", "qform"])
@pytest.mark.parametrize("codes", [(4, 1), (2, 1), (1, 4)])
def test_two_spaces_are_moved_by_the_same_change_of_voxels(
    tmp_path: Path, choice: str, codes: tuple[int, int]
) -> None:
    """An sform in one space and a qform in another, both as they were: their corners stay in both."""
    there = np.diag([1.1, 0.9, 1.05, 1]) @ shifted(oblique(), (9, 31, 4))
    path = save(tmp_path / "a.nii", phantom(SHAPE), (there, codes[0]), (oblique(), codes[1]), nib.Nifti1Image)
    volume = io.read(path, choice)
    right = {"sform": there, "qform": oblique()}
    np.testing.assert_allclose(volume.affine, right[choice], atol=1e-4)
    io.write(enlarged(volume, bicubic(2), 2, "corner", "axial"), tmp_path / "b.nii")
    before, made = nib.load(path).header, nib.load(tmp_path / "b.nii")
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == codes
    for name in ("get_sform", "get_qform"):
        old, new = getattr(before, name)(), getattr(made.header, name)()
        assert np.abs(grid.corners(made.shape, new) - grid.corners(SHAPE, old)).max() < 2e-3, name
    assert (
        np.abs(
            grid.corners(made.shape, made.header.get_qform())
            - grid.corners(made.shape, made.header.get_sform())
        ).max()
        > 20
    )


def test_a_qform_that_cannot_hold_the_result_is_said_and_has_code_0(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The scan's sform is sheared against its qform, and the result lies on a straight grid of the sform."""
    shear = oblique() @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "a.nii", phantom(SHAPE), (shear, 4), (oblique(), 1), nib.Nifti1Image)
    volume = io.read(path, "sform")
    io.write(volume.on(volume.data, oblique()), tmp_path / "b.nii")
    header = nib.load(tmp_path / "b.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 0)
    np.testing.assert_allclose(header.get_sform(), oblique(), atol=1e-5)
    assert "no qform can hold the shear of the result; its code there is 0" in caplog.text


def test_a_transform_that_means_nothing_does_not_spoil_the_one_that_is_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for choice, at, value in (("sform", 256, np.float32(4)), ("qform", 280, np.float32(np.nan))):
        path = save(tmp_path / "a.nii", phantom(SHAPE), (oblique(), 2), (oblique(), 1), nib.Nifti1Image)
        _patch(path, at, value)
        with pytest.raises(BadInput, match=r"a\.nii: "):
            io.read(path)
        io.write(io.read(path, choice), tmp_path / "b.nii")
        other = {"sform": "qform", "qform": "sform"}[choice]
        assert f"a.nii: its {other} cannot be used; its code is 0 in the result" in caplog.text
        header = nib.load(tmp_path / "b.nii").header
        assert int(header[f"{other}_code"]) == 0
        np.testing.assert_allclose(header.get_best_affine(), oblique(), atol=1e-4)


@pytest.mark.parametrize(
    "code", [1004, 1005, 1006, 1007, 1008, 1009, 1010, 2003, 2004, 2006, 2007, 2008, 2009, 3001, 3006]
)
def test_what_is_no_intensity_is_refused_by_its_intent(tmp_path: Path, code: int) -> None:
    """Displacements, vectors, matrices, points, colours, coefficients, tables."""
    image = nib.Nifti1Image(np.stack([phantom(SHAPE)] * 3, -1)[:, :, :, None], oblique())
    image.header["intent_code"] = code
    for data in (image.dataobj, image.dataobj[..., 0, 0]):
        nib.save(nib.Nifti1Image(data, None, image.header), tmp_path / "a.nii")
        with pytest.raises(
            BadInput, match=rf"a\.nii: expected one intensity per voxel, got intent {code} \("
        ):
            io.read(tmp_path / "a.nii")
    image.header["intent_code"] = 0
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(BadInput, match="got 3 along the fifth axis"):
        io.read(tmp_path / "a.nii")
    image.header["intent_code"] = code
    with pytest.raises(BadInput, match="the scan: expected one intensity per voxel"):
        seran.upscale(nib.Nifti1Image(image.dataobj[..., 0, 0], None, image.header))


def test_tables_of_cifti_are_refused_unread(tmp_path: Path) -> None:
    """Whatever XML is in them."""
    image = nib.Nifti2Image(phantom((1, 1, 1, 1, 5, 6)), np.eye(4))
    image.header["intent_code"] = 3006
    image.header.extensions.append(nib.nifti1.Nifti1Extension(32, b"<CIFTI <broken"))
    nib.save(image, tmp_path / "a.dscalar.nii")
    with pytest.raises(BadInput, match=r"a\.dscalar\.nii: expected "):
        io.read(tmp_path / "a.dscalar.nii")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("beyond", [1e-6, 1e-4, 1e-3])
@pytest.mark.parametrize("choice", ["auto", "sform"])
def test_a_quaternion_a_hair_longer_than_1_is_shortened(
    tmp_path: Path, kind: type, beyond: float, choice: str
) -> None:
    turn = np.diag([-1.0, -1, 1, 1])
    affine = oblique()
    affine[:3, :3] = turn[:3, :3] * grid.spacing(affine)  # 180 degrees: a of the quaternion is 0
    path = save(tmp_path / "a.nii", phantom(SHAPE), (affine, 1), (affine, 1), kind)
    at, real = (256, "<f4") if kind is nib.Nifti1Image else (352, "<f8")
    content = bytearray(path.read_bytes())
    size = np.dtype(real).itemsize
    assert np.frombuffer(content, real, 3, at).tolist() == [0, 0, 1]
    content[at + 2 * size : at + 3 * size] = np.array(1 + beyond, real).tobytes()
    path.write_bytes(content)
    volume = io.read(path, choice)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    io.write(volume, tmp_path / "b.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii").header.get_qform(), affine, atol=1e-4)


def test_a_result_that_is_wider_than_nifti_1_can_say_is_nifti_2(tmp_path: Path) -> None:
    data = phantom((9000, 5, 4))
    image = nib.Nifti1Image(data, oblique((0.1, 0.8, 3.3)))
    image.header["descrip"], image.header["pixdim"][4] = b"wide", 2.5
    image.header.set_xyzt_units("mm", "sec")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"keep me"))
    nib.save(image, tmp_path / "a.nii")
    source = io.read(tmp_path / "a.nii")
    for end in (".nii.gz", ".hdr"):
        wide = source.on(np.repeat(source.data, 4, 0), grid.rescale(source.affine, (4, 1, 1), "corner"))
        io.write(wide, tmp_path / f"b{end}")
        made = nib.load(tmp_path / f"b{end}")
        assert isinstance(made.header, nib.Nifti2Header)
        assert made.shape == (36000, 5, 4)
        assert (
            np.abs(grid.corners(made.shape, made.affine) - grid.corners(data.shape, source.affine)).max()
            < 1e-3
        )
        assert bytes(made.header["descrip"]).startswith(b"wide")
        assert made.header.get_xyzt_units() == ("mm", "sec")
        assert [e.get_content() for e in made.header.extensions] == [b"keep me"]
        np.testing.assert_array_equal(io.read(tmp_path / f"b{end}").data, wide.data)


def test_the_slice_axis_that_a_header_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2-D EPI of 3.75 x 3.75 x 3 mm: its third axis is that of its slices; the name moves with the axes."""
    image = nib.Nifti1Image(phantom((30, 32, 28)), oblique((3.75, 3.75, 3.0)))
    image.header.set_dim_info(0, 1, 2)
    nib.save(image, tmp_path / "a.nii")
    assert io.read(tmp_path / "a.nii").slices == 2
    run = ["upscale", str(tmp_path / "a.nii"), str(tmp_path / "b.nii"), "--method", "bicubic"]
    assert cli.run(run) == 0
    made = nib.load(tmp_path / "b.nii")
    assert made.shape == (60, 64, 28)
    assert made.header.get_dim_info() == (0, 1, 2)
    assert cli.run(["info", str(tmp_path / "a.nii")]) == 0
    assert "slices_along     2" in capsys.readouterr().out
    turned = io.read(tmp_path / "a.nii")
    turned = turned.on(np.moveaxis(turned.data, 2, 0), turned.affine[:, [2, 0, 1, 3]])
    io.write(turned, tmp_path / "c.nii")
    assert nib.load(tmp_path / "c.nii").header.get_dim_info() == (1, 2, 0)
    io.write(turned.on(turned.data, oblique()[:, [1, 0, 2, 3]] @ oblique()), tmp_path / "d.nii")  # askew
    assert nib.load(tmp_path / "d.nii").header.get_dim_info() == (None, None, None)
