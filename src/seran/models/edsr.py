"""The EDSR-style baseline of SERAN's ablation (Table 1): 40 residual blocks of 64 features.

Low-resolution input; x0 = conv3(x); 40 × [x + conv3(ReLU(conv3(x)))]; conv3; + x0; sub-pixel
upsampler; conv3. No batch norm, no mean shift, residual scale 1 (the paper leaves these open; EDSR
uses 1 at 64 features). 3,140,097 / 3,324,737 / 3,287,809 parameters at ×2/×3/×4.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017.
"""

from jaxtyping import Float
from torch import Tensor, nn

from seran.models.layers import ResidualBlock, conv, finish, upsampler


class EDSR(nn.Module):
    """low (b, 1, h, w) -> high (b, 1, scale·h, scale·w); intensities of about [0, 1]."""

    def __init__(self, scale: int, width: int = 64, depth: int = 40) -> None:
        super().__init__()
        self.head = conv(1, width)
        self.body = nn.Sequential(*[ResidualBlock(width) for _ in range(depth)], conv(width, width))
        self.up = upsampler(width, scale)
        self.tail = conv(width, 1)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 sh sw"]:
        """Super-resolve a batch of slices."""
        shallow = self.head(x)
        return finish(self.up, self.tail, self.body(shallow) + shallow)
