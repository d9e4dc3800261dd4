"""SERAN across thick slices: the native body on reformatted slices; endings for 2 to 8 times as many rows.

Rows of a reformatted slice x are slices of the scan, columns lie in their plane; its neighbours in the third
direction are seen beside it (where there are none, x itself). With `TOLD` numbers as constant maps,

    x0 = conv3([x before, x, x after, maps]);  E = SERAN's body(x0) + x0
    high_k = rows(conv5_k(E)) + base_k(x)

where conv5_k makes k maps, ``rows`` takes them to k rows each, and base_k is Keys' cubic along rows, at
places that keep the outer faces of the stack. All endings share the body.
"""

from jaxtyping import Float
from torch import Tensor, nn

from seran.models.layers import Enlarge, Maps, conv
from seran.models.seran import SERAN

TOLD = 4
MAPS = 3 + TOLD
FACTORS = (2, 3, 4, 5, 6, 7, 8)
Told = Float[Tensor, "b 7 h w"]


class OneFactor(nn.Module):
    """Slices and maps (b, `MAPS`, h, w) -> (b, 1, k h, w), by one ending."""

    def __init__(self, factor: int, width: int = 64, depth: int = 40) -> None:
        super().__init__()
        self.head, self.body = conv(MAPS, width), SERAN(2, width, depth, positions=(depth,)).body
        self.tail, self.base = conv(width, factor, 5), Enlarge(factor)

    def forward(self, low: Told) -> Float[Tensor, "b 1 kh w"]:
        """The sum is float32 even under autocast."""
        shallow = self.head(low)
        return _high(low, self.body(shallow) + shallow, self.tail, self.base)


class Isotropic(nn.Module):
    """An ending for each of `FACTORS` on one body."""

    def __init__(self, width: int = 64, depth: int = 40) -> None:
        super().__init__()
        self.head, self.body = conv(MAPS, width), SERAN(2, width, depth, positions=(depth,)).body
        self.tail = nn.ModuleDict({str(k): conv(width, k, 5) for k in FACTORS})
        self.base = nn.ModuleDict({str(k): Enlarge(k) for k in FACTORS})
        for ending in self.tail.values():
            nn.init.zeros_(ending.weight)  # type: ignore[arg-type]
            nn.init.zeros_(ending.bias)  # type: ignore[arg-type]

    def features(self, low: Told) -> Maps:
        """What all endings share."""
        shallow = self.head(low)
        return self.body(shallow) + shallow  # type: ignore[no-any-return]

    def by(self, factor: int, low: Told, features: Maps) -> Float[Tensor, "b 1 kh w"]:
        """One ending's."""
        return _high(low, features, self.tail[str(factor)], self.base[str(factor)])  # type: ignore[arg-type]

    def forward(self, low: Told, factor: int) -> Float[Tensor, "b 1 kh w"]:
        """Slices and maps (b, `MAPS`, h, w) -> (b, 1, factor h, w)."""
        return self.by(factor, low, self.features(low))


def _high(low: Told, features: Maps, tail: nn.Module, base: Enlarge) -> Float[Tensor, "b 1 kh w"]:
    made = tail(features).float()
    return made.transpose(1, 2).flatten(1, 2)[:, None] + base.rows(low[:, 1:2].float())  # type: ignore[no-any-return]


class AllFactors(nn.Module):
    """A network that gives the results of all `FACTORS`: what is exported."""

    def __init__(self, network: Isotropic) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Told) -> tuple[Tensor, ...]:
        """In their order."""
        features = self.network.features(low)
        return tuple(self.network.by(k, low, features) for k in FACTORS)
