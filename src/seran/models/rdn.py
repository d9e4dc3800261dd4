"""RDN: the residual dense network (Zhang et al., CVPR 2018), with D = 16, C = 8, G = 64.

x_{-1} = conv3 1→64; x_0 = conv3 64→64; 16 residual dense blocks, each with 8 layers conv3 (64 + 64i)→64 and
ReLU, all concatenated, conv1 576→64, + the block's input; global fusion: the 16 outputs concatenated,
conv1 1024→64, conv3; + x_{-1}; sub-pixel upsampler; conv3 64→1.

With ``fusion="sum"`` the outputs are added, not concatenated, before a conv1 64→64. That gives the
22.06/22.24/22.21M parameters of SERAN's Table 3 (cited from CSN), whose fusion is inferred from them alone.
"""

from typing import Literal

import torch
from torch import nn

from seran.models.layers import Dense, High, Low, conv, finish, upsampler


class RDN(nn.Module):
    """``width`` maps; ``growth`` is G, ``blocks`` D, ``layers`` C; ``fusion`` of all blocks or their sum."""

    def __init__(
        self,
        scale: int,
        width: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
        fusion: Literal["concat", "sum"] = "concat",
    ) -> None:
        super().__init__()
        self.shallow, self.head = conv(1, width), conv(width, width)
        self.blocks = nn.ModuleList(Dense(width, growth, layers) for _ in range(blocks))
        self.fusion = fusion
        fused = blocks * width if fusion == "concat" else width
        self.fuse = nn.Sequential(conv(fused, width, 1), conv(width, width))
        self.up, self.tail = upsampler(width, scale), conv(width, 1)

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices."""
        shallow = self.shallow(x)
        features = self.head(shallow)
        outputs = []
        for block in self.blocks:
            features = features + block(features)
            outputs.append(features)
        joined = torch.cat(outputs, 1) if self.fusion == "concat" else torch.stack(outputs).sum(0)
        return finish(self.up, self.tail, self.fuse(joined) + shallow)
