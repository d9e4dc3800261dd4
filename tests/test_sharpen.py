import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from seran import grid, sharpen
from seran.classical import bicubic, zerofill
from seran.errors import BadInput
from seran.grid import Grid, Plan, Plane
from seran.methods import method
from seran.resize import imresize
from seran.sharpen import Estimate, Method, Normalisation
from seran.volume import Volume
from tests.conftest import bare, oblique, phantom, planned
from tests.test_formats import blob, centroid


def upscaled(volume: Volume, plane: Plane = "auto") -> Volume:
    found = bare(bicubic(2))
    return sharpen.upscale(volume, found, planned(volume, found, plane))[0]


def test_the_normalisation_ignores_a_spike_and_survives_background() -> None:
    stack = phantom((4, 40, 50))
    before = Normalisation.of(stack)
    stack[0, 0, 0] = 1e6
    after = Normalisation.of(stack)
    assert (after.offset, after.gain) == pytest.approx((before.offset, before.gain), rel=0.02)
    lonely = np.zeros((4, 40, 50), np.float32)
    lonely[2, 3, 4] = 9
    assert Normalisation.of(lonely) == Normalisation(0, 9)
    assert Normalisation.of(stack - 100).offset == -100


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
    mean = sharpen.ensembled(bare(predict)).predict
    np.testing.assert_allclose(mean(turn(low)), turn(mean(low)), atol=1e-5)
    assert np.abs(mean(low) - predict(low)).max() > 1e-3


def test_the_ensemble_of_bicubic_is_bicubic() -> None:
    low = phantom((3, 15, 22))
    made = sharpen.ensembled(bare(bicubic(3), 3)).predict(low)
    np.testing.assert_allclose(made, bicubic(3)(low), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_ensemble_of_zero_filling_is_zero_filling(scale: int) -> None:
    """Voxel 0 keeps its centre there, so a mirrored slice comes back off by s - 1 fine voxels."""
    low = phantom((2, 15, 21))  # odd sizes: without a Nyquist line, mirroring commutes with zero-filling
    made = sharpen.ensembled(bare(zerofill(scale), scale, "center")).predict(low)
    np.testing.assert_allclose(made, zerofill(scale)(low), atol=1e-3)
    plain = sharpen.ensembled(bare(zerofill(scale), scale)).predict(low)
    assert np.abs(plain - zerofill(scale)(low)).max() > 5


@pytest.mark.parametrize("name", ["bicubic", "zerofill", "nlm", "seran"])
def test_every_method_can_be_ensembled(name: str) -> None:
    """On slices that are not square; the result lies where the method alone puts it."""
    low = phantom((2, 15, 22)) + np.linspace(0, 300, 22, dtype=np.float32)
    alone, mean = method(name, 2), method(name + "+", 2)
    assert (mean.name, mean.context, mean.anchor) == (name + "+", alone.context, alone.anchor)
    a, b = (sharpen.sharpen(low, m).image for m in (alone, mean))
    assert a.shape == b.shape == (2, 30, 44)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert np.abs(a - b)[inner].mean() < 0.02 * np.ptp(low)


def test_a_method_that_looks_across_slices_gets_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 2000)
    seen: list[int] = []

    def predict(low: np.ndarray) -> np.ndarray:
        seen.append(len(low))
        return bicubic(2)(low)

    across = bare(predict, context=None)
    sharpen.sharpen(phantom((7, 20, 24)), across)
    assert seen == [7]
    assert method("nlm", 2).context is None
    volume = Volume(phantom((26, 34, 5)), oblique())
    sharpen.upscale(volume, across, planned(volume, across))
    assert seen == [7, 5]


def test_chunks_do_not_change_the_result_and_progress_counts_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = phantom((7, 20, 24))
    whole = sharpen.sharpen(stack, bare(bicubic(2))).image
    done: list[int] = []
    sizes: list[int] = []

    def predict(low: np.ndarray) -> np.ndarray:
        sizes.append(len(low))
        return bicubic(2)(low)

    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 2 * 4 * 20 * 24)
    made = sharpen.sharpen(stack, bare(predict), done.append).image
    np.testing.assert_allclose(made, whole, rtol=1e-5, atol=1e-4)
    assert max(sizes) == 2
    assert sum(done) == 7


def test_never_negative_where_the_input_is_not() -> None:
    stack = phantom((3, 24, 20))
    stack[1, 5:9, 5:9] = -40
    made = sharpen.sharpen(stack, bare(bicubic(2))).image
    negative = (stack < 0).repeat(2, 1).repeat(2, 2)
    assert made[~negative].min() >= 0
    assert made[negative].min() < -30
    assert bicubic(2)(stack)[~negative].min() < 0


def test_a_large_offset_does_not_matter() -> None:
    """Neither to a network: what lies between 10,000 and 10,400 is as what lies between 0 and 400."""
    stack = phantom((2, 24, 20))
    network = method("seran", 2)
    made = (sharpen.sharpen(stack + 10000, network).image - 10000).clip(0)
    np.testing.assert_allclose(made, sharpen.sharpen(stack, network).image, atol=0.02 * stack.max())


@pytest.mark.parametrize("gain", [1e-4, 1.0, 3e4])
def test_the_scale_of_intensities_does_not_matter(gain: float) -> None:
    stack = phantom((2, 24, 20))
    made = sharpen.sharpen(stack * np.float32(gain), bare(bicubic(2))).image / gain
    whole = sharpen.sharpen(stack, bare(bicubic(2))).image
    np.testing.assert_allclose(made, whole, rtol=1e-3, atol=1e-2)


