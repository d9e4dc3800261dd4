"""The ending of a network as one convolution: the same slices, the edges and the smallest ones included."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from seran import subpixel, weights
from seran.engines import Engine, mnn, openvino
from seran.engines.runtime import opset, ov
from seran.engines.torch import network
from seran.errors import BadInput
from seran.models.layers import conv, finish, upsampler
from seran.models.uncertainty import MAPS
from tests.conftest import phantom

F32 = Engine(precision="f32", threads=2)
SIZES = ((3, 3), (3, 8), (5, 4), (9, 7))


def ending(scale: int, width: int) -> nn.Module:
    torch.manual_seed(scale)
    made = nn.Module()
    made.up, made.tail = upsampler(width, scale), conv(width, 1)
    return made.double()


def place(at: int, n: int) -> int:
    return subpixel.FIRST if at == 0 else subpixel.LAST if at == n - 1 else subpixel.INSIDE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_kernels_are_the_ending(scale: int, size: tuple[int, int]) -> None:
    """Each pixel by hand: the kernel of its place on the features around it, zeros beyond the edge."""
    (h, w), width = size, 5
    part = ending(scale, width)
    parameters = {n: p.detach().numpy().astype(np.float32) for n, p in part.named_parameters()}
    part.load_state_dict({n: torch.from_numpy(p) for n, p in parameters.items()})
    kernels, biases = subpixel.folded(parameters)
    assert kernels.shape == (3, 3, scale, scale, width, 5, 5)
    features = np.random.default_rng(0).normal(size=(width, h, w))
    with torch.inference_mode():
        expected = part.tail(part.up(torch.from_numpy(features)[None]))[0, 0].numpy()
    around = np.pad(features, ((0, 0), (2, 2), (2, 2)))
    made = np.zeros((h * scale, w * scale))
    for y, x in np.ndindex(h, w):
        at = place(y, h), place(x, w)
        patch = around[:, y : y + 5, x : x + 5]
        block = np.tensordot(kernels[at], patch, 3) + biases[at]
        made[y * scale : (y + 1) * scale, x * scale : (x + 1) * scale] = block
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_training_sees_the_same_values_and_gradients(scale: int, size: tuple[int, int]) -> None:
    part = ending(scale, 6)
    rng = np.random.default_rng(1)
    features, wanted = (
        torch.from_numpy(rng.normal(size=shape))
        for shape in ((2, 6, *size), (2, 1, scale * size[0], scale * size[1]))
    )

    def run(training: bool) -> list[torch.Tensor]:
        given = features.clone().requires_grad_()
        part.train(training).zero_grad()
        high = finish(part.up, part.tail, given)
        (high * wanted).sum().backward()
        assert given.grad is not None
        return [high.detach(), given.grad, *(p.grad.clone() for p in part.parameters() if p.grad is not None)]

    plain, folded = run(False), run(True)
    assert len(plain) == len(folded) == 2 + len(list(part.parameters()))
    for one, other in zip(folded, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gradients_are_the_same_each_time() -> None:
    """Sums over threads in any order would end in a network that differs from run to run."""
    part, before = ending(4, 64).float(), torch.get_num_threads()
    features = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 64, 8, 8)).astype(np.float32))
    torch.set_num_threads(4)
    try:
        found = []
        for _ in range(8):
            part.zero_grad()
            finish(part.up, part.tail, features).square().sum().backward()
            found.append([p.grad.clone() for p in part.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(before)
    assert len(found[0]) == 6
    assert all(torch.equal(a, b) for one in found for a, b in zip(one, found[0], strict=True))


NETWORKS = [(name, s) for name, path in weights.shipped().items() for s in weights.scales(weights.read(path))]
"""Every network in the shipped weights files."""
QUICK = [("seran-x2-bd", 2), ("seran-native", 2), ("seran-isotropic", 4)]


@pytest.mark.parametrize(
    ("name", "scale"),
    [pytest.param(*one, marks=[] if one in QUICK else pytest.mark.slow) for one in NETWORKS],
)
def test_the_engine_runs_the_network_that_was_trained(name: str, scale: int) -> None:
    held = weights.head(weights.read(weights.shipped()[name]), scale)
    predict, trained = openvino.load(held, F32).predict, network(held)
    maps = {"native": 5, "slices": 7}.get(held.card.degradation, 1)  # slices, and what is told of them
    maps = MAPS if held.card.model == weights.UNCERTAINTY else maps
    for h, w in ((4, 4), (4, 9), (21, 34)):
        low = np.random.default_rng(h).random((2, maps, h, w), dtype=np.float32)
        with torch.inference_mode():
            expected = trained(torch.from_numpy(low))[:, 0].numpy()
        assert expected.shape == (2, *(k * n for k, n in zip(held.card.factors, (h, w), strict=True)))
        np.testing.assert_allclose(predict(low if maps > 1 else low[:, 0]), expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), NETWORKS)
def test_what_is_folded_ends_linearly(name: str, scale: int) -> None:
    held = weights.head(weights.read(weights.shipped()[name]), scale)
    model = ov.Core().read_model(held.data)
    before = [op.get_type_name() for op in model.get_ordered_ops()]
    features = openvino.fold(model, weights.tensors(held.data))
    after = [op.get_type_name() for op in model.get_ordered_ops()]
    if held.card.model in ("srcnn", "vdsr", "idn", "fast") or scale == 1 or held.card.degradation == "slices":
        assert features is None
        assert after == before
    else:
        assert features is not None
        steps = before.count("DepthToSpace")
        assert after.count("DepthToSpace") == 1
        assert after.count("Convolution") == before.count("Convolution") - steps - 1 + 9


@pytest.mark.slow
def test_eight_bits_before_the_ending() -> None:
    low = phantom((2, 30, 26)).astype(np.float32) / 1000
    for name in ("seran-x2-bd", "seran-x4-bd"):
        held = weights.read(weights.shipped()[name])
        exact, coarse = (
            openvino.load(held, Engine(precision=kind, threads=2)).predict(low) for kind in ("f32", "int8")
        )
        assert 0 < np.abs(coarse - exact).mean() < 0.005


def test_an_ending_behind_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind MNN, here behind OpenVINO itself."""
    held = weights.read(weights.shipped()["seran-x3-bd"])
    asked = []

    def trunk(content: bytes, name: str, threads: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
        model = ov.Core().read_model(content)
        [value] = [v for op in model.get_ordered_ops() for v in op.outputs() if name in v.get_names()]
        body = ov.Core().compile_model(
            ov.Model([value], model.get_parameters()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        asked.append(threads)
        return lambda low: body({"low": low})[0], "another"

    monkeypatch.setattr(mnn, "suits", lambda threads: True)
    monkeypatch.setattr(mnn, "trunk", trunk)
    behind = openvino.load(held, F32)
    low = np.random.default_rng(0).random((3, 17, 22), dtype=np.float32)
    assert asked == [2]
    assert behind.engine.startswith("another and OpenVINO")
    np.testing.assert_allclose(
        behind.predict(low), openvino.load(held, F32, direct=True).predict(low), atol=1e-5
    )
    assert asked == [2], "and not of what is run directly"


def test_a_slice_that_is_too_small_is_said_to_be() -> None:
    held = weights.read(weights.shipped()["seran-x2-bd"])
    with pytest.raises(BadInput, match="slices of 2x9 pixels: must be at least 3x3"):
        openvino.load(held, F32).predict(np.zeros((1, 2, 9), np.float32))


def test_what_is_not_linear_is_left() -> None:
    """With an activation between the upsampling and the tail the product would be another network."""
    data = weights.read(weights.shipped()["seran-x2-bd"]).data
    model = ov.Core().read_model(data)
    [shuffle] = [op for op in model.get_ordered_ops() if op.get_type_name() == "DepthToSpace"]
    users = shuffle.output(0).get_target_inputs()
    bent = opset.relu(shuffle)
    for user in users:
        user.replace_source_output(bent.output(0))
    before = [op.get_type_name() for op in model.get_ordered_ops()]
    assert openvino.fold(model, weights.tensors(data)) is None
    assert [op.get_type_name() for op in model.get_ordered_ops()] == before
