"""Random acquisitions of random slices, on the device that trains.

Numbers are drawn on the CPU; noise and the places of patches on the device.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from scipy import fft
from torch import Tensor

from seran.acquisition import NONE, Acquisition, Window, leftover
from seran.data import simulate
from seran.data.patches import TEXTURE
from seran.data.simulate import Shape, Size, canonical, onto
from seran.errors import BadInput

MERGED = {"b0": "EPI"}
"""Contrasts that count as another one in the even draw."""
DEEPEST = 12
"""A mask of the head is eroded by less than so many pixels of `simulate.heads`."""
KEPT = 0.05
"""Of a slice, that a mask of the head must keep; else the mask is made of ellipses."""


@dataclass(frozen=True)
class Chances:
    """How slices are varied before and in the acquisition.

    Attributes:
        reduced: of an axis, to be put on a coarser grid first.
        least: size of that grid, as a part.
        soft: part of k-space over which it fades there.
        recontrasted: of another contrast.
        masked: of a mask before the acquisition, as skull-stripping and defacing make them.
        again: of those, of the same mask after it, too.
        noisy: of noise.
        sigma: its range, as a part of the 99.9th percentile.
        windowed: of a filter.
        filled: of zero-filling by the scanner.
        blind: of a mild filter that is not undone.
        inexact: of a filter that is not known exactly.
        anywhere: of a patch that may be background.
        bicubic: of a resampled image instead of a scan.
        misjudged: of a wrong acquired grid where the scanner has filled.
    """

    reduced: float = 0.6
    least: float = 0.6
    soft: float = 0.15
    recontrasted: float = 0.3
    masked: float = 0.25
    again: float = 0.5
    noisy: float = 0.65
    sigma: tuple[float, float] = (0.002, 0.06)
    windowed: float = 0.5
    filled: float = 0.3
    blind: float = 0.12
    inexact: float = 0.5
    anywhere: float = 0.12
    bicubic: float = 0.06
    misjudged: float = 0.3


def random_window(rng: np.random.Generator) -> Window:
    """Tukey, Hamming's family or Fermi, separable or elliptical."""
    kind, elliptical = ("tukey", "hamming", "hamming", "fermi")[rng.integers(4)], bool(rng.random() < 0.35)
    if kind == "tukey":
        return Window(kind, float(rng.uniform(0.1, 0.7)), elliptical=elliptical)
    if kind == "hamming":
        strength = 0.46 if rng.random() < 0.25 else rng.uniform(0.1, 0.46)
        return Window(kind, float(strength), elliptical=elliptical)
    return Window(kind, float(rng.uniform(0.75, 1.1)), float(rng.uniform(0.03, 0.12)), elliptical)


def believed(window: Window, rng: np.random.Generator, chances: Chances) -> tuple[Window, bool]:
    """The window that an estimate would give, and whether it is undone (a mild one may be left in)."""
    if window.kind == "none":
        return window, False
    guess = window
    if rng.random() < chances.inexact:
        a, b = window.a * (1 + 0.12 * rng.standard_normal()), window.b * (1 + 0.15 * rng.standard_normal())
        most = 0.48 if window.kind == "hamming" else 1.2
        guess = Window(window.kind, float(np.clip(a, 0.01, most)), float(max(b, 0.02)), window.elliptical)
    mild = max(leftover(window, undone=False)[:2]) < 0.45
    return guess, not (mild and rng.random() < chances.blind)


class Held(NamedTuple):
    """A volume on the device: slices, `simulate.heads`, parts deeper than r, which slices have texture.

    And the distance of slices, in pixels.
    """

    stack: Tensor
    depth: Tensor
    share: ndarray
    textured: ndarray
    distance: float


