import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import grid, io
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
