import numpy as np
import pytest

from seran import sharpen
from seran.classical import bicubic, zerofill
from seran.errors import BadInput
from seran.methods import method
from seran.volume import Volume
from tests.conftest import oblique, phantom


def test_unit_ignores_a_spike_and_survives_background() -> None:
    stack = phantom((4, 40, 50))
    offset, gain = sharpen.unit(stack)
    stack[0, 0, 0] = 1e6
    assert sharpen.unit(stack) == pytest.approx((offset, gain), rel=0.02)
    lonely = np.zeros((4, 40, 50), np.float32)
    lonely[2, 3, 4] = 9
    assert sharpen.unit(lonely) == (0, 9)
    assert sharpen.unit(stack - 100)[0] == -100


@pytest.mark.parametrize("symmetry", range(8))
def test_the_ensemble_commutes_with_the_symmetries(symmetry: int) -> None:
    """A predictor that treats directions differently: its ensemble does not. Slices are not square."""
    skewed = np.random.default_rng(0).normal(size=(1, 14, 18))

    def predict(low: np.ndarray) -> np.ndarray:
        high = bicubic(2)(low)
        return high + 0.1 * np.roll(high, 1, 2) * high

    def turn(x: np.ndarray) -> np.ndarray:
        x = x[:, ::-1] if symmetry >= 4 else x
        return np.ascontiguousarray(np.rot90(x, symmetry % 4, (1, 2)))

    low = skewed.astype(np.float32)
    mean = sharpen.ensembled(predict, "corner")
    np.testing.assert_allclose(mean(turn(low)), turn(mean(low)), atol=1e-5)
    assert np.abs(mean(low) - predict(low)).max() > 1e-3


def test_the_ensemble_of_bicubic_is_bicubic() -> None:
    low = phantom((3, 15, 22))
    made = sharpen.ensembled(bicubic(3), "corner")(low)
    np.testing.assert_allclose(made, bicubic(3)(low), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_ensemble_of_zero_filling_is_zero_filling(scale: int) -> None:
    """Voxel 0 keeps its centre there, so a mirrored slice comes back off by s - 1 fine voxels."""
    low = phantom((2, 15, 21))  # odd sizes: without a Nyquist line, mirroring commutes with zero-filling
    made = sharpen.ensembled(zerofill(scale), "center")(low)
    np.testing.assert_allclose(made, zerofill(scale)(low), atol=1e-3)
    plain = sharpen.ensembled(zerofill(scale), "corner")(low)
    assert np.abs(plain - zerofill(scale)(low)).max() > 5


@pytest.mark.parametrize("name", ["bicubic", "zerofill", "nlm", "seran"])
def test_every_method_can_be_ensembled(name: str) -> None:
    """On slices that are not square; the result lies where the method alone puts it."""
    low = phantom((2, 15, 22)) + np.linspace(0, 300, 22, dtype=np.float32)
    alone, mean = method(name, 2), method(name + "+", 2)
    assert (mean.name, mean.whole, mean.anchor) == (name + "+", alone.whole, alone.anchor)
    a, b = (sharpen.sharpen(low, m.predict, 2, whole=m.whole) for m in (alone, mean))
    assert a.shape == b.shape == (2, 30, 44)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert np.abs(a - b)[inner].mean() < 0.02 * np.ptp(low)


def test_a_method_that_looks_across_slices_gets_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 2000)
    seen: list[int] = []

    def predict(low: np.ndarray) -> np.ndarray:
        seen.append(len(low))
        return bicubic(2)(low)

    sharpen.sharpen(phantom((7, 20, 24)), predict, 2, whole=True)
    assert seen == [7]
    assert method("nlm", 2).whole
    volume = Volume(phantom((26, 34, 5)), oblique())
    sharpen.upscale(volume, predict, 2, "corner", whole=True)
    assert seen == [7, 5]


def test_chunks_do_not_change_the_result_and_progress_counts_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = phantom((7, 20, 24))
    whole = sharpen.sharpen(stack, bicubic(2), 2)
    done: list[int] = []
    sizes: list[int] = []

    def predict(low: np.ndarray) -> np.ndarray:
        sizes.append(len(low))
        return bicubic(2)(low)

    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 2 * 4 * 20 * 24)
    np.testing.assert_allclose(sharpen.sharpen(stack, predict, 2, done.append), whole, rtol=1e-5, atol=1e-4)
    assert max(sizes) == 2
    assert sum(done) == 7


def test_never_negative_where_the_input_is_not() -> None:
    stack = phantom((3, 24, 20))
    stack[1, 5:9, 5:9] = -40
    made = sharpen.sharpen(stack, bicubic(2), 2)
    negative = (stack < 0).repeat(2, 1).repeat(2, 2)
    assert made[~negative].min() >= 0
    assert made[negative].min() < -30
    assert bicubic(2)(stack)[~negative].min() < 0


@pytest.mark.parametrize("gain", [1e-4, 1.0, 3e4])
def test_the_scale_of_intensities_does_not_matter(gain: float) -> None:
    stack = phantom((2, 24, 20))
    made = sharpen.sharpen(stack * np.float32(gain), bicubic(2), 2) / gain
    np.testing.assert_allclose(made, sharpen.sharpen(stack, bicubic(2), 2), rtol=1e-3, atol=1e-2)


def test_a_volume_of_one_slice_and_other_planes() -> None:
    one = Volume(phantom((26, 34, 1)), oblique())
    assert sharpen.upscale(one, bicubic(2), 2, "corner").data.shape == (52, 68, 1)
    five = Volume(phantom((26, 34, 5)), oblique())
    assert sharpen.upscale(five, bicubic(2), 2, "corner", "sagittal").data.shape == (26, 68, 10)


@pytest.mark.parametrize("value", [0, 7.5, -3])
def test_where_all_voxels_are_alike_they_stay_so(value: float) -> None:
    alike = Volume(np.full((26, 34, 5), value, np.float32), oblique())
    made = sharpen.upscale(alike, bicubic(2), 2, "corner").data
    assert made.shape == (52, 68, 5)
    assert (made == value).all()


def test_slices_that_are_too_small_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 4x4 pixels, got 3x34"):
        sharpen.upscale(Volume(phantom((3, 34, 5)), oblique()), bicubic(2), 2, "corner")
