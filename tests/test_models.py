"""The contract of every network in SYSTEMS."""

import dataclasses
import io
import math
import runpy
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seran import recipes, subpixel, weights
from seran.apps.methods import methods
from seran.classical import CLASSICAL
from seran.degrade import DEGRADATIONS
from seran.engines import openvino
from seran.engines.runtime import ov
from seran.errors import BadInput
from seran.export import difference, halve, to_onnx
from seran.models import build, layers
from seran.models.layers import Enlarge
from seran.models.seran import SERAN
from seran.recipes import RECIPES, VARIANTS
from seran.resize import imresize
from seran.systems import SYSTEMS, System, networks

PRINTED = {  # millions of parameters in the paper's Table 3; SERAN's are cut after two decimals, not rounded
    "srcnn": (0.02451, 0.02451, 0.02451),
    "vdsr": (0.67, 0.67, 0.67),
    "idn": (0.73, 0.83, 0.95),
    "fscwrn": (3.50, 3.50, 3.50),
    "rdn-sum": (22.06, 22.24, 22.21),
    "csn": (13.64, 16.60, 16.01),
    "seran": (3.16, 3.34, 3.31),
}
SMALL: dict[str, dict[str, Any]] = {
    "srcnn": {"widths": (12, 6)},
    "vdsr": {"depth": 4, "width": 16},
    "idn": {"width": 16, "kept": 4, "blocks": 2},
    "fscwrn": {"shallow": 8, "widths": (8, 12, 16), "depth": 1},
    "rdn": {"width": 16, "growth": 8, "blocks": 3, "layers": 2},
    "csn": {"width": 16, "units": 2, "growth": 8},
    "edsr": {"depth": 2, "width": 16},
    "seab": {"depth": 2, "width": 16, "positions": (2,)},
    "seran": {"depth": 2, "width": 16, "positions": (1, 2)},
    "fast": {"depth": 2, "width": 16},
}
FOLDED = {"rdn", "csn", "edsr", "seab", "seran"}
"""Networks that end in an upsampler and one convolution."""
FAMILY = [(name, scale) for name in networks() for scale in (2, 3, 4)]


