"""Fine-tuning across slices on the scan itself: what it gains, when it changes nothing, what it needs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from seran import adapt, methods
from seran.engines import Engine, Running
from seran.errors import BadInput
from seran.profiles import Profile, selection
from seran.sharpen import Across
from seran.weights import tensors

ENGINE, PROFILE, K = Engine(precision="f32", threads=1), Profile("slr", 0.9), 3
LOW = np.random.default_rng(1).random((2, 7, 20, 24), np.float32)


@pytest.fixture(scope="module")
def network() -> Across:
    return methods.across(methods.DEFAULT, None, ENGINE)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and quick steps."""
    for name, value in {"SLICES": 2, "EACH": 1, "CHECKED": 2, "WARMUP": 1}.items():
        monkeypatch.setattr(adapt, name, value)


def checks(sigma: float = 0.0) -> np.ndarray:
    """Ten slices of bars at several angles, which no anatomy has; 100 at most."""
    rng, (y, x) = np.random.default_rng(0), np.indices((72, 66))
    angles, periods = rng.uniform(0, np.pi, (10, 3)), rng.uniform(5, 9, (10, 3))
    bars = [
        sum(
            np.sign(np.sin(2 * np.pi * (np.cos(a) * x + np.sin(a) * y) / p))
            for a, p in zip(*each, strict=True)
        )
        for each in zip(angles, periods, strict=True)
    ]
    clean = 50 + 50 / 3 * np.stack(bars)
    return np.hypot(*(clean * part + sigma * rng.standard_normal(clean.shape) for part in (1, 0))).astype(
        np.float32
    )


@pytest.mark.slow
def test_a_scan_unlike_any_other_gains(network: Across) -> None:
    """On slices that nothing was learned from; the same steps make the same network."""
    seen: list[int] = []
    asked: list[int] = []

    def heads(k: int) -> Running:
        asked.append(k)
        return network.heads(K)

    given = replace(network, heads=heads)
    first = adapt.adapted(given, checks(1.0), K, PROFILE, 1.0, steps=5, engine=ENGINE, progress=seen.append)
    again = adapt.adapted(network, checks(1.0), K, PROFILE, 1.0, seconds=1e-3, steps=5, engine=ENGINE)
    assert first.helped
    assert first.gain == again.gain > 0.1
    assert (first.steps, sum(seen)) == (5, 100)
    made, same, shipped = (a.heads(K).predict(LOW) for a in (first.across, again.across, network))
    np.testing.assert_array_equal(made, same)
    assert made.shape == shipped.shape
    assert 1e-4 < np.abs(made - shipped).max() < 0.3
    assert first.across.heads(K + 1) is network.heads(K)
    assert asked == [K + 1]  # the one that was made here is not asked for again


def test_what_is_judged_is_not_learned_from() -> None:
    """Nor is what is darker than noise; every slice is used once."""
    stack = checks() / 100
    stack[:, :30] = 0
    found = adapt.pairs_of(stack, K, PROFILE, 0.01)
    assert found is not None
    learned, judge = found
    assert (len(learned.slices), len(judge.slices)) == (9, 1)
    assert not any(np.array_equal(x, judge.slices[0]) for x in learned.slices)
    assert not learned.lit[:, :25].any()
    assert learned.lit[:, 35:].mean() > 0.9
    low, high, lit = learned.batch(0, 5)
    p, q = learned.patch
    assert (low.shape[1:], high.shape[1:], lit.shape) == ((p, q), (K * p, q), high.shape)
    assert len(low) == adapt.SLICES * adapt.EACH


def test_pairs_are_what_slice_selection_makes() -> None:
    """Low rows are the profile's means of high ones."""
    stack = (0.5 + 0.2 * np.sin(np.indices((12, 96, 96))[1:].sum(0) / 9)).astype(np.float32)
    pairs = adapt.Pairs(stack, np.ones(stack.shape, bool), K, PROFILE, 0.0)
    for seed in range(6):
        low, high, _ = pairs.batch(seed)
        rows = slice(3, pairs.patch[0] - 3)  # whose profiles lie inside of a patch
        expected = selection(high.shape[1], K, PROFILE).astype(np.float32) @ high
        np.testing.assert_allclose(low[:, rows], expected[:, rows], atol=1e-5)


