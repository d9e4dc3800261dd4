"""IDN: information distillation (Hui et al., CVPR 2018).

Feature block: conv3 1→64, conv3 64→64. Then four distillation blocks, each

1. enhancement, first half:  conv3 64→48, 48→32, 32→64; of the 64 maps 16 are kept ("short path");
2. second half on the other 48:  conv3 48→64, 64→48, 48→80; their sum with [input, kept] (64 + 16 maps);
3. compression:  conv1 80→64.

Reconstruction: 17x17 to the high resolution, + bicubic(low). Leaky ReLU (0.05) after every convolution but
the last; initialised after He et al., as the authors' solver does.

The published network groups the second convolution of either half by four and ends in a transposed
convolution with stride s: 552,769 parameters at every scale. SERAN's Table 3 (cited from CSN) prints
0.73/0.83/0.95M. The variant here has these counts: no groups, and a 17x17 convolution to s² maps with a pixel
shuffle. That CSN's authors had this one is inferred from the counts alone. ``groups=4, tail="deconv"`` is the
published network (recipe ``idn-caffe``).
"""

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seran.models.layers import Enlarge, conv, initialise

SLOPE = 0.05
SIZE = 17
"""Kernel of the reconstruction."""


def _half(widths: tuple[int, ...], groups: int) -> nn.Sequential:
    """Three 3x3 convolutions through ``widths``, the second one grouped."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(a, b, 3, padding=1, groups=groups if i == 1 else 1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class Distillation(nn.Module):
    """One distillation block, ``width`` maps in and out."""

    def __init__(self, width: int, kept: int, groups: int) -> None:
        super().__init__()
        self.kept, self.passed = kept, width - kept
        self.above = _half((width, width - kept, width - 2 * kept, width), groups)
        self.below = _half((width - kept, width, width - kept, width + kept), groups)
        self.compress = nn.Sequential(conv(width + kept, width, 1), nn.LeakyReLU(SLOPE))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape as the input."""
        short, long = self.above(x).split([self.kept, self.passed], 1)
        return self.compress(torch.cat([x, short], 1) + self.below(long))


class Planar(nn.Module):
    """A convolution on contiguous planes: channels-last, a 17x17 one can be 13 times slower (oneDNN)."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Same h and w as the input."""
        weight = self.layer.weight.contiguous()
        return F.conv2d(x.contiguous(), weight, self.layer.bias, padding=self.layer.padding)


class IDN(nn.Module):
    """low (b, 1, h, w) -> high (b, 1, scale·h, scale·w); intensities of about [0, 1].

    Args:
        scale: 2, 3 or 4.
        width: maps of the trunk.
        kept: maps that each block sets aside.
        blocks: distillation blocks.
        groups: of the second convolution in either half of a block; the paper's is 4.
        tail: how the high resolution is reached; the paper's is ``deconv``.
    """

    def __init__(
        self,
        scale: int,
        width: int = 64,
        kept: int = 16,
        blocks: int = 4,
        groups: int = 1,
        tail: Literal["subpixel", "deconv"] = "subpixel",
    ) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        self.head = nn.Sequential(
            conv(1, width), nn.LeakyReLU(SLOPE), conv(width, width), nn.LeakyReLU(SLOPE)
        )
        self.body = nn.Sequential(*[Distillation(width, kept, groups) for _ in range(blocks)])
        if tail == "deconv":
            self.tail: nn.Module = nn.ConvTranspose2d(
                width, 1, SIZE, stride=scale, padding=SIZE // 2, output_padding=scale - 1
            )
        else:
            self.tail = nn.Sequential(Planar(conv(width, scale**2, SIZE)), nn.PixelShuffle(scale))
        initialise(self, "he")

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 sh sw"]:
        """Super-resolve a batch of slices; the sum is float32 even under autocast."""
        return self.enlarge(x) + self.tail(self.body(self.head(x))).float()
