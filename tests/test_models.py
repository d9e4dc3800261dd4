"""The contract of every network in MODELS."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from seran.errors import BadInput
from seran.layers import Enlarge
from seran.models import MODELS, build
from seran.models.seran import SERAN
from seran.resize import imresize

COUNTS = {  # ×2, ×3, ×4; the paper prints 3.16/3.34/3.31M for SERAN, cut after two decimals
    "edsr": (3_140_097, 3_324_737, 3_287_809),
    "seran": (3_165_057, 3_349_697, 3_312_769),
}
SMALL = {"edsr": {"depth": 2, "width": 16}, "seran": {"depth": 2, "width": 16, "positions": (1, 2)}}
FAMILY = [(name, scale) for name in MODELS for scale in (2, 3, 4)]


def small(name: str, scale: int, residual: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return build(name, scale, SMALL[name], residual).eval()


@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_parameter_count(name: str, scale: int) -> None:
    with torch.device("meta"):
        network = build(name, scale, {}, False)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[name][scale - 2]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"reasoning": False}, 3_148_417),  # SEAB
        ({"primitives": 16}, 3_158_817),  # the count that also rounds to 3.16M
        ({"positions": (1, 20, 40)}, 3_140_097 + 3 * 24_960),
        ({"positions": ()}, 3_140_097),  # the baseline
    ],
)
def test_parameter_count_of_variants(options: dict, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in SERAN(2, **options).parameters()) == count


@pytest.mark.parametrize(("name", "scale"), FAMILY)
@pytest.mark.parametrize("residual", [False, True])
def test_shapes_gradients_and_saving(name: str, scale: int, residual: bool) -> None:
    network = small(name, scale, residual)
    low = torch.rand(2, 1, 13, 18)
    high = network(low)
    assert high.shape == (2, 1, 13 * scale, 18 * scale)
    high.square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    other = build(name, scale, SMALL[name], residual).eval()
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    stream.seek(0)
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(other(low), high)


@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_slices_of_a_batch_do_not_see_each_other(name: str, scale: int) -> None:
    network = small(name, scale)
    low = torch.rand(3, 1, 12, 17)
    with torch.inference_mode():
        alone = torch.cat([network(one[None]) for one in low])
        torch.testing.assert_close(network(low), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_bf16_is_near_fp32(name: str, scale: int) -> None:
    network = small(name, scale, residual=True)
    low = torch.rand(1, 1, 24, 20)
    with torch.inference_mode():
        exact = network(low)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(low)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.02


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1, 13, 18), (2, 1, 4, 31)])
def test_enlarge_is_the_projects_bicubic(scale: int, shape: tuple[int, ...]) -> None:
    low = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = imresize(low.astype(float), (scale * shape[2], scale * shape[3]))
    with torch.autocast("cpu", torch.bfloat16):
        made = Enlarge(scale)(torch.from_numpy(low)).numpy()
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_squeeze_rows_sum_to_one_and_gate_starts_at_a_half() -> None:
    block = SERAN(2, width=16, depth=2, positions=(2,)).body[2]
    e = torch.rand(2, 16, 9, 7)
    torch.testing.assert_close(block.where(e).sum(-1), torch.ones(2, 64))
    v = torch.rand(2, 16, 64)
    torch.testing.assert_close(block.reasoning(v), 1.5 * v)


def test_attention_against_the_equations_written_out() -> None:
    """One slice, loops over primitives and positions instead of matrices."""
    torch.manual_seed(1)
    block = SERAN(2, width=4, depth=1, primitives=3, embed=5, positions=(1,)).body[1]
    block.requires_grad_(False)
    nn.init.normal_(block.reasoning.residual.weight)
    e = torch.rand(1, 4, 2, 3)
    flat = e[0].flatten(1)
    m = block.theta(e)[0].flatten(1).softmax(1)
    v = torch.stack([sum(m[p, n] * flat[:, n] for n in range(6)) for p in range(3)], 1)
    phi, varphi = block.reasoning.phi(v[None])[0], block.reasoning.varphi(v[None])[0]
    r = torch.tensor([[float(phi[:, i] @ varphi[:, j]) / 3 for j in range(3)] for i in range(3)])
    mixed = block.reasoning.graph(v[None])[0]
    gathered = torch.stack([sum(r[i, j] * mixed[:, j] for j in range(3)) for i in range(3)], 1)
    v = torch.sigmoid(block.reasoning.residual(gathered[None])[0]) * v + v
    d = block.rho(e)[0].flatten(1).softmax(0)
    z = torch.stack([sum(d[p, n] * v[:, p] for p in range(3)) for n in range(6)], 1)
    torch.testing.assert_close(block(e), 0.01 * z.view(1, 4, 2, 3) + e)


def test_unknown_names_and_positions_are_refused() -> None:
    with pytest.raises(BadInput, match="edsr, seran"):
        build("srgan", 2, {}, False)
    with pytest.raises(ValueError, match="between 1 and 40"):
        SERAN(2, positions=(41,))
    with pytest.raises(ValueError, match="2, 3 or 4"):
        SERAN(5)
