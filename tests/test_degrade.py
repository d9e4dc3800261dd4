import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seran import cli, grid, kspace
from seran.classical import bicubic, zerofill
from seran.data.pairs import load_prepared
from seran.data.patches import Patches
from seran.degrade import DEGRADATIONS, Bicubic, Degradation, Truncation, named
from seran.errors import BadInput
from seran.methods import method
from tests.conftest import phantom
from tests.test_prepare import save

FACTORS = (2, 3, 4)
PAIRS = [(1, 2), (2, 1), (2, 2), (3, 1), (3, 3), (4, 2), (4, 4)]
"""Factors of rows and columns."""
degradations = pytest.mark.parametrize("name", DEGRADATIONS)
seeds = st.integers(0, 999)


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@degradations
@given(seed=seeds, factors=st.tuples(*[st.integers(1, 4)] * 2), low=st.tuples(*[st.integers(4, 11)] * 2))
@settings(max_examples=40, deadline=None)
def test_linear_parts_are_linear_and_have_their_adjoints(
    name: str, seed: int, factors: tuple[int, int], low: tuple[int, int]
) -> None:
    """⟨A x, y⟩ = ⟨x, Aᴴ y⟩ for odd and even sizes, and different factors along the axes."""
    rng, degrade = np.random.default_rng(seed), DEGRADATIONS[name](factors)
    high = (2, low[0] * factors[0], low[1] * factors[1])
    (u, x), y = drawn(rng, (2, *high)), drawn(rng, (2, *low))
    if name == "bd":  # its numbers are real
        u, x, y = u.real, x.real, y.real
    a, b = rng.normal(size=2)
    image = degrade.linear(x)
    np.testing.assert_allclose(degrade.linear(a * u + b * x), a * degrade.linear(u) + b * image, atol=1e-10)
    assert image.shape == y.shape
    assert degrade.adjoint(y).shape == x.shape
    assert abs(np.vdot(image, y) - np.vdot(x, degrade.adjoint(y))) < 1e-10


@degradations
@pytest.mark.parametrize("factors", PAIRS)
def test_pseudoinverses_are_the_least_slices_that_give_these(name: str, factors: tuple[int, int]) -> None:
    """A A⁺ y = y, and A⁺ y is in the range of Aᴴ: orthogonal to all that A does not see."""
    degrade, rng = DEGRADATIONS[name](factors), np.random.default_rng(0)
    low = rng.normal(size=(2, 7, 10))
    shape = (7 * factors[0], 10 * factors[1])
    high = degrade.pseudoinverse(low, shape)
    np.testing.assert_allclose(degrade.linear(high), low, atol=1e-4)
    x = rng.normal(size=(2, *shape))
    unseen = x - degrade.pseudoinverse(degrade.linear(x), shape)
    assert abs(np.vdot(unseen, high)) < 1e-3 * np.linalg.norm(x) * np.linalg.norm(high)


@degradations
@pytest.mark.parametrize("factors", PAIRS)
def test_the_call_is_the_magnitude_of_the_linear_part(name: str, factors: tuple[int, int]) -> None:
    degrade, high = DEGRADATIONS[name](factors), phantom((2, 24, 36)) + 200
    np.testing.assert_allclose(degrade(high), np.abs(degrade.linear(high)), rtol=1e-6)
    assert degrade(high).dtype == np.float32


