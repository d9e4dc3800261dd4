"""Whether a scan looks like training scans: real ones do, and what is wrong with others is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import seran
from seran import io, kspace
from seran.quality import familiar
from seran.volume import Volume
from tests.conftest import oblique, phantom

WHOLE = (1.0, 1.0)


@pytest.fixture(scope="module")
def real(shared: Path) -> Volume:
    return io.read(shared / "val" / "ds000011_sub-10_inplaneT2.nii.gz")


def changed(volume: Volume, change: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """What is unusual of a scan whose slices (n, h, w) were changed."""
    stack = np.moveaxis(volume.data, 2, 0)[9:21]
    made = Volume(np.moveaxis(change(stack).astype(np.float32), 0, 2), volume.affine)
    return familiar.unusual(familiar.numbers(made, 2, WHOLE), [200, 200])


def spike(x: np.ndarray) -> np.ndarray:
    found = kspace.spectrum(x)
    found[:, 90, 80] += np.abs(found).max() * 0.2
    return np.abs(kspace.image(found))


def blocks(x: np.ndarray) -> np.ndarray:
    means = x[:, 4::8, 4::8].repeat(8, 1).repeat(8, 2)
    return 0.1 * x + 0.9 * means


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: ndimage.zoom(x, (1, 2, 2), order=1), "to the edge of k-space"),
        (lambda x: x + 4 * (x - ndimage.gaussian_filter(x, (0, 1.2, 1.2))), "to the middle of k-space"),
        (spike, "a sample of k-space is"),
        (blocks, "at every eighth row or column"),
        (lambda x: np.log1p(x), "of the pixels are tissue"),
        (lambda x: np.minimum(x, np.percentile(x, 75)), "have the greatest value"),
        (lambda x: x[[0, 6, 1, 9, 3, 11, 5, 2, 10, 4, 8, 7]], "than those two apart by -0."),
        (lambda x: np.where(np.arange(12)[:, None, None] == 5, x.max() - x, x), "less like its neighbour"),
        (lambda x: np.random.default_rng(0).rayleigh(50, x.shape), "neighbouring slices correlate by"),
        (lambda x: x * np.where(np.arange(12) % 2, 1.4, 1)[:, None, None], "differs in brightness by"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(real: Volume, change: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    assert changed(real, lambda x: x) == []
    assert any(said in words for words in changed(real, change)), changed(real, change)


@pytest.mark.parametrize("factor", [1e-20, 1, 1e20])
def test_it_is_the_same_in_other_units_and_axes(real: Volume, factor: float) -> None:
    found = familiar.numbers(real, 2, WHOLE)
    turned = Volume(np.moveaxis(real.data, 2, 0) * np.float32(factor), oblique())
    for name, value in familiar.numbers(turned, 0, WHOLE).items():
        assert value == pytest.approx(found[name], rel=1e-3, abs=1e-3), name


def test_odd_scans_have_numbers(volume: Volume) -> None:
    """Of one value, of one slice, of a few pixels."""
    assert familiar.numbers(volume.on(np.full_like(volume.data, 3), volume.affine), 2, WHOLE) == {}
    one = familiar.numbers(volume.on(volume.data[:, :, :1], volume.affine), 2, WHOLE)
    assert set(one) == set(familiar.USUAL) - {"near", "lone", "alike", "odd"}
    small = Volume(phantom((4, 5, 5)), oblique())
    assert all(np.isfinite(v) for v in familiar.numbers(small, 2, (0.5, 0.5)).values())


def test_a_field_of_view_in_metres(real: Volume) -> None:
    assert "a field of view of 2e+03 mm (usual: 10 to 700)" in familiar.unusual({}, [2000, 250])


def test_the_check_says_it(real: Volume) -> None:
    stack = np.moveaxis(real.data, 2, 0)[9:15]
    made = seran.upscale((np.moveaxis(np.log1p(stack), 0, 2), real.affine)).record
    assert made is not None
    found = {check.name: check for check in made.checks}["familiar"]
    assert found.verdict == "WARN"
    assert "unlike the scans that the weights were trained on: " in found.text
    assert (found.value or 0) >= 1
