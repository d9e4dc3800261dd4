"""What `measure` says of phantoms that were taken through a scanner whose settings are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seran import io, kspace, noise
from seran.acquisition import NONE, Acquisition, Window
from seran.measure import Measured, measured
from tests.conftest import phantom

SHAPE = (132, 160)
SIGMA = 6.0


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Slices with air around, values to about 1000."""
    return np.stack([phantom(SHAPE, seed) for seed in range(8)])


def scanned(
    truth: np.ndarray, part: tuple[float, float] = (1, 1), window: Window = NONE, sigma: float = SIGMA
) -> np.ndarray:
    acquired = tuple(2 * round(p * n / 2) for p, n in zip(part, SHAPE, strict=True))
    return Acquisition(acquired, window, SHAPE)(truth, sigma, np.random.default_rng(5))


@pytest.mark.parametrize("window", [NONE, Window("hamming", 0.46), Window("tukey", 0.4)])
def test_a_full_band_stays_full(truth: np.ndarray, window: Window) -> None:
    found = measured(scanned(truth, window=window))
    assert (found.fraction, found.sure) == ((1.0, 1.0), (False, False))


@pytest.mark.parametrize("part", [(0.5, 0.65), (0.65, 0.5), (1.0, 0.65), (0.8, 1.0)])
@pytest.mark.parametrize("window", [NONE, Window("hamming", 0.46)])
def test_each_axis_has_its_own_band(truth: np.ndarray, part: tuple[float, float], window: Window) -> None:
    found = measured(scanned(truth, part, window))
    assert found.fraction == pytest.approx(part, abs=0.04)
    assert found.sure == tuple(p < 1 for p in part)


@pytest.mark.parametrize("part", [(1.0, 1.0), (0.65, 0.8)])
@pytest.mark.parametrize("elliptical", [False, True])
def test_a_strong_window_is_recognised(
    truth: np.ndarray, part: tuple[float, float], elliptical: bool
) -> None:
    found = measured(scanned(truth, part, Window("hamming", 0.46, elliptical=elliptical)))
    assert (found.window.kind, found.window.elliptical) == ("hamming", elliptical)
    assert found.window.a == pytest.approx(0.46, abs=0.07)


@pytest.mark.parametrize("sigma", [4.0, 12.0])
@pytest.mark.parametrize("part", [(1.0, 1.0), (0.5, 0.8)])
def test_air_tells_noise(truth: np.ndarray, sigma: float, part: tuple[float, float]) -> None:
    found = measured(scanned(truth, part, Window("hamming", 0.46), sigma))
    assert found.by == "air"
    assert found.sigma == pytest.approx(sigma, rel=0.15)


def test_several_coils_are_seen_in_air() -> None:
    """Sums of squares of L coils: E s² is 2 L σ²."""
    rng = np.random.default_rng(0)
    parts = rng.normal(0, 0.01, (8, 6, 96, 96))
    stack = np.sqrt((parts**2).sum(0))
    variance, blocks = noise.in_air(stack.astype(np.float32), np.zeros(stack.shape, bool))
    assert variance == pytest.approx(1e-4, rel=0.1)
    assert not len(blocks)  # an averaged magnitude looks the same: nothing is said of a filter


def test_a_masked_background_is_found_and_is_no_air(truth: np.ndarray) -> None:
    stack = scanned(truth, (0.65, 0.8))
    head = np.stack([phantom(SHAPE, seed) > 0 for seed in range(8)])
    found = measured(np.where(head, stack, np.float32(3)))
    assert found.background == 3
    assert found.by != "air"
    assert found.fraction == pytest.approx((0.65, 0.8), abs=0.04)
    assert measured(stack).background is None


def test_saturated_tissue_is_no_background(truth: np.ndarray) -> None:
    stack = scanned(truth)
    assert measured(np.minimum(stack, np.float32(np.percentile(stack, 90)))).background is None


