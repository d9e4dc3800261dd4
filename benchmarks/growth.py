"""How time and memory of `seran upscale` and `seran bids` grow: with slices, their size, scale, and scans.

    python benchmarks/growth.py                                    # modest sizes, on any machine
    python benchmarks/growth.py --scans 1 10 100 1000 10000 --subjects 1 10 100 400 2000 --place /dev/shm

Every figure is of a whole process and what it started: CPU seconds (user and system), which a busy machine
changes little, seconds by the clock, and the most memory that it held. Sizes are taken in turn, in every
round. The exponent p is that of CPU seconds = start + c x^p, fitted to their logarithms over all rounds: the
slope on logarithmic axes of all that comes on top of the start. Its uncertainty is half of a 95% interval.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
import tyro
from measure import commit, machine, record, spread
from scipy import optimize, stats

from seran import files

JSON = Path(__file__).with_suffix(".json")
AFFINE = np.array([[-1.8, 0.1, 0, 100], [0.1, 1.8, 0.1, -110], [0, -0.1, 4.0, -60], [0, 0, 0, 1]])
SMALL = (16, 16, 6)
"""Voxels of each scan of a cohort."""
SIZES = {
    "bicubic": (96, (8, 64, 128, 256), 24, (32, 128, 192, 256)),
    "seran": (64, (4, 16, 32, 64), 8, (32, 64, 96, 128)),
}
"""Of one scan, by method: the side of so many slices; then how many slices of so many sides."""
SCALES = (2, 3, 4)
SCANS, FEWER, SUBJECTS = (1, 10, 100, 1000), (1, 5, 25), (1, 10, 100, 400)
"""Of cohorts by interpolation, of those by a network, and of data sets."""
LAUNCH = """import os, sys
_, status, used = os.wait4(os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss)"""
"""Starts a command from a small process: the peak of a child has in it what its parent held."""
UNKNOWN = 3
"""Of the curve that is fitted: start, factor and exponent."""


class Cost(NamedTuple):
    """Of one process and what it started."""

    cpu: float  # s
    wall: float  # s
    peak: float  # MB


@dataclass
class Row:
    """One thing that grows: what is done at each size, and what that cost in each round."""

    name: str
    grows: str  # what a size counts
    run: Callable[[int], Cost]
    sizes: Sequence[int]
    of: Callable[[int], int] = int  # what grows at a size, where that is not its own number
    costs: dict[int, list[Cost]] = field(default_factory=dict)


def seran(*words: object) -> Cost:
    """What a command costs; checks that say FAIL of a phantom do not stop it, all else does."""
    told = [sys.executable, "-m", "seran", *map(str, words), "--quiet"]
    began = time.perf_counter()
    ended = subprocess.run([sys.executable, "-S", "-c", LAUNCH, *told], capture_output=True, text=True)
    took, (status, cpu, peak) = time.perf_counter() - began, ended.stdout.splitlines()[-1].split()
    if status != "0":
        raise SystemExit(f"{' '.join(told)} failed: {ended.stderr[-500:]}")
    return Cost(float(cpu), took, int(peak) * 1024 / 1e6)


def write(path: Path, shape: tuple[int, int, int], seed: int = 0) -> None:
    """A smooth head with structure and noise, as int16."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = x**2 / 0.7 + y**2 / 0.8 + z**2 / 2 < 1
    head = inside * (300 + 100 * np.sin(9 * x + rng.random()) * np.cos(7 * y + 3 * z))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((head + rng.rayleigh(8, shape)).astype(np.int16), AFFINE), path)


def one(root: Path, shape: tuple[int, int, int], scale: int, method: str) -> Cost:
    """One scan, as a process of its own."""
    scan = root / f"{'x'.join(map(str, shape))}.nii.gz"
    if not scan.is_file():
        write(scan, shape)
    options = ("--method", method, "--scale", scale, "--plane", "axial", "--force", "--strict", "off")
    return seran("upscale", scan, root / "one.nii.gz", *options)


def cohort(root: Path, count: int) -> Path:
    """A folder of so many scans."""
    folder = root / f"scans-{count}"
    if not folder.is_dir():
        for i in range(count):
            write(folder / f"{i:05d}.nii.gz", SMALL, i)
    return folder


