"""Random thick slices of random slices: what `seran.models.isotropic` is trained on, and how it begins.

Pairs cost nothing: an axis in the plane of sharp slices is blurred and sampled as slice selection does it
(`seran.profiles`), and becomes the rows of a low slice. Neighbours are those of a scan whose slices are
hardly farther apart than its pixels; other slices have none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp

import draw
import numpy as np
import torch
from draw import Draw
from network import parameters
from numpy import ndarray
from torch import Tensor

from seran import weights
from seran.data import simulate
from seran.data.simulate import Size, regridded
from seran.models.isotropic import Isotropic
from seran.profiles import KINDS, SOFTNESS, Profile, selection

NEAR = 1.6
"""Pixels that slices may be apart to be shown as neighbours."""
BELIEVED = "slr"
"""What is told of a profile that nobody knows."""


@dataclass(frozen=True)
class Chances:
    """How slices are varied, and selected.

    Attributes:
        least: size of the grid that they are put on, as a part, along rows and columns.
        recontrasted: of another contrast.
        masked: of a mask, as skull-stripping and defacing make them.
        noisy: of noise.
        sigma: its range, as a part of the 99.9th percentile.
        thickness: of a slice, as a part of the slice distance.
        known: of a profile that is told as it is.
        filled: of pixels finer than was measured, as scanners fill k-space, and how much.
        alone: of neighbours that are not shown.
        anywhere: of a patch that may be background.
    """

    least: float = 0.65
    recontrasted: float = 0.3
    masked: float = 0.15
    noisy: float = 0.6
    sigma: tuple[float, float] = (0.002, 0.04)
    thickness: tuple[float, float] = (0.6, 1.2)
    known: float = 0.5
    filled: tuple[float, float] = (0.15, 2.0)
    alone: float = 0.2
    anywhere: float = 0.12


class ThickDraw:
    """Batches of one factor; batch k depends on (seed, k) and the kind of the device alone."""

    def __init__(
        self,
        volumes: Iterable[tuple[str, ndarray, float]],
        seed: int,
        device: str = "cpu",
        chances: Chances = Chances(),
    ) -> None:
        """Take volumes to the device, see `Draw`."""
        self.scans, self.chances = Draw(volumes, seed, device, draw.Chances(masked=chances.masked)), chances

    def batch(self, step: int, factor: int, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Low patches (b, 3, p, q), facts (b, 4) and high patches (b, 1, factor p, q).

        Facts are what is believed of a scan: noise, thickness and softness of the profile, factor / 8.
        """
        return self.scans.put_together(step, size, lambda *drawn: self._scan(*drawn, factor, size))

    def _scan(
        self, rng: np.random.Generator, generator: torch.Generator, factor: int, size: Size
    ) -> tuple[Tensor, tuple[float, ...], Tensor]:
        c, (p, q) = self.chances, size.patch
        x, mask = self.scans.slices(rng, max(factor * p, q), size.slices, NEAR)
        x, measured = self._truth(rng, x, factor, size.patch)
        again = mask is not None and rng.random() < 0.5
        if mask is not None:
            mask = simulate.onto(mask, (x.shape[1], x.shape[2]))
            x = x * mask
        profile = Profile(KINDS[rng.integers(len(KINDS))], float(rng.uniform(*c.thickness)))
        weights = torch.from_numpy(selection(x.shape[1], factor, profile).astype(np.float32)).to(x.device)
        low = weights @ x
        sigma = exp(rng.uniform(*np.log(c.sigma))) if rng.random() < c.noisy else 0.0
        if sigma > 0:
            noise = self.scans.normal(generator, len(low), low.shape[1], measured)
            parts = [regridded(part, (low.shape[1], low.shape[2])) for part in (noise.real, noise.imag)]
            low = torch.hypot(low + sigma * parts[0], sigma * parts[1])
        if again:
            low = low * (weights @ mask.float() > 0.5)
        low = low.unflatten(0, (-1, 3))
        if rng.random() < c.alone:
            low = low[:, 1:2].expand(-1, 3, -1, -1)
        x = x.unflatten(0, (-1, 3))[:, 1]
        cut = simulate.cut_patches(low.permute(0, 2, 3, 1), x, (factor, 1), size, generator, c.anywhere)
        kind = profile.kind if rng.random() < c.known else BELIEVED
        thickness = profile.thickness * (1 + 0.05 * rng.standard_normal())
        facts = sigma * exp(0.12 * rng.standard_normal()), thickness, SOFTNESS[kind], factor / 8
        return cut[0].permute(0, 3, 1, 2), facts, cut[1]

    def _truth(
        self, rng: np.random.Generator, x: Tensor, factor: int, patch: tuple[int, int]
    ) -> tuple[Tensor, int]:
        """Fine slices, whose rows are a multiple of the factor, and how many columns were measured."""
        c = self.chances
        h, w = (round(n * rng.uniform(c.least, 1)) for n in x.shape[1:])
        rows, columns = factor * max(h // factor, patch[0]), max(w, patch[1])
        if (rows, columns) != x.shape[1:]:
            x = regridded(x, (rows, columns)).clamp(min=0)
        if rng.random() < c.recontrasted:
            x = simulate.recontrasted(x, rng)
        measured = columns
        if rng.random() < c.filled[0]:
            fill = rng.uniform(1, c.filled[1])
            rows, columns = factor * round(fill * rows / factor), round(fill * columns)
            x = regridded(x, (rows, columns)).clamp(min=0)
        return x, measured


@torch.no_grad()
def warm(network: Isotropic) -> Isotropic:
    """Start from the native network: its body, and what its first layer does to a slice and its noise."""
    found = parameters(weights.shipped()["seran-native"])
    state = network.state_dict()
    for key, value in state.items():
        if key.startswith("body."):
            value.copy_(found[key])
    network.head.weight.zero_()
    network.head.weight[:, 1:2].copy_(found["head.weight"][:, :1])
    network.head.weight[:, 3:4].copy_(found["head.weight"][:, 1:2])
    network.head.bias.copy_(found["head.bias"])
    return network