@pytest.mark.parametrize("value", [700.0, 2500.0, -300.0])
def test_a_background_may_have_any_value(truth: np.ndarray, value: float) -> None:
    """As dark as tissue, brighter than all of it, below it: what counts is that it surrounds the head."""
    stack = scanned(truth, (0.65, 0.8))
    head = np.stack([phantom(SHAPE, seed) > 0 for seed in range(8)])
    found = measured(np.where(head, stack, np.float32(value)))
    assert found.background == value
    assert found.fraction == pytest.approx((0.65, 0.8), abs=0.04)
    inside = measured(np.where(head, np.float32(value), stack)).background  # with air around
    assert inside == (value if value < 0 else None)


@pytest.mark.parametrize("factor", [1e3, 1e-6])
def test_units_of_intensity_do_not_matter(truth: np.ndarray, factor: float) -> None:
    stack = scanned(truth, (0.65, 0.8), Window("hamming", 0.46))
    one, other = measured(stack), measured(stack * np.float32(factor))
    assert (one.fraction, one.window, one.by) == (other.fraction, other.window, other.by)
    assert other.sigma == pytest.approx(factor * one.sigma, rel=1e-3)


def test_the_same_scan_is_measured_the_same(truth: np.ndarray) -> None:
    stack = scanned(truth, (0.65, 0.8))
    before = stack.copy()
    assert measured(stack) == measured(stack)
    np.testing.assert_array_equal(stack, before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (1, 64, 40), (2, 30, 200)])
