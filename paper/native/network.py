"""One network for native scans: SERAN's body on the acquired grid, heads for x1 to x4.

``forward(x, told, scale)`` corrects an enlargement of x. At x2 that is the project's bicubic with corners
kept, though the truth has the centre of voxel 0 kept: so did seran-x2-td, whose weights it starts from
exactly. At x3 and x4 it is Keys' cubic at the right places, at x1 the image itself.
"""

import numpy as np
import torch
from torch import Tensor, nn

from seran import weights
from seran.models.layers import Enlarge, conv, finish, upsampler
from seran.models.seran import SERAN
from seran.resize import cubic

TOLD = 4
SCALES = (1, 2, 3, 4)


class CenterEnlarge(Enlarge):
    """Keys' cubic where the centre of voxel 0 is kept: fine sample s i + j lies at i + j/s."""

    def __init__(self, scale: int) -> None:
        super().__init__(scale)
        self.taps = cubic(np.arange(scale)[:, None] / scale - np.arange(-2, 3)).tolist()


class Native(nn.Module):
    """x (b, 1, h, w) of about [0, 1] and told (b, 4) -> (b, 1, scale h, scale w) for any scale of 1 to 4."""

    def __init__(self, width: int = 64, depth: int = 40) -> None:
        super().__init__()
        trunk = SERAN(2, width, depth, positions=(depth,))
        self.head = conv(1 + TOLD, width)
        self.body = trunk.body
        self.up = nn.ModuleDict({str(s): upsampler(width, s) for s in SCALES if s > 1})
        self.tail = nn.ModuleDict({str(s): conv(width, 1) for s in SCALES})
        self.base = nn.ModuleDict({"2": Enlarge(2), "3": CenterEnlarge(3), "4": CenterEnlarge(4)})
        nn.init.zeros_(self.tail["1"].weight)
        nn.init.zeros_(self.tail["1"].bias)

    def forward(self, x: Tensor, told: Tensor, scale: int) -> Tensor:
        """The sum is float32 even under autocast."""
        maps = told[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        shallow = self.head(torch.cat([x, maps], 1).contiguous(memory_format=torch.channels_last))
        features, s = self.body(shallow) + shallow, str(scale)
        if scale == 1:
            return x.float() + self.tail[s](features).float()
        return finish(self.up[s], self.tail[s], features).float() + self.base[s](x)


@torch.no_grad()
def warm(network: Native) -> Native:
    """Start from shipped weights: body and x2 of seran-x2-td, upsampling x3 and x4 of their bicubic kin."""
    content = {}
    for s, name in ((2, "seran-x2-td"), (3, "seran-x3-bd"), (4, "seran-x4-bd")):
        found = weights.tensors(weights.read(weights.shipped()[name]).data)
        content[s] = {k.removeprefix("network."): torch.from_numpy(v.copy()) for k, v in found.items()}
    state = network.state_dict()
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "body":
            value.copy_(content[2][key])
        elif part in ("up", "tail") and rest[0] != "1":
            value.copy_(content[int(rest[0])][f"{part}.{rest[2:]}"])
    network.head.weight.zero_()
    network.head.weight[:, :1].copy_(content[2]["head.weight"])
    network.head.bias.copy_(content[2]["head.bias"])
    return network
