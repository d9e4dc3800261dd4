import numpy as np
import pytest
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
