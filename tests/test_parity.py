"""Against independent implementations: torchSR's networks with the weights copied across, Pillow's bicubic.

torchSR requires torchvision, whose binaries do not fit every build of torch; its networks import torch alone.
`make test` therefore installs it without its requirements, and its files are loaded from where they lie.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seran import resize
from seran.models.rdn import RDN
from seran.models.seran import SERAN
from seran.models.vdsr import VDSR
from tests.conftest import phantom


def torchsr(name: str) -> ModuleType:
    package = importlib.util.find_spec("torchsr")
    assert package is not None, "torchSR is missing; `make test` installs it"
    assert package.origin is not None
    path = Path(package.origin).parent / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"torchsr_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def copied(ours: nn.Module, theirs: nn.Module) -> None:
    """Their parameters become ours, in order; they see grey as the first of three colours."""
    sources = [m for m in ours.modules() if isinstance(m, nn.Conv2d)]
    targets = [m for m in theirs.modules() if isinstance(m, nn.Conv2d) and type(m) is nn.Conv2d]
    assert len(sources) == len(targets)
    for a, b in zip(sources, targets, strict=True):
        b.weight.data.zero_()
        b.bias.data.zero_()
        b.weight.data[: a.out_channels, : a.in_channels] = a.weight.data
        b.bias.data[: a.out_channels] = a.bias.data


def grey(low: torch.Tensor) -> torch.Tensor:
    return torch.cat([low, torch.rand(len(low), 2, *low.shape[2:])], 1)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_edsr(scale: int) -> None:
    ours = SERAN(scale, width=12, depth=3, positions=())
    theirs = torchsr("edsr").EDSR(3, 12, scale, 1.0)
    for shift in (theirs.sub_mean, theirs.add_mean):
        shift.bias.zero_()
    copied(ours, theirs)
    low = torch.rand(2, 1, 9, 14)
    made = theirs(grey(low) / 255)[:, :1] * 255  # it works on 0 … 255
    torch.testing.assert_close(ours(low), made, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_rdn(scale: int) -> None:
    ours = RDN(scale, width=10, growth=10, blocks=3, layers=4)
    theirs = torchsr("rdn").RDN(scale, G0=10, D=3, C=4, G=10)
    copied(ours, theirs)
    low = torch.rand(2, 1, 9, 14)
    torch.testing.assert_close(ours(low), theirs(grey(low))[:, :1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_vdsr() -> None:
    """From the enlarged image on: theirs enlarges with a = -0.75."""
    ours = VDSR(2, width=12, depth=5)
    theirs = torchsr("vdsr").VDSR(5, 12, 2, False)
    copied(ours, theirs)
    low = torch.rand(2, 1, 9, 14)
    enlarged = ours.enlarge(low)
    made = theirs.body(grey(enlarged))[:, :1] + enlarged
    torch.testing.assert_close(ours(low), made, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size"), [((60, 84), (30, 42)), ((60, 84), (15, 21)), ((20, 28), (60, 84))]
)
def test_bicubic_is_pillows_away_from_the_border(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Pillow's bicubic is Keys' with a = -0.5 and antialiasing too, but cuts the kernel at the border."""
    image = phantom(shape)
    made = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    inner = (slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(resize.imresize(image, size)[inner], made[inner], atol=2e-4 * image.max())
