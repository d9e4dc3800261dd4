"""SERAN: squeeze and excitation reasoning attention (Zhang et al., CVPR 2021).

With features E (C × N, N = h·w positions) and P primitives, one attention block computes

1. squeeze     M = softmax_N(θ(E)),  V = E Mᵀ                        (P primitives of C channels)
2. reasoning   R = φ(V)ᵀ ϕ(V) / P,   V ← σ(((R Vᵀ W_g) W_r)ᵀ) ⊙ V + V
3. excitation  D = softmax_P(ρ(E)),  Z = V D                          (eq. 6)
4. output      O = α Z + E,          α = 0.01

SEAB is the block without step 2, SERAB with it. SERAN is EDSR (Lim et al., CVPRW 2017), the ablation's
baseline, with one SERAB after the last of 40 residual blocks:

    x0 = conv3(x);  40 × [x + conv3(ReLU(conv3(x)))];  SERAB;  conv3;  + x0;  sub-pixel upsampler;  conv3

The paper leaves open, and this file chooses:

- the baseline: no batch norm, no mean shift, residual scale 1, as EDSR has at 64 features.
- P and the width d of φ, ϕ: 64 and 64 (every layer "has 64 filters"), which gives the printed
  3.16/3.34/3.31M parameters, cut after two decimals; P = 16 gives them rounded.
- the scale of R: R/P, as VSRN's code by the same group; without it the gate saturates.
- W_r: no batch norm; it and its bias start at zero, and so the gate at 1/2.
- equation (6) prints E Mᵀ D, ignoring step 2; the refined V is used.
- the insertion point: "the last RB" and "before the element-wise adding of the long skip" both hold here.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seran.models.layers import High, Low, Maps, ResidualBlock, conv, finish, upsampler


class PrimitiveReasoning(nn.Module):
    """Step 2: a graph over the primitives, fully connected and not symmetric."""

    def __init__(self, width: int, embed: int) -> None:
        super().__init__()
        self.phi, self.varphi = nn.Conv1d(width, embed, 1), nn.Conv1d(width, embed, 1)
        self.graph, self.residual = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)  # type: ignore[arg-type]

    def relations(self, v: Float[Tensor, "b c p"]) -> Float[Tensor, "b p p"]:
        """The reasoning graph R."""
        return self.phi(v).transpose(1, 2) @ self.varphi(v) / v.shape[-1]

    def forward(self, v: Float[Tensor, "b c p"]) -> Float[Tensor, "b c p"]:
        """Refined primitives."""
        gathered = self.graph(v) @ self.relations(v).transpose(1, 2)
        return torch.sigmoid(self.residual(gathered)) * v + v


class SEAB(nn.Module):
    """Squeeze and excitation attention; with ``reasoning`` between the two it is SERAB.

    Runs in float32 whatever the precision of its surroundings: the softmax runs over thousands of positions.
    """

    def __init__(self, width: int, primitives: int, scaling: float, reasoning: nn.Module) -> None:
        super().__init__()
        self.theta, self.rho = nn.Conv2d(width, primitives, 1), nn.Conv2d(width, primitives, 1)
        self.reasoning, self.scaling = reasoning, scaling

    def where(self, e: Maps) -> Float[Tensor, "b p n"]:
        """M: where in the slice each primitive looks; every row sums to one."""
        return self.theta(e).flatten(2).softmax(-1)

    def forward(self, e: Maps) -> Maps:
        """O = α Z + E."""
        with torch.autocast(e.device.type, enabled=False):
            full = e.float()
            v = self.reasoning(full.flatten(2) @ self.where(full).transpose(1, 2))
            z = v @ self.rho(full).flatten(2).softmax(1)
            return (full + self.scaling * z.reshape(full.shape)).to(e.dtype)


class SERAN(nn.Module):
    """``depth`` blocks of ``width`` features, attention after those at ``positions`` (from 1; none: EDSR).

    ``primitives`` is P, ``embed`` d and ``scaling`` α (1.0 is the paper's "without residual scaling"); with
    ``reasoning`` the attention is SERAB, else SEAB.
    """

    def __init__(
        self,
        scale: int,
        width: int = 64,
        depth: int = 40,
        primitives: int = 64,
        embed: int = 64,
        reasoning: bool = True,
        scaling: float = 0.01,
        positions: Sequence[int] = (40,),
    ) -> None:
        super().__init__()
        if not set(positions) <= set(range(1, depth + 1)):
            raise ValueError(f"expected positions between 1 and {depth}, got {tuple(positions)}")
        self.head = conv(1, width)
        body: list[nn.Module] = []
        for block in range(1, depth + 1):
            body.append(ResidualBlock(width))
            if block in positions:
                graph = PrimitiveReasoning(width, embed) if reasoning else nn.Identity()
                body.append(SEAB(width, primitives, scaling, graph))
        self.body = nn.Sequential(*body, conv(width, width))
        self.up, self.tail = upsampler(width, scale), conv(width, 1)

    def forward(self, x: Low) -> High:
        """Super-resolve a batch of slices."""
        shallow = self.head(x)
        return finish(self.up, self.tail, self.body(shallow) + shallow)
