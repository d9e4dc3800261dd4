import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter, gaussian_laplace
from skimage import metrics as reference

from seran.quality import metrics
from tests.conftest import phantom

TRUTH = phantom((20, 26, 31))
TEST = TRUTH + np.random.default_rng(1).normal(0, 9, TRUTH.shape).astype(np.float32)
SPAN = float(np.ptp(TRUTH))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    _, full = reference.structural_similarity(
        a.astype(float), b.astype(float), data_range=SPAN, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    return full.mean()


def test_psnr_is_scikit_images() -> None:
    expected = reference.peak_signal_noise_ratio(TRUTH, TEST, data_range=SPAN)
    assert metrics.psnr(TRUTH, TEST, SPAN) == pytest.approx(expected, abs=1e-4)


def test_ssim_volume_is_scikit_images_whole_map() -> None:
    assert metrics.scores(TRUTH, TEST, SPAN)["ssim_volume"] == pytest.approx(_ssim(TRUTH, TEST), abs=1e-6)


def test_ssim_slice_is_scikit_images_per_slice() -> None:
    expected = np.mean([_ssim(a, b) for a, b in zip(TRUTH, TEST, strict=True)])
    assert metrics.scores(TRUTH, TEST, SPAN)["ssim_slice"] == pytest.approx(expected, abs=1e-6)


def test_identity_and_error_of_one() -> None:
    assert metrics.psnr(TRUTH, TRUTH, SPAN) == float("inf")
    assert metrics.scores(TRUTH, TRUTH, SPAN)["ssim_volume"] == pytest.approx(1)
    assert metrics.psnr(np.zeros(8), np.ones(8), 10) == pytest.approx(20)


def framed(stack: np.ndarray) -> np.ndarray:
    """The stack in a frame of 0, of even size; inside, 31 columns less one."""
    return np.pad(stack[:, :, :30], ((0, 0), (3, 3), (3, 3)))


BLURRED = gaussian_filter(TRUTH, (0, 1, 1))
DARKER = TRUTH * np.linspace(0.5, 1, 31, dtype=np.float32)


@pytest.mark.parametrize(
    ("test", "expected"),
    [(BLURRED, 0.06745918147), (DARKER, 0.01780277681), (np.roll(TRUTH, 1, 2), 0.09622767617)],
    ids=["blur", "shade", "shift"],
)
def test_gmsd_is_piqs(test: np.ndarray, expected: float) -> None:
    """Golden: piq 0.8.0, ``gmsd(..., reduction="none", data_range=1)`` in float64, mean over slices."""
    assert metrics.gmsd(framed(TRUTH), framed(test), SPAN) == pytest.approx(expected, rel=1e-9)


def test_the_laplacian_is_matlabs() -> None:
    """MATLAB's documentation prints ``fspecial('log')``, which is of 5x5 pixels with σ 0.5."""
    point = np.zeros((1, 11, 11))
    point[0, 5, 5] = 1
    printed = [[0.0448, 0.0468, 0.0564], [0.0468, 0.3167, 0.7146], [0.0564, 0.7146, -4.9048]]
    found = metrics.laplacian(point, 0.5, 5)[0]
    np.testing.assert_allclose(found[3:6, 3:6], printed, atol=5e-5)
    np.testing.assert_allclose(found, found[::-1, ::-1], atol=1e-12)
    assert abs(metrics.laplacian(np.full((2, 20, 23), 7.0))).max() < 1e-12


def test_hfen_is_that_of_the_whole_kernel() -> None:
    x, y = np.mgrid[-7:8, -7:8]
    kernel = np.exp(-(x**2 + y**2) / 4.5)
    kernel /= kernel.sum()
    kernel *= (x**2 + y**2 - 4.5) / 1.5**4
    kernel -= kernel.mean()
    right, wrong = (convolve(a.astype(float), kernel[None], mode="reflect") for a in (TRUTH, TEST))
    expected = np.linalg.norm(wrong - right) / np.linalg.norm(right)
    assert metrics.hfen(TRUTH, TEST) == pytest.approx(expected, rel=1e-9)
    mask = TRUTH > 0.1 * SPAN
    expected = np.linalg.norm((wrong - right)[mask]) / np.linalg.norm(right[mask])
    assert metrics.hfen(TRUTH, TEST, mask) == pytest.approx(expected, rel=1e-9)
    # scipy's own filter, which is not cut off at 15 pixels
    right, wrong = (
        np.stack([gaussian_laplace(one.astype(float), 1.5, truncate=6) for one in stack])
        for stack in (TRUTH, TEST)
    )
    expected = np.linalg.norm(wrong - right) / np.linalg.norm(right)
    assert metrics.hfen(TRUTH, TEST) == pytest.approx(expected, rel=0.01)


def test_properties_of_hfen_and_gmsd() -> None:
    assert metrics.hfen(TRUTH, TRUTH) == metrics.gmsd(TRUTH, TRUTH, SPAN) == 0
    assert metrics.hfen(TRUTH, 0 * TRUTH) == pytest.approx(1)
    assert metrics.hfen(TRUTH, 1.25 * TRUTH) == pytest.approx(0.25)
    assert metrics.hfen(TRUTH, TRUTH + 50) == pytest.approx(0, abs=1e-6)
    assert metrics.gmsd(TRUTH, TRUTH + 50, SPAN) == pytest.approx(0, abs=1e-6)
    assert metrics.gmsd(3 * TRUTH, 3 * TEST, 3 * SPAN) == pytest.approx(metrics.gmsd(TRUTH, TEST, SPAN))
    assert metrics.gmsd(TEST, TRUTH, SPAN) == pytest.approx(metrics.gmsd(TRUTH, TEST, SPAN))
    odd, even = (
        [np.pad(x[:, :, :27], ((0, 0), (0, 0), (0, n)), "edge") for x in (TRUTH, TEST)] for n in (0, 1)
    )
    assert metrics.gmsd(*odd, SPAN) == pytest.approx(metrics.gmsd(*even, SPAN))
    nothing = 0 * TRUTH
    assert metrics.hfen(nothing, nothing) == 0
    assert metrics.hfen(nothing, TRUTH) == float("inf")


def test_a_mask_chooses_what_counts() -> None:
    everything = np.ones(TRUTH.shape, bool)
    whole = metrics.scores(TRUTH, TEST, SPAN)
    assert metrics.scores(TRUTH, TEST, SPAN, everything) == pytest.approx(whole)
    mask = np.zeros(TRUTH.shape, bool)
    mask[3:9, 4:20, 5:24] = True
    changed = TEST.copy()
    changed[15:, 25:, 30:] += 500  # further away than any window reaches
    masked = metrics.scores(TRUTH, changed, SPAN, mask)
    assert masked == pytest.approx(metrics.scores(TRUTH, TEST, SPAN, mask))
    assert metrics.scores(TRUTH, changed, SPAN)["psnr"] < whole["psnr"] - 1
    assert masked["psnr"] == pytest.approx(metrics.psnr(TRUTH[mask], TEST[mask], SPAN))
    _, full = reference.structural_similarity(
        TRUTH.astype(float), TEST.astype(float), data_range=SPAN, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert masked["ssim_volume"] == pytest.approx(full[mask].mean(), abs=1e-6)
    corner = np.zeros(TRUTH.shape, bool)
    corner[2, -1, -1] = True  # in the last column, of which there is an odd number
    assert metrics.gmsd(TRUTH, TEST, SPAN, corner) == 0
    assert np.isfinite(metrics.scores(TRUTH, TEST, SPAN, corner)["ssim_volume"])
