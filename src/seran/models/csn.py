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

Initialised with Xavier's normal distribution, as the first author's framework of that time does.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seran.models.layers import Dense, conv, finish, initialise, upsampler


class Unit(nn.Module):
    """One merge-and-run unit of the two branches."""

    def __init__(self, width: int, convs: int, growth: int, layers: int) -> None:
        super().__init__()
        rest = [layer for _ in range(convs - 1) for layer in (nn.ReLU(), conv(width, width))]
        self.residual = nn.Sequential(conv(width, width), *rest)
        self.dense = Dense(width, growth, layers)

    def forward(
        self, a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Both branches, after the exchange."""
        mean = (a + b) / 2
        return self.residual(a) + mean, self.dense(b) + mean


class CSN(nn.Module):
    """low (b, 1, h, w) -> high (b, 1, scale·h, scale·w); intensities of about [0, 1].

    Args:
        scale: 2, 3 or 4.
        width: maps of the trunk, half of them for each branch.
        units: merge-and-run units.
        convs: of the residual branch of a unit.
        layers: of the dense branch of a unit.
        growth: maps that each dense layer adds.
    """

    def __init__(
        self, scale: int, width: int = 256, units: int = 8, convs: int = 3, layers: int = 3, growth: int = 128
    ) -> None:
        super().__init__()
        self.head = conv(1, width)
        self.units = nn.ModuleList(Unit(width // 2, convs, growth, layers) for _ in range(units))
        self.fuse = conv(2 * width, width, 1)
        self.up = upsampler(width, scale)
        self.tail = conv(width, 1)
        initialise(self, "xavier")

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 sh sw"]:
        """Super-resolve a batch of slices."""
        shallow = self.head(x)
        a, b = shallow.chunk(2, 1)
        for unit in self.units:
            a, b = unit(a, b)
        return finish(self.up, self.tail, self.fuse(torch.cat([shallow, a, b], 1)) + shallow)