def subjects(root: Path, count: int) -> Path:
    """A BIDS data set of so many subjects with one scan each, and metadata that all inherit."""
    folder = root / f"bids-{count}"
    if not folder.is_dir():
        for i in range(count):
            write(folder / f"sub-{i:05d}" / "anat" / f"sub-{i:05d}_T2w.nii.gz", SMALL, i)
        (folder / "dataset_description.json").write_text('{"Name": "tiny", "BIDSVersion": "1.10.0"}')
        (folder / "T2w.json").write_text('{"Modality": "MR", "SliceThickness": 4.0}')
    return folder


def single(root: Path) -> Iterator[Row]:
    """One scan that becomes larger."""
    for method, (side, counts, slices, sides) in SIZES.items():
        of = partial(one, root, method=method)
        yield Row(f"{method}, {side}x{side} at x2", "slices", partial(_slices, of, side), counts)
        yield Row(
            f"{method}, {slices} slices at x2", "pixels each", partial(_sides, of, slices), sides, _area
        )
        name, how = f"{method}, {slices} slices of {side}x{side}", partial(_scales, of, (side, side, slices))
        yield Row(name, "pixels for one", how, SCALES, _area)


def _area(n: int) -> int:
    return n * n


def _slices(of: Callable[..., Cost], side: int, n: int) -> Cost:
    return of((side, side, n), 2)


def _sides(of: Callable[..., Cost], slices: int, n: int) -> Cost:
    return of((n, n, slices), 2)


def _scales(of: Callable[..., Cost], shape: tuple[int, int, int], n: int) -> Cost:
    return of(shape, n)


def many(root: Path, method: str, counts: Sequence[int]) -> Iterator[Row]:
    """A folder of scans: made, gone through again, and again with every byte hashed."""

    def made(n: int, *more: str) -> Cost:
        return seran(
            "upscale", cohort(root, n), root / f"{method}-{n}", "--resume", "--method", method,
            "--strict", "off", *more,
        )  # fmt: skip

    def first(n: int) -> Cost:
        shutil.rmtree(root / f"{method}-{n}", ignore_errors=True)
        return made(n)

    yield Row(f"upscale FOLDER, {method}", "scans", first, counts)
    yield Row(f"again, {method}", "scans", made, counts)
    yield Row(f"again with --verify, {method}", "scans", lambda n: made(n, "--verify"), counts)


def data_set(root: Path, counts: Sequence[int]) -> Iterator[Row]:
    """A BIDS data set: made, gone through again, and summed up."""

    def told(n: int, level: str) -> Cost:
        how = () if level == "group" else ("--strict", "off")
        return seran("bids", subjects(root, n), root / f"derived-{n}", level, "--method", "bicubic", *how)

    def first(n: int) -> Cost:
        shutil.rmtree(root / f"derived-{n}", ignore_errors=True)
        return told(n, "participant")

    yield Row("bids participant, bicubic", "subjects", first, counts)
    yield Row("again, bicubic", "subjects", lambda n: told(n, "participant"), counts)
    yield Row("bids group", "subjects", lambda n: told(n, "group"), counts)


def points(row: Row, what: str) -> tuple[np.ndarray, np.ndarray]:
    """How much there is of what grows, and what that costs, of all rounds."""
    pairs = [(row.of(n), getattr(cost, what)) for n, costs in row.costs.items() for cost in costs]
    x, y = zip(*pairs, strict=True)
    return np.array(x, float), np.array(y, float)


def exponent(row: Row) -> tuple[float, float] | None:
    """Of CPU seconds, with its uncertainty; None where there are too few sizes, or no growth to be seen."""
    x, y = points(row, "cpu")
    if len({*x}) < UNKNOWN or len(x) <= UNKNOWN or max(y) <= min(y):
        return None

    def logarithm(x: np.ndarray, start: float, last: float, p: float) -> np.ndarray:
        return np.logaddexp(start, last + p * np.log(x / max(x)))

    guess = (np.log(min(y)), np.log(max(y) - 0.9 * min(y)), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optimize.OptimizeWarning)  # an infinite uncertainty says it, too
        try:
            found, spread_of = optimize.curve_fit(logarithm, x, np.log(y), guess, maxfev=20000)
        except RuntimeError:
            return None
    sure = float(np.sqrt(spread_of[2, 2]) * stats.t.ppf(0.975, len(x) - UNKNOWN))
    return (float(found[2]), sure) if np.isfinite(sure) else None


def each(row: Row, what: str) -> float:
    """What one more of what grows costs, from the smallest size to the greatest, in thousandths."""
    least, most = min(row.costs), max(row.costs)
    low, high = (median(getattr(cost, what) for cost in row.costs[n]) for n in (least, most))
    return 1000 * (high - low) / (row.of(most) - row.of(least))


