"""The acquisition model and the network of `paper/native`: identities, and the way back from a scan."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seran import weights
from seran.acquisition import Acquisition, Kind, Window, canonical
from seran.export import export_heads
from seran.kspace import fitted, regridded
from seran.models.native import HEADS, TOLD, FastNative, FastOneHead
from seran.weights import Card
from tests.conftest import phantom

ROOT = Path(__file__).parents[1]
SIZES = st.tuples(st.integers(6, 40), st.integers(6, 40))
SMALL = st.tuples(st.integers(4, 24), st.integers(4, 24))


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """They are programs: what lies beside them is imported by its bare name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "paper" / "native"))
        yield
        sys.modules.pop("network", None)


def inner(a: np.ndarray, b: np.ndarray) -> complex:
    return complex(np.vdot(a.ravel(), b.ravel()))


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(0, 1000))
def test_fitting_has_an_adjoint(size: tuple[int, int], shape: tuple[int, int], seed: int) -> None:
    """<A x, y> = <x, A* y>: what goes to another grid comes back from it, but for the factor of the mean."""
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=s) + 1j * rng.normal(size=s) for s in (size, shape))
    factor = np.prod(shape) / np.prod(size)
    there, back = fitted(x, shape), fitted(y, size)
    assert inner(there, y) == pytest.approx(inner(x, back * factor**2), rel=1e-5)


@st.composite
def scanners(draw: st.DrawFn) -> Acquisition:
    kind: Kind = draw(st.sampled_from(["none", "tukey", "hamming", "fermi"]))
    a = draw(st.floats(*{"tukey": (0.1, 1), "hamming": (0.1, 0.46)}.get(kind, (0.75, 1.1))))
    acquired = draw(SMALL)
    filled = tuple(n + draw(st.integers(0, 12)) for n in acquired)
    partial = draw(st.sampled_from([1.0, 0.75, 0.6]))
    return Acquisition(acquired, Window(kind, a, 0.08, draw(st.booleans())), filled, partial)


def complex_slices(seed: int, shape: tuple[int, int]) -> np.ndarray:
    parts = np.random.default_rng(seed).normal(size=(2, 1, *shape))
    return parts[0] + 1j * parts[1]


@settings(max_examples=60, deadline=None)
@given(scanners(), SMALL, st.integers(0, 1000))
def test_adjoint_and_pseudoinverse(scanner: Acquisition, shape: tuple[int, int], seed: int) -> None:
    """⟨A x, y⟩ = ⟨x, Aᴴ y⟩, and A A⁺ A = A but for what the window leaves less than a thousandth of."""
    assert scanner.given is not None
    x, y = complex_slices(seed, shape), complex_slices(seed + 1, scanner.given)
    seen = scanner.linear(x)
    left, right = inner(seen, y), inner(x, scanner.adjoint(y, shape))
    assert abs(left - right) <= 1e-9 * np.linalg.norm(x) * np.linalg.norm(y)
    again = scanner.linear(scanner.pseudoinverse(seen, shape))
    assert np.linalg.norm(again - seen) <= 2e-3 * np.linalg.norm(x)
    if scanner.filter[scanner.filter > 0].min() > 1e-3:
        assert np.linalg.norm(again - seen) <= 1e-6 * np.linalg.norm(x)


def test_without_filter_noise_and_filling_the_way_back_is_no_way() -> None:
    x = phantom((3, 40, 36))
    low = Acquisition((21, 17))(x)  # odd sizes have no Nyquist line, of which a real image keeps half
    np.testing.assert_array_equal(canonical(low, (21, 17)), low)
    assert low.mean() == pytest.approx(x.mean(), rel=0.15)  # the magnitude turns ringing over
    np.testing.assert_allclose(regridded(regridded(low, (40, 36)), (21, 17)), low, atol=1e-2)


@pytest.mark.parametrize(("kind", "strength"), [("tukey", 0.4), ("hamming", 0.4), ("fermi", 0.9)])
@pytest.mark.parametrize("elliptical", [False, True])
@pytest.mark.parametrize("filled", [1, 2])
def test_a_known_filter_is_undone(kind: Kind, strength: float, elliptical: bool, filled: int) -> None:
    """Most of what it took comes back, zero-filled by the scanner or not; not what an ellipse cut off."""
    window = Window(kind, strength, elliptical=elliptical)
    x, acquired = phantom((2, 48, 60)) + 100, (24, 30)
    plain = Acquisition(acquired)(x)
    seen = Acquisition(acquired, window, (24 * filled, 30 * filled))(x)
    blurred, back = canonical(seen, acquired), canonical(seen, acquired, window)
    left = np.square(back - plain).mean() / np.square(blurred - plain).mean()
    assert left < (0.8 if elliptical else 0.35)


def test_noise_has_the_stated_deviation_and_air_is_rician() -> None:
    rng, scanner = np.random.default_rng(0), Acquisition((32, 32))
    flat = np.full((4, 64, 64), 100, np.float32)
    assert scanner(flat, 2, rng).std() == pytest.approx(2, rel=0.05)
    assert scanner(np.zeros_like(flat), 2, rng).mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.03)


def test_the_network_starts_as_the_shipped_weights() -> None:
    """Told nothing, its x2 is seran-x2-td, to rounding; x1 is the image itself."""
    import torch
    from network import Native, joined, told, warm

    from seran.engines.torch import network

    native = warm(Native()).eval()
    shipped = network(weights.read(weights.shipped()["seran-x2-td"]))
    x, nothing = torch.rand(1, 1, 12, 16), told(torch.zeros(1, 4))
    with torch.inference_mode():
        torch.testing.assert_close(native(joined(x, nothing), 2), shipped(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(native(joined(x, nothing), 1), x)


def test_the_fast_network_by_one_head_is_the_same() -> None:
    """Parameters of a head are called in one as a weights file of several calls them in another."""
    torch.manual_seed(0)
    whole = FastNative(8, 2).eval()
    low = torch.rand(2, 1 + TOLD, 9, 12)
    for scale in HEADS:
        one = FastOneHead(scale, 8, 2).eval()
        state = {name.replace(f"tail.{scale}.", "tail."): v for name, v in whole.state_dict().items()}
        one.load_state_dict({name: state[name] for name in one.state_dict()})
        with torch.inference_mode():
            made = one(low)
            assert torch.equal(made, whole(low, scale))
        assert made.shape == (2, 1, 9 * scale, 12 * scale)
        assert (made - whole.base[str(scale)](low[:, :1])).abs().max() > 1e-4  # the network does something


@pytest.mark.slow
def test_the_fast_network_as_a_weights_file(tmp_path: Path) -> None:
    """What engines make of each head is what was trained, to the rounding of parameters to float16."""
    from seran.engines import Engine, openvino
    from seran.engines import torch as by_torch

    torch.manual_seed(0)
    network = FastNative()
    card = Card("fast", 4, "native", "center", {}, False, {}, [], 1, 1.0, "", "", {}, math.nan, "0")
    export_heads(network, tmp_path / "fast-native.onnx", card)
    held = weights.read(tmp_path / "fast-native.onnx")
    low = np.random.default_rng(0).random((1, 1 + TOLD, 17, 12), dtype=np.float32)
    for scale in HEADS:
        one = weights.head(held, scale)
        with torch.inference_mode():
            expected = network(torch.from_numpy(low), scale)[:, 0].numpy()
        for engine in (by_torch, openvino):
            made = engine.load(one, Engine(precision="f32")).predict(low)
            np.testing.assert_allclose(made, expected, atol=2e-4)
