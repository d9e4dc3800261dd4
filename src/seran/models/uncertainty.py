"""The small network of `seran.uncertainty`: from a result to the logarithm of a quantile of its error."""

from jaxtyping import Float
from torch import Tensor, nn

MAPS = 9
"""A slice of the result, five of what its network was told, and three of how its spectrum falls."""
DILATIONS = (1, 2, 4)


class HalfWidth(nn.Module):
    """Slices and maps (b, `MAPS`, h, w) -> (b, 1, h, w)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(MAPS, width, 3, padding=1), nn.Conv2d(width, 1, 1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in DILATIONS)

    def forward(self, low: Float[Tensor, "b m h w"]) -> Float[Tensor, "b 1 h w"]:
        """Convolutions and rectifiers."""
        x = self.first(low).relu()
        for layer in self.body:
            x = layer(x).relu()
        return self.last(x)  # type: ignore[no-any-return]
