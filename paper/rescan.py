"""Fourier ring correlation of results with a second, untouched scan of the same pelvis.

From the scan as given, and from half of its k-space, where every frequency above half is the method's own.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from acquisitions import SCALE, central
from jaxtyping import Float
from numpy import ndarray
from registration import hann, placed, registered
from results import markdown
from scans import NAMES, known, made_of, say, stack_of

from seran import kspace
from seran.acquisition import Acquisition
from seran.data.sources import Source
from seran.engines import Engine
from seran.errors import BadInput

PAIR = ("tra", "tra-again")
BANDS = 10


def frc(one: Float[ndarray, "n h w"], other: Float[ndarray, "n h w"], rings: int) -> Float[ndarray, " rings"]:
    """Fourier ring correlation of two stacks, all slices together, in a Hann window.

    Args:
        one: slices.
        other: slices of the same grid.
        rings: equal parts of the frequencies up to Nyquist's.
    """
    h, w = one.shape[1:]
    window = hann((h, w))
    a, b = (np.fft.fft2((x - x.mean((1, 2), keepdims=True)) * window) for x in (one, other))
    f = 2 * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    ring = np.minimum((f * rings).astype(int), rings).ravel()

    def total(x: ndarray) -> ndarray:
        return np.bincount(ring, x.sum(0).ravel(), rings + 1)[:rings]

    power = total(np.abs(a) ** 2) * total(np.abs(b) ** 2)
    return total((a * b.conj()).real) / np.sqrt(np.maximum(power, 1e-30))


def compute(
    given: Sequence[Source], slices: int, engine: Engine, names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """FRC of results of the first scan with the second, which is moved onto it, once for all methods."""
    named = {end: [s.path for s in given if s.path.name.endswith(f"0001_{end}_T2w.nii.gz")] for end in PAIR}
    if not all(named.values()):
        raise BadInput(f"expected scans whose names end in 0001_{'_T2w and 0001_'.join(PAIR)}_T2w")
    (first, mm), (second, _) = (stack_of(paths[0]) for paths in named.values())
    rigid = registered(central(first, 8), central(second, 8), mm)
    say(f"scan and rescan: {rigid}")
    other = placed(central(second, slices), rigid, mm=mm)
    chosen = central(first, slices)
    shape = (chosen.shape[1], chosen.shape[2])
    half = Acquisition((shape[0] // SCALE, shape[1] // SCALE))(first)
    rows: dict[str, Any] = {"movement": asdict(rigid), "untouched": _curve(chosen, other)}
    for title, stack in (("as given", first), ("from half of k-space", half)):
        rest, steps = made_of(stack, central(stack, slices), engine, names)
        made = {"zero-filling": kspace.regridded(central(stack, slices), shape)} | rest
        say(f"{title}: {known(steps)}")
        rows[title] = {name: _curve(kspace.regridded(x, shape), other) for name, x in made.items()}
    return rows


def _curve(one: ndarray, other: ndarray) -> dict[str, Any]:
    """FRC of all slices, and the mean of each."""
    each = [float(frc(a[None], b[None], BANDS).mean()) for a, b in zip(one, other, strict=True)]
    return {"frc": [round(float(v), 4) for v in frc(one, other, BANDS)], "slices": np.round(each, 4).tolist()}


def table(rows: dict[str, Any]) -> list[str]:
    """The curves, and in how many slices each is above that of bicubic."""
    move = rows["movement"]
    lines = [
        f"The second scan lies {move['down']:+.2f}, {move['right']:+.2f} mm and {move['angle']:+.2f}° from "
        "the first. FRC with it, in tenths of the scan's frequencies; slices whose mean is above "
        "that of bicubic",
    ]
    head = ["from", "method", *(f"{(i + 1) / BANDS:.1f}" for i in range(BANDS)), "mean", "above bicubic"]
    body = []
    for title in ("as given", "from half of k-space"):
        plain = np.array(rows[title]["bicubic"]["slices"])
        for name, one in ({"the scan itself": rows["untouched"]} | rows[title]).items():
            above = int((np.array(one["slices"]) > plain).sum())
            cells = [f"{v:.3f}" for v in (*one["frc"], np.mean(one["frc"]))]
            body.append([title, name, *cells, f"{above} of {len(plain)}"])
    return [*lines, "", *markdown(head, body)]
