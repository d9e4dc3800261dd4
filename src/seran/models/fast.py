"""A small, plain network that is quick on CPUs: 3x3 convolutions on the given grid, a 5x5 one to the fine.

    E = L_depth ∘ … ∘ L_1 (x0) + x0,  x0 = conv3(x);  L_i(x) = lrelu(conv3(x));  high = shuffle(conv5(E))

Each L_i begins as x + noise(x): its kernel holds the identity of a residual connection, which then costs
neither time nor memory (re-parameterization: Ding et al., RepVGG, CVPR 2021; Bhardwaj et al., SESR, 2022).
The 5x5 convolution is what an upsampler and a 3x3 one come to (`seran.subpixel`).
"""

import torch
from torch import nn
from torch.nn import functional as F

from seran.models.layers import High, Low, Maps, conv

WIDTH, DEPTH = 48, 18
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


def layers(width: int, depth: int) -> nn.Sequential:
    """The body: so many."""
    return nn.Sequential(*(Layer(width) for _ in range(depth)))


def ending(width: int, scale: int) -> nn.Conv2d:
    """To scale² maps; hardly anything at the beginning."""
    made = conv(width, scale * scale, 5)
    nn.init.normal_(made.weight, std=1e-3)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


class Fast(nn.Module):
    """``depth`` layers of ``width`` features."""

    def __init__(self, scale: int, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        self.head, self.body = conv(1, width), layers(width, depth)
        self.tail, self.scale = ending(width, scale), scale

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices."""
        shallow = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(shallow) + shallow), self.scale)
