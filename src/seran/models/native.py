"""SERAN for native scans: its body on the acquired grid, told of noise and filter; heads for ×1 to ×4.

With the slice x on its acquired grid and `TOLD` numbers as constant maps (`seran.native.told`),

    x0 = conv3([x, maps]);  E = SERAN's body(x0) + x0;  high_s = tail_s(up_s(E)) + base_s(x)

where base_s enlarges x: itself at ×1, bicubic at ×2, as seran-x2-td has it, whose weights training began
with, and Keys' cubic at the places of k-space truncation at ×3 and ×4. All heads share the body.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seran.models import fast
from seran.models.layers import Enlarge, High, Maps, conv, finish, upsampler
from seran.models.seran import SERAN
from seran.resize import cubic

TOLD = 4
HEADS = (1, 2, 3, 4)
FAST = 16
"""Layers of `FastNative`."""
Told = Float[Tensor, "b 5 h w"]


class CenterEnlarge(Enlarge):
    """Keys' cubic where the centre of voxel 0 is kept: fine sample s i + j lies at i + j/s."""

    def __init__(self, scale: int) -> None:
        super().__init__(scale)
        self.taps = cubic(np.arange(scale)[:, None] / scale - np.arange(-2, 3)).tolist()


class OneHead(nn.Module):
    """Slices and maps (b, 1 + `TOLD`, h, w) -> (b, 1, s h, s w), by one head."""

    def __init__(self, scale: int, width: int = 64, depth: int = 40) -> None:
        super().__init__()
        self.head, self.body = conv(1 + TOLD, width), SERAN(2, width, depth, positions=(depth,)).body
        self.up, self.tail, self.base = _upsampler(width, scale), conv(width, 1), _base(scale)

    def forward(self, low: Told) -> High:
        """The sum is float32 even under autocast."""
        shallow = self.head(low)
        return _high(low, self.body(shallow) + shallow, self.up, self.tail, self.base)


class Headed(nn.Module, ABC):
    """A head for each of `HEADS` on one body: what is trained."""

    head: nn.Module
    body: nn.Module

    def forward(self, low: Told, scale: int) -> High:
        """One head's."""
        return self.by(scale, low, self.features(low))

    def features(self, low: Told) -> Maps:
        """What all heads share."""
        shallow = self.head(low)
        return self.body(shallow) + shallow  # type: ignore[no-any-return]

    @abstractmethod
    def by(self, scale: int, low: Told, features: Maps) -> High:
        """One head's, of these features."""


class Native(Headed):
    """`OneHead` with all of them."""

    def __init__(self, width: int = 64, depth: int = 40) -> None:
        super().__init__()
        self.head, self.body = conv(1 + TOLD, width), SERAN(2, width, depth, positions=(depth,)).body
        self.up = nn.ModuleDict({str(s): _upsampler(width, s) for s in HEADS if s > 1})
        self.tail = nn.ModuleDict({str(s): conv(width, 1) for s in HEADS})
        self.base = nn.ModuleDict({str(s): _base(s) for s in HEADS})
        nn.init.zeros_(self.tail["1"].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.tail["1"].bias)  # type: ignore[arg-type]

    def by(self, scale: int, low: Told, features: Maps) -> High:
        """One head's, of these features."""
        up = self.up[str(scale)] if scale > 1 else nn.Sequential()
        return _high(low, features, up, self.tail[str(scale)], self.base[str(scale)])  # type: ignore[arg-type]


class AllHeads(nn.Module):
    """A network that gives the results of all `HEADS`: what is exported."""

    def __init__(self, network: Headed) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Told) -> tuple[Tensor, ...]:
        """In their order."""
        features = self.network.features(low)
        return tuple(self.network.by(s, low, features) for s in HEADS)


class FastNative(Headed):
    """The body of `seran.models.fast`, whose endings are one convolution each."""

    def __init__(self, width: int = fast.WIDTH, depth: int = FAST) -> None:
        super().__init__()
        self.head, self.body = conv(1 + TOLD, width), fast.layers(width, depth)
        self.tail = nn.ModuleDict({str(s): fast.ending(width, s) for s in HEADS})
        self.base = nn.ModuleDict({str(s): _base(s) for s in HEADS})

    def by(self, scale: int, low: Told, features: Maps) -> High:
        """One head's, of these features."""
        made = F.pixel_shuffle(self.tail[str(scale)](features), scale)
        return _over(self.base[str(scale)], low, made)


class FastOneHead(nn.Module):
    """`FastNative` by one head."""

    def __init__(self, scale: int, width: int = fast.WIDTH, depth: int = FAST) -> None:
        super().__init__()
        self.head, self.body, self.scale = conv(1 + TOLD, width), fast.layers(width, depth), scale
        self.tail, self.base = fast.ending(width, scale), _base(scale)

    def forward(self, low: Told) -> High:
        """The sum is float32 even under autocast."""
        shallow = self.head(low)
        made = F.pixel_shuffle(self.tail(self.body(shallow) + shallow), self.scale)
        return _over(self.base, low, made)


def _upsampler(width: int, scale: int) -> nn.Sequential:
    return upsampler(width, scale) if scale > 1 else nn.Sequential()


def _base(scale: int) -> nn.Module:
    return nn.Identity() if scale == 1 else Enlarge(2) if scale == 2 else CenterEnlarge(scale)


def _high(low: Told, features: Maps, up: nn.Sequential, tail: nn.Conv2d, base: nn.Module) -> High:
    return _over(base, low, finish(up, tail, features) if len(up) else tail(features))


def _over(base: nn.Module, low: Told, made: High) -> High:
    return made.float() + base(low[:, :1]).float()  # type: ignore[no-any-return]


def joined(x: Maps, told: Float[Tensor, "b t"]) -> Float[Tensor, "b m h w"]:
    """A network's input: slices, and what it is told as constant maps."""
    return torch.cat([x, told[:, :, None, None].expand(-1, -1, *x.shape[-2:])], 1)
