"""CSN: the channel splitting network (Zhao et al., IEEE TIP 28, 2019).

Only the abstract could be read: the channels are split into a residual branch (reuse) and a dense branch (new
features), which exchange information by merge-and-run mapping (IJCAI 2018). The 13.64/16.60/16.01M parameters
of SERAN's Table 3 give a trunk of 256 maps and EDSR's upsampler. The rest is inferred; of hundreds of
structures with these counts, this is a plain one:

    h = conv3 1→256;  a, b = its halves of 128
    8 units:  m = (a + b)/2;  a ← A(a) + m;  b ← B(b) + m
              A: three conv3 128→128, ReLU between;
              B: three dense layers conv3 (128 + 128i)→128 with ReLU, conv1 512→128
    y = conv3(upsampler(conv1 [h, a, b] 512→256, + h)) 256→1
"""

import torch
from torch import nn

from seran.models.layers import Dense, High, Low, Maps, conv, finish, initialise, upsampler


class Unit(nn.Module):
    """One merge-and-run unit of the two branches."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        first, second, third = (conv(width, width) for _ in range(3))
        self.residual = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.dense = Dense(width, growth, layers=3)

    def forward(self, a: Maps, b: Maps) -> tuple[Maps, Maps]:
        """Both branches, after the exchange."""
        mean = (a + b) / 2
        return self.residual(a) + mean, self.dense(b) + mean


class CSN(nn.Module):
    """``units`` of two branches, each with half of ``width`` maps; a dense layer adds ``growth`` maps."""

    def __init__(self, scale: int, width: int = 256, units: int = 8, growth: int = 128) -> None:
        super().__init__()
        self.head = conv(1, width)
        self.units = nn.ModuleList(Unit(width // 2, growth) for _ in range(units))
        self.fuse = conv(2 * width, width, 1)
        self.up, self.tail = upsampler(width, scale), conv(width, 1)
        initialise(self, "xavier")  # as the first author's framework of that time does

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices."""
        shallow = self.head(x)
        a, b = shallow.chunk(2, 1)
        for unit in self.units:
            a, b = unit(a, b)
        return finish(self.up, self.tail, self.fuse(torch.cat([shallow, a, b], 1)) + shallow)
