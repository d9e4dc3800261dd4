"""How well `seran.measure` knows a scan: simulated acquisitions of real ones, whose truth is known.

``python paper/measure.py PACKED`` (the folder that ``paper/native/draw.py`` packs) prints a table per window.

Protocol. Truth: central slices of a volume of the split, taken to the inner `core` of their k-space, because
many scans end with a filter or zeros of their own. Given: `Acquisition` of it, the acquired part of rows and
columns drawn from `FRACTIONS` (a quarter of the cases has all of both), noise from `SIGMAS` of the 99.9th
percentile. Right is a fraction within 0.04 on both axes and a sigma within 20 % of √(added² + own²). The own
noise of the truth is read in its air: blocks of 8 × 8 pixels without tissue nearby, of the simulation without
noise; the median of their variance is (2 - π/2) own² mean W² by Rayleigh's law. Masked truths have none.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from numpy import ndarray
from scipy import ndimage
from tyro.conf import Positional

from seran import kspace
from seran.acquisition import NONE, Acquisition, Window
from seran.measure import measured

PLAIN = (
    Window("tukey", 0.2),
    Window("tukey", 0.4),
    Window("hamming", 0.2),
    Window("hamming", 0.46),
    Window("fermi", 0.9, 0.06),
)
WINDOWS = (NONE, *PLAIN, *(Window(w.kind, w.a, w.b, elliptical=True) for w in PLAIN))
FRACTIONS = (0.5, 0.65, 0.8, 1.0)
SIGMAS = (0.005, 0.01, 0.02, 0.04)


def truths(packed: Path, split: str, slices: int, core: float) -> Iterator[tuple[str, ndarray]]:
    """Name and slices of each volume, 99.9th percentile 1."""
    for row in json.loads((packed / "volumes.json").read_text()):
        if row["split"] == split:
            stack = np.load(packed / row["file"], mmap_mode="r")
            first = max(0, len(stack) // 2 - slices // 2)
            x = stack[first : first + slices].astype(np.float32)
            x = kspace.regridded(x, tuple(2 * round(core * n / 2) for n in x.shape[1:]))
            yield row["source"], x / np.percentile(x, 99.9)


def own(x: ndarray, scanner: Acquisition) -> float:
    """Standard deviation of the truth's own noise by its air, as `Acquisition` takes sigma; 0 without air."""
    clean, far = scanner(x), ndimage.maximum_filter(np.abs(x), (0, 15, 15)) < 0.15
    n, (h, w) = len(x), (s // 8 * 8 for s in x.shape[1:])
    blocks, air = (a[:, :h, :w].reshape(n, h // 8, 8, w // 8, 8) for a in (clean, far))
    spread = blocks.var((2, 4))[air.all((2, 4))]
    if len(spread) < 20:
        return 0.0
    return float(np.sqrt(np.median(spread) * 64 / 63 / (2 - np.pi / 2) / (scanner.filter**2).mean()))


def main(
    packed: Positional[Path],
    split: str = "val",
    per_window: int = 24,
    slices: int = 12,
    core: float = 0.7,
    cases: bool = False,
) -> None:
    """Print the table.

    Args:
        packed: the folder of ``paper/native/draw.py``.
        split: of the volumes.
        per_window: cases of each window, evenly over the volumes.
        slices: how many central slices of each.
        core: inner part of each truth's k-space that is used.
        cases: print every case.
    """
    volumes = list(truths(packed, split, slices, core))
    head = "cases | fraction ±0.04 | sigma ±20 % | kind | median error of fraction, sigma | whole stays whole"
    sys.stdout.write(f"{split}, core {core:g}\n\n| window | {head} |\n|---|{'---|' * 6}\n")
    rows = []
    for number, window in enumerate(WINDOWS):
        made = []
        for i in range(per_window):
            name, x = volumes[(i + number) % len(volumes)]
            made.append(case(x, window, np.random.default_rng((number, i))))
            if cases:
                sys.stderr.write(f"{name} {made[-1][1]}\n")
        rows += made
        _row(f"{window.kind} {window.a:g}{' elliptical' * window.elliptical}", [m[0] for m in made])
    _row("all", [m[0] for m in rows])


def case(x: ndarray, window: Window, rng: np.random.Generator) -> tuple[tuple[float, ...], str]:
    """Errors of fraction and sigma, kind right, whether the whole band was given, and the case in words."""
    shape = x.shape[1:]
    part = (1.0, 1.0) if rng.random() < 0.25 else rng.choice(FRACTIONS, 2)
    sigma = float(rng.choice(SIGMAS))
    scanner = Acquisition(tuple(round(p * n) for p, n in zip(part, shape, strict=True)), window, shape)
    found = measured(scanner(x, sigma, rng))
    true = np.divide(scanner.acquired, shape)
    away = float(np.abs(np.subtract(found.fraction, true)).max())
    wanted = float(np.hypot(sigma, own(x, scanner)))
    words = f"{shape} {window} {true} {wanted:.4f} -> {found}"
    return (away, found.sigma / wanted - 1, found.window.kind == window.kind, min(true) == 1), words


def _row(name: str, made: list[tuple[float, ...]]) -> None:
    away, noise, kind, whole = np.array(made, float).T
    kept = f"{(away[whole > 0] == 0).mean():.0%}" if whole.any() else "-"
    sys.stdout.write(
        f"| {name} | {len(made)} | {(away <= 0.04).mean():.0%} | {(np.abs(noise) <= 0.2).mean():.0%} | "
        f"{kind.mean():.0%} | {np.median(away):.3f}, {np.median(noise):+.0%} | {kept} |\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    tyro.cli(main)
