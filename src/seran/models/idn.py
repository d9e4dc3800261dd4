"""IDN: information distillation (Hui et al., CVPR 2018).

Features: conv3 1→64, conv3 64→64. Then four distillation blocks, each

1. enhancement, first half:  conv3 64→48, 48→32, 32→64; of the 64 maps 16 are kept ("short path");
2. second half on the other 48:  conv3 48→64, 64→48, 48→80; their sum with [input, kept] (64 + 16 maps);
3. compression:  conv1 80→64.

Reconstruction: 17x17 to the high resolution, + bicubic(low). Leaky ReLU (0.05) after every convolution but
the last; initialised after He et al., as the authors' solver does.

The published network groups the second convolution of either half by four and ends in a transposed
convolution: 552,769 parameters at every scale, here ``groups=4, tail="deconv"`` (recipe ``idn-caffe``). The
0.73/0.83/0.95M of SERAN's Table 3 (cited from CSN) are those without groups, with a 17x17 convolution to s²
maps and a pixel shuffle: the default, inferred from the counts alone.
"""

from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seran.models.layers import Enlarge, High, Low, Maps, conv, initialise

SLOPE, SIZE = 0.05, 17  # of leaky ReLU; of the kernel that reconstructs


def _through(*widths: int, groups: int = 1) -> nn.Sequential:
    """3x3 convolutions from each number of maps to the next, the second one grouped."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(a, b, 3, padding=1, groups=groups if i == 1 else 1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class Distillation(nn.Module):
    """One distillation block, ``width`` maps in and out."""

    def __init__(self, width: int, kept: int, groups: int) -> None:
        super().__init__()
        self.kept, self.passed = kept, width - kept
        self.above = _through(width, width - kept, width - 2 * kept, width, groups=groups)
        self.below = _through(width - kept, width, width - kept, width + kept, groups=groups)
        self.compress = nn.Sequential(conv(width + kept, width, 1), nn.LeakyReLU(SLOPE))

    def forward(self, x: Maps) -> Maps:
        """Same shape as the input."""
        short, long = self.above(x).split([self.kept, self.passed], 1)
        return self.compress(torch.cat([x, short], 1) + self.below(long))


class Planar(nn.Module):
    """A convolution on contiguous planes: channels-last, a 17x17 one can be 13 times slower (oneDNN)."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Maps) -> Float[Tensor, "b d h w"]:
        """Same h and w as the input."""
        weight = self.layer.weight.contiguous()
        return F.conv2d(x.contiguous(), weight, self.layer.bias, padding=self.layer.padding)


class IDN(nn.Module):
    """``width`` maps, of which each of the ``blocks`` keeps ``kept``; ``groups`` and ``tail``: see above."""

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
        self.head = _through(1, width, width)
        self.body = nn.Sequential(*[Distillation(width, kept, groups) for _ in range(blocks)])
        if tail == "deconv":
            self.tail: nn.Module = nn.ConvTranspose2d(width, 1, SIZE, scale, SIZE // 2, scale - 1)
        else:
            self.tail = nn.Sequential(Planar(conv(width, scale**2, SIZE)), nn.PixelShuffle(scale))
        initialise(self, "he")

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices; the sum is float32 even under autocast."""
        return self.enlarge(x) + self.tail(self.body(self.head(x))).float()
