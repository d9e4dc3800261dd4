"""Any target grid: positions, exactness, what is refused."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import affines
from nibabel.eulerangles import euler2mat

from seran import cli, grid, io, resample
from seran.errors import BadInput
from seran.grid import Grid
from seran.resize import imresize
from seran.volume import Volume
from tests.conftest import oblique, phantom, shifted
from tests.test_dicom import series
from tests.test_formats import blob, centroid, save


@pytest.mark.parametrize("scale", [1.3, 2, 2.6, 4])
def test_the_grid_has_exactly_the_spacing_about_the_same_centre(scale: float) -> None:
    affine, shape = oblique(), (26, 35, 7)
    spacing = 0.9 / scale, 0.8 / scale
    found = resample.finer(Grid(shape, affine), 2, spacing)
    made, size = found.affine, found.shape
    np.testing.assert_allclose(grid.spacing(made), [*spacing, 3.3])
    assert size[:2] == (round(26 * scale), round(35 * scale))
    middle = [a[:3, :3] @ ((np.array(n) - 1) / 2) + a[:3, 3] for a, n in ((affine, shape), (made, size))]
    np.testing.assert_allclose(*middle, atol=1e-9)


def test_a_coarser_grid_is_matlabs() -> None:
    """Halved in the plane about the corner: antialiased, every weight as imresize has it."""
    data = phantom((26, 34, 5))
    volume = Volume(data, oblique())
    made = resample.onto(volume, Grid((13, 17, 5), grid.rescale(oblique(), (0.5, 0.5, 1), "corner")))
    expected = np.moveaxis(imresize(np.moveaxis(data, 2, 0), (13, 17)), 0, 2)
    np.testing.assert_allclose(made.data, np.maximum(expected, 0), atol=1e-2)


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_there_is_nothing_negative_where_the_scan_has_nothing_negative(turn: float) -> None:
    """The kernels undershoot beside an edge; of a scan with negative voxels that is kept."""
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    volume = Volume(phantom((26, 34, 5)), oblique())
    finer = resample.finer(volume.grid, 2, (0.5, 0.5))
    target = Grid(finer.shape, turned @ finer.affine)
    assert resample.onto(volume, target).data.min() == 0
    signed = volume.on(volume.data - 100, volume.affine)
    assert resample.onto(signed, target).data.min() < -100


def test_its_own_grid_changes_nothing() -> None:
    volume = Volume(phantom((26, 34, 5)), oblique())
    np.testing.assert_array_equal(resample.onto(volume, volume.grid).data, volume.data)


@pytest.mark.parametrize("turn", ["none", "axes", "oblique"])
def test_a_blob_keeps_its_millimetres(turn: str) -> None:
    """On a shifted, coarser or finer grid; with axes exchanged and mirrored; turned by some degrees."""
    source = Volume(blob((30, 34, 24)), oblique((0.5, 0.45, 0.6)))
    target, shape = shifted(oblique((0.41, 0.62, 0.5)), (3.3, 1.2, 2.4)), (30, 20, 24)
    if turn == "axes":
        swapped = np.array([[0, -1, 0, 29], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
        target, shape = target @ swapped, (24, 30, 20)
    elif turn == "oblique":
        small = np.eye(4)
        small[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
        target = target @ small
    made = resample.onto(source, Grid(shape, target))
    assert made.data.shape == shape
    np.testing.assert_allclose(centroid(made.data, target), centroid(source.data, source.affine), atol=0.03)


def test_outside_the_scan_there_is_nothing() -> None:
    source = Volume(np.full((20, 22, 9), 50, np.float32), oblique())
    made = resample.onto(source, Grid((20, 22, 9), shifted(oblique(), (-5, 0, 0)))).data
    assert (made[:5] == 0).all()
    np.testing.assert_allclose(made[5:], 50, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "shape", "spacing"),
    [
        (("--scale", "2.6"), (68, 88, 5), (0.9 / 2.6, 0.8 / 2.6, 3.3)),
        (("--spacing", "0.5"), (47, 54, 5), (0.5, 0.5, 3.3)),
        (("--scale", "3"), (78, 102, 5), (0.3, 0.8 / 3, 3.3)),
    ],
)
def test_the_command(
    scan: Path, tmp_path: Path, options: tuple[str, str], shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    out = tmp_path / "out.nii.gz"
    assert cli.run(["upscale", str(scan), str(out), *options]) == 0
    made, before = io.read(out), io.read(scan)
    assert made.data.shape == shape
    np.testing.assert_allclose(grid.spacing(made.affine), spacing, rtol=1e-5)
    np.testing.assert_allclose(
        centroid(made.data, made.affine), centroid(before.data, before.affine), atol=0.1
    )


def test_like_another_image(scan: Path, tmp_path: Path) -> None:
    """Its shape and affine, to the last digit that it stores; the voxels lie where they did."""
    reference = nib.Nifti1Image(
        np.zeros((40, 50, 9), np.int16), shifted(oblique((0.5, 0.55, 1.7)), (3, 4, 1))
    )
    nib.save(reference, tmp_path / "ref.nii.gz")
    out = tmp_path / "out.nii.gz"
    assert (
        cli.run(["upscale", str(scan), str(out), "--like", str(tmp_path / "ref.nii.gz"), "--strict", "off"])
        == 0
    )
    made = nib.load(out)
    assert made.shape == (40, 50, 9)
    np.testing.assert_allclose(made.affine, nib.load(tmp_path / "ref.nii.gz").affine, atol=1e-5)


def test_what_is_outside_is_refused_with_the_reason() -> None:
    scan = Grid((26, 34, 5), oblique())
    cases = {
        (0.2, 0.2): "--spacing: 4.5 and 4 times as fine as the scan .* must be 1 or more and at most 4",
        (0.95, 0.5): "0.947368 and 1.6 times",
        (0.9, 0.9): "1 and 0.888889 times",
    }
    for spacing, reason in cases.items():
        target = resample.finer(scan, 2, spacing)
        with pytest.raises(BadInput, match=reason):
            resample.factor(scan, 2, target, "--spacing")
    for scale, factor in ((1, 1), (1.1, 2), (2, 2), (2.01, 3), (4, 4)):
        target = resample.finer(scan, 2, (0.9 / scale, 0.8 / scale))
        assert resample.factor(scan, 2, target, "--scale") == factor


def test_a_turned_grid_is_made_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Volume(blob((30, 34, 24)), oblique((0.5, 0.45, 0.6)))
    target = oblique((0.41, 0.62, 0.5)) @ affines.from_matvec(euler2mat(0.1, 0.2), [-1, 2, 3])
    wanted = Grid((30, 20, 24), target)
    whole = resample.onto(source, wanted).data
    monkeypatch.setattr(resample.scratch, "PART", 4 * 1500)
    np.testing.assert_allclose(resample.onto(source, wanted).data, whole, atol=1e-3)
    assert whole.max() > 500


@pytest.mark.parametrize("end", [".nii", ".mgz", ".nrrd", ".mha", "dicom", "labels"])
@pytest.mark.parametrize("turned", [False, True])
def test_like_any_format_whatever_its_field_of_view_and_directions(
    scan: Path, tmp_path: Path, end: str, turned: bool
) -> None:
    """A larger, turned or mirrored field of view; a segmentation's grid; the voxels lie where they did."""
    affine = shifted(oblique((0.5, 0.55, 1.7)), (-6, -5, -2))
    if turned:
        turn, centre = euler2mat(0.3, 0.1), affines.apply_affine(affine, [30, 32, 7])
        affine = affines.from_matvec(turn, centre - turn @ centre) @ affine
    data = np.zeros((60, 64, 14), np.int16)
    data[20:30, 20:30] = 1
    reference = tmp_path / f"ref{end}"
    if end == "dicom":
        series(reference, data, affine, Modality="MR", SeriesNumber=1)
    else:
        reference = save(data, affine, tmp_path / ("ref_dseg.nii" if end == "labels" else f"ref{end}"))
    out = tmp_path / "out.nii.gz"
    command = ["upscale", str(scan), str(out), "--method", "bicubic", "--like", str(reference)]
    assert cli.run([*command, "--strict", "off"]) == 0
    made, before = io.read(out), io.read(scan)
    assert made.data.shape == (60, 64, 14)
    np.testing.assert_allclose(made.affine, affine, atol=1e-4)
    soft = np.abs(centroid(made.data, made.affine) - centroid(before.data, before.affine))
    assert soft.max() < 0.35


