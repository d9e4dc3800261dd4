"""Data consistency: what leaves the scan by more than its noise is brought back, and nothing else changes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import seran
from seran import cli, consistency, grid, kspace, resize
from seran.acquisition import Acquisition, Window
from seran.consistency import Operator
from seran.degrade import Bicubic, Truncation
from seran.engines import Engine
from seran.job import record
from seran.job.options import Options, Scanner
from seran.job.steps import Steps
from seran.profiles import Profile, selection
from seran.quality import checks
from seran.quality.provenance import Acquired, Provenance, estimated
from seran.resize import imresize
from seran.sharpen import Method
from seran.volume import Volume
from tests.conftest import oblique, phantom, taken

OPERATORS = {
    "zeros": Acquisition((20, 24), given=(26, 30)),
    "hamming": Acquisition((26, 30), Window("hamming", 0.4)),
    "bd": Bicubic((2, 2)),
    "td": Truncation((2, 2)),
}
operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def slices(operator: Operator, sd: float) -> tuple[np.ndarray, np.ndarray]:
    """A truth on the finer grid, and what an acquisition with noise makes of it."""
    high = phantom((3, 52, 60))[1] + 20
    image = operator.linear(high)
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=sd or 1e-9, size=(2, *image.shape))
    if isinstance(operator, Acquisition):  # the scanner filters noise as it does the signal
        noise = kspace.image(
            kspace.spectrum(noise) * np.sqrt(consistency._colour(operator, image.shape))
        ).real
    return high, np.abs(image + noise[0] + 1j * noise[1]).astype(np.float32)


def chi2(high: np.ndarray, low: np.ndarray, operator: Operator, sd: float) -> float:
    return float(np.square(low - consistency.seen(operator, high, True)).mean() / sd**2)


@pytest.mark.parametrize("shape", [(18, 20), (26, 31), (12, 40)])
@pytest.mark.parametrize(
    "window", [Window(), Window("hamming", 0.46), Window("fermi", 0.9, 0.06, elliptical=True)], ids=str
)
def test_resampling_averages_noise(window: Window, shape: tuple[int, int]) -> None:
    """The less, the more of k-space it leaves out already."""
    scanner, rng = Acquisition((30, 36), window, given=(34, 44)), np.random.default_rng(0)
    block = rng.normal(size=(300, 30, 36)) + 1j * rng.normal(size=(300, 30, 36))
    noise = kspace.image(kspace.fitted(block * scanner.filter, (34, 44))).real
    left = imresize(noise, shape).std() / noise.std()
    assert consistency.averaged(scanner, shape) == pytest.approx(left, rel=0.01)


@operators
def test_what_keeps_to_the_scan_is_left_alone(operator: Operator) -> None:
    high, low = slices(operator, 10.0)
    assert consistency.projected(high, low, operator, 10.5) is high


@operators
def test_what_leaves_the_scan_is_brought_back_to_its_noise(operator: Operator) -> None:
    """A wrong brightness and a wrong edge go; the noise that the network took out does not come back."""
    high, low = slices(operator, 10.0)
    wrong = np.maximum(high * 1.1 + 40 * (np.arange(60) > 30), 0).astype(np.float32)
    assert chi2(wrong, low, operator, 10.0) > 10
    made = consistency.projected(wrong, low, operator, 10.0)
    assert chi2(made, low, operator, 10.0) < 1.1
    assert made.min() >= 0
    assert made.dtype == np.float32
    off, was = (np.square(x - high).mean() for x in (made, wrong))
    assert off < 0.2 * was
    exact = consistency.projected(wrong, low, operator, 0.0)
    assert np.square(exact - high).mean() > off  # with all of the noise
    assert chi2(exact, low, operator, 10.0) < 0.1


def test_a_background_stays_and_is_not_compared() -> None:
    operator = OPERATORS["hamming"]
    high, low = slices(operator, 5.0)
    low[:, :8], high[:, :16] = 0, 0
    wrong = (high * 1.2).astype(np.float32)
    made = consistency.projected(wrong, low, operator, 5.0, empty=0.0)
    assert (made[wrong == 0] == 0).all()
    assert np.abs(made - high)[:, 20:].mean() < 0.5 * np.abs(wrong - high)[:, 20:].mean()


def test_intensities_below_zero_are_no_magnitude() -> None:
    """The same in units in which 0 lies elsewhere, and where the scan is below it."""
    operator = OPERATORS["td"]
    high, low = slices(operator, 5.0)
    wrong = (high * 1.1).astype(np.float32)
    made = consistency.projected(wrong, low, operator, 5.0)
    moved = consistency.projected(wrong - 300, low - 300, operator, 5.0, zero=-300.0)
    np.testing.assert_allclose(moved + 300, made, atol=1e-2)
    signed = consistency.projected(wrong - 300, low - 300, operator, 5.0, magnitude=False)
    assert signed.min() < -200
    assert chi2(signed + 300, low, operator, 5.0) < 1.3


@pytest.mark.parametrize("sd", [0.0, 8.0])
@pytest.mark.parametrize("k", [2, 4.4])
def test_thin_slices_are_seen_as_the_thick_ones_are(k: float, sd: float) -> None:
    truth = phantom((44, 12, 14)) + 20
    profile = Profile("slr", 0.9)
    see = selection(44, k, profile)
    thick = resize.along(truth, 0, see) + np.random.default_rng(0).normal(scale=sd, size=(len(see), 12, 14))
    thick = np.maximum(thick, 0).astype(np.float32)
    thin = (truth * 1.15).astype(np.float32)
    thin[:, :, :3] = thick[:, :, :3] = 7  # a constant background
    was = np.abs(thin - truth)[:, :, 3:].mean()
    changed = consistency.project_across(thin, thick, profile, sd, empty=7.0)
    assert changed >= len(see) - 1
    left = (resize.along(thin, 0, see) - thick)[:, :, 3 + consistency.MARGIN :]
    assert np.square(left).mean() <= max(1.1 * sd**2, 2.0)
    assert np.abs(thin - truth)[:, :, 3:].mean() < 0.75 * was
    assert (thin[:, :, :3] == 7).all()
    assert consistency.project_across(thin, thick, profile, max(1.2 * sd, 3.0), empty=7.0) == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("across", [None, Profile("gaussian", 1.1)])
def test_what_is_estimated_is_what_the_scan_cannot_see(axis: int, across: Profile | None) -> None:
    """The result without it looks the same to the scanner; of what was measured alone there is none."""
    shape = np.insert([26, 30], axis, 6).tolist()
    factors = np.insert([2, 2], axis, 1 if across is None else 3)
    before = Volume(phantom(tuple(shape)), oblique())
    due = grid.rescale(before.affine, tuple(factors.astype(float).tolist()), "center")
    if across is not None:
        due = grid.with_counts(before.grid, factors * shape).affine
    after = Volume(phantom(tuple((factors * shape).tolist()), seed=1), due)
    known = Acquired((0.731, 0.767), Window(), 0.01, None, True, False)
    made = Provenance((2, 2), axis, "td", across is not None, True, known, across)
    found = estimated(before, after, made).data
    stack, rest = (np.moveaxis(x, axis, 0) for x in (after.data, after.data - found))
    if across is not None:
        see = selection(18, 3, across)
        stack, rest = (resize.along(x, 0, see) for x in (stack, rest))
    band = (19, 23)
    np.testing.assert_allclose(kspace.crop(rest - 1, band), kspace.crop(stack - 1, band), atol=0.5)
    assert found.std() > 1
    again = estimated(before, after.on(after.data - found, after.affine), made).data
    assert np.abs(again).max() < 0.05 * np.abs(found).max()


@pytest.mark.parametrize("m", [36, 39])
def test_flat_tissue_and_slow_changes_are_no_added_detail_of_thin_slices(m: int) -> None:
    """An edge across the slices is: sharper than any that they could tell from a smooth one."""
    scan = grid.Grid((10, 12, 9), oblique())
    due = grid.with_counts(scan, np.array([10, 12, m]))
    known = Acquired((1.0, 1.0), Window(), 0.01, None, True, False)
    made = Provenance((1, 1), 2, "td", True, True, known, Profile("slr", 0.83))
    before = Volume(np.zeros(scan.shape, np.float32), scan.affine)
    slow = np.broadcast_to(np.linspace(300, 340, m), due.shape).astype(np.float32)
    assert np.abs(estimated(before, Volume(slow, due.affine), made).data).max() < 0.05
    edge = np.where(np.arange(m) < m // 2 - 1, 300, 600) + 0 * slow
    found = estimated(before, Volume(edge.astype(np.float32), due.affine), made).data
    assert np.abs(found).max() > 40
    far = np.abs(np.arange(m) - m / 2) > 3 * m / 9
    assert np.abs(found[..., far]).max() < 0.1 * np.abs(found).max()
    again = resize.along(found, 2, selection(m, m / 9, Profile("slr", 0.83)))
    assert np.abs(again).max() < 0.01


def lying(low: np.ndarray) -> np.ndarray:
    """A network that makes everything brighter."""
    return np.maximum(imresize(low, (low.shape[1] * 2, low.shape[2] * 2)), 0) * 1.2


@pytest.mark.parametrize(("kept", "verdict"), [("on", "PASS"), ("off", "FAIL")])
def test_a_network_that_lies_is_corrected_or_found_out(kept: str, verdict: str) -> None:
    """The record says how many slices were changed, and what the residual is against the noise."""
    truth = phantom((52, 68, 9))
    rng = np.random.default_rng(0)
    low = np.moveaxis(Bicubic((2, 2))(np.moveaxis(truth, 2, 0)), 0, 2)
    low = np.hypot(low + rng.normal(0, 9, low.shape), rng.normal(0, 9, low.shape)).astype(np.float32)
    volume = Volume(low, oblique())
    method = Method("liar", (2, 2), lying, "bd", "corner", weights="toy")
    options = Options(consistent=kept)  # type: ignore[arg-type]
    made, _, stated = Steps(volume, options, Engine(), method)(volume)
    found = {check.name: check for check in stated.checks}["consistency"]
    assert stated.noise is not None
    assert found.verdict == verdict, found
    assert found.value is not None
    assert (found.value < 1.1) == (kept == "on")
    assert stated.consistent == (kept == "on")
    assert (stated.projected > 4) == (kept == "on")
    assert record._parsed(json.loads(json.dumps(stated.stated()))) == stated
    assert made.data.min() >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.nii.gz", "sub-1_desc-seranX_T1w.nii.gz", "a.mha"])
def test_maps_are_files_beside_the_result(scan: Path, tmp_path: Path, name: str) -> None:
    """Named by what they are, replaced and resumed with it; the library writes the same."""
    out, map_ = record.outputs(tmp_path / name, ("estimated",))
    assert (
        map_.name
        == {
            "a.nii.gz": "a_estimated.nii.gz",
            "sub-1_desc-seranX_T1w.nii.gz": "sub-1_desc-seranXestimated_T1w.nii.gz",
            "a.mha": "a_estimated.mha",
        }[name]
    )
    words = ["upscale", str(scan), str(out), "--maps", "--dtype", "int16"]
    assert cli.run(words) == 0
    result, beyond = seran.read(out), seran.read(map_)
    np.testing.assert_allclose(beyond.affine, result.affine, atol=1e-5)
    assert beyond.data.min() < 0 < beyond.data.max()
    assert beyond.data.std() < 0.2 * result.data.std()
    made = record.read(out)
    assert made is not None
    assert made.maps == ("estimated",)
    stamp = map_.stat().st_mtime_ns
    assert cli.run([*words, "--resume"]) == 0
    assert map_.stat().st_mtime_ns == stamp
    map_.unlink()
    assert record.read(out) is None  # a part of it is missing
    assert cli.run([*words, "--resume"]) == 0
    assert map_.is_file()
    sharp = seran.upscale(scan, maps=True)
    np.testing.assert_allclose(sharp.maps["estimated"].data, beyond.data, atol=1e-3)
    seran.write(sharp, tmp_path / "library.nii")
    held = nib.load(tmp_path / "library_estimated.nii")
    np.testing.assert_allclose(held.get_fdata(), beyond.data, atol=1e-3)
    assert record.read(tmp_path / "library.nii") is not None
    assert seran.upscale(scan).maps == {}


def test_no_noise_to_hold_a_result_against(scan: Path) -> None:
    """Stated to be none: the residual is all wrong, and projected. Of classical methods nothing is asked."""
    left = []
    for kept in (True, False):
        given = (taken(0.01), oblique())
        exact = seran.upscale(given, scanner=Scanner(noise="off"), consistent=kept).record
        assert exact is not None
        found = {check.name: check for check in exact.checks}
        assert found["consistency"].verdict == "PASS"
        left.append(found["residual"].value or 0.0)
    assert left[0] < 0.8 * left[1]
    plain = seran.upscale(scan, method="bicubic").record
    assert plain is not None
    assert not plain.consistent
    assert {check.name: check.verdict for check in plain.checks}["consistency"] == "PASS"


def test_a_turned_grid_has_no_map(scan: Path, tmp_path: Path) -> None:
    volume = seran.read(scan).volume
    turn = np.eye(4)
    turn[:2, :2] = [[0.98, -0.199], [0.199, 0.98]]
    nib.save(nib.Nifti1Image(np.zeros((60, 70, 5)), turn @ volume.affine), tmp_path / "like.nii")
    with pytest.raises(seran.BadInput, match="--maps: expected a grid along the scan's axes"):
        seran.upscale(scan, like=tmp_path / "like.nii", maps=True)


@pytest.mark.parametrize("offset", [0.0, 5000.0])
def test_an_offset_changes_no_check(offset: float) -> None:
    """A spoiled result is found out in units in which nothing is near 0, too."""
    scan = Volume(taken(20.0) + np.float32(offset), oblique())
    made = seran.upscale((scan.data, scan.affine))
    assert made.record is not None
    found = {check.name: check for check in made.record.checks}
    assert found["consistency"].value == pytest.approx(0.84, abs=0.05)
    board = 80 * (np.indices(made.data.shape).sum(0) // 8 % 2).astype(np.float32)
    spoiled = made.volume.on(made.data + board, made.affine)
    again = {c.name: c for c in checks.all_of(scan, spoiled, made.record.provenance)}
    assert again["consistency"].verdict != "PASS"
    assert again["residual"].verdict == "FAIL"


@pytest.mark.slow
def test_maps_go_with_their_result(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new result without them takes the former ones away; they are no scans; two scans share none."""
    out, map_ = tmp_path / "r.nii.gz", tmp_path / "r_estimated.nii.gz"
    words = ["upscale", str(scan), str(out)]
    assert cli.run([*words, "--maps"]) == 0
    assert cli.run(["upscale", str(map_), str(tmp_path / "again.nii")]) == 2
    assert "a result of seran's (by the record beside it)" in capsys.readouterr().err
    with pytest.raises(seran.BadInput, match="a result of seran's"):
        seran.upscale(map_)
    assert cli.run([*words, "--force"]) == 0
    assert not map_.exists()
    assert f"{map_}: removed: the result that it was made with is replaced" in capsys.readouterr().err
    assert cli.run([*words, "--maps", "--resume"]) == 0
    map_.write_bytes(map_.read_bytes()[:100])
    assert cli.run([*words, "--maps", "--resume"]) == 0
    assert map_.stat().st_size > 1000
    seran.write(seran.read(scan), out, force=True)
    assert not map_.exists()
    assert not (tmp_path / "r.json").exists()
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("a.nii", "a_estimated.nii"):
        nib.save(nib.load(scan), twins / name)
    capsys.readouterr()
    assert cli.run(["upscale", str(twins), str(tmp_path / "results"), "--maps", "--force"]) == 2
    assert "share its record a_estimated.json" in capsys.readouterr().err


def test_what_estimates_nothing_has_no_map(scan: Path) -> None:
    with pytest.raises(seran.BadInput, match="--maps: bicubic estimates nothing; leave it out"):
        seran.upscale(scan, method="bicubic", maps=True)