def test_a_volume_of_one_slice_and_other_planes() -> None:
    one = Volume(phantom((26, 34, 1)), oblique())
    assert upscaled(one).data.shape == (52, 68, 1)
    five = Volume(phantom((26, 34, 5)), oblique())
    assert upscaled(five, "sagittal").data.shape == (26, 68, 10)


@pytest.mark.parametrize("value", [0, 7.5, -3])
def test_where_all_voxels_are_alike_they_stay_so(value: float) -> None:
    alike = Volume(np.full((26, 34, 5), value, np.float32), oblique())
    made = upscaled(alike).data
    assert made.shape == (52, 68, 5)
    assert (made == value).all()


def test_slices_that_are_too_small_are_refused() -> None:
    with pytest.raises(BadInput, match=r"slices of 3x34 pixels .*: must be at least 4x4"):
        upscaled(Volume(phantom((3, 34, 5)), oblique()))


def test_a_plan_of_another_scan_or_method_is_refused() -> None:
    """No caller can combine a predictor with a wrong anchor or scale: the half-voxel error cannot be made."""
    volume, found = Volume(phantom((26, 34, 5)), oblique()), bare(bicubic(2))
    plan = planned(volume, found)
    for wrong in (
        planned(Volume(phantom((26, 35, 5)), oblique()), found),
        planned(volume, bare(bicubic(3), 3)),
        planned(volume, bare(zerofill(2), 2, "center")),
    ):
        with pytest.raises(ValueError, match="the plan is not one for bare"):
            sharpen.upscale(volume, found, wrong)
    assert sharpen.upscale(volume, found, plan)[1] is None


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("end", [1, 5, 7])
def test_neighbours_reach_over_the_borders_of_chunks(
    monkeypatch: pytest.MonkeyPatch, context: int, end: int
) -> None:
    """A running mean across slices is the same whatever the chunks; memory holds a chunk and its halo."""
    stack, sizes = phantom((9, 20, 24)), []

    def predict(low: np.ndarray) -> np.ndarray:
        sizes.append(len(low))
        return bicubic(2)(uniform_filter1d(low, 2 * context + 1, axis=0, mode="nearest"))

    whole = sharpen.sharpen(stack, bare(predict, context=None)).image
    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", end * 4 * 20 * 24)
    made = sharpen.sharpen(stack, bare(predict, context=context)).image
    np.testing.assert_allclose(made, whole, rtol=1e-5, atol=1e-3)
    assert max(sizes[1:]) <= end + 2 * context
    blind = sharpen.sharpen(stack, bare(predict, context=0)).image
    assert end > 9 or np.abs(blind - whole).max() > 1


def test_a_half_width_comes_in_the_units_of_the_scan_and_on_its_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the image, on intensities of about [0, 1]; with the ensemble, on a plan with a target."""
    volume = Volume(phantom((26, 34, 5)) + 7, oblique())

    def predict(low: np.ndarray) -> Estimate:
        return Estimate(bicubic(2)(low), bicubic(2)(low) / 10)

    known = Method("known", (2, 2), predict, "bd", "corner", half_width=True)
    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 2 * 4 * 26 * 34)
    for method_ in (known, sharpen.ensembled(known)):
        image, half = sharpen.upscale(volume, method_, planned(volume, method_))
        assert half is not None
        np.testing.assert_allclose(half.data, upscaled(volume).data / 10, atol=0.05)
        np.testing.assert_array_equal(half.affine, image.affine)
    target = Grid((40, 51, 5), grid.rescale(oblique(), (40 / 26, 1.5, 1), "corner"))
    plan = Plan(volume.grid, 2, (2, 2), "corner", target)
    image, half = sharpen.upscale(volume, known, plan)
    assert half is not None
    np.testing.assert_array_equal(half.affine, target.affine)
    np.testing.assert_allclose(half.data, image.data / 10, rtol=0.02, atol=0.1)


def test_a_method_keeps_its_word_about_half_widths() -> None:
    for predict, half in (
        (bicubic(2), True),
        (lambda low: Estimate(bicubic(2)(low), bicubic(2)(low)), False),
    ):
        liar = Method("liar", (2, 2), predict, "bd", "corner", half_width=half)
        with pytest.raises(ValueError, match="liar: its predictor must give"):
            sharpen.sharpen(phantom((2, 20, 24)), liar)


@pytest.mark.parametrize("factors", [(1, 3), (2, 1)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_and_columns_may_have_factors_of_their_own(factors: tuple[int, int], axis: int) -> None:
    """A blob keeps its millimetres; the ensemble exchanges no rows with columns then."""
    volume = Volume(blob((26, 34, 21)), oblique((0.9, 0.8, 1.1)))

    def predict(low: np.ndarray) -> np.ndarray:
        return imresize(low, (low.shape[1] * factors[0], low.shape[2] * factors[1]))

    uneven = Method("uneven", factors, predict, "bd", "corner")
    plan = Plan(volume.grid, axis, factors, "corner")
    for found in (uneven, sharpen.ensembled(uneven)):
        made, _ = sharpen.upscale(volume, found, plan)
        assert made.data.shape == tuple(np.insert(factors, axis, 1) * (26, 34, 21))
        places = [centroid(v.data, v.affine) for v in (made, volume)]
        np.testing.assert_allclose(*places, atol=0.05)
