"""The ending of a network as one convolution: the same slices, the edges and the smallest ones included."""

import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn

from seran import subpixel, weights
from seran.engines import openvino
from seran.engines.torch import network
from seran.layers import conv, finish, upsampler

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


@pytest.mark.parametrize("name", sorted(weights.shipped()))
def test_the_engine_runs_the_network_that_was_trained(name: str) -> None:
    data, card, _ = weights.read(weights.shipped()[name])
    predict = openvino.load(data, card.scale, "f32", 2)[0]
    for h, w in ((4, 4), (4, 9), (21, 34)):
        low = np.random.default_rng(h).random((2, h, w), dtype=np.float32)
        with torch.inference_mode():
            expected = network(data, card)(torch.from_numpy(low)[:, None])[:, 0].numpy()
        np.testing.assert_allclose(predict(low), expected, atol=2e-5)


@pytest.mark.parametrize("name", sorted(weights.shipped()))
def test_what_is_folded_ends_linearly(name: str) -> None:
    data, card, _ = weights.read(weights.shipped()[name])
    model = ov.Core().read_model(data)
    before = [op.get_type_name() for op in model.get_ordered_ops()]
    features = openvino.fold(model, weights.tensors(data))
    after = [op.get_type_name() for op in model.get_ordered_ops()]
    if card.model in ("srcnn", "vdsr", "idn"):
        assert features is None
        assert after == before
    else:
        assert features is not None
        steps = before.count("DepthToSpace")
        assert after.count("DepthToSpace") == 1
        assert after.count("Convolution") == before.count("Convolution") - steps - 1 + 9


def test_what_is_not_linear_is_left() -> None:
    """With an activation between the upsampling and the tail the product would be another network."""
    data, _, _ = weights.read(weights.shipped()["seran-x2-bd"])
    model = ov.Core().read_model(data)
    [shuffle] = [op for op in model.get_ordered_ops() if op.get_type_name() == "DepthToSpace"]
    users = shuffle.output(0).get_target_inputs()
    bent = ov.opset15.relu(shuffle)
    for user in users:
        user.replace_source_output(bent.output(0))
    assert openvino.fold(model, weights.tensors(data)) is None