def small(name: str, scale: int, residual: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return build(name, scale, SMALL[name], residual).eval()


def count(name: str, scale: int, **options: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(name, scale, options, False).parameters())


@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_what_is_trained_is_what_is_used(name: str, scale: int) -> None:
    """As training runs a network: channels last, in float32 and in bf16."""
    network = small(name, scale).to(memory_format=torch.channels_last)
    low = torch.rand(2, 1, 11, 9).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, trained = network(low), network.train()(low)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(low).float()
    torch.testing.assert_close(trained, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(half, expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_parameter_count(name: str, scale: int) -> None:
    stated = SYSTEMS[name].parameters
    assert stated is not None
    assert count(name, scale) == stated[scale - 2]


@pytest.mark.parametrize("name", PRINTED)
def test_parameter_count_in_print(name: str) -> None:
    model, options = VARIANTS[name]
    for scale, printed in zip((2, 3, 4), PRINTED[name], strict=True):
        millions = count(model, scale, **options) / 1e6
        if name == "seran":
            assert math.floor(100 * millions) / 100 == printed
        else:
            assert round(millions, 5 if name == "srcnn" else 2) == printed


def test_the_published_idn_has_the_same_count_at_every_scale() -> None:
    model, options = VARIANTS["idn-caffe"]
    assert [count(model, scale, **options) for scale in (2, 3, 4)] == [552_769] * 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"reasoning": False}, 3_148_417),  # SEAB
        ({"primitives": 16}, 3_158_817),  # the count that also rounds to 3.16M
        ({"positions": (1, 20, 40)}, 3_140_097 + 3 * 24_960),
        ({"positions": ()}, 3_140_097),  # the baseline
    ],
)
def test_parameter_count_of_variants(options: dict, expected: int) -> None:
    assert count("seran", 2, **options) == expected


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


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("residual", [False, True])
def test_only_the_upsampling_differs_between_scales(name: str, residual: bool) -> None:
    """What a network of one scale may begin with from another."""
    two, *others = ({k: v.shape for k, v in small(name, s, residual).state_dict().items()} for s in (2, 3, 4))
    for shapes in others:
        assert all(subpixel.in_ending(k) for k in two.keys() ^ shapes.keys())
        assert all(subpixel.in_ending(k) for k in two.keys() & shapes.keys() if two[k] != shapes[k])
    assert any(not subpixel.in_ending(k) for k in two)


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
    assert (rough - exact).abs().max() < 0.02 * max(1.0, float(exact.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_exported_is_torch(name: str, scale: int) -> None:
    """On three sizes of slice; parameters keep their names and survive the rounding to float16."""
    network = small(name, scale).half().float()
    names = {key for key, _ in network.named_parameters()}
    model = halve(to_onnx(network), names)
    assert {t.name.removesuffix(".half") for t in model.graph.initializer} >= names
    data, any_ = model.SerializeToString(), weights.read(weights.shipped()["srcnn-x2-bd"])
    plain = dataclasses.replace(any_, data=data, card=dataclasses.replace(any_.card, scale=scale))
    assert difference(plain, network) < 5e-5
    features = openvino.fold(ov.Core().read_model(data), weights.tensors(data))
    assert (features is not None) == (name in FOLDED)


@pytest.mark.parametrize(("name", "scale"), FAMILY)
@pytest.mark.parametrize("residual", [False, True])
def test_the_names_of_an_ending_are_a_contract(
    name: str, scale: int, residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say whether training makes one convolution of it; the parameters of it make the kernels."""
    network, asked = small(name, scale, residual).train(), []
    folded = layers._folded
    monkeypatch.setattr(layers, "_folded", lambda up, tail: asked.append(folded(up, tail)) or asked[-1])
    network(torch.rand(1, 1, 9, 8))
    assert subpixel.folds(network.state_dict()) == (name in FOLDED) == (len(asked) == 1)
    for kernels, biases in asked:
        made = subpixel.folded({key: value.numpy() for key, value in network.state_dict().items()})
        np.testing.assert_allclose(made[0], kernels.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(made[1], biases.detach().numpy(), atol=1e-5)


OTHERS = [
    ("idn", {"width": 16, "kept": 4, "blocks": 1, "groups": 4, "tail": "deconv"}),
    ("rdn", {"width": 16, "growth": 8, "blocks": 2, "layers": 2, "fusion": "sum"}),
]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("name", "options"), OTHERS)
def test_options_keep_the_shape_and_train_every_parameter(name: str, options: dict, scale: int) -> None:
    torch.manual_seed(0)
    network = build(name, scale, options, False)
    high = network(torch.rand(1, 1, 11, 14))
    assert high.shape == (1, 1, 11 * scale, 14 * scale)
    high.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize(("name", "scale"), FAMILY)
def test_networks_without_parameters_are_bicubic_or_nothing(name: str, scale: int) -> None:
    network = small(name, scale).requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    low = torch.rand(1, 1, 9, 14)
    torch.testing.assert_close(network(low), Enlarge(scale)(low) * SYSTEMS[name].adds_bicubic)


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
    for name in ("srgan", "bicubic", "os:system"):
        with pytest.raises(BadInput, match=r": expected srcnn, vdsr, .*, fast, or FILE.py:CLASS"):
            build(name, 2, {}, False)
    with pytest.raises(BadInput, match=r"vdsr cannot be made with scale 2 and options {'wide': 1}: .*'wide'"):
        build("vdsr", 2, {"wide": 1}, False)
    with pytest.raises(ValueError, match="between 1 and 40"):
        SERAN(2, positions=(41,))
    with pytest.raises(ValueError, match="2, 3 or 4"):
        SERAN(5)


def test_every_system_is_a_network_or_a_classical_method() -> None:
    assert set(SYSTEMS) - set(networks()) == set(CLASSICAL)
    assert all((SYSTEMS[name].undoes in DEGRADATIONS) is (name in CLASSICAL) for name in SYSTEMS)


TOY = """
from torch import nn


class Toy(nn.Module):
    def __init__(self, scale):
        super().__init__()
        sizes = {"stride": scale, "padding": scale - 1, "output_padding": scale - 1}
        self.up = nn.ConvTranspose2d(1, 1, 2 * scale - 1, **sizes)

    def forward(self, x):
        return self.up(x)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """One file and one entry."""
    (tmp_path / "toys.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    counts = tuple((2 * scale - 1) ** 2 + 1 for scale in (2, 3, 4))
    monkeypatch.setitem(SYSTEMS, "toy", System("Toy [2D]", 2031, "Anyone, Nowhere", counts, "toys:Toy"))
    monkeypatch.setitem(SMALL, "toy", {})
    yield SYSTEMS["toy"]
    sys.modules.pop("toys", None)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_network_is_added_by_one_file_and_one_entry(toy: System, scale: int) -> None:
    """The contract holds for it, it has a recipe, and it is listed."""
    test_what_is_trained_is_what_is_used("toy", scale)
    test_parameter_count("toy", scale)
    test_slices_of_a_batch_do_not_see_each_other("toy", scale)
    test_bf16_is_near_fp32("toy", scale)
    for residual in (False, True):
        test_shapes_gradients_and_saving("toy", scale, residual)
    test_networks_without_parameters_are_bicubic_or_nothing("toy", scale)
    made = runpy.run_path(recipes.__file__)["RECIPES"]
    assert set(made) - set(RECIPES) == {f"toy-x{s}-bd" for s in (2, 3, 4)}
    ours, theirs = (asdict(made[f"{name}-x{scale}-bd"]) for name in ("toy", "seran"))
    assert ours == {**theirs, "model": "toy"}
    row = next(line.split() for line in methods().splitlines() if line.startswith("toy "))
    assert row[:4] == ["toy", "Toy", "[2D]", "2031"]