@pytest.mark.parametrize("k", [2, 4, 7])
def test_noise_of_both_sides_is_independent(k: int) -> None:
    """That of low rows is as strong as the scan's, and says nothing of that of high ones."""
    stack = 0.5 + 0.04 * np.random.default_rng(2).standard_normal((12, 160, 160)).astype(np.float32)
    pairs = adapt.Pairs(stack, np.ones(stack.shape, bool), k, PROFILE, 0.04)
    found = [pairs.batch(seed)[:2] for seed in range(12)]
    low, high = (np.concatenate(side) for side in zip(*found, strict=True))
    again = selection(high.shape[1], k, PROFILE).astype(np.float32) @ high
    rows = slice(3, pairs.patch[0] - 3)
    assert low.std() == pytest.approx(0.04, rel=0.05)
    assert abs(np.corrcoef(low[:, rows].ravel(), again[:, rows].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    "stack",
    [
        np.full((12, 64, 64), 7, np.float32),
        np.random.default_rng(0).normal(100, 20, (12, 64, 64)).astype(np.float32),
        checks()[:3],  # none is left to judge by
        checks()[:, :20],  # of a few rows
    ],
    ids=["constant", "noise alone", "few slices", "small slices"],
)
def test_nothing_to_learn_from(stack: np.ndarray, network: Across) -> None:
    seen: list[int] = []
    made = adapt.adapted(network, stack, K, PROFILE, 20.0 * (stack.std() > 0), 5, progress=seen.append)
    assert made.across is network
    assert (made.steps, made.gain, made.helped, sum(seen)) == (0, 0.0, False, 100)
    assert made.seconds < 5


def test_what_does_not_help_is_not_used(network: Across, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is far too large; the loss on other slices tells."""
    monkeypatch.setattr(adapt, "RATE", 0.01)
    made = adapt.adapted(network, checks(), K, PROFILE, steps=2, engine=ENGINE)
    assert made.gain < 0
    assert not made.helped
    assert made.across is network


def test_seconds_are_kept(network: Across) -> None:
    made = adapt.adapted(network, checks(), K, PROFILE, seconds=1e-3, engine=ENGINE)
    assert (made.steps, made.gain, made.across) == (0, 0.0, network)


def test_other_parameters_in_the_same_file(network: Across) -> None:
    """Only those that are named change, and as they are stored: in float16."""
    assert network.held is not None
    held = network.held(K)
    before = tensors(held.data)
    bias = np.linspace(0, 1, before["tail.bias"].size, dtype=np.float32)
    made = adapt.replaced(held, {"tail.bias": bias})
    after = tensors(made.data)
    assert made.digest != held.digest
    np.testing.assert_array_equal(after.pop("tail.bias"), bias.astype(np.float16).astype(np.float32))
    assert {name: (value == before[name]).all() for name, value in after.items()} == dict.fromkeys(
        after, True
    )


def test_it_runs_on_the_engine_as_in_torch(network: Across) -> None:
    """With parameters that are not those of the file."""
    assert network.held is not None
    held = network.held(K)
    made, generator = adapt.network(held), torch.Generator().manual_seed(0)
    with torch.inference_mode(), adapt.threads(1):
        for p in made.parameters():
            p += 0.002 * torch.randn(p.shape, generator=generator)
        made.half().float()
        expected = made(torch.from_numpy(LOW))[:, 0].numpy()
    state = {name: p.detach().numpy() for name, p in made.named_parameters()}
    found = methods.loaded(adapt.replaced(held, state), ENGINE).predict(LOW)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(found - network.heads(K).predict(LOW)).max() > 1e-3


def test_a_network_of_no_file() -> None:
    with pytest.raises(BadInput, match="--adapt: the network across slices is not one of a weights file"):
        adapt.adapted(Across("", "", lambda _: None), checks(), K, PROFILE)  # type: ignore[arg-type,return-value]


def test_without_torch() -> None:
    """One line says what to install."""
    program = "import sys; sys.modules['torch'] = None\n"
    program += "try: from seran import adapt\nexcept Exception as e: print(repr(e))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == """BadInput("--adapt needs torch; pip install 'seran[train]'")\n"""