def test_odd_stacks_are_survived(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    for stack in (np.full(shape, 7.0), rng.normal(-50, 20, shape), np.zeros(shape), -phantom(shape)):
        found = measured(stack.astype(np.float32))
        assert all(0 < f <= 1 for f in found.fraction)
        assert np.isfinite(found.sigma)
        assert found.sigma >= 0


FINITE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "huge": lambda x: x * 1e27,
    "tiny": lambda x: x * 1e-33,
    "denormal": lambda x: x * 1e-45,
    "both signs, huge": lambda x: (x - x.mean()) * 2e27,
    "zero but for one voxel": lambda x: x * (np.arange(x.size) == 7000).reshape(x.shape),
    "zero but for one slice": lambda x: x * (np.arange(len(x)) == 1)[:, None, None],
    "one slice": lambda x: x[:1],
    "one huge slice": lambda x: np.where(np.arange(len(x))[:, None, None] == 1, x * 1e27, x),
    "one huge row": lambda x: np.where(np.arange(x.shape[1])[:, None] == 60, 1e20, x),
    "a huge block": lambda x: np.where(np.add.outer(*[np.arange(n) // 9 for n in x.shape[1:]]) == 8, 1e30, x),
    "half huge": lambda x: np.where(np.arange(x.shape[2]) < 80, 1e30, -1e30 * (x > 0)),
    "nothing but an edge": lambda x: np.where(np.arange(x.shape[1])[:, None] < 60, -1e30, x),
    "constant": lambda x: np.full(x.shape, 1e30),
}


@pytest.mark.parametrize("kind", FINITE)
def test_any_finite_scan_is_measured_without_a_warning(truth: np.ndarray, kind: str) -> None:
    stack = FINITE[kind](truth[:4].astype(np.float64)).astype(np.float32)
    assert np.isfinite(stack).all()
    for found in (measured(stack), measured(stack, ((0.6, 1.0), Window("hamming", 0.46)))):
        assert np.isfinite([found.sigma, *found.fraction]).all()
    assert all(0 < f <= 1 for f in kspace.support(stack))


@pytest.mark.parametrize(
    "spikes", [[(3, 40, 50, 1e20)], [(0, 0, 0, -1e6), (3, 40, 50, 3e4), (3, 41, 50, 1e5)]]
)
def test_spikes_change_nothing(truth: np.ndarray, spikes: list[tuple[int, int, int, float]]) -> None:
    """Damaged voxels, in a corner or in tissue, alone or two together; a small bright thing is no spike."""
    stack = scanned(truth, (0.65, 0.8), Window("hamming", 0.46))
    spoilt = stack.copy()
    for i, row, column, value in spikes:
        spoilt[i, row, column] = value
    before, (mended, count) = spoilt.copy(), kspace.despiked(spoilt)
    assert count == len(spikes)
    np.testing.assert_array_equal(spoilt, before)
    assert (mended != stack).sum() == len(spikes)
    one, other = measured(stack), measured(spoilt)
    assert (one.fraction, one.window, one.by) == (other.fraction, other.window, other.by)
    assert other.sigma == pytest.approx(one.sigma, rel=0.01)
    assert kspace.support(spoilt) == kspace.support(stack)


def test_what_is_small_and_bright_is_no_spike(truth: np.ndarray) -> None:
    """Two pixels by two; nor are single ones where all else is 0; sound scans are not copied."""
    stack = scanned(truth)
    stack[2, 40:42, 50:52] = 1e5
    alone = np.zeros((3, 40, 50), np.float32)
    alone[1, 20, 20] = 1
    for sound in (stack, alone):
        found, count = kspace.despiked(sound)
        assert found is sound
        assert count == 0


def test_the_band_that_is_known_is_kept(truth: np.ndarray) -> None:
    """Noise is then measured as it passed that filter, with zeros filled in as they were."""
    stack = scanned(truth, (0.65, 0.8), Window("hamming", 0.46))
    found = measured(stack, ((0.65, 0.8), Window("hamming", 0.46)))
    assert (found.fraction, found.window) == ((0.65, 0.8), Window("hamming", 0.46))
    assert found.sigma == pytest.approx(SIGMA, rel=0.1)
    assert measured(stack, ((1.0, 1.0), NONE)).sigma < 0.5 * SIGMA
    assert measured(np.zeros_like(stack), ((0.5, 1.0), NONE)) == Measured((0.5, 1.0))


def test_the_end_of_a_filtered_band_must_be_seen(shared: Path) -> None:
    """Anatomy that falls as Hamming's window does, and goes on to fall beyond its end, was all measured."""
    scan = io.read(shared / "pair" / "ulf-7A_3T_T1w.nii.gz").data
    assert measured(np.moveaxis(scan, 2, 0)).fraction[1] == 1


def test_what_has_no_contrast_says_nothing() -> None:
    assert measured(np.full((4, 40, 50), 7.0, np.float32)) == Measured()


def test_one_slice_is_enough(truth: np.ndarray) -> None:
    assert measured(scanned(truth, (0.5, 0.65))[:1]).fraction == pytest.approx((0.5, 0.65), abs=0.06)


@pytest.mark.parametrize("part", [1.0, 0.6])
def test_only_noise_that_passed_a_filter_confirms_it(part: float) -> None:
    """The same window, in air that did and in air that did not pass it."""
    shape = (160, 144)
    sizes = (round(part * shape[0]), round(part * shape[1]))
    strong = Window("hamming", 0.46)
    for passed, confirmed in ((strong, strong), (NONE, NONE), (Window("tukey", 0.2), NONE)):
        image = Acquisition(sizes, passed, shape)(np.zeros((4, *shape)), 0.01, np.random.default_rng(0))
        _, air = noise.in_air(image.astype(np.float32), np.zeros(image.shape, bool))
        assert len(air) > 100
        assert noise.filtered(air, shape, (part, part), (strong,)) == confirmed
    assert noise.filtered(air[:10], shape, (part, part), (strong,)) == NONE


def test_noise_without_air_is_bounded_by_flat_tissue() -> None:
    rng = np.random.default_rng(0)
    steps = np.repeat(np.repeat(rng.uniform(0.4, 1, (4, 5, 6)), 24, 1), 24, 2)
    stack = (steps + rng.normal(0, 0.02, steps.shape)).astype(np.float32)
    assert noise.in_tissue(stack, np.ones(stack.shape, bool)) == pytest.approx(0.02, rel=0.15)
    assert noise.in_tissue(stack, np.zeros(stack.shape, bool)) == 0


def test_an_end_with_signal_beyond_it_is_none(shared: Path) -> None:
    """These slices' spectrum falls so steeply at half of k-space that it looks like its end."""
    stack = np.moveaxis(io.read(shared / "test" / "tcga-fg-6692_T1.nii.gz").data, 2, 0)
    assert measured(stack[5:21]).fraction == (1.0, 1.0)
