"""Half-widths: on the grid, in the units and at the places of the result; what is stated of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import seran
from seran import cli, methods, uncertainty, weights
from seran.errors import BadInput
from seran.job import record
from seran.sharpen import Normalisation
from seran.uncertainty import BANDS, Calibration, Widths, added, expected, falling, given, stated
from seran.weights import Evidence
from tests.conftest import oblique, phantom
from tests.test_engines import alone

NATIVE = weights.shipped()["seran-native"]


def noisy(shape: tuple[int, ...], sd: float = 12.0) -> np.ndarray:
    """A made scan with the noise of a magnitude image."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, sd, (2, *shape))
    return np.hypot(phantom(shape) + a, b).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> seran.Scan:
    """A result with its half-widths, oblique and not a cube."""
    made = seran.upscale((noisy((40, 52, 6)), oblique()), uncertainty=True)
    assert set(made.maps) == {"uncertainty"}
    return made


def test_they_lie_on_the_grid_of_the_result_and_are_not_negative(known: seran.Scan) -> None:
    half = known.maps["uncertainty"]
    assert half.data.shape == known.data.shape == (80, 104, 6)
    np.testing.assert_array_equal(half.affine, known.affine)
    assert half.data.min() >= 0
    assert np.isfinite(half.data).all()


@pytest.mark.slow
def test_they_are_in_the_units_of_the_scan() -> None:
    """Seven times the intensities, seven times the half-widths; an offset does not change them."""
    data = noisy((40, 52, 6))
    one = seran.upscale((data, oblique()), uncertainty=True).maps["uncertainty"].data
    seven = seran.upscale((7 * data, oblique()), uncertainty=True).maps["uncertainty"].data
    np.testing.assert_allclose(seven, 7 * one, rtol=0.02)


def test_they_are_wider_at_edges_than_in_flat_tissue_and_grow_with_noise(known: seran.Scan) -> None:
    half, image = (np.moveaxis(x, 2, 0) for x in (known.maps["uncertainty"].data, known.data))
    steep = np.hypot(*np.gradient(image, axis=(1, 2)))
    tissue = image > 0.3 * image.max()
    edges, flat = (steep[tissue] > np.quantile(steep[tissue], q) for q in (0.9, 0.5))
    assert half[tissue][edges].mean() > 1.3 * half[tissue][~flat].mean()
    more = seran.upscale((noisy((40, 52, 6), 40.0), oblique()), uncertainty=True)
    assert known.record is not None
    assert more.record is not None
    assert more.record.half_width > 1.3 * known.record.half_width
    assert more.record.psnr_bound < known.record.psnr_bound


@pytest.mark.slow
@pytest.mark.parametrize("axis", [1, 2])
def test_they_turn_with_the_scan(known: seran.Scan, axis: int) -> None:
    """A mirrored scan has mirrored half-widths, about its voxel centres: a half-voxel error would show."""
    data = np.flip(noisy((40, 52, 6)), axis - 1)
    turned = seran.upscale((data, oblique()), uncertainty=True).maps["uncertainty"].data
    there = np.flip(turned, axis - 1)
    one = [slice(None, -1) if i == axis - 1 else slice(None) for i in range(3)]
    other = [slice(1, None) if i == axis - 1 else slice(None) for i in range(3)]
    kept = known.maps["uncertainty"].data  # fine voxel j of n mirrors n - 2 - j at x2
    off = [there[tuple(other)] - kept[tuple(one)], there - kept, there[tuple(one)] - kept[tuple(other)]]
    right, wrong, worse = (np.abs(x).mean() for x in off)
    assert right < 0.9 * wrong < 0.7 * worse


def test_a_constant_background_is_exact() -> None:
    data = noisy((48, 52, 6))
    data[:14] = data[-12:] = data[:, :13] = 0
    made = seran.upscale((data, oblique()), uncertainty=True)
    assert made.record is not None
    assert made.record.background == 0
    half = made.maps["uncertainty"].data
    assert half[:26].max() == half[-22:].max() == half[:, :24].max() == 0
    assert (half[30:70, 30:] > 0).mean() > 0.99


@pytest.mark.slow
def test_slices_that_become_thin_have_them_too() -> None:
    """They are wider between the middles of thick slices than in these."""
    data = noisy((40, 52, 9))
    affine = oblique((1.0, 1.0, 4.0))
    made = seran.upscale((data, affine), isotropic=True, uncertainty=True)
    half = made.maps["uncertainty"].data
    assert half.shape == made.data.shape == (40, 52, 36)
    assert half.min() >= 0
    tissue = made.data > 0.3 * made.data.max()
    place = np.arange(36) % 4
    mean = [half[:, :, place == i][tissue[:, :, place == i]].mean() for i in range(4)]
    assert min(mean[0], mean[3]) > max(mean[1], mean[2])


