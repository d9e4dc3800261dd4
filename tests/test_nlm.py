import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.interpolate import interp1d

from seran.classical import bicubic
from seran.classical.nlm import TILE, _exp, _tiles, estimates, nlm
from seran.data import prepare
from seran.data.sources import Source, read_source
from seran.degrade import Bicubic
from seran.engines import Engine
from seran.methods import method
from seran.quality.metrics import psnr
from tests.conftest import phantom

SCALES = (2, 3, 4)


def textured(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth structure, an edge and noise beside a constant background: moving and frozen voxels."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    image = 60 + 50 * np.sin(4 * y + 2 * x + z) + 60 * (y - 0.6 * x + 0.3 * z > 0.1) + noise
    image = np.where(x + 0.4 * y < -0.2, 12.0, image)
    return image * 256 / image.max()


# A slow, obvious version in float64, written from the description alone.


def slow_start(low: np.ndarray, s: int) -> np.ndarray:
    image = low
    for axis in (1, 2):
        n = low.shape[axis]
        at = np.arange(n * s)
        at[: s // 2], at[n * s - s // 2 :] = s // 2, n * s - s // 2 - 1
        image = interp1d(np.arange(n) * s + (s - 1) / 2, image, kind="cubic", axis=axis)(at)
    return slow_correction(image, low, s)


def slow_correction(high: np.ndarray, low: np.ndarray, s: int) -> np.ndarray:
    high = high.copy()
    for z, y, x in np.ndindex(low.shape):
        block = high[z, y * s : (y + 1) * s, x * s : (x + 1) * s]
        block += low[z, y, x] - block.mean()
    return high


def cubes(image: np.ndarray) -> np.ndarray:
    """The 27 voxels around each voxel, along the last axis."""
    return sliding_window_view(np.pad(image, 1, mode="symmetric"), (3, 3, 3)).reshape(*image.shape, 27)


def slow_sweep(image: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N(F), and the voxels with a neighbour closer to the limit of selection than float32 can tell."""
    image = image.astype(float)
    patch, total, norm = cubes(image), image.copy(), np.ones(image.shape)
    mean, close = patch.mean(-1), np.zeros(image.shape, bool)
    h_safe = np.maximum(h, 1e-9)
    for offset in itertools.product(range(-3, 4), repeat=3):
        if offset == (0, 0, 0):
            continue
        p = tuple(slice(max(0, -d), max(0, n - max(0, d))) for d, n in zip(offset, image.shape, strict=True))
        q = tuple(slice(max(0, d), max(0, n - max(0, -d))) for d, n in zip(offset, image.shape, strict=True))
        distance = ((patch[p] - patch[q]) ** 2).mean(-1)
        weight = np.exp(-np.maximum(0, distance / (2 * h_safe[p] ** 2) - 1))
        apart = np.abs(mean[p] - mean[q]) - 0.6 * h[p]
        weight[apart > 0] = 0
        close[p] |= np.abs(apart) < 1e-4
        total[p] += weight * image[q]
        norm[p] += weight
    return np.where(h < 1, image, total / norm), close & (h >= 1)


def halvings(images: list[np.ndarray]) -> Iterator[tuple[bool, bool]]:
    """After each sweep: whether h is halved, whether it was the last."""
    changes, shifts, marks, halved = [], [], [images[0]], False
    for before, image in itertools.pairwise(images):
        changes.append(np.abs(image.astype(float) - before).mean())
        last = changes[-1] <= 0.001
        halved = not last and not halved and len(changes) > 1 and changes[-2] / changes[-1] < 1.2
        if halved:
            shifts.append(np.abs(image.astype(float) - marks[-1]).mean())
            marks.append(image)
            last = len(shifts) > 1 and shifts[-2] / shifts[-1] < 1.2
        yield halved, last


@pytest.mark.parametrize(
    ("shape", "scale", "sweeps"),
    [
        ((6, 14, 11), 2, None),
        ((5, 9, 12), 3, None),
        ((4, 8, 7), 4, None),
        ((1, 13, 10), 2, None),
        ((18, 7, 67), 2, 2),
    ],
)
def test_every_sweep_is_that_of_the_slow_version(
    shape: tuple[int, int, int], scale: int, sweeps: int | None
) -> None:
    """Each from the same F: a neighbour at the limit of selection makes whole runs differ by chance."""
    low = textured(shape)
    images = list(itertools.islice(estimates(low, scale), sweeps and sweeps + 1))
    np.testing.assert_allclose(images[0], slow_start(low, scale), atol=1e-4)
    h = cubes(cubes(slow_start(low, scale)).std(-1, ddof=1)).mean(-1) / 2
    assert 0.03 < (h < 1).mean() < 0.5
    ends, sure = [], []
    for before, image, (halved, last) in zip(images, images[1:], halvings(images), strict=False):
        smoothed, close = slow_sweep(before, h)
        expected = slow_correction(smoothed, low, scale)
        blocks = close.reshape(len(low), low.shape[1], scale, low.shape[2], scale).any((2, 4))
        same = ~blocks.repeat(scale, 1).repeat(scale, 2)
        np.testing.assert_allclose(image[same], expected[same], atol=256e-6, rtol=0)
        assert np.abs(expected - before).max() > 0.1 or last or len(ends) > 5
        h = h / 2 if halved else h
        ends.append(last)
        sure.append(same.mean())
    assert np.mean(sure) > 0.9
    assert ends == [False] * (len(ends) - 1) + [sweeps is None]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sign", [1, -1])
def test_means_of_blocks_are_the_low_voxels(scale: int, sign: int) -> None:
    """Of those that NLM leaves alone as well; also of stacks without a positive value."""
    low = sign * textured((3, 9, 14)) * 7.3
    high = nlm(scale)(low).astype(float)
    means = high.reshape(3, 9, scale, 14, scale).mean((2, 4))
    np.testing.assert_allclose(means, low, atol=1e-6 * np.abs(low).max())
    assert np.abs(high - low.repeat(scale, 1).repeat(scale, 2)).max() > 10


@pytest.mark.parametrize("value", [0.0, 7.3, -2.0])
def test_a_constant_stack_comes_back(value: float) -> None:
    high = nlm(3)(np.full((2, 5, 7), value, np.float32))
    np.testing.assert_array_equal(high, np.full((2, 15, 21), np.float32(value)))


@pytest.mark.parametrize("shape", [(1, 5, 17), (1, 2, 3), (7, 1, 4), (2, 1, 1), (3, 19, 6)])
@pytest.mark.parametrize("scale", SCALES)
def test_any_size_is_possible(shape: tuple[int, int, int], scale: int) -> None:
    low = textured(shape).astype(np.float32) if max(shape) > 2 else np.array([[[0.0]], [[256.0]]])
    high = nlm(scale)(low)
    assert high.dtype == np.float32
    assert high.shape == (shape[0], scale * shape[1], scale * shape[2])
    assert np.isfinite(high).all()


@pytest.mark.parametrize("factor", [1000.0, 1 / 256, 3e-9])
def test_units_do_not_matter(factor: float) -> None:
    low = textured((4, 10, 13))
    np.testing.assert_allclose(nlm(2)(factor * low), factor * nlm(2)(low), rtol=0, atol=factor * 256e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_a_blob_keeps_its_place(scale: int) -> None:
    """Corner anchor: low voxel i lies at i·s + (s - 1) / 2."""
    z, y, x = np.mgrid[:5, :18, :23]
    low = np.exp(-(((z - 2) / 2.5) ** 2) - ((y - 8.3) / 2.2) ** 2 - ((x - 10.7) / 2.6) ** 2)
    high = nlm(scale)(low)
    index = np.mgrid[: high.shape[0], : high.shape[1], : high.shape[2]]
    at = (index * high).sum((1, 2, 3)) / high.sum()
    expected = [2, 8.3 * scale + (scale - 1) / 2, 10.7 * scale + (scale - 1) / 2]
    np.testing.assert_allclose(at, expected, atol=0.02)
    assert np.argmax(high.sum((1, 2))) == 2


@pytest.mark.parametrize("scale", SCALES)
def test_gains_over_bicubic(scale: int) -> None:
    truth = phantom((7, 60, 72)) + np.random.default_rng(3).normal(0, 6, (7, 60, 72))
    low = Bicubic((scale, scale))(truth)
    span = float(np.ptp(truth))
    gain = psnr(truth, nlm(scale)(low), span) - psnr(truth, bicubic(scale)(low), span)
    assert gain > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openms_patient04_study1_T2W", "ds000011_sub-10_inplaneT2"])
def test_gain_on_real_scans(shared: Path, name: str) -> None:
    """The T2 scans of the split val, twelve central slices, truth cropped to its k-space support."""
    source = Source(shared / "val" / f"{name}.nii.gz", "", "T2", "val")
    stack = prepare.high_resolution(read_source(source), prepare.PrepareOptions(), None)[0]
    truth = stack[len(stack) // 2 - 6 :][:12].astype(np.float32)
    low = Bicubic((2, 2))(truth)
    span = float(np.ptp(stack))
    assert psnr(truth, nlm(2)(low), span) > psnr(truth, bicubic(2)(low), span) + 1


def test_threads_are_obeyed_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    asked: list[int] = []
    counted = lambda threads: asked.append(threads) or ThreadPoolExecutor(threads)  # noqa: E731
    monkeypatch.setattr("seran.classical.nlm.ThreadPoolExecutor", counted)
    low = textured((4, 10, 13))
    one = method("nlm", 2, engine=Engine(threads=1))
    assert one.engine == "numba"
    made = one.predict(low)
    assert set(asked) == {1}
    np.testing.assert_array_equal(made, nlm(2, 3)(low))
    assert set(asked) == {1, 3}


def test_threads_of_numba_are_not_used() -> None:
    """With one CPU, and OpenVINO's TBB in the same process, they wait for ever when the process ends."""
    code = (
        "import sys, numpy; from seran.classical.nlm import nlm\n"
        "nlm(2)(numpy.arange(60.0).reshape(3, 4, 5)); print([m for m in sys.modules if m.endswith('pool')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numba.np.ufunc" not in done.stdout


@pytest.mark.slow
def test_where_nothing_can_be_kept_it_compiles_anew() -> None:
    """As in a read-only installation of a user without a home: numba finds no folder for its cache."""
    code = (
        "from numba.core import caching; caching.CacheImpl._locator_classes = []\n"
        "from seran.classical.nlm import nlm; import numpy\n"
        "print(nlm(2)(numpy.arange(60).reshape(3, 4, 5)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(3, 8, 10)\n", done.stderr


def test_the_exponential_is_accurate_in_float32() -> None:
    t = np.concatenate([np.linspace(-2, 12, 3001), np.linspace(12, 80, 1001)]).astype(np.float32)
    exact = np.exp(-np.maximum(t.astype(float), 0))
    np.testing.assert_allclose([_exp(value) for value in t], exact, rtol=1e-6)


def test_tiles_hold_every_active_voxel_once() -> None:
    active = np.random.default_rng(0).random((19, 21, 140)) < 0.001
    active[3, 5, 100:] = True
    count = np.zeros(active.shape, int)
    for z0, z1, y0, y1, x0, x1 in _tiles(active):
        box = active[z0:z1, y0:y1, x0:x1]
        assert box.any()
        assert (np.array(box.shape) <= TILE).all()
        count[z0:z1, y0:y1, x0:x1] += 1
    assert (count[active] == 1).all()
    assert count.max() == 1
    assert len(_tiles(np.zeros((2, 3, 4), bool))) == 0
