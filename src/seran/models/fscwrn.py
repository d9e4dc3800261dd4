"""FSCWRN: fixed skip connections and progressively wider residual networks (Shi et al., JBHI 23, 2019).

Only the abstract could be read: the enlarged image is the input and is added to the output; the output of a
shallow network reaches the later ones through a fixed skip connection; and these grow wider rather than
deeper. Everything else is inferred; of the structures with the 3.50M parameters of SERAN's Table 3, at every
scale, this one has the fewest free choices (3,503,297 parameters, 201.6 GMACs per 240x240 slice):

    f = ReLU(conv3 1→32 of bicubic(low))                                  (shallow network)
    for w in 64, 128, 256:  x = ReLU(conv3 →w);  two residual blocks;  x + conv1(f) 32→w
    y = bicubic(low) + conv3 256→1
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from seran.models.layers import Enlarge, High, Low, Maps, ResidualBlock, conv


class Stage(nn.Module):
    """One of the progressively wider networks: ``inputs`` maps -> ``width`` maps, with the fixed skip."""

    def __init__(self, inputs: int, width: int, depth: int, shallow: int) -> None:
        super().__init__()
        self.widen = conv(inputs, width)
        self.body = nn.Sequential(*[ResidualBlock(width) for _ in range(depth)])
        self.skip = conv(shallow, width, 1)

    def forward(self, x: Maps, f: Float[Tensor, "b f h w"]) -> Float[Tensor, "b d h w"]:
        """The features ``x`` of the stage before and ``f`` of the shallow network."""
        return self.body(self.widen(x).relu()) + self.skip(f)


class FSCWRN(nn.Module):
    """``shallow`` maps first, then stages of these ``widths``, each with ``depth`` residual blocks."""

    def __init__(
        self, scale: int, shallow: int = 32, widths: Sequence[int] = (64, 128, 256), depth: int = 2
    ) -> None:
        super().__init__()
        self.enlarge, self.head = Enlarge(scale), conv(1, shallow)
        inputs = [shallow, *widths]
        self.stages = nn.ModuleList(Stage(a, b, depth, shallow) for a, b in zip(inputs, widths, strict=False))
        self.tail = conv(inputs[-1], 1)

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices; the sum is float32 even under autocast."""
        enlarged = self.enlarge(x)
        features = shallow = self.head(enlarged).relu()
        for stage in self.stages:
            features = stage(features, shallow)
        return enlarged + self.tail(features).float()
