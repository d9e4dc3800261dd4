import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from seran import grid, io, kspace
from tests.conftest import phantom


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    rng = np.random.default_rng(3)
    stack = np.stack([phantom((144, 160), seed) for seed in range(6)])
    return (stack + rng.normal(0, 6, stack.shape)).astype(np.float32)


def test_a_fully_sampled_scan_has_full_support(noisy: np.ndarray) -> None:
    assert kspace.support(noisy) == (1.0, 1.0)


@pytest.mark.parametrize("fill", [(0.6, 1.0), (1.0, 0.75), (0.7, 0.85)])
def test_zero_filling_is_found(noisy: np.ndarray, fill: tuple[float, float]) -> None:
    n = noisy.shape[1:]
    rows, columns = (np.abs(np.fft.fftfreq(m)) * 2 <= f for m, f in zip(n, fill, strict=True))
    filled = np.abs(np.fft.ifft2(np.fft.fft2(noisy) * np.outer(rows, columns))).astype(np.float32)
    assert kspace.support(filled) == pytest.approx(fill, abs=0.03)


def test_cropping_to_the_support_loses_nothing(noisy: np.ndarray) -> None:
    low = kspace.crop(noisy - noisy.min(), (96, 120))
    wide = np.fft.fftshift(np.fft.fft2(low), axes=(1, 2))
    padded = np.pad(wide, ((0, 0), (24, 24), (20, 20)))
    back = np.fft.ifft2(np.fft.ifftshift(padded, axes=(1, 2))).real * 144 * 160 / (96 * 120)
    again = kspace.crop(back.astype(np.float32), (96, 120))
    np.testing.assert_allclose(again, low, atol=0.05 * low.std())


def test_many_slices_are_regridded_in_little_more_memory_than_they_take(noisy: np.ndarray) -> None:
    """And each as if it were alone."""
    stack = noisy.repeat(4, 0)
    tracemalloc.start()
    made = kspace.regridded(stack, (200, 160))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * made.nbytes
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made[5], kspace.regridded(stack[5], (200, 160)))
    spectrum = kspace.fitted(kspace.spectrum(stack), (200, 160))
    np.testing.assert_array_equal(made, kspace.image(spectrum).real)


def test_truncation_only_shrinks() -> None:
    with pytest.raises(ValueError, match="at most"):
        kspace.truncate(np.zeros((8, 8)), (9, 8))


def test_real_scans_agree_with_the_manifest(shared: Path) -> None:
    """`true_band` is an independent earlier measurement; where it is empty nothing was noticed then."""
    with (shared / "MANIFEST.csv").open() as file:
        rows = list(csv.DictReader(file))
    seen = 0
    for row in [r for r in rows if r["true_band"]][::5]:
        volume = io.read(shared / row["path"], affine="either")
        axis = grid.slice_axis(volume.affine, volume.data.shape, named=volume.slices)
        band = sorted(kspace.support(np.moveaxis(volume.data, axis, 0)))
        stated = row["true_band"].replace(" on one axis", " x 1").split(" x ")
        assert band == pytest.approx(sorted(map(float, stated)), abs=0.11), row["path"]
        seen += 1
    assert seen >= 3


def test_the_radial_spectrum_is_on_one_scale_for_all_grids() -> None:
    """A wave shows at its frequency, as strong on a finer grid of the same field of view."""
    found = []
    for n, size in ((64, 1.5), (128, 0.75)):
        x = (np.arange(n) + 0.5) * size
        wave = np.sin(2 * np.pi * 0.125 * x)[None, :, None] * np.ones((3, 1, n))
        f, power = kspace.radial(wave, (size, size))
        assert f[-1] == pytest.approx(0.5 / size)
        assert f[power.argmax()] == pytest.approx(0.125, abs=1 / 96)
        found.append(power.max())
    assert found[0] == pytest.approx(found[1], abs=0.1)


def test_slices_of_one_value_have_full_support() -> None:
    assert kspace.support(np.full((3, 20, 20), 7.0)) == (1.0, 1.0)