def test_like_a_coarse_grid_or_one_elsewhere_is_refused(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.nii"
    command = ["upscale", str(scan), str(out), "--method", "bicubic", "--like"]
    coarse = save(np.zeros((9, 9, 5), np.int16), oblique((1.5, 1.5, 3.3)), tmp_path / "coarse.nii")
    assert cli.run([*command, str(coarse)]) == 2
    assert "0.6 and 0.533333 times" in capsys.readouterr().err
    for moved, said in ((900, "does not meet the scan"), (51.3, r"shares [01]\.\d% with the scan")):
        other = shifted(oblique((0.45, 0.4, 3.3)), (moved, 0, 0))  # of its 52 voxels
        far = save(np.zeros((52, 68, 5), np.int16), other, tmp_path / "far.nii")
        assert cli.run([*command, str(far)]) == 2
        assert re.search(f"--like .*far.nii: its field of view {said}", capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--spacing", "--isotropic"])
@pytest.mark.parametrize("mm", ["1e-30", "1e-320", "1e30"])
def test_a_spacing_beyond_counting_is_refused(
    option: str, mm: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["upscale", str(scan), str(tmp_path / "out.nii"), option, mm]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"seran: {option}")


@pytest.mark.parametrize("option", ["--like", "--spacing"])
def test_a_grid_as_coarse_as_the_scan(
    option: str, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said of what asks for it; weights that keep the grid do it."""
    value = "0.8" if option == "--spacing" else str(save(phantom((26, 34, 5)), oblique(), tmp_path / "a.nii"))
    if option == "--spacing":  # of square pixels
        scan = save(phantom((26, 34, 5)), oblique((0.8, 0.8, 3.3)), tmp_path / "square.nii")
    command = ["upscale", str(scan), str(tmp_path / "out.nii"), option, value]
    assert cli.run([*command, "--method", "bicubic"]) == 2
    told = capsys.readouterr().err
    assert f"{option} {value}: is as coarse as the scan in the plane of its slices, and bicubic only" in told
    assert cli.run(command) == 0


@pytest.mark.parametrize(
    ("slices", "moved", "part"), [(5, (26, 0, 0), 0.5), (60, (0, 0, -40), 11 / 12), (5, (2, 0, 0), 1 / 26)]
)
def test_what_lies_outside_the_scan_is_told(
    slices: int, moved: tuple[int, int, int], part: float, scan: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Half of the result; most of it, around a slab, which is no mistake; a little is not told."""
    other, out = shifted(grid.rescale(oblique(), (2, 2, 1), "corner"), moved), tmp_path / "out.nii"
    like = save(np.zeros((52, 68, slices), np.int16), other, tmp_path / "other.nii")
    source = nib.load(scan)
    nib.save(nib.Nifti1Image(source.get_fdata() + 100, source.affine), scan)
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic", "--like", str(like)]) == 0
    told, stated = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    assert (f"; {stated['Outside']:.0%} of the result is outside the scan, and 0" in told) == (part > 0.1)
    assert stated["Outside"] == pytest.approx(part, abs=0.002)
    assert (io.read(out).data == 0).mean() == pytest.approx(part, abs=1e-6)


def test_like_a_sheared_grid(scan: Path, tmp_path: Path) -> None:
    """It goes to the sform; the qform, which holds no shears, is taken back: the result can be read again."""
    sheared = oblique((0.5, 0.55, 1.7)) @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.zeros((40, 50, 9), np.int16), None)
    image.set_sform(sheared, 1)
    nib.save(image, tmp_path / "ref.nii")
    for s, q in ((2, 1), (0, 1)):
        source = nib.load(scan)
        source.set_sform(oblique(), s)
        source.set_qform(oblique(), q)
        nib.save(source, tmp_path / "in.nii")
        command = ["upscale", str(tmp_path / "in.nii"), str(tmp_path / "out.nii"), "--method", "bicubic"]
        assert cli.run([*command, "--like", str(tmp_path / "ref.nii"), "--force", "--strict", "off"]) == 0
        np.testing.assert_allclose(io.read(tmp_path / "out.nii").affine, sheared, atol=1e-4)