def described(row: Row) -> list[str]:
    """A line of the table for each size, and what they say together."""
    lines = []
    for n, costs in row.costs.items():
        cells = [spread([getattr(cost, what) for cost in costs]) for what in ("cpu", "wall", "peak")]
        lines.append(f"| {row.name} | {row.of(n)} {row.grows} | {' | '.join(cells)} |")
    return lines


def summary(row: Row) -> str:
    """The exponent, and what each of what grows takes."""
    fit = exponent(row)
    told = "n/a" if fit is None else f"{fit[0]:.2f} ± {fit[1]:.2f}"
    more = f"{each(row, 'cpu'):.3g} | {each(row, 'peak'):.3g}"
    return f"| {row.name} | {row.grows} | {told} | {more} |"


def stated(row: Row) -> dict[str, Any]:
    """The same for JSON: all that was measured."""
    fit = exponent(row)
    measured = {str(row.of(n)): [cost._asdict() for cost in costs] for n, costs in row.costs.items()}
    return {
        "name": row.name,
        "grows": row.grows,
        "exponent": fit and fit[0],
        "uncertainty": fit and fit[1],
        "cpu_ms_each": each(row, "cpu"),
        "peak_kB_each": each(row, "peak"),
        "measured": measured,
    }


def tables(rows: Sequence[Row]) -> list[str]:
    """What the sizes say together, and each of them."""
    return [
        "Median (least … most) of whole processes in turn. CPU seconds are of all threads. Exponent p: "
        "CPU seconds = start + c x^p, so 1 is linear; ± is half of a 95% interval; "
        "n/a: too little growth to tell.",
        "",
        "| what | grows with | exponent | CPU ms for each | peak kB for each |",
        "|---|---|---|---|---|",
        *map(summary, rows),
        "",
        "| what | size | CPU seconds | seconds by the clock | peak MB |",
        "|---|---|---|---|---|",
        *(line for row in rows for line in described(row)),
    ]


def measure(rows: Sequence[Row], turn: int, once: int) -> None:
    """Take every size of every row in turn."""
    for row in rows:
        for n in (n for n in row.sizes if turn == 0 or n < once):
            row.costs.setdefault(n, []).append(row.run(n))
            told = f"round {turn + 1}, {row.name}, {n}: {row.costs[n][-1].cpu:.2f} CPU s"
            print(told, file=sys.stderr, flush=True)  # noqa: T201


def keep(title: str, rows: Sequence[Row]) -> None:
    """Put what was measured into growth.json and results.md."""
    held = json.loads(JSON.read_text()) if JSON.is_file() else {}
    held[f"{title}; {machine()}"] = {"commit": commit(), "rows": list(map(stated, rows))}
    with files.atomic(JSON) as part:
        part.write_text(json.dumps(held, indent=1) + "\n")
    record(title, tables(rows), ("openvino",))


def main(
    about: tuple[Literal["scan", "cohort", "bids"], ...] = ("scan", "cohort", "bids"),
    repeats: int = 3,
    once: int = 2000,
    scans: tuple[int, ...] = SCANS,
    subjects: tuple[int, ...] = SUBJECTS,
    place: Path | None = None,
) -> None:
    """Measure every size in turn; after each round print the tables, kept in results.md and growth.json, too.

    Args:
        about: one scan that becomes larger, a folder of scans, a BIDS data set.
        repeats: rounds.
        once: cohorts of so many scans are measured in the first round only.
        scans: sizes of cohorts.
        subjects: sizes of data sets.
        place: where scans and results lie meanwhile; in memory (/dev/shm) no disk takes part.
    """
    ways: dict[str, tuple[str, Callable[[Path], Iterable[Row]]]] = {
        "scan": ("Growth, one scan", single),
        "cohort": (
            "Growth, a folder of scans",
            lambda root: [*many(root, "bicubic", scans), *many(root, "seran", FEWER)],
        ),
        "bids": ("Growth, BIDS", lambda root: data_set(root, subjects)),
    }
    for title, rows_in in (ways[what] for what in about):
        with tempfile.TemporaryDirectory(dir=place) as name:
            rows = list(rows_in(Path(name)))
            for turn in range(repeats):
                measure(rows, turn, once)
                keep(title, rows)


if __name__ == "__main__":
    tyro.cli(main)