@pytest.mark.slow
def test_files_records_and_resume(scan: Path, tmp_path: Path) -> None:
    out, beside = tmp_path / "a.nii.gz", tmp_path / "a_uncertainty.nii.gz"
    words = ["upscale", str(scan), str(out), "--uncertainty", "--maps", "--strict", "off"]
    assert cli.run(words) == 0
    made = record.read(out)
    assert made is not None
    assert made.maps == ("uncertainty", "estimated")
    assert made.half_width is not None
    assert made.calibrated_on >= 10
    found = {check.name: check for check in made.checks}["uncertainty"]
    assert found.value == made.half_width
    assert "PSNR" in found.text
    half = nib.load(beside).get_fdata()
    assert half.shape == nib.load(out).shape
    inside = (
        nib.load(out).get_fdata() > uncertainty.TISSUE * Normalisation.of(nib.load(scan).get_fdata()).gain
    )
    gain = Normalisation.of(nib.load(scan).get_fdata()).gain
    assert half[inside].mean() / gain == pytest.approx(made.half_width, rel=0.02)
    stamp = beside.stat().st_mtime_ns
    assert cli.run([*words, "--resume"]) == 0
    assert beside.stat().st_mtime_ns == stamp
    plain = tmp_path / "b.nii.gz"
    assert cli.run(["upscale", str(scan), str(plain), "--strict", "off"]) == 0
    assert not (tmp_path / "b_uncertainty.nii.gz").exists()
    other = record.read(plain)
    assert other is not None
    assert other.half_width is None
    assert "uncertainty" not in {check.name for check in other.checks}
    np.testing.assert_array_equal(nib.load(plain).get_fdata(), nib.load(out).get_fdata())


@pytest.mark.slow
def test_what_took_the_place_of_a_map_is_not_removed(scan: Path, tmp_path: Path) -> None:
    """A new result without maps takes the former ones away, and no file that its record does not know."""
    out, beside = tmp_path / "a.nii.gz", tmp_path / "a_uncertainty.nii.gz"
    words = ["upscale", str(scan), str(out), "--strict", "off"]
    assert cli.run([*words, "--uncertainty"]) == 0
    own, mine = beside.read_bytes(), scan.read_bytes()
    beside.write_bytes(mine)
    assert cli.run([*words, "--resume"]) == 0
    assert beside.read_bytes() == mine
    beside.unlink()
    assert cli.run([*words, "--force", "--uncertainty"]) == 0
    assert beside.read_bytes() == own
    assert cli.run([*words, "--force"]) == 0
    assert not beside.exists()


@pytest.mark.slow
def test_the_name_of_a_scan_is_in_the_key(tmp_path: Path) -> None:
    """It decides what half-widths are calibrated for: a scan that was renamed is done again."""
    out = tmp_path / "a.nii.gz"
    for name, contrast in (("s_T1w.nii.gz", "T1"), ("s_T2w.nii.gz", "other")):
        nib.save(nib.Nifti1Image(noisy((40, 52, 6)), oblique()), tmp_path / name)
        words = ["upscale", str(tmp_path / name), str(out), "--uncertainty", "--resume", "--strict", "off"]
        assert cli.run(words) == 0
        made = record.read(out)
        assert made is not None
        assert made.calibrated_for == contrast


@pytest.mark.parametrize(
    "more",
    [
        {"method": "bicubic"},
        {"weights": "seran-x2-bd", "scanner": seran.Scanner("bicubic")},
        {"isotropic": 0.5},
    ],
)
def test_what_is_not_calibrated_is_refused(more: dict) -> None:
    affine = oblique((1.0, 1.0, 3.0))
    with pytest.raises(BadInput, match="--uncertainty: half-widths are calibrated for the shipped native"):
        seran.upscale((noisy((40, 52, 9)), affine), uncertainty=True, **more)


@pytest.mark.slow
def test_weights_of_ones_own_are_not_taken_for_those_of_the_calibration(tmp_path: Path) -> None:
    """Half-widths belong to the digest of the weights, whatever their file is called."""
    held = weights.read(NATIVE)
    assert methods.widths("seran-native.onnx", held.digest) is not None
    assert methods.widths("seran-native.onnx", "0" * 64) is None
    assert methods.widths("other.onnx", held.digest) is None
    evidence = Evidence(held.evidence.spacings)
    own = tmp_path / "own.onnx"
    own.write_bytes(weights.with_evidence(held.data, evidence))
    assert seran.upscale((noisy((40, 52, 6)), oblique()), weights=own).record is not None
    with pytest.raises(BadInput, match="--uncertainty: half-widths are calibrated for the shipped"):
        seran.upscale((noisy((40, 52, 6)), oblique()), weights=own, uncertainty=True)


