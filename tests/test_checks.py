"""Checks tell what a method did wrong from what it did right: on noise, filters, offsets, other grids."""

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import seran
from seran import grid, io, native, resample
from seran.acquisition import NONE, Acquisition, Window
from seran.quality import checks, measures
from seran.quality.checks import Check
from seran.quality.provenance import Acquired, Provenance
from seran.sharpen import Normalisation
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_report import check, made, pair

HAMMING = Window("hamming", 0.46)


def undone(
    noise: float, window: Window = NONE, fraction: tuple[float, float] = (1.0, 1.0), factor: int = 2
) -> Provenance:
    """Native weights made it."""
    known = Acquired(fraction, window, noise, None, True, False)
    return Provenance((factor, factor), 2, "td", False, True, known)


def stacked(slices: np.ndarray, factor: int = 1) -> Volume:
    """Slices (n, h, w) as a volume that is stacked along its last axis, on a finer grid than `oblique`."""
    return Volume(np.moveaxis(slices, 0, 2), grid.rescale(oblique(), (factor, factor, 1), "center"))


def scanned(truth: np.ndarray, sigma: float, window: Window = NONE) -> np.ndarray:
    """What a scanner gives of half of k-space."""
    h, w = truth.shape[1:]
    half = Acquisition((h // 2, w // 2), window)
    return half(truth, sigma * float(np.percentile(truth, 99.9)), np.random.default_rng(0)).astype(np.float32)


def central(path: Path, count: int = 2) -> np.ndarray:
    """Slices in the middle of a scan, of even size."""
    volume = io.read(path, affine="either")
    stack = np.moveaxis(volume.data, grid.slice_axis(volume.affine, volume.data.shape), 0)
    first, (h, w) = (len(stack) - count) // 2, stack.shape[1:]
    return np.ascontiguousarray(stack[first : first + count, : h // 2 * 2, : w // 2 * 2])


def found(stack: np.ndarray, **options: object) -> dict[str, Check]:
    """The checks of what the library makes of slices."""
    scan = (np.moveaxis(stack, 0, 2), np.diag([1.0, 1.0, 4.0, 1.0]))
    record = seran.upscale(scan, label_check=False, scanner=seran.Scanner(**options)).record  # type: ignore[arg-type]
    assert record is not None
    return {one.name: one for one in record.checks}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tcga-fg-6692_T2", "datalad_sub-02_T1w"])
@pytest.mark.parametrize("noise", [0.03, 0.05])
def test_noise_that_is_taken_away_is_no_overshoot(shared: Path, name: str, noise: float) -> None:
    """Nor is it a residual; what amplifies noise still fails."""
    scan = scanned(central(shared / f"test/{name}.nii.gz"), noise)
    good = found(scan)
    assert (good["overshoot"].verdict, good["noise"].verdict) == ("PASS", "PASS")
    assert "is off the input by 0." in good["residual"].text
    bad = found(scan, acquisition="bicubic")
    assert (bad["overshoot"].verdict, bad["noise"].verdict) == ("FAIL", "FAIL")


@pytest.mark.slow
def test_a_scan_at_ultra_low_field_is_denoised_without_overshoot(shared: Path) -> None:
    stack = central(shared / "pair/ulf-7A_0.055T_T1w.nii.gz", 4)
    with_noise, without = (found(stack, noise=noise)["overshoot"] for noise in ("off", "auto"))
    assert without.verdict == "PASS"
    shares = [float(re.findall(r"[\d.]+(?=%)", one.text)[0]) for one in (without, with_noise)]
    assert shares[0] < shares[1] / 2


@pytest.mark.slow
def test_a_filter_that_is_undone_is_no_overshoot(shared: Path) -> None:
    scan = scanned(central(shared / "test/datalad_sub-02_T1w.nii.gz"), 0.01, HAMMING)
    good = found(scan, window=str(HAMMING), noise="0.01", acquired=(1.0, 1.0))
    assert good["overshoot"].verdict == "PASS"
    assert good["noise"].verdict != "FAIL"  # the filter had taken three fifths of it


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ds002748_sub-62_T1w", "datalad_sub-02_T1w", "ds000011_sub-12_T1w"])
def test_native_scans_pass_and_white_rims_do_not(shared: Path, name: str) -> None:
    """Skull-stripped, sharp, defaced."""
    stack = central(shared / f"test/{name}.nii.gz")
    assert found(stack)["overshoot"].verdict == "PASS"
    assert found(stack, acquisition="bicubic")["overshoot"].verdict in ("WARN", "FAIL")


@pytest.mark.slow
def test_a_vessel_between_pixels_is_no_overshoot(shared: Path) -> None:
    """Zero-filling shows the peak, too."""
    result = seran.upscale(shared / "test/ds000011_sub-12_inplaneT2.nii.gz")
    assert result.record is not None
    assert result.record.verdict == "PASS"


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_rims_are_seen_in_any_noise(noise: float) -> None:
    """Of a result that is denoised: the truth passes, with halos or with white rims it does not."""
    truth = gaussian_filter(phantom((3, 192, 208)), (0, 1, 1))
    before = stacked(scanned(truth, noise))
    rims, halos = (k * (truth - gaussian_filter(truth, (0, s, s))) for k, s in ((4, 1), (1, 4)))
    for change, verdict in ((0 * truth, "PASS"), (rims, "FAIL"), (halos, "FAIL")):
        made_of_it = stacked(np.maximum(truth + change, 0), 2)
        assert check("overshoot", before, made_of_it, undone(noise)).verdict == verdict


def test_thin_structures_that_lose_height_are_told() -> None:
    """Lines of three voxels on tissue; the noise is that of the scan."""
    rng, shape = np.random.default_rng(0), (4, 160, 176)
    lines = np.zeros(shape, np.float32)
    lines[:, 12::24, 8:-8] = lines[:, :, 20::40] = 1
    lines = gaussian_filter(lines, (0, 1.2, 1.2)) * 300
    before = stacked(np.hypot(*rng.normal([300 + lines, 0 * lines], 10)[[0, 1]]).astype(np.float32))
    part = 10 / Normalisation.of(np.moveaxis(before.data, 2, 0)).gain  # whose tissue is an offset
    for kept, verdict in ((1.0, "PASS"), (0.91, "WARN"), (0.6, "FAIL")):
        result = check("residual", before, stacked(300 + kept * lines), undone(part, factor=1))
        told = re.search(r"local maxima have ([\d.]+)%", result.text)
        assert told is not None
        assert float(told[1]) == pytest.approx(100 * kept, abs=2)
        assert result.verdict == verdict


@pytest.mark.parametrize("shift", [0.0, 150.0])
@pytest.mark.parametrize("method", [{}, {"acquisition": "truncation"}])
def test_negative_values_are_no_residual(shift: float, method: dict[str, str]) -> None:
    """A magnitude would turn them over: of z-scored scans, phase-corrected real images, PET."""
    stack = gaussian_filter(phantom((3, 72, 80)), (0, 1, 1)) - np.float32(shift)
    result = found(stack, **method)["residual"]
    assert result.verdict == "PASS"


def test_noise_and_overshoot_are_known_on_a_grid_of_whole_factors() -> None:
    """However the image that has this grid is stored."""
    before, after = pair()
    plain = [check(name, before, after, made()) for name in ("noise", "overshoot")]
    turned = nib.as_closest_canonical(nib.Nifti1Image(after.data[::-1], _mirrored(after)))
    image = nib.Nifti1Image(np.transpose(after.data, (2, 0, 1)), after.affine[:, [2, 0, 1, 3]])
    for stored in (turned, image, nib.Nifti1Image(after.data, after.affine)):
        other = Volume(np.asarray(stored.dataobj), stored.affine)
        known = made(resampled=True)
        assert [check(name, before, other, known) for name in ("noise", "overshoot")] == plain
    for other in (
        resample.onto(after, resample.finer(before.grid, 2, (0.5, 0.5))),
        after.on(after.data, after.affine @ np.array([[1, 0, 0, 0.3], *np.eye(4)[1:]])),
        after.on(after.data[:-2], after.affine),
    ):
        assert check("noise", before, other, made(resampled=True)).verdict == "not known"


def _mirrored(v: Volume) -> np.ndarray:
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = v.data.shape[0] - 1
    return v.affine @ turn


def test_another_field_of_view_is_told_in_a_sentence() -> None:
    before, after = pair()
    text = check("geometry", before, after.on(after.data[:20], after.affine), made(resampled=True)).text
    assert re.fullmatch(
        r"corners of the field of view up to \d+ mm apart; the second covers 38% of the first", text
    )
    corner = after.on(after.data[:2, :2], after.affine)
    text = check("geometry", before, corner, made(resampled=True)).text
    assert text.endswith("; the second covers less than 1% of the first")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda x: x, "PASS"),
        (lambda x: x + 0.3, "WARN"),  # the range is 1, whatever lies below it
        (lambda x: x - 0.8, "FAIL"),
        (lambda x: 100 + 1.3 * (x - 100), "WARN"),
    ],
)
def test_the_range_lies_above_the_offset(change: Callable[[np.ndarray], np.ndarray], verdict: str) -> None:
    before, after = pair()
    old, new = (v.on(100 + v.data / np.percentile(before.data, 99.9), v.affine) for v in (before, after))
    result = check("intensities", old, new.on(change(new.data).astype(np.float32), new.affine), made())
    assert result.verdict == verdict


def test_what_goes_beyond_the_end_of_a_saturated_scan_is_told() -> None:
    before, after = pair()
    ceiling = float(np.percentile(before.data, 97))
    old, new = (v.on(np.minimum(v.data, ceiling), v.affine) for v in (before, after))
    assert check("intensities", old, new, made()).verdict == "PASS"
    new.data[new.data == ceiling] *= 1.12
    result = check("intensities", old, new, made())
    assert result.verdict == "WARN"
    assert result.text.endswith(f"; the scan stops at {ceiling:.5g}, the result 12% of the range beyond")
    masked = before.on(np.where(before.data > 20, before.data, -500).astype(np.float32), before.affine)
    below = after.on(np.where(after.data > 20, after.data, -700).astype(np.float32), after.affine)
    assert check("intensities", masked, below, made()).verdict == "WARN"


@pytest.mark.parametrize("factor", [1e-40, 1e-30, 1e-3, 1e5, 1e20, 1e30, 1e35])
@pytest.mark.parametrize("known", [None, made(), made(resampled=True), undone(0.02, HAMMING, (0.7, 0.8))])
def test_no_intensity_is_too_large_or_too_small(factor: float, known: Provenance | None) -> None:
    """Warnings are errors here."""
    before, after = pair("td" if known and known.acquired.undone else "bd")
    for sign, spike in ((1, False), (-1, False), (1, True)):
        old, new = (v.on(v.data * np.float32(sign * factor), v.affine) for v in (before, after))
        if spike:
            old.data[3, 4, 1] = new.data[8, 9, 1] = 3e38
        assert len(checks.all_of(old, new, known)) == 10


def test_scale_does_not_change_the_checks() -> None:
    before, after = pair()
    plain = [one.verdict for one in checks.all_of(before, after, made())]
    for factor in (1e-20, 1e20):
        old, new = (v.on(v.data * np.float32(factor), v.affine) for v in (before, after))
        assert [one.verdict for one in checks.all_of(old, new, made())] == plain


def test_one_noise_is_the_most_that_is_trained_for() -> None:
    assert native.NOISIEST is checks.NOISIEST is measures.NOISIEST
