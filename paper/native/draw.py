"""Training volumes in memory, and random simulated acquisitions of them.

``python paper/native/draw.py PACKED LIST.csv ...`` packs the scans of the lists (splits train and val) as
float16 with 99.9th percentile 1, on the k-space support that was measured.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from acquisition import NONE, Window, acquire, canonical, fitted, image, leftover, spectrum, told
from numpy import ndarray
from scipy import fft, ndimage

from seran.data.patches import TEXTURE, TRIES, recontrasted
from seran.data.prepare import PrepareOptions, high_resolution
from seran.data.sources import find, read_source

MERGED = {"b0": "EPI"}
"""Contrasts that count as another one in the even draw."""


def pack(out: Path, lists: Sequence[Path], splits: Sequence[str] = ("train", "val")) -> None:
    """Write every scan of the splits as ``NNN.npy`` (slices, rows, columns) and ``volumes.json``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for source in [s for one in lists for s in find(one) if s.split in splits]:
        stack, band, size = high_resolution(read_source(source), PrepareOptions(), None)
        unit = float(np.percentile(stack, 99.9))
        name = f"{len(rows):03d}.npy"
        np.save(out / name, np.clip(stack / unit, -8, 8).astype(np.float16))
        row = {"file": name, "split": source.split, "contrast": source.contrast, "source": source.path.name}
        row |= {"sha256": source.sha256, "repository": source.repository, "licence": source.licence}
        rows.append(row | {"subject": source.subject, "band": band, "shape": stack.shape, "spacing": size})
        sys.stderr.write(f"{source.split} {source.contrast} {source.path.name} {stack.shape}\n")
    (out / "volumes.json").write_text(json.dumps(rows, indent=1))


def volumes(packed: Path, split: str) -> list[dict]:
    """Rows of a split, each with its ``stack``."""
    rows = [r for r in json.loads((packed / "volumes.json").read_text()) if r["split"] == split]
    return [r | {"stack": np.load(packed / r["file"])} for r in rows]


@dataclass(frozen=True)
class Chances:
    """How slices are varied before and in the acquisition."""

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
    inexact: float = 0.4
    anywhere: float = 0.12


def head_mask(x: ndarray, rng: np.random.Generator) -> ndarray:
    """A skull-stripping or defacing as they come: the head or a part of it, or random ellipses."""
    h, w = x.shape
    mask = np.zeros((h, w), bool)
    if rng.random() < 0.6:
        step = 2
        small = ndimage.uniform_filter(x[::step, ::step], 3) > rng.uniform(0.05, 0.2) * max(x.max(), 1e-3)
        labels, count = ndimage.label(small)
        if count:
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            part = ndimage.binary_fill_holes(labels == sizes.argmax())
            part = ndimage.binary_erosion(part, iterations=int(rng.integers(1, 12)))
            mask = np.kron(part, np.ones((step, step), bool))[:h, :w]
            mask = ndimage.binary_opening(mask, iterations=1)
    if mask.mean() < 0.05:
        y, z = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
        for _ in range(rng.integers(1, 4)):
            angle, (cy, cx), (a, b) = (
                rng.uniform(0, np.pi),
                rng.uniform(-0.4, 0.4, 2),
                rng.uniform(0.2, 0.8, 2),
            )
            u = np.cos(angle) * (y - cy) + np.sin(angle) * (z - cx)
            v = np.cos(angle) * (z - cx) - np.sin(angle) * (y - cy)
            mask |= (u / a) ** 2 + (v / b) ** 2 < 1
    return mask


def onto(mask: ndarray, shape: tuple[int, int]) -> ndarray:
    """A mask on a coarser grid that shares the centre of voxel 0: the nearest of its voxels."""
    index = [
        np.minimum(np.rint(np.arange(m) * n / m).astype(int), n - 1)
        for n, m in zip(mask.shape, shape, strict=True)
    ]
    return mask[np.ix_(*index)]


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
        a, b = window.a * (1 + 0.08 * rng.standard_normal()), window.b * (1 + 0.15 * rng.standard_normal())
        most = 0.48 if window.kind == "hamming" else 1.2
        guess = Window(window.kind, float(np.clip(a, 0.01, most)), float(max(b, 0.02)), window.elliptical)
    mild = max(leftover(window, undone=False)[:2]) < 0.45
    return guess, not (mild and rng.random() < chances.blind)


