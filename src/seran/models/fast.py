"""A small, plain network that is quick on CPUs: 3x3 convolutions on the given grid, a 5x5 one to the fine.

    E = L_depth ∘ … ∘ L_1 (x0) + x0,  x0 = conv3(x);  L_i(x) = lrelu(conv3(x));  high = shuffle(conv5(E))

Each L_i begins as x + noise(x): its kernel holds the identity of a residual connection, which then costs
neither time nor memory (re-parameterization: Ding et al., RepVGG, CVPR 2021; Bhardwaj et al., SESR, 2022).
The 5x5 convolution is what an upsampler and a 3x3 one come to (`seran.subpixel`).

`Fast` undoes bicubic reduction at one scale; `FastNative` has the inputs and heads of `Native`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seran.models.layers import High, Low, Maps, conv
from seran.models.native import HEADS, TOLD, Told, base

SLOPE = 0.1
NOISE = 0.1
"""Of He's, in kernels beside the identity."""


class Layer(nn.Module):
    """conv3 and a leaky rectifier, at the beginning nearly the identity of what is positive."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width)
        with torch.no_grad():
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
            self.conv.weight.mul_(NOISE)
            self.conv.weight[:, :, 1, 1] += torch.eye(width)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Maps) -> Maps:
        """Same shape as the input."""
        return F.leaky_relu(self.conv(x), SLOPE)


def _ending(width: int, scale: int) -> nn.Conv2d:
    """To scale² maps; nothing at the beginning."""
    made = conv(width, scale * scale, 5)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


class Fast(nn.Module):
    """``depth`` layers of ``width`` features."""

    def __init__(self, scale: int, width: int = 48, depth: int = 16) -> None:
        super().__init__()
        self.head, self.body = conv(1, width), nn.Sequential(*(Layer(width) for _ in range(depth)))
        self.tail, self.scale = _ending(width, scale), scale

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices."""
        shallow = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(shallow) + shallow), self.scale)


class FastNative(nn.Module):
    """The same for native scans, with a head for each of `HEADS` on one body."""

    def __init__(self, width: int = 48, depth: int = 16) -> None:
        super().__init__()
        self.head, self.body = conv(1 + TOLD, width), nn.Sequential(*(Layer(width) for _ in range(depth)))
        self.tail = nn.ModuleDict({str(s): _ending(width, s) for s in HEADS})
        self.base = nn.ModuleDict({str(s): base(s) for s in HEADS})

    def forward(self, low: Told, scale: int) -> High:
        """One head's."""
        return self.by(scale, low, self.features(low))

    def features(self, low: Told) -> Maps:
        """What all heads share."""
        shallow = self.head(low)
        return self.body(shallow) + shallow  # type: ignore[no-any-return]

    def by(self, scale: int, low: Told, features: Maps) -> High:
        """One head's, of these features; the sum is float32 even under autocast."""
        made: Tensor = F.pixel_shuffle(self.tail[str(scale)](features), scale)
        return made.float() + self.base[str(scale)](low[:, :1]).float()  # type: ignore[no-any-return]
