"""VDSR: twenty convolutions that learn what bicubic enlargement misses (Kim et al., CVPR 2016).

x = bicubic(low); conv3 1→64; 18 × conv3 64→64; conv3 64→1; ReLU between; + x. 665,921 parameters at
every scale, the 0.67M of SERAN's Table 3; 38.3 GMACs per 240x240 slice, at the high resolution.
"""

from torch import nn

from seran.models.layers import Enlarge, High, Low, conv, initialise


class VDSR(nn.Module):
    """``depth`` convolutions, all but the last to ``width`` maps."""

    def __init__(self, scale: int, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        inner = [layer for _ in range(depth - 2) for layer in (conv(width, width), nn.ReLU())]
        self.body = nn.Sequential(conv(1, width), nn.ReLU(), *inner, conv(width, 1))
        initialise(self, "he")  # as in the paper: without it, twenty layers hardly start to learn

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices; the sum is float32 even under autocast."""
        enlarged = self.enlarge(x)
        return enlarged + self.body(enlarged).float()