class Draw:
    """Batches of one scale; batch k depends on (seed, k) and the kind of the device alone.

    A contrast is drawn first, all alike, then a volume in proportion to the root of its slices, then slices,
    which are mirrored and turned, put on a coarser grid, given another contrast, masked and acquired, all of
    a draw in the same way; patches are cut from each.
    """

    def __init__(
        self,
        volumes: Iterable[tuple[str, ndarray, float]],
        seed: int,
        device: str = "cpu",
        chances: Chances = Chances(),
    ) -> None:
        """Take volumes to the device as float16.

        Args:
            volumes: contrast, slices with a 99.9th percentile of 1, and their distance in pixels.
            seed: of what is drawn.
            device: that trains.
            chances: of what is done to slices.
        """
        self.seed, self.device, self.chances = seed, torch.device(device), chances
        self.groups: dict[str, list[Held]] = {}
        rng = np.random.default_rng((seed, 2))
        for contrast, stack, distance in volumes:
            depth = simulate.heads(stack, rng)
            share = np.stack([(depth > r).mean((1, 2)) for r in range(DEEPEST)], 1)
            spread = np.array([x[::2, ::2].std(dtype=np.float32) for x in stack])
            textured = np.flatnonzero(spread > TEXTURE) if spread.max() > TEXTURE else np.arange(len(stack))
            sides = (torch.from_numpy(side).to(self.device) for side in (stack.astype(np.float16), depth))
            self.groups.setdefault(MERGED.get(contrast, contrast), []).append(
                Held(*sides, share, textured, distance)
            )

    def batch(self, step: int, scale: int, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Low patches (b, 1, p, p), facts (b, 4) and high patches (b, 1, scale p, scale p).

        Facts are what is believed of a scan: its noise, and what is left of its window (`leftover`).
        """
        low, facts, high = self.put_together(step, size, lambda *drawn: self._scan(*drawn, scale, size))
        return low[:, None], facts, high

    def put_together(
        self,
        step: int,
        size: Size,
        scan: Callable[[np.random.Generator, torch.Generator], tuple[Tensor, tuple[float, ...], Tensor]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Low patches, facts and high patches (b, 1, h, w) of as many scans as a batch has.

        Args:
            step: of training.
            size: of the batch.
            scan: draws one: low patches, facts, high patches.
        """
        rng = np.random.default_rng((self.seed, step))
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        low, facts, high = zip(*(scan(rng, generator) for _ in range(size.scans)), strict=True)
        table = np.repeat(np.array(facts, np.float32), size.slices * size.each, 0)
        return torch.cat(low), self.sent(table), torch.cat(high)[:, None]

    def sent(self, numbers: ndarray) -> Tensor:
        """To the device."""
        return torch.from_numpy(numbers).to(self.device, non_blocking=True)

    def normal(self, generator: torch.Generator, *shape: int) -> Tensor:
        """Of standard deviation 1 in both parts."""
        parts = torch.randn(*shape, 2, generator=generator, device=self.device)
        return torch.view_as_complex(parts)

    def _scan(
        self, rng: np.random.Generator, generator: torch.Generator, scale: int, size: Size
    ) -> tuple[Tensor, tuple[float, ...], Tensor]:
        c, patch = self.chances, size.patch[0]
        x, mask = self.slices(rng, scale * patch, size.slices)
        x, acquired = self._truth(rng, x, scale, patch)
        again = mask is not None and rng.random() < c.again
        if mask is not None:
            mask = onto(mask, x.shape[1:])
            x = x * mask
        sigma = exp(rng.uniform(*np.log(c.sigma)))
        if scale > 1 and rng.random() < c.bicubic:
            sigma = sigma if rng.random() < 0.3 else 0.0
            low, facts, x = self._resampled(rng, generator, x, acquired, sigma)
        else:
            sigma = sigma if rng.random() < c.noisy else 0.0
            shown = mask if again else None
            low, facts, x = self._acquired(rng, generator, x, acquired, shown, sigma, scale, patch)
        noise = sigma * exp(0.12 * rng.standard_normal())
        cut = simulate.cut_patches(low, x, (scale, scale), size, generator, c.anywhere)
        return cut[0], (noise, *facts), cut[1]

    def slices(
        self, rng: np.random.Generator, least: int, count: int, near: float = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Slices of a volume that is large enough, and perhaps a mask of each.

        Args:
            rng: of all that is drawn.
            least: pixels a side.
            count: of slices.
            near: pixels that slices may be apart to come with their neighbours, the two around each; else
                each comes three times. At 0, slices come alone.
        """
        groups = [[v for v in g if min(v.stack.shape[1:]) >= least] for g in self.groups.values()]
        if not any(groups):
            raise BadInput(f"no slice has {least} pixels a side; choose smaller patches")
        group = [g for g in groups if g][rng.integers(sum(map(bool, groups)))]
        weight = np.sqrt([len(v.stack) for v in group])
        volume = group[rng.choice(len(group), p=weight / weight.sum())]
        chosen = rng.choice(volume.textured, count, replace=len(volume.textured) < count)
        axes, swapped = [axis for axis in (1, 2) if rng.integers(2)], bool(rng.integers(2))
        if near:
            step = (-1, 1)[rng.integers(2)] if volume.distance <= near else 0
            around = np.array([-step, 0, step])
            chosen = np.clip(chosen[:, None] + around, 0, len(volume.stack) - 1).ravel()

        def turned(stack: Tensor) -> Tensor:
            x = torch.stack([stack[i] for i in chosen.tolist()])
            x = x.flip(axes) if axes else x
            return x.mT.contiguous() if swapped else x

        x, mask = turned(volume.stack).float(), None
        if rng.random() < self.chances.masked:
            r = int(rng.integers(1, DEEPEST))
            if rng.random() < 0.6 and (volume.share[chosen, r] >= KEPT).all():
                coarse = turned(volume.depth) > r
                mask = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : x.shape[1], : x.shape[2]]
            else:
                mask = self._ellipses(rng, count, (x.shape[1], x.shape[2]))
                mask = mask.repeat_interleave(len(chosen) // count, 0)
        return x, mask

    def _ellipses(self, rng: np.random.Generator, count: int, shape: Shape) -> Tensor:
        """One to three of them for each slice."""
        angle, a, b = (rng.uniform(*ends, (count, 3)) for ends in ((0, np.pi), (0.2, 0.8), (0.2, 0.8)))
        cy, cx = rng.uniform(-0.4, 0.4, (2, count, 3))
        cy[np.arange(3) >= rng.integers(1, 4, (count, 1))] = 9  # outside
        facts = self.sent(np.array([np.cos(angle), np.sin(angle), a, b, cy, cx], np.float32))
        return simulate.ellipses(facts, shape)

    def _truth(self, rng: np.random.Generator, x: Tensor, scale: int, patch: int) -> tuple[Tensor, Shape]:
        """Slices whose size is a multiple of the scale, and their acquired grid."""
        c = self.chances
        acquired, ends = [], []
        for n in x.shape[1:]:
            reduced = rng.random() < c.reduced
            m = int(n * (rng.uniform(c.least, 1) if reduced else 1)) // scale
            while m > patch and fft.next_fast_len(m) != m:
                m -= 1
            acquired.append(max(m, patch))
            ends.append(c.soft if scale * acquired[-1] < 0.97 * n else 0.0)
        rows, columns = (scale * m for m in acquired)
        if (rows, columns) != x.shape[1:]:
            block = simulate.spectrum(x, (rows, columns)) * simulate.fade(columns, ends[1], self.device)
            block = block * simulate.fade(rows, ends[0], self.device)[:, None]
            x = simulate.image(block, (rows, columns)).real.clamp(min=0)
        if rng.random() < c.recontrasted:
            x = simulate.recontrasted(x, rng)
        return x, (acquired[0], acquired[1])

    def _acquired(
        self,
        rng: np.random.Generator,
        generator: torch.Generator,
        x: Tensor,
        acquired: Shape,
        mask: Tensor | None,
        sigma: float,
        scale: int,
        patch: int,
    ) -> tuple[Tensor, tuple[float, float, float], Tensor]:
        """Of a scan: the low slices, `leftover`, and the high slices."""
        c = self.chances
        window = random_window(rng) if rng.random() < c.windowed else NONE
        given = acquired
        if rng.random() < c.filled:
            fill = [2.0 if rng.random() < 0.5 else rng.uniform(1, 2) for _ in acquired]
            rows, columns = (fft.next_fast_len(round(n * f)) for n, f in zip(acquired, fill, strict=True))
            given = rows, columns
        noise = self.normal(generator, len(x), *acquired) if sigma > 0 else None
        s = simulate.acquire(x, Acquisition(acquired, window, given), sigma, noise)
        s = s if mask is None else s * onto(mask, given)
        guess, undone = believed(window, rng, c)
        if given != acquired and rng.random() < c.misjudged:
            sizes = [round(n * (1 + 0.025 * rng.standard_normal())) for n in acquired]
            rows, columns = (int(np.clip(m, patch, n)) for m, n in zip(sizes, given, strict=True))
            acquired = rows, columns
            x = simulate.regridded(x, (scale * rows, scale * columns)).clamp(min=0)
        low = canonical(s, acquired, guess if undone else NONE)
        low = low if mask is None else low * onto(mask, acquired)
        return low, leftover(guess, undone), x

    def _resampled(
        self, rng: np.random.Generator, generator: torch.Generator, x: Tensor, acquired: Shape, sigma: float
    ) -> tuple[Tensor, tuple[float, float, float], Tensor]:
        """Of a resampled image: antialiased bicubic, which has voxel 0 elsewhere; so have the high slices."""
        (h, w), device = x.shape[1:], self.device
        low = simulate.bicubic(h, acquired[0], device) @ x @ simulate.bicubic(w, acquired[1], device).mT
        if sigma > 0:
            low = (low + sigma * self.normal(generator, *low.shape)).abs()
        rows, columns = (simulate.ramp(n, n // m, device) for n, m in zip((h, w), acquired, strict=True))
        x = simulate.image(simulate.spectrum(x, (h, w)) * rows[:, None] * columns, (h, w)).real.clamp(min=0)
        window = Window("hamming", float(rng.uniform(0.1, 0.4))) if rng.random() < 0.5 else NONE
        undone = window.kind != "none" and rng.random() < 0.7
        return canonical(low, acquired, window if undone else NONE), leftover(window, undone), x
