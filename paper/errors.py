"""What the library gets wrong on simulated scans: results, their errors, and what its networks were told.

    python paper/errors.py FOLDER MANIFEST.csv NATIVE.csv --what plane      # or across

Scans of the splits train and val are acquired as a scanner does it, at random: in the plane of their slices
as `acquisitions` has them, or by thick slices as `isotropic` has them.
`uncertainty.py` trains on what lies in the folder; `covered.py` and it draw more, of fixed acquisitions.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import isotropic as thick
import numpy as np
from acquisitions import sources, truth
from jaxtyping import Float
from numpy import ndarray
from results import program
from scipy import ndimage
from tyro.conf import Positional
from ways import WAYS, as_scan

from seran import isotropic, kspace, methods, native
from seran.acquisition import NONE, Acquisition, Window
from seran.engines import Engine
from seran.job.steps import Steps
from seran.profiles import KINDS, Kind, Profile, selection
from seran.sharpen import Across, Normalisation, sharpen
from seran.uncertainty import OTHER, Calibration, Widths

WINDOWS = (Window("hamming", 0.46), Window("hamming", 0.3), Window("tukey", 0.4), Window("fermi", 0.9, 0.06))
TOLD = 6  # maps of the small network but those of its own, see `seran.uncertainty.given`
SMALLEST = 24  # pixels a side of a slice that is given
AT_ONCE = 6  # slices
THIRD = 10  # slices in the third direction of a scan whose slices become thick
MIDDLE = (0.15, 0.85)  # part of a scan, whose slices are drawn
SIGMA = (0.003, 0.05)
NOISELESS, WINDOWED, FILLED, REDUCED, BLURRED = 0.2, 0.4, 0.15, 0.35, 0.35  # parts of the draws
BLUR = (0.3, 0.9)  # pixels, of a Gaussian
SCALES = {1: 0.12, 2: 0.48, 3: 0.2, 4: 0.2}
FACTORS = {2: 0.1, 3: 0.2, 4: 0.25, 5: 0.15, 6: 0.1, 7: 0.12, 8: 0.08}


@dataclass(frozen=True)
class Drawn:
    """Some slices of a result, or planes across its thin slices.

    Attributes:
        high: normalised.
        error: absolute, likewise.
        told: to the small network, see `seran.uncertainty.given`.
        ending: as `seran.uncertainty.Widths` has it.
    """

    high: Float[ndarray, "n h w"]
    error: Float[ndarray, "n h w"]
    told: Float[ndarray, "5 *h"]
    ending: str


@dataclass(frozen=True)
class Plane:
    """An acquisition in the plane: scale, noise, window, and whether the scanner filled to the full grid."""

    scale: int = 2
    sigma: float = 0.01
    window: Window = NONE
    filled: bool = False


@dataclass(frozen=True)
class Thick:
    """Thick slices: how many thin ones each is, noise, profile, and the thickness that is believed."""

    factor: int = 4
    sigma: float = 0.01
    kind: Kind = "slr"
    part: float = thick.PART
    believed: float = thick.PART


class Recorder:
    """In place of the small network: keeps what that would be given last."""

    def __init__(self) -> None:
        self.given: ndarray = np.empty(0)
        endings = [*(f"x{k}" for k in native.HEADS), *(f"k{k}" for k in isotropic.FACTORS)]
        known = [f"{ending} {OTHER}" for ending in endings]
        self.widths = Widths(self._predict, dict.fromkeys(known, Calibration(1.0, 0.0, 0.0, 0)))

    def _predict(self, x: Float[ndarray, "n m h w"]) -> Float[ndarray, "n h w"]:
        self.given = x
        return np.zeros((len(x), *x.shape[2:]), np.float32)


def in_plane(
    x: Float[ndarray, "n h w"], case: Plane, rng: np.random.Generator, engine: Engine
) -> Drawn | None:
    """Of slices; None where these are too small for the acquisition, or empty."""
    s = max(case.scale, 2) if case.filled else case.scale
    h, w = (n // s * s for n in x.shape[1:])
    if min(h, w) // s < SMALLEST:
        return None
    x, given = x[:, :h, :w].astype(np.float32), None
    if case.filled:
        given = (h, w) if case.scale == 1 else (h // s * 2, w // s * 2)
    low = Acquisition((h // s, w // s), case.window, given)(x, case.sigma, rng).astype(np.float32)
    steps, seen = Steps(as_scan(low), WAYS["native"].options(case.scale), engine), Recorder()
    steps.method = replace(steps.method, widths=seen.widths)
    sharpen(low, steps.fit(low).method)
    if not seen.given.size:
        return None
    high, told = seen.given[:, 0], seen.given[0, 1:TOLD, 0, 0]
    true = kspace.regridded(Normalisation.of(low).apply(x), high.shape[1:])
    error = np.abs(np.maximum(high, 0) - np.maximum(true, 0))
    return Drawn(high, error, told, f"x{round(told[4] * native.HEADS[-1])}")


def across(
    x: Float[ndarray, "n h w"],
    fine: bool,
    case: Thick,
    rng: np.random.Generator,
    network: Across,
    planes: Sequence[int],
    known: float | None = None,
) -> Drawn | None:
    """Of planes across thick slices; None where there are too few of these.

    Args:
        x: whose first axis loses slices.
        fine: see `isotropic.truth`.
        case: the acquisition.
        rng: of the noise.
        network: that makes thin slices.
        planes: which ones along the last axis.
        known: the noise that the network is told; without it the true one.
    """
    k, sigma = case.factor, case.sigma
    n = len(x) // k * k
    if n < 8 * k:
        return None
    clean = np.tensordot(selection(n, k, Profile(case.kind, case.part)), x[:n], 1)
    a, b = sigma * rng.standard_normal((2, *clean.shape))
    s, profile = np.hypot(clean + a, b).astype(np.float32), Profile("slr", case.believed)
    told, norm = sigma if known is None else known, Normalisation(0.0, 1.0)
    if fine:
        norm = Normalisation.of(s)
        thin, said = isotropic.thinner(s, network, k, profile, told), told / norm.gain
    else:
        stack = np.moveaxis(s, 2, 0)
        rows = np.stack([stack] * 3, 1)
        high = network.heads(k).predict(native.joined(rows, isotropic.told(told, profile, k)))
        thin, said = np.maximum(np.moveaxis(high, 0, 2), 0), told
    seen, numbers = Recorder(), isotropic.told(said, profile, k)
    shown = np.ascontiguousarray(thin[:, :, list(planes)])
    isotropic.half_widths(shown, s, norm, seen.widths, k, numbers, axes=(2,))
    high, told_rows = seen.given[:, 0], seen.given[0, 1:TOLD, :, 0]
    true = np.moveaxis(norm.apply(x[:n, :, list(planes)]), 2, 0)
    return Drawn(high, np.abs(high - np.maximum(true, 0)), told_rows, f"k{k}")


def random_plane(rng: np.random.Generator) -> Plane:
    """An acquisition that training draws."""
    scale = int(rng.choice(list(SCALES), p=list(SCALES.values())))
    sigma = 0.0 if rng.random() < NOISELESS else float(np.exp(rng.uniform(*np.log(SIGMA))))
    window = NONE if rng.random() >= WINDOWED else WINDOWS[rng.integers(len(WINDOWS))]
    filled = scale == 1 and rng.random() < 0.5
    return Plane(scale, sigma, window, filled or (scale > 1 and rng.random() < FILLED))


def random_thick(rng: np.random.Generator) -> Thick:
    """Thick slices that training draws."""
    k = int(rng.choice(list(FACTORS), p=list(FACTORS.values())))
    kind = KINDS[rng.choice(len(KINDS), p=[0.7 if name == "slr" else 0.15 for name in KINDS])]
    part = float(rng.uniform(0.75, 1.05))
    sigma = 0.0 if rng.random() < NOISELESS else float(np.exp(rng.uniform(*np.log(SIGMA))))
    return Thick(k, sigma, kind, part, part)


def varied(x: Float[ndarray, "n h w"], rng: np.random.Generator) -> Float[ndarray, "n h w"]:
    """Slices as they are, on a coarser grid (sharper, with less noise), or blurred."""
    kind, part, blur = rng.random(), rng.uniform(0.6, 1), rng.uniform(*BLUR)
    shape = max(64, int(x.shape[1] * part)), max(64, int(x.shape[2] * part))
    if kind < REDUCED:
        coarser = shape[0] < x.shape[1] and shape[1] < x.shape[2]
        return np.maximum(kspace.regridded(x, shape), 0) if coarser else x
    return ndimage.gaussian_filter(x, (0, blur, blur)) if kind < REDUCED + BLURRED else x


def main(
    folder: Positional[Path],
    lists: Positional[tuple[Path, ...]],
    what: Literal["plane", "across"] = "plane",
    draws: int = 12,
    seed: int = 0,
    threads: int = 0,
) -> None:
    """Draw; scans that are done are passed over.

    Args:
        folder: of the files, a few hundred MB.
        lists: CSV files of scans, as ``shared/data`` has them.
        what: plane or across.
        draws: of each scan.
        seed: of all that is drawn.
        threads: of the CPU; 0: all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(threads=threads)
    network = methods.across(methods.DEFAULT, None, engine)
    given = [s for split in ("train", "val") for s in sources(lists, split)]
    for i, source in enumerate(given):
        done = folder / f"{source.path.name}.done"
        if done.is_file():
            continue
        rng, fine = np.random.default_rng((seed, i)), False
        if what == "plane":
            whole = truth(source, 0)
        else:
            whole, fine = thick.truth(source, 80)
        for j in range(draws):
            made: Drawn | None
            if what == "plane":
                size = min(len(whole), AT_ONCE)
                first = int(MIDDLE[0] * len(whole))
                last = max(int(MIDDLE[1] * len(whole)) - size, first + 1)
                at = min(int(rng.integers(first, last)), len(whole) - size)
                made = in_plane(varied(whole[at : at + size], rng), random_plane(rng), rng, engine)
            else:
                size = min(THIRD, whole.shape[2])
                at = int(rng.integers(0, whole.shape[2] - size + 1))
                x = whole[:, :, at : at + size]
                x = np.moveaxis(x, 1, 0) if rng.random() < 0.5 else x
                x = np.ascontiguousarray(np.moveaxis(varied(np.moveaxis(x, 2, 0), rng), 0, 2))
                case, known = random_thick(rng), float(np.exp(0.12 * rng.standard_normal()))
                planes = np.sort(rng.choice(x.shape[2], min(AT_ONCE, x.shape[2]), replace=False)).tolist()
                made = across(x, fine, case, rng, network, planes, known * case.sigma)
            if made is None:
                continue
            facts: dict[str, Any] = {n: getattr(source, n) for n in ("contrast", "subject", "split")}
            arrays = {n: v for n, v in asdict(made).items() if n in ("high", "error")}
            halves = {n: v.astype(np.float16) for n, v in arrays.items()}
            np.savez(
                folder / f"{source.path.name}-{j}.npz", **halves, told=made.told, facts=json.dumps(facts)
            )
        done.write_text("")
        sys.stderr.write(f"{i + 1} of {len(given)}: {source.path.name}\n")


if __name__ == "__main__":
    program(main)