@degradations
@pytest.mark.parametrize("factors", PAIRS)
def test_constants_stay(name: str, factors: tuple[int, int]) -> None:
    low = DEGRADATIONS[name](factors)(np.full((2, 24, 36), 7.25))
    np.testing.assert_allclose(low, 7.25, atol=1e-10)
    assert low.shape == (2, 24 // factors[0], 36 // factors[1])


@degradations
@given(y=st.floats(40, 56), x=st.floats(32, 40), factors=st.sampled_from(PAIRS))
@settings(max_examples=30, deadline=None)
def test_a_blob_keeps_its_millimetres(name: str, y: float, x: float, factors: tuple[int, int]) -> None:
    """The stated anchor is the true one: the centroid of a smooth blob does not move, in mm."""
    degrade = DEGRADATIONS[name](factors)
    affine = np.diag([0.7, 0.9, 4.0, 1.0])
    rows, columns = np.mgrid[:96, :72]
    high = np.exp(-(((rows - y) / 9) ** 2) - ((columns - x) / 8) ** 2)
    low_affine = grid.rescale(affine, (1 / factors[0], 1 / factors[1], 1), degrade.anchor)
    np.testing.assert_allclose(_centroid(degrade(high), low_affine), _centroid(high, affine), atol=1e-3)


def test_a_factor_of_one_changes_nothing() -> None:
    high = phantom((2, 24, 36))
    np.testing.assert_array_equal(Bicubic((1, 1))(high), high)
    np.testing.assert_allclose(Truncation((1, 1))(high), high, atol=1e-3)


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
    np.testing.assert_allclose(Truncation((factor, factor))(high), expected, atol=1e-3)


@degradations
def test_integer_results_are_rounded_and_never_negative(name: str) -> None:
    high = phantom((2, 48, 36))
    plain = DEGRADATIONS[name]((2, 2))(high)
    low = DEGRADATIONS[name]((2, 2), integer=True)(high)
    assert (low >= 0).all()
    assert (low == np.round(low)).all()
    assert np.abs(low - np.maximum(plain, 0)).max() <= 0.5


def test_sizes_that_the_factor_does_not_divide_are_refused() -> None:
    with pytest.raises(BadInput, match="3 divides, got 25x36"):
        Bicubic((3, 3))(np.zeros((1, 25, 36)))
    with pytest.raises(BadInput, match="4 divides, got 24x35"):
        Truncation((1, 4))(np.zeros((24, 35)))


def test_facts_are_those_of_the_registry() -> None:
    for name, known in DEGRADATIONS.items():
        assert named(name) is known
        assert known.name == name
        assert method(known.baseline, 2).anchor == known.anchor
    with pytest.raises(BadInput, match="--degradation blur: expected bd or td"):
        named("blur")


class Box(Degradation):
    """A toy: the mean over every block of voxels."""

    name, words, baseline, anchor, local = "box", "block means", "bicubic", "corner", True

    def linear(self, high: np.ndarray) -> np.ndarray:
        """Means of blocks."""
        (a, b), (rows, columns) = self.low_shape(high), self.factors
        return high.reshape(*high.shape[:-2], a, rows, b, columns).mean((-3, -1))

    def adjoint(self, low: np.ndarray) -> np.ndarray:
        """An equal share for every voxel of a block."""
        rows, columns = self.factors
        return low.repeat(rows, -2).repeat(columns, -1) / (rows * columns)


def test_a_new_degradation_is_a_class_and_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, through patches made from it, to scores that state it."""
    monkeypatch.setitem(DEGRADATIONS, "box", Box)
    for i in (2, 4):  # a training and a test subject
        save(tmp_path / "raw" / f"sub-{i:02d}_T2w.nii.gz", phantom((62, 75, 5), i))
    (tmp_path / "raw" / "sub-03_T2w.nii.gz").write_bytes(
        (tmp_path / "raw" / "sub-02_T2w.nii.gz").read_bytes()
    )
    folder = str(tmp_path / "set")
    options = ["--degradation", "box", "--scales", "2"]
    assert cli.run(["prepare", str(tmp_path / "raw"), folder, *options]) == 0
    pairs = load_prepared(folder)
    volume = pairs.pick("test")[0]
    np.testing.assert_allclose(pairs.low(volume, 2), Box((2, 2))(pairs.high(volume)), rtol=1e-6)
    low, high = Patches(pairs, "train", 2, seed=0, augment=1.0).batch(0, range(4), 12)
    np.testing.assert_allclose(low.numpy(), Box((2, 2))(high.numpy()), atol=1e-6)
    capsys.readouterr()
    assert cli.run(["evaluate", folder, "--methods", "bicubic"]) == 0
    report = capsys.readouterr().out
    assert "x2, block means in the plane of the slices" in report
    assert re.search(r"\| T2 \| 1 \| bicubic \| [\d.]+ \| \+0\.00 \|", report)
    assert cli.run(["evaluate", folder, "--methods", "bicubic", "zerofill"]) == 2
    assert "zerofill undoes td at x2; the data are box at x2" in capsys.readouterr().err


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
    made = bicubic(factor)(Bicubic((factor, factor))(high))
    assert np.abs(made - high)[:, 8:-8, 8:-8].max() < 1e-3
