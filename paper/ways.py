"""What a user asks the library for, by name: methods, the weights they use, what they make of slices."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from acquisitions import SCALE, Case
from jaxtyping import Float
from numpy import ndarray

from seran import methods, weights
from seran.engines import Engine
from seran.job.options import Options, ReadOptions, Scanner, Target
from seran.job.steps import Fitted, Steps
from seran.measure import Measured
from seran.sharpen import sharpen
from seran.volume import Volume


@dataclass(frozen=True)
class Way:
    """A row: what a user asks the library for.

    Attributes:
        title: in words.
        method: its name.
        acquisition: as `Scanner` has it.
        ensemble: over the symmetries of a slice.
    """

    title: str
    method: str
    acquisition: str = "auto"
    ensemble: bool = False

    def options(self, scale: int, scanner: Scanner | None = None) -> Options:
        """As the command has them, but for `seran.consistency`; native weights may be told what is known."""
        known = scanner if scanner and self.native else Scanner(self.acquisition)  # type: ignore[arg-type]
        reading = ReadOptions(label_check=False)
        same = {"target": Target(scale), "scanner": known, "read": reading}
        return Options(self.method, None, self.ensemble, consistent="off", **same)  # type: ignore[arg-type]

    @property
    def native(self) -> bool:
        """Whether it knows what a scanner does."""
        return methods.is_network(self.method) and self.acquisition == "auto"

    @property
    def weights(self) -> str | None:
        """The name of those it uses."""
        if not methods.is_network(self.method):
            return None
        undone = self.options(SCALE).degradation
        return f"{self.method}-{undone}" if undone == methods.NATIVE else f"{self.method}-x{SCALE}-{undone}"


BASE = "zerofill"
WAYS = {
    BASE: Way("zero-filling", "zerofill"),
    "bicubic": Way("bicubic", "bicubic"),
    "nlm": Way("NLM", "nlm"),
    "seran-bd": Way("SERAN-BD", "seran", "bicubic"),
    "seran-td": Way("SERAN-TD", "seran", "truncation"),
    "native": Way("native", "seran"),
    "native+": Way("native+", "seran", ensemble=True),
    "fast": Way("fast native", "fast"),
}


def runs(name: str, case: Case) -> bool:
    """Whether there is such a method at this scale."""
    return case.scale > 1 or WAYS[name].native or name in (BASE, "bicubic")


def as_scan(stack: Float[ndarray, "n h w"]) -> Volume:
    """Slices as a scan whose slices they are."""
    return Volume(np.moveaxis(stack, 0, 2), np.diag([1.0, 1.0, 4.0, 1.0]))


def through(
    stack: Float[ndarray, "n h w"], way: Way, scale: int, engine: Engine, scanner: Scanner | None = None
) -> tuple[Float[ndarray, "n sh sw"], Fitted]:
    """What the library makes of slices, and how it went about it."""
    fitted = Steps(as_scan(stack), way.options(scale, scanner), engine).fit(stack)
    return sharpen(stack, fitted.method).image, fitted


def stated(s: Float[ndarray, "n g k"], case: Case) -> Scanner:
    """What is true of a case, as a user may state it; no window is known of a bicubic one."""
    part = case.sigma / max(float(np.percentile(s, 99.9)), 1e-9)
    return Scanner(
        acquired=(1 / SCALE, 1 / SCALE) if case.filled else (1.0, 1.0),
        window="auto" if case.bicubic else str(case.window),
        noise=f"{part:.6f}",
        background="0" if case.masked else "off",
    )


def found(known: Measured, gain: float) -> dict[str, Any]:
    """What the library measured, for the record."""
    return {
        "fraction": [round(f, 3) for f in known.fraction],
        "window": str(known.window),
        "noise": round(known.sigma / gain, 4) if gain else 0.0,
        "by": known.by,
        "background": known.background,
    }


def digests(names: Iterable[str]) -> str:
    """The weights of methods, with the beginning of their digests."""
    held = {WAYS[name].weights: made for name in names if (made := digest(name))}
    return ", ".join(f"{key} {made[:12]}" for key, made in sorted(held.items()))


def digest(name: str) -> str:
    """Of the weights that a method uses; empty if it uses none, or they are not at hand."""
    path = weights.at_hand().get(WAYS[name].weights or "")
    return weights.read(path).digest if path else ""
