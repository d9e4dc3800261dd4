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


def ghosts(x: np.ndarray) -> np.ndarray:
    found = kspace.spectrum(x)
    found[:, ::2] *= np.exp(0.5j)
    return np.abs(kspace.image(found))


def folded(x: np.ndarray) -> np.ndarray:
    part = x[:, 32:-32].copy()
    part[:, -32:] += x[:, :32]
    part[:, :32] += x[:, -32:]
    return part


def head() -> np.ndarray:
    """Twelve slices of a textured ellipse with noise around it, which nothing is wrong with."""
    rng, (z, y, x) = (
        np.random.default_rng(0),
        np.indices((12, 128, 112)) - np.array([6, 62, 58])[:, None, None, None],
    )
    inside = ndimage.gaussian_filter((np.hypot(y / 46, x / 38) + (z / 40) ** 2 < 1).astype(float), (0, 1, 1))
    texture = ndimage.gaussian_filter(rng.normal(0, 1, inside.shape), (1, 2, 2))
    return np.hypot(inside * (100 + 300 * texture) + rng.normal(0, 2, x.shape), rng.normal(0, 2, x.shape))


def blocks(x: np.ndarray) -> np.ndarray:
    means = x[:, 4::8, 4::8].repeat(8, 1).repeat(8, 2)
    return 0.1 * x + 0.9 * means


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: ndimage.zoom(x, (1, 2, 2), order=1), "to the edge of k-space"),
        (lambda x: x + 4 * (x - ndimage.gaussian_filter(x, (0, 1.2, 1.2))), "to the middle of k-space"),
        (spike, "a sample of k-space is"),
        (blocks, "curvature has a period along rows or columns"),
        (lambda x: ndimage.zoom(x, (1, 1.5, 1.5), order=1), "curvature has a period along rows or columns"),
        (ghosts, "with what lies half a field of view away"),
        (folded, "opposite edges of the slices share a pattern"),
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


@pytest.mark.parametrize(
    ("change", "name", "least"),
    [
        (lambda x: ndimage.zoom(x, (1, 1.5, 1.5), order=1), "period", 20),
        (lambda x: ndimage.zoom(x, (1, 1, 2), order=3), "period", 20),
        (blocks, "period", 15),
        (ghosts, "ghost", 0.9),
        (lambda x: ghosts(x.swapaxes(1, 2)), "ghost", 0.9),
        (folded, "seam", 0.2),
        (lambda x: folded(x).swapaxes(1, 2), "seam", 0.2),
    ],
)  # fmt: skip
def test_a_made_head_has_it_only_where_it_was_made(
    change: Callable[[np.ndarray], np.ndarray], name: str, least: float
) -> None:
    found = []
    for stack in (head(), change(head())):
        volume = Volume(np.moveaxis(stack.astype(np.float32), 0, 2), oblique())
        found.append(familiar.numbers(volume, 2, WHOLE))
    assert found[0]["period"] < 7
    assert found[0]["ghost"] < 0.3
    assert found[0]["seam"] < 0.02
    assert found[1][name] > least


def test_ghosts_are_looked_for_in_air_alone() -> None:
    """None where slices are full of tissue, masked, or one value in the air."""
    full = 100 + np.random.default_rng(0).normal(0, 5, (12, 64, 64))
    masked = np.zeros((12, 64, 64))
    masked[:, 16:48, 20:44] = full[:, 16:48, 20:44]
    for stack in (full, masked):
        volume = Volume(np.moveaxis(stack.astype(np.float32), 0, 2), oblique())
        assert familiar.numbers(volume, 2, WHOLE)["ghost"] == 0


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
    assert "a field of view of 2e+03 mm (usual: 40 to 700)" in familiar.unusual({}, [2000, 250])


def test_a_head_that_fits_into_a_matchbox() -> None:
    assert familiar.unusual({}, [20, 23]) == [
        f"a field of view of {mm} mm (usual: 40 to 700)" for mm in (20, 23)
    ]


@pytest.mark.slow
def test_the_check_says_it(real: Volume) -> None:
    stack = np.moveaxis(real.data, 2, 0)[9:15]
    made = seran.upscale((np.moveaxis(np.log1p(stack), 0, 2), real.affine)).record
    assert made is not None
    found = {check.name: check for check in made.checks}["familiar"]
    assert found.verdict == "WARN"
    assert "unlike the scans that the weights were trained on: " in found.text
    assert (found.value or 0) >= 1
