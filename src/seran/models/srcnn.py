"""SRCNN: three convolutions on the bicubic enlargement (Dong et al., ECCV 2014; TPAMI 38, 2016).

conv 9x9 1→64, ReLU; conv 3x3 64→32, ReLU; conv 5x5 32→1; no skip. 24,513 parameters at every scale, the
24.51K of SERAN's Table 3: 9-1-5 and 9-5-5, which the papers also try, would be 8,129 and 57,281. The
original convolves without padding and so loses a border; here zeros are padded.
"""

from torch import nn

from seran.models.layers import Enlarge, High, Low, conv


class SRCNN(nn.Module):
    """``widths`` of the two hidden layers."""

    def __init__(self, scale: int, widths: tuple[int, int] = (64, 32)) -> None:
        super().__init__()
        self.enlarge = Enlarge(scale)
        self.extract = conv(1, widths[0], 9)
        self.map = conv(widths[0], widths[1], 3)
        self.reconstruct = conv(widths[1], 1, 5)

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices."""
        return self.reconstruct(self.map(self.extract(self.enlarge(x)).relu()).relu())
