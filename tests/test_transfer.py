"""`seran resample`: labels keep their values, their type and their place on the grid of another image."""

import itertools
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel import affines, orientations
from nibabel.eulerangles import euler2mat

from seran import cli, grid, io, resample
from seran.errors import BadInput
from seran.grid import Grid
from seran.io.itk import Kept
from seran.job import transfer
from seran.volume import Volume
from tests.conftest import oblique, phantom, shifted
from tests.test_dicom import DATA, series
from tests.test_formats import ENDS, FLIPPED, load, save

PARTS = (np.round(phantom((26, 34, 5)) / 100) * 7).astype(np.uint8)
"""A background and regions whose names are no counting numbers."""


def around(affine: np.ndarray, shape: tuple[int, int, int], *angles: float) -> np.ndarray:
    """A grid turned about its middle."""
    turn, centre = euler2mat(*angles), affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    return affines.from_matvec(turn, centre - turn @ centre) @ affine


def by_itk(labels: np.ndarray, affine: np.ndarray, target: Grid) -> np.ndarray:
    """What SimpleITK's nearest neighbour makes of labels."""

    def placed(image: sitk.Image, where: np.ndarray) -> sitk.Image:
        lps = FLIPPED @ where
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        return image

    source = placed(sitk.GetImageFromArray(np.ascontiguousarray(labels.T)), affine)
    onto = placed(sitk.Image(*target.shape, sitk.sitkUInt8), target.affine)
    made = sitk.Resample(source, onto, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    return sitk.GetArrayFromImage(made).T


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.3, 0.1, -0.2), (0.0, 0.0, 1.57), (1.2, -0.7, 2.9)])
@pytest.mark.parametrize("spacing", [(0.41, 0.37, 1.3), (1.3, 1.1, 0.9), (2.1, 1.9, 7.1)])
def test_labels_lie_where_another_program_puts_them(
    angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    """Finer, coarser, parallel and turned, all of it oblique; the fields of view overlap in part."""
    shape = (31, 37, 11)
    target = Grid(shape, around(shifted(oblique(spacing), (3.3, 5.2, -1.4)), shape, *angles))
    made, outside = resample.nearest(Volume(PARTS, oblique()), target)
    expected = by_itk(PARTS, oblique(), target)
    assert made.data.dtype == np.uint8
    at = affines.apply_affine(np.linalg.inv(oblique()) @ target.affine, np.indices(shape).T).T
    clear = (np.abs(at - np.floor(at) - 0.5) > resample.TIE * 1.01).all(0)  # of borders between voxels
    assert clear.mean() > 0.85
    np.testing.assert_array_equal(made.data[clear], expected[clear])
    assert expected.any()
    beyond = by_itk(np.ones_like(PARTS), oblique(), target) == 0
    assert np.count_nonzero(beyond & clear) <= outside <= np.count_nonzero(beyond | ~clear)
    assert 0 < outside < beyond.size


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_voxel_becomes_k_however_labels_are_stored(k: int) -> None:
    """About the corner exactly; about the centre of the first voxel, the border of two is the first one's."""
    data = np.random.default_rng(0).integers(1, 60_000, (9, 11, 6)).astype(np.uint16)
    about_corner = data.repeat(k, 0).repeat(k, 1)
    beyond = np.pad(data, ((0, 1), (0, 1), (0, 0)))
    i, j = (-((k - 2 * np.arange(n * k)) // (2 * k)) for n in data.shape[:2])  # i / k - 1/2, rounded up
    about_centre = beyond[i][:, j]
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turn = np.column_stack([order, signs])
            stored = orientations.apply_orientation(data, turn)
            labels = Volume(stored, oblique() @ orientations.inv_ornt_aff(turn, data.shape))
            for anchor, expected in (("corner", about_corner), ("center", about_centre)):
                fine = grid.rescale(oblique(), (k, k, 1), anchor)
                made, outside = resample.nearest(labels, Grid(expected.shape, fine))
                np.testing.assert_array_equal(made.data, expected)
                assert made.data.dtype == np.uint16
                assert outside == np.count_nonzero(expected == 0)


def test_a_grid_of_its_own_changes_nothing_and_what_is_outside_is_0() -> None:
    labels = Volume(PARTS + 1, oblique())
    made, outside = resample.nearest(labels, labels.grid)
    np.testing.assert_array_equal(made.data, PARTS + 1)
    assert outside == 0
    made, outside = resample.nearest(labels, Grid(PARTS.shape, shifted(oblique(), (-5, 0, 2))))
    np.testing.assert_array_equal(made.data[5:, :, :3], PARTS[:-5, :, 2:] + 1)
    assert not made.data[:5].any()
    assert not made.data[:, :, 3:].any()
    assert outside == PARTS.size - 21 * 34 * 3


def test_large_labels_go_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Grid((40, 33, 9), around(oblique((0.6, 0.7, 1.9)), (40, 33, 9), 0.2, 0.1))
    whole, outside = resample.nearest(Volume(PARTS, oblique()), target)
    monkeypatch.setattr(resample.scratch, "PART", 4 * 1500)
    parts, again = resample.nearest(Volume(PARTS, oblique()), target)
    np.testing.assert_array_equal(parts.data, whole.data)
    assert outside == again > 0


@pytest.mark.parametrize("dtype", ["u1", "i2", "f8"])
def test_labels_larger_than_memory_lie_on_disk(
    dtype: str, sharp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = save(PARTS.astype(dtype), oblique(), tmp_path / "in.nii")
    assert command(labels, tmp_path / "out.nii", sharp) == 0
    monkeypatch.setattr(resample.scratch, "LARGE", 1000)
    assert command(labels, tmp_path / "disk.nii", sharp) == 0
    assert (tmp_path / "disk.nii").read_bytes() == (tmp_path / "out.nii").read_bytes()


@pytest.fixture
def sharp(tmp_path: Path) -> Path:
    """What an image of 0.5x0.45x1.7 mm, turned against the labels, has as a grid; two transforms."""
    affine = around(shifted(oblique((0.5, 0.45, 1.7)), (-3, -2, 1)), (40, 50, 9), 0.1, 0.05)
    image = nib.Nifti1Image(np.zeros((40, 50, 9), np.float32), affine)
    image.set_sform(affine, 3)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "sharp.nii.gz")
    return tmp_path / "sharp.nii.gz"


def command(labels: Path, out: Path, like: Path, *more: str) -> int:
    return cli.run(["resample", str(labels), str(out), "--like", str(like), *more])


@pytest.mark.parametrize(("end", "out"), list(itertools.product(ENDS, ENDS)))
def test_every_format_becomes_every_other(end: str, out: str, sharp: Path, tmp_path: Path) -> None:
    target = Grid((40, 50, 9), nib.load(sharp).affine)
    expected, _ = resample.nearest(Volume(PARTS, oblique()), target)
    labels = save(PARTS, oblique(), tmp_path / f"in{end}")
    assert command(labels, tmp_path / f"out{out}", sharp) == 0
    made, where = load(tmp_path / f"out{out}")
    assert made.dtype.name == "uint8"
    np.testing.assert_allclose(where, target.affine, atol=1e-4)
    assert np.count_nonzero(made != expected.data) <= 2e-4 * made.size  # transforms in float32
    assert set(np.unique(made)) <= set(np.unique(PARTS))
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("end", [".nii.gz", ".nrrd", ".mha"])
def test_values_and_their_type_are_exact(dtype: str, end: str, sharp: Path, tmp_path: Path) -> None:
    """The largest that each type holds, which float32 would round."""
    data, kind = PARTS.astype(dtype), np.dtype(dtype)
    most = 2**53 - 1 if dtype == "f8" else 2**24 - 1 if dtype == "f4" else np.iinfo(kind).max
    data[PARTS > 14] = most
    data[PARTS == 7] = 1 if kind.kind == "u" else -1
    labels = tmp_path / f"in{end}"
    if end == ".nii.gz":
        nib.save(nib.Nifti1Image(data, oblique(), dtype=kind), labels)
    else:
        save(data, oblique(), labels)
    assert command(labels, tmp_path / f"out{end}", sharp) == 0
    found = nib.load(tmp_path / f"out{end}").dataobj if end == ".nii.gz" else load(tmp_path / f"out{end}")[0]
    made = np.asanyarray(found)
    assert made.dtype == kind
    assert set(np.unique(made).tolist()) == set(np.unique(data).tolist())


def test_a_series_goes_volume_by_volume(
    sharp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.stack([PARTS, np.roll(PARTS, 3, 0), 0 * PARTS], -1)
    assert command(save(data, oblique(), tmp_path / "in.nii.gz"), tmp_path / "out.nii.gz", sharp) == 0
    told = capsys.readouterr().out
    made = np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    assert made.shape == (40, 50, 9, 3)
    for t in range(3):
        alone = save(data[..., t], oblique(), tmp_path / f"{t}.nii.gz")
        assert command(alone, tmp_path / f"out{t}.nii.gz", sharp) == 0
        np.testing.assert_array_equal(nib.load(tmp_path / f"out{t}.nii.gz").dataobj, made[..., t])
    outside = int(np.prod(made.shape[:3]) - by_itk(PARTS * 0 + 1, oblique(), Grid(
        made.shape[:3], nib.load(sharp).affine)).sum())  # fmt: skip
    said = int(re.search(r"; ([\d,]+) of them lie outside in.nii.gz and are 0", told)[1].replace(",", ""))
    assert said == pytest.approx(outside, abs=40)
    several = save(np.stack([data, data], -1), oblique(), tmp_path / "5d.nii")
    assert command(several, tmp_path / "no.nii", sharp) == 2
    assert "5-D" in capsys.readouterr().err


def test_the_header_is_the_labels_but_for_the_grid(sharp: Path, tmp_path: Path) -> None:
    image = nib.Nifti1Image(PARTS, oblique())
    image.header.set_intent("label", (), "Desikan")
    image.header["descrip"] = b"by hand"
    image.header["cal_max"] = 9
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"7 is the thalamus"))
    nib.save(image, tmp_path / "in.nii.gz")
    assert command(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", sharp) == 0
    made, like = nib.load(tmp_path / "out.nii.gz"), nib.load(sharp)
    np.testing.assert_array_equal(made.affine, like.affine)
    for kind in ("sform", "qform"):
        (a, code), (b, other) = (getattr(i.header, f"get_{kind}")(coded=True) for i in (made, like))
        np.testing.assert_array_equal(a, b)
        assert code == other
    assert made.header.get_intent() == ("label", (), "Desikan")
    assert made.header["descrip"].item() == b"by hand"
    assert [e.get_content() for e in made.header.extensions] == [b"7 is the thalamus"]
    assert made.header.get_slope_inter() in ((None, None), (1, 0))


def test_slicers_segments_keep_their_names(tmp_path: Path) -> None:
    texts = {"Segment0_ID": "a", "Segment0_Extent": "2 9 3 8 0 4", "Segment0_LabelValue": "7"}
    labels = Volume(PARTS, oblique(), Kept({**texts, "Segmentation_ReferenceImageExtentOffset": "1 2 3"}))
    like = Volume(np.zeros((40, 50, 9), np.float32), oblique((0.5, 0.45, 1.7)))
    made, _ = resample.nearest(labels, like.grid)
    with io.writer(tmp_path / "out.seg.nrrd", 1, "uint8") as writer:
        writer.add(io.relabelled(tmp_path / "out.seg.nrrd", made, like))
    image = sitk.ReadImage(str(tmp_path / "out.seg.nrrd"))
    assert image.GetMetaData("Segment0_LabelValue") == "7"
    assert image.GetMetaData("Segment0_Extent") == "0 39 0 49 0 8"
    assert image.GetMetaData("Segmentation_ReferenceImageExtentOffset") == "0 0 0"


def test_what_upscale_refuses_goes_onto_its_result(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way that the refusal names, with a scan and the mask that was drawn on it; also onto DICOM."""
    labels, sharp = save(PARTS, oblique(), tmp_path / "lesion_mask.nii.gz"), tmp_path / "sharp.nii.gz"
    assert cli.run(["upscale", str(labels), str(tmp_path / "no.nii.gz")]) == 2
    assert "seran resample LABELS OUT --like SHARP" in capsys.readouterr().err
    assert cli.run(["upscale", str(scan), str(sharp), "--method", "bicubic"]) == 0
    out = tmp_path / "sharp_mask.nii.gz"
    assert command(labels, out, sharp) == 0
    assert "uint8) on the grid of sharp.nii.gz; none of them lies outside" in capsys.readouterr().out
    np.testing.assert_array_equal(nib.load(out).dataobj, PARTS.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(nib.load(out).affine, nib.load(sharp).affine)
    series(tmp_path / "in", DATA, oblique(), Modality="MR")
    on = save((DATA.mean() < DATA).astype(np.uint8), oblique(), tmp_path / "in_mask.nii")
    assert cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "dicom"), "--method", "bicubic"]) == 0
    assert command(on, tmp_path / "on.mha", tmp_path / "dicom") == 0
    made, where = load(tmp_path / "on.mha")
    np.testing.assert_allclose(where, io.read(tmp_path / "dicom").affine, atol=1e-4)
    assert made.sum() == 4 * (DATA.mean() < DATA).sum()


def test_a_scan_of_whole_numbers_is_taken_and_said(
    scan: Path, sharp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = save(phantom((26, 34, 5)).astype(np.int16), oblique(), tmp_path / "whole.nii")
    assert command(whole, tmp_path / "out.nii", sharp) == 0
    assert "WARN, whole.nii looks like a scan; to interpolate it: seran upscale" in capsys.readouterr().out
    many = (PARTS.astype(np.int32) * 1000 + (np.indices((26, 34, 5)) // 9).sum(0)).astype(np.int16)
    for data in (many, PARTS, 0 * PARTS, 0 * PARTS + 1):
        assert command(save(data, oblique(), tmp_path / "l.nii"), tmp_path / "o.nii", sharp, "--force") == 0
        assert "WARN" not in capsys.readouterr().out


def test_what_is_refused(sharp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, out = save(PARTS, oblique(), tmp_path / "in.nii.gz"), tmp_path / "out.nii.gz"

    def refused(source: Path, to: Path = out, like: Path = sharp, *more: str) -> str:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
        assert command(source, to, like, *more) == 2
        assert before == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
        [line] = capsys.readouterr().err.splitlines()
        return line

    fractions = save(PARTS / np.float32(255), oblique(), tmp_path / "probability.nii")
    assert re.search(r"expected labels, which are whole numbers, got 0\.\d", refused(fractions))
    assert "upscale IN OUT --like SHARP" in refused(fractions)
    for bad in (np.nan, np.inf):
        data = PARTS.astype(np.float32)
        data[3, 4, 2] = bad
        assert f"got {bad:g}" in refused(save(data, oblique(), tmp_path / "bad.nii"))
    image = nib.Nifti1Image(PARTS, oblique())
    image.header.set_slope_inter(100, 0)
    nib.save(image, tmp_path / "slope.nii")
    assert re.search(r"its slope 100 makes \d+ of a label of type uint8", refused(tmp_path / "slope.nii"))
    complex_ = nib.Nifti1Image(PARTS.astype(np.complex64), oblique())
    nib.save(complex_, tmp_path / "complex.nii")
    assert "complex" in refused(tmp_path / "complex.nii")
    series(tmp_path / "dicom", DATA, oblique(), Modality="MR")
    assert "labels are read from a file, not from DICOM" in refused(tmp_path / "dicom")
    assert "must end in .nii" in refused(labels, tmp_path / "folder")
    assert "no such file" in refused(labels, out, tmp_path / "none.nii")
    assert "no such file" in refused(tmp_path / "none.nii")
    assert "the output would replace the input" in refused(labels, labels, sharp, "--force")
    assert "the output would replace the input" in refused(labels, sharp, sharp, "--force")
    far = save(PARTS, shifted(oblique(), (900, 0, 0)), tmp_path / "far.nii")
    assert "does not meet" in refused(far)
    wide = save(PARTS.astype(np.uint16), oblique(), tmp_path / "wide.nii")
    said = refused(wide, tmp_path / "out.mgz")
    assert f"{tmp_path / 'out.mgz'}: MGH has voxels of uint8, int16, int32, float32, not uint16" in said
    assert command(labels, out, sharp) == 0
    capsys.readouterr()
    assert "--force" in refused(labels)
    assert command(labels, out, sharp, "--force") == 0
    assert cli.run(["resample", str(labels), str(out)]) == 2
    assert "resample needs --like" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["sform", "qform"])
def test_transforms_that_disagree_are_chosen_of(
    choice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of LABELS; the other image has one transform, and keeps it."""
    places = {"sform": oblique(), "qform": shifted(oblique(), (4, -3, 1))}
    image = nib.Nifti1Image(PARTS, None)
    image.set_sform(places["sform"], 1)
    image.set_qform(places["qform"], 1)
    nib.save(image, tmp_path / "in.nii")
    only = nib.Nifti1Image(np.zeros((40, 50, 9), np.float32), None)
    only.set_sform(oblique((0.5, 0.45, 1.7)), 1)
    only.set_qform(None, 0)
    nib.save(only, tmp_path / "like.nii")
    assert command(tmp_path / "in.nii", tmp_path / "out.nii", tmp_path / "like.nii") == 2
    assert "say which is right with --affine sform or --affine qform" in capsys.readouterr().err
    words = ["--affine", choice]
    assert command(tmp_path / "in.nii", tmp_path / "out.nii", tmp_path / "like.nii", *words) == 0
    target = Grid((40, 50, 9), oblique((0.5, 0.45, 1.7)))
    expected = by_itk(PARTS, places[choice], target)
    made = np.asanyarray(nib.load(tmp_path / "out.nii").dataobj)
    assert np.count_nonzero(made != expected) <= 0.02 * made.size
    assert (made == expected)[expected > 0].mean() > 0.95


def test_a_result_of_upscale_is_not_replaced(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sharp = tmp_path / "sharp.nii.gz"
    assert cli.run(["upscale", str(scan), str(sharp), "--method", "bicubic"]) == 0
    record = json.loads((tmp_path / "sharp.json").read_text())
    labels = save(PARTS, oblique(), tmp_path / "in.nii")
    with pytest.raises(BadInput, match="would replace a result of seran's"):
        transfer.run(labels, sharp, scan, force=True)
    assert json.loads((tmp_path / "sharp.json").read_text()) == record


@pytest.mark.slow
def test_a_mask_of_a_real_scan_covers_it_on_its_result(shared: Path, tmp_path: Path) -> None:
    """What is bright in a scan and what is bright in its result overlap as well as sharpening lets them."""
    from seran.data.sources import find

    source = next(s for s in find(shared) if s.split == "test")
    volume = io.read(source.path, "either")
    mask = (volume.data > np.percentile(volume.data, 90)).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, volume.affine), tmp_path / "bright_mask.nii.gz")
    nib.save(nib.Nifti1Image(volume.data, volume.affine), tmp_path / "scan.nii.gz")
    sharp = tmp_path / "sharp.nii.gz"
    assert cli.run(["upscale", str(tmp_path / "scan.nii.gz"), str(sharp), "--method", "zerofill"]) == 0
    assert command(tmp_path / "bright_mask.nii.gz", tmp_path / "out.nii.gz", sharp) == 0
    made = np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj) > 0
    bright = nib.load(sharp).get_fdata() > np.percentile(volume.data, 90)
    assert 2 * (made & bright).sum() / (made.sum() + bright.sum()) > 0.9