class Draw:
    """Batches of (low, told, high) of one scale; batch ``k`` depends on (seed, k) alone.

    A contrast is drawn first, all alike, then a volume in proportion to the root of its slices, then a slice,
    which is mirrored and turned as a whole, put on a random coarser grid, given another contrast, masked and
    acquired; several patches are cut from it.
    """

    def __init__(self, packed: Path, split: str, seed: int, chances: Chances = Chances()) -> None:
        self.seed, self.chances = seed, chances
        self.groups: dict[str, list[ndarray]] = {}
        for v in volumes(packed, split):
            self.groups.setdefault(MERGED.get(v["contrast"], v["contrast"]), []).append(v["stack"])

    def batch(self, step: int, scale: int, patch: int, slices: int, each: int) -> tuple[torch.Tensor, ...]:
        """``slices`` times ``each`` patches of ``patch`` low pixels a side."""
        rng = np.random.default_rng((self.seed, step))
        rows = [row for _ in range(slices) for row in self._cut(rng, scale, patch, each)]
        low, said, high = (torch.from_numpy(np.stack(side)) for side in zip(*rows, strict=True))
        return low[:, None], said, high[:, None]

    def _slice(self, rng: np.random.Generator, least: int) -> ndarray:
        groups = [[v for v in g if min(v.shape[1:]) >= least] for g in self.groups.values()]
        groups = [g for g in groups if g]
        group = groups[rng.integers(len(groups))]
        weight = np.sqrt([len(v) for v in group])
        stack = group[rng.choice(len(group), p=weight / weight.sum())]
        for _ in range(TRIES):
            x = stack[rng.integers(len(stack))].astype(np.float32)
            if x[::2, ::2].std() > TEXTURE:
                break
        x = x[:: 1 - 2 * rng.integers(2), :: 1 - 2 * rng.integers(2)]
        return np.ascontiguousarray(x.T if rng.integers(2) else x)

    def _truth(self, rng: np.random.Generator, scale: int, patch: int) -> tuple[ndarray, tuple[int, int]]:
        """A slice whose size is a multiple of the scale, and its acquired size."""
        c, x = self.chances, self._slice(rng, scale * patch)
        acquired, soft = [], []
        for n in x.shape:
            reduced = rng.random() < c.reduced
            m = int(n * (rng.uniform(c.least, 1) if reduced else 1)) // scale
            while m > patch and fft.next_fast_len(m) != m:
                m -= 1
            acquired.append(max(m, patch))
            soft.append(scale * acquired[-1] < 0.97 * n)
        shape = tuple(scale * m for m in acquired)
        if shape != x.shape:
            block = fitted(spectrum(x), shape)
            ends = [c.soft * s for s in soft]
            places = [np.abs(np.linspace(-1, 1, m)) for m in shape]
            edges = [Window("tukey", a).curve(k) for a, k in zip(ends, places, strict=True)]
            x = np.maximum(image(block * (edges[0][:, None] * edges[1]).astype(np.float32)).real, 0)
        if rng.random() < c.recontrasted:
            x = recontrasted(x, rng)
        return x.astype(np.float32), tuple(acquired)

    def _cut(self, rng: np.random.Generator, scale: int, patch: int, each: int) -> list[tuple[ndarray, ...]]:
        c = self.chances
        x, acquired = self._truth(rng, scale, patch)
        mask = head_mask(x, rng) if rng.random() < c.masked else None
        again = mask is not None and rng.random() < c.again
        if mask is not None:
            x = np.where(mask, x, np.float32(0))
        window = random_window(rng) if rng.random() < c.windowed else NONE
        sigma = float(np.exp(rng.uniform(*np.log(c.sigma)))) if rng.random() < c.noisy else 0.0
        given = acquired
        if rng.random() < c.filled:
            given = tuple(round(n * (2 if rng.random() < 0.5 else rng.uniform(1, 2))) for n in acquired)
            given = tuple(fft.next_fast_len(n) for n in given)
        s = acquire(x, acquired, window, sigma, given, rng)
        if again:
            s = np.where(onto(mask, given), s, np.float32(0))
        guess, undone = believed(window, rng, c)
        low = canonical(s, acquired, guess if undone else NONE)
        if again:
            low = np.where(onto(mask, acquired), low, np.float32(0))
        said = told(sigma * rng.uniform(0.85, 1.15), leftover(guess, undone))
        return [
            (low[a], said, x[b]) for a, b in (self._place(rng, x, low, scale, patch) for _ in range(each))
        ]

    def _place(
        self, rng: np.random.Generator, x: ndarray, low: ndarray, scale: int, patch: int
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where a patch is cut from both, mostly not background."""
        anywhere = rng.random() < self.chances.anywhere
        for _ in range(TRIES):
            at = [int(rng.integers(n - patch + 1)) for n in low.shape]
            fine = tuple(slice(scale * i, scale * (i + patch)) for i in at)
            if anywhere or x[fine].std() > TEXTURE:
                break
        return tuple(slice(i, i + patch) for i in at), fine  # type: ignore[return-value]


if __name__ == "__main__":
    pack(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]])
