"""Table 4: seconds per volume, of what a user waits for the network: no reading, no writing.

Needs no data:

    python paper/table4.py          # on a quiet machine; writes table4.json and table4.md

120x120x96 voxels at x2, 80x80x96 at x3 and 60x60x96 at x4, so that the result always has 240x240x96. The time
does not depend on the values of the weights, so networks are timed as initialised, on the default engine.
"""

import platform
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from results import ORDER, Rows, load, markdown, ordered, program, write

from seran import export
from seran.degrade import Bicubic
from seran.machine import cpus
from seran.methods import Method, is_network, method
from seran.recipes import RECIPES
from seran.run import Run
from seran.sharpen import sharpen
from seran.systems import title

LONG = 60.0
"""Seconds after which a measurement is not repeated."""
PROTOCOL = (
    "Seconds for one volume, input and output in memory, everything loaded and warm: median of up to "
    "{repeats} runs, no further one after {long:g} s, the methods in turn. {threads} threads, {machine}.",
    "In: 120x120x96 voxels at x2, 80x80x96 at x3, 60x60x96 at x4; out: 240x240x96. Precision: {precision}.",
)


def volume(scale: int) -> np.ndarray:
    """A low-resolution stack like a scan's: smooth shapes on air, noise."""
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (96, 240, 240)), indexing="ij")
    inside = z**2 / 0.9 + y**2 / 0.7 + x**2 / 0.5 < 1
    high = inside * (300 + 100 * np.sin(9 * x) * np.cos(7 * y)) + rng.rayleigh(8, z.shape)
    return Bicubic((scale, scale))(high.astype(np.float32))


def ready(name: str, scale: int) -> Method:
    """A method that can run; a network has the weights it is initialised with."""
    if not is_network(name):
        return method(name, scale)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "initial.onnx"
        export.export(Run(RECIPES[f"{name.removesuffix('+')}-x{scale}-bd"]), file)
        return method(name, scale, file=file)


def measure(scale: int, names: tuple[str, ...], repeats: int) -> dict[str, list[float]]:
    """Seconds of every method, run in turn.

    Args:
        scale: 2, 3 or 4.
        names: of the methods.
        repeats: runs of each.
    """
    low = volume(scale)
    chosen = [ready(name, scale) for name in names]
    found: dict[str, list[float]] = {name: [] for name in names}
    for one in chosen:
        sharpen(low[:2], one)
    for _ in range(repeats):
        for one in chosen:
            if sum(found[one.name]) > LONG:
                continue
            began = time.perf_counter()
            sharpen(low, one)
            found[one.name].append(time.perf_counter() - began)
    return found


def table(rows: Rows) -> list[str]:
    """Seconds at x2, x3 and x4."""
    scales = ("x2", "x3", "x4")
    return markdown(
        ["system", *scales],
        (
            [title(name), *(f"{median(row[s]):.2f}" if s in row else "–" for s in scales)]
            for name, row in rows.items()
        ),
    )


def main(
    systems: tuple[str, ...] = ORDER,
    scales: tuple[int, ...] = (2, 3, 4),
    repeats: int = 3,
    machine: str = platform.processor() or platform.machine(),
    out: Path = Path(__file__).parent,
    name: str = "table4",
) -> None:
    """Time the systems of Table 4; scales that are done already are kept.

    Args:
        systems: which rows.
        scales: 2, 3 and 4.
        repeats: runs per method and scale.
        machine: what it runs on, in words, for the table.
        out: folder of the table.
        name: of its files, for the table of another machine.
    """
    precision = ready("srcnn", 2).precision
    words = {"repeats": repeats, "long": LONG, "threads": cpus(), "machine": machine, "precision": precision}
    protocol = [line.format(**words) for line in PROTOCOL]
    path = out / f"{name}.json"
    rows = load(path, protocol)
    for scale in scales:
        missing = tuple(system for system in systems if f"x{scale}" not in rows.get(system, {}))
        for system, seconds in measure(scale, missing, repeats).items():
            rows.setdefault(system, {})[f"x{scale}"] = seconds
        rows = ordered(rows, ORDER)
        write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
