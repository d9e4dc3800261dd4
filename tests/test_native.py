"""The acquisition model of `paper/native`: identities of its operators, and the way back from a scan."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import phantom

ROOT = Path(__file__).parents[1]
SIZES = st.tuples(st.integers(6, 40), st.integers(6, 40))


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """They are programs: what lies beside them is imported by its bare name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "paper" / "native"))
        yield
        for name in ("acquisition", "draw", "network"):
            sys.modules.pop(name, None)


def inner(a: np.ndarray, b: np.ndarray) -> complex:
    return complex(np.vdot(a.ravel(), b.ravel()))


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(0, 1000))
def test_fitting_has_an_adjoint(size: tuple[int, int], shape: tuple[int, int], seed: int) -> None:
    """<A x, y> = <x, A* y>: what goes to another grid comes back from it, but for the factor of the mean."""
    from acquisition import fitted

    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in (size, shape))
    factor = np.prod(shape) / np.prod(size)
    there, back = fitted(x.astype(np.complex128), shape), fitted(y.astype(np.complex128), size)
    assert inner(there, y) == pytest.approx(inner(x, back * factor**2), rel=1e-5)


def test_without_filter_noise_and_filling_the_way_back_is_no_way() -> None:
    from acquisition import acquire, canonical, regridded

    x = phantom((3, 40, 36))
    low = acquire(x, (21, 17))  # odd sizes have no Nyquist line, of which a real image keeps half
    np.testing.assert_array_equal(canonical(low, (21, 17)), low)
    assert low.mean() == pytest.approx(x.mean(), rel=0.15)  # the magnitude turns ringing over
    np.testing.assert_allclose(regridded(regridded(low, (40, 36)), (21, 17)), low, atol=1e-2)


@pytest.mark.parametrize("kind", ["tukey", "hamming", "fermi"])
@pytest.mark.parametrize("elliptical", [False, True])
@pytest.mark.parametrize("filled", [1, 2])
def test_a_known_filter_is_undone(kind: str, elliptical: bool, filled: int) -> None:
    """Most of what it took comes back, zero-filled by the scanner or not; not what an ellipse cut off."""
    from acquisition import Window, acquire, canonical

    strength = {"tukey": 0.4, "hamming": 0.4, "fermi": 0.9}[kind]
    window = Window(kind, strength, elliptical=elliptical)  # type: ignore[arg-type]
    x, acquired = phantom((2, 48, 60)) + 100, (24, 30)
    plain = acquire(x, acquired)
    seen = acquire(x, acquired, window, given=(24 * filled, 30 * filled))
    blurred, back = canonical(seen, acquired), canonical(seen, acquired, window)
    left = np.square(back - plain).mean() / np.square(blurred - plain).mean()
    assert left < (0.8 if elliptical else 0.35)


def test_noise_has_the_stated_deviation_and_air_is_rician() -> None:
    from acquisition import acquire

    rng = np.random.default_rng(0)
    flat = np.full((4, 64, 64), 100, np.float32)
    assert acquire(flat, (32, 32), sigma=2, rng=rng).std() == pytest.approx(2, rel=0.05)
    air = acquire(np.zeros_like(flat), (32, 32), sigma=2, rng=rng)
    assert air.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.03)


def test_the_network_starts_as_the_shipped_weights() -> None:
    """Told nothing, its x2 is seran-x2-td, to rounding; x1 is the image itself."""
    import torch
    from network import Native, warm

    from seran import weights
    from seran.engines.torch import network

    native = warm(Native()).eval()
    shipped = network(weights.read(weights.shipped()["seran-x2-td"]))
    x = torch.rand(1, 1, 12, 16)
    with torch.inference_mode():
        torch.testing.assert_close(native(x, torch.zeros(1, 4), 2), shipped(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(native(x, torch.zeros(1, 4), 1), x)
