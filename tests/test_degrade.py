import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seran import grid, kspace
from seran.classical import bicubic, zerofill
from seran.degrade import DEGRADATIONS, Bicubic, Truncation
from seran.errors import BadInput
from tests.conftest import phantom

FACTORS = (2, 3, 4)


@pytest.mark.parametrize("factor", FACTORS)
@given(seed=st.integers(0, 999), a=st.floats(-3, 3), b=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_bicubic_is_linear(factor: int, seed: int, a: float, b: float) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, 3, 24, 36))
    degrade = Bicubic(factor)
    np.testing.assert_allclose(degrade(a * x + b * y), a * degrade(x) + b * degrade(y), atol=1e-10)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("factor", FACTORS)
def test_constants_stay(name: str, factor: int) -> None:
    low = DEGRADATIONS[name](factor)(np.full((2, 24, 36), 7.25))
    np.testing.assert_allclose(low, 7.25, atol=1e-10)
    assert low.shape == (2, 24 // factor, 36 // factor)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("factor", FACTORS)
def test_a_blob_keeps_its_millimetres(name: str, factor: int) -> None:
    """The stated anchor is the true one: the centroid of a smooth blob does not move, in mm."""
    degrade = DEGRADATIONS[name](factor)
    affine = np.diag([0.7, 0.9, 4.0, 1.0])
    y, x = np.mgrid[:96, :72]
    high = np.exp(-(((y - 41.3) / 9) ** 2) - ((x - 30.6) / 8) ** 2)
    low = degrade(high)
    low_affine = grid.rescale(affine, (1 / factor, 1 / factor, 1), degrade.anchor)
    np.testing.assert_allclose(_centroid(low, low_affine), _centroid(high, affine), atol=1e-3)


def _centroid(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    index = np.stack([*np.mgrid[: image.shape[0], : image.shape[1]], np.zeros(image.shape)])
    at = (index * image).sum((1, 2)) / image.sum()
    return affine[:3, :3] @ at + affine[:3, 3]


@pytest.mark.parametrize("factor", FACTORS)
def test_truncation_is_the_published_slice_of_kspace(factor: int) -> None:
    """On 240x240: rows and columns 60:180, 80:160, 90:150 of the shifted spectrum."""
    high = phantom((240, 240))
    keep = slice(120 - 120 // factor, 120 + 120 // factor)
    block = np.fft.fftshift(np.fft.fft2(high))[keep, keep]
    expected = np.abs(np.fft.ifft2(np.fft.ifftshift(block))) / factor**2
    np.testing.assert_allclose(Truncation(factor)(high), expected, atol=1e-3)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_integer_results_are_rounded_and_never_negative(name: str) -> None:
    high = phantom((2, 48, 36))
    plain = DEGRADATIONS[name](2)(high)
    low = DEGRADATIONS[name](2, integer=True)(high)
    assert (low >= 0).all()
    assert (low == np.round(low)).all()
    assert np.abs(low - np.maximum(plain, 0)).max() <= 0.5


def test_sizes_that_the_factor_does_not_divide_are_refused() -> None:
    with pytest.raises(BadInput, match="3 divides, got 25x36"):
        Bicubic(3)(np.zeros((1, 25, 36)))


@pytest.mark.parametrize("shape", [(24, 36), (23, 35)])
def test_zerofill_keeps_samples(shape: tuple[int, int]) -> None:
    """Every s-th sample of the result is the input: the centre anchor."""
    low = phantom((2, *shape))
    smooth = kspace.crop(phantom((2, 3 * shape[0], 3 * shape[1])), (2 * shape[0] - 1, 2 * shape[1] - 1))
    np.testing.assert_allclose(zerofill(3)(low)[:, ::3, ::3], low, atol=0.2 * low.std())
    np.testing.assert_allclose(zerofill(2)(smooth)[:, ::2, ::2], smooth, atol=1e-2)


@pytest.mark.parametrize("factor", FACTORS)
def test_bicubic_predictor_inverts_on_smooth_images(factor: int) -> None:
    y, x = np.mgrid[:96, :72] / 96
    high = (np.sin(3 * y) + np.cos(2 * x))[None].astype(np.float32)
    made = bicubic(factor)(Bicubic(factor)(high))
    assert np.abs(made - high)[:, 8:-8, 8:-8].max() < 1e-3
