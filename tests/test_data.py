"""Varied patches: what becomes of resolution and contrast, and that pairs still belong together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seran.data import patches as data
from seran.data import prepare
from seran.data.pairs import PreparedSet
from seran.data.prepare import PrepareOptions
from seran.degrade import Bicubic
from seran.errors import BadInput
from tests.conftest import phantom
from tests.test_prepare import save

sizes = st.integers(8, 40)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("pairs")
    for i in (2, 4):
        save(root / "raw" / f"sub-{i}_T2w.nii.gz", phantom((62, 75, 5), i))
    return prepare.prepare(root / "raw", root / "set", PrepareOptions(scales=(2, 3)), report=lambda _: None)


@given(sizes, sizes, sizes, sizes, st.integers(0, 99))
def test_resampling_keeps_means_and_what_both_grids_hold(h: int, w: int, a: int, b: int, seed: int) -> None:
    patch = np.random.default_rng(seed).normal(size=(h, w))
    made = data.resampled(patch, (a, b))
    assert made.shape == (a, b)
    assert made.mean() == pytest.approx(patch.mean(), abs=1e-4)
    again = data.resampled(data.resampled(made, (h, w)), (a, b))  # now band-limited to the smaller grid
    np.testing.assert_allclose(data.resampled(data.resampled(again, (h, w)), (a, b)), again, atol=1e-4)
    if a >= h and b >= w:
        np.testing.assert_allclose(data.resampled(made, (h, w)), patch, atol=1e-4)


@pytest.mark.parametrize(("n", "size"), [(40, 56), (56, 40), (30, 23)])
def test_resampling_keeps_positions_and_outer_edges(n: int, size: int) -> None:
    """A blob keeps its distance, in fractions of the patch, from the outer edge of the first pixel."""
    blob = np.exp(-((((np.arange(n) + 0.5) / n - 0.4) / 0.1) ** 2))
    made = data.resampled(np.outer(blob, blob[::-1]), (size, size))
    at = (np.arange(size) + 0.5) / size
    rows, columns = (made.sum(axis) for axis in (1, 0))
    assert (at * rows).sum() / rows.sum() == pytest.approx(0.4, abs=1e-3)
    assert (at * columns).sum() / columns.sum() == pytest.approx(0.6, abs=1e-3)
    assert made.min() >= 0


@given(st.integers(0, 999))
def test_another_contrast_keeps_or_reverses_the_order_of_tissues(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tissues = np.sort(np.random.default_rng(seed).random((4, 5)).ravel()).reshape(4, 5)
    steps = np.diff(data.recontrasted(tissues, rng).ravel())
    assert (steps >= 0).all() or (steps <= 0).all()
    made = data.recontrasted(np.array([[0.0, 1.0]]), rng)
    assert np.ptp(made) == pytest.approx(np.clip(np.ptp(made), *data.PARTS))
    assert made.min() >= 0


def test_tissues_of_another_contrast_come_both_ways_round() -> None:
    made = [data.recontrasted(np.array([[0.2, 0.9]]), np.random.default_rng(seed))[0] for seed in range(200)]
    assert 0.1 < np.mean([dark > bright for dark, bright in made]) < 0.3


@pytest.mark.parametrize("scale", [2, 3])
def test_varied_patches_belong_together(pairs: PreparedSet, scale: int) -> None:
    """Unlike a patch cut from low slices, the low patch is made from the high one up to its border."""
    patches = data.Patches(pairs, "train", scale, seed=0, augment=1.0)
    low, high = patches.batch(3, range(24), 14)
    assert high.shape == (24, 1, 14 * scale, 14 * scale)
    np.testing.assert_allclose(Bicubic((scale, scale))(high.numpy()), low.numpy(), atol=1e-5)
    torch.testing.assert_close(patches.batch(3, range(5, 9), 14)[1], high[5:9])
    assert (low.std((1, 2, 3)) > 0.02).float().mean() > 0.8


def test_a_fraction_is_varied(pairs: PreparedSet) -> None:
    """A sample that is not varied is one that a run without variation could draw: cut from low slices."""
    low, high = data.Patches(pairs, "train", 2, seed=0, augment=0.4).batch(0, range(150), 12)
    made = torch.from_numpy(Bicubic((2, 2))(high.numpy()))
    border = (made - low).abs().flatten(1).max(1).values
    assert 0.3 < (border < 1e-5).float().mean() < 0.5


def test_slices_hardly_larger_than_a_patch_are_made_from_what_there_is(pairs: PreparedSet) -> None:
    low, high = data.Patches(pairs, "train", 2, seed=0, augment=1.0).batch(0, range(20), 30)
    assert low.shape == (20, 1, 30, 30)
    assert torch.isfinite(high).all()


def test_truncated_scans_are_not_varied(tmp_path: Path) -> None:
    save(tmp_path / "raw" / "sub-2_T2w.nii.gz", phantom((62, 75, 5)))
    made = prepare.prepare(tmp_path / "raw", tmp_path / "set", PrepareOptions("td", (2,)), lambda _: None)
    with pytest.raises(BadInput, match=r"--augment .* k-space truncation needs the whole slice"):
        data.Patches(made, "train", 2, seed=0, augment=0.5)