def test_the_spectrum_tells_a_sharp_scan_from_a_smooth_one() -> None:
    """Each slice for itself; across, only along the rows; of nothing, nothing."""
    from scipy import ndimage

    sharp = np.random.default_rng(0).random((3, 64, 70)).astype(np.float32)
    soft = ndimage.gaussian_filter(sharp, (0, 1.5, 0))
    for times, most in (({1: 2.0, 2: 2.0}, 1.0), ({1: 2.0}, 2.0)):
        a, b = falling(sharp, times), falling(soft, times)
        assert a.shape == (3, len(BANDS) - 1)
        assert (b[:, 1] < a[:, 1] - 0.1).all()
        assert np.abs(a).max() < most
        np.testing.assert_allclose(falling(sharp[1:2], times), a[1:2], rtol=1e-5)
        assert added(soft, times) < added(sharp, times)
    np.testing.assert_array_equal(falling(np.zeros((2, 8, 9), np.float32), {1: 3.0, 2: 3.0}), 0)
    assert falling(sharp.swapaxes(1, 2), {1: 2.0})[0, 0] != falling(sharp, {1: 2.0})[0, 0]


def test_the_small_network_is_given_what_it_is_said_to_be() -> None:
    high, rows = np.ones((2, 8, 10), np.float32), np.arange(40, dtype=np.float32).reshape(5, 8)
    made = given(high, rows, "k4")
    assert made.shape == (2, 1 + 5 + len(BANDS) - 1, 8, 10)
    np.testing.assert_array_equal(made[1, 1:6, :, 3], rows)
    np.testing.assert_array_equal(given(high, rows[:, 0], "x2")[0, 1:6, 4, 4], rows[:, 0])


def test_the_factor_scales_half_widths() -> None:
    widths = Widths(
        lambda x: np.zeros((len(x), *x.shape[2:]), np.float32),
        {"x2 other": Calibration(1.7, 0, 0, 9), "x2 T1": Calibration(1.2, 0, 0, 9)},
    )
    flat = np.ones((1, 8, 8), np.float32), np.zeros(5, np.float32), "x2"
    made = widths.logarithm(*flat)
    np.testing.assert_allclose(np.exp(made), 1.7, rtol=1e-6)
    made = replace(widths, contrast="T1").logarithm(*flat)
    np.testing.assert_allclose(np.exp(made), 1.2, rtol=1e-6)


def test_what_is_stated_of_a_result() -> None:
    """In tissue alone: mean half-width, and a PSNR as if it were the error and the margin above it."""
    image = np.zeros((2, 4, 5), np.float32)
    image[:, 1:3] = 60.0
    half = np.where(image > 0, 4.0, 900.0).astype(np.float32)
    width, psnr = expected(image, half, 0.0, 100.0) or (0, 0)
    assert width == pytest.approx(0.04)
    assert psnr == pytest.approx(-20 * math.log10(0.04))
    facts = stated(image, half, 0.0, 100.0, Calibration(1.0, 2.5, 0.08, 20.0), "T1")
    assert facts == {
        "half_width": 0.04,
        "half_width_most": 0.08,
        "psnr_bound": pytest.approx(psnr + 2.5, abs=1e-4),
        "calibrated_on": 20,
        "calibrated_for": "T1",
    }
    assert stated(0 * image, half, 0.0, 100.0, Calibration(1, 0, 0, 1), "T1") is None


@pytest.mark.parametrize("name", ["seran-native", "seran-isotropic"])
def test_every_ending_is_calibrated(name: str) -> None:
    held = weights.read(weights.shipped()[name])
    found = methods.widths(f"{name}.onnx", held.digest)
    assert found is not None
    letter = "x" if name == "seran-native" else "k"
    assert set(found.calibrated) == {
        f"{letter}{k} {c}" for k in weights.scales(held) for c in ("T1", "other")
    }
    for one in found.calibrated.values():
        assert 0.3 < one.factor < 3
        assert one.subjects >= 10
        assert 0.01 < one.most < 0.3


@pytest.mark.slow
def test_the_risk_is_controlled() -> None:
    """Conformal risk control by hand, with subjects whose errors are known multiples of the half-widths."""
    code = (
        "import json; from uncertainty import Kept, LEVELS, WORST, calibration, controlled\n"
        "ratios = [(LEVELS * (1 + i / 19)).tolist() for i in range(20)]\n"
        "scans = [Kept(f's{i}', 'T1', 'x2', r, 0.05, 3.0 + i) for i, r in enumerate(ratios)]\n"
        "f, made = controlled(scans), calibration(scans)\n"
        "losses = [min(WORST, s.missed(f)) for s in scans]\n"
        "print(json.dumps([f, (sum(losses) + WORST) / 21, made.psnr, made.subjects]))"
    )
    paper = Path(__file__).parents[1] / "paper"
    factor, risk, psnr, subjects = json.loads(alone(code, PYTHONPATH=str(paper)).splitlines()[-1])
    assert risk <= 0.1 < risk + 0.002
    due = 1 / (1 + np.arange(20) / 19)
    assert np.mean(1 - np.minimum(1, factor * due)) == pytest.approx(0.09, abs=0.005)
    # the second least of 20 gaps, of half-widths times the factor: 19 of 21 subjects exceed it
    assert psnr == pytest.approx(4.0 + 20 * math.log10(factor), abs=0.01)
    assert subjects == 20
