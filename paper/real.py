"""Real scans, at x2: phantoms, scan and rescan, low against high field, noise and overshoot, pictures.

    python paper/real.py MANIFEST.csv NATIVE.csv --pictures pictures             # all parts, the test split
    python paper/real.py NATIVE.csv --parts phantom rescan --pictures pictures

There is no truth. What counts as evidence:

- phantom: on the ACR phantom's arrays of 4x4 holes, modulation (hole - between) / (hole + between), and the
  ringing in the flat part of the insert that holds them. Higher modulation with less ringing is "sharper".
- rescan: Fourier ring correlation of a result with a second, untouched scan of the same pelvis, as given and
  from half of its k-space, where every frequency above half is the method's own. Never of two results.
- field: structure of results from 0.055 T against 3 T: normalised mutual information, correlation of
  gradients, edge width.
- noise: what became of it and how far results leave the scan, see `seran.quality.measures`.
- sheet: the same crop by every method, named; and once more in random order, with the key in another file.

The library measures noise, window and acquired part on each whole scan, as for a user. Each part is a module.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import field
import noise
import phantom
import rescan
import sheet
from acquisitions import sources
from results import PAPER, Rows, load, program, shown, write
from scans import NAMES
from tyro.conf import Positional
from ways import digests

from seran.data.sources import Source
from seran.engines import Engine
from seran.errors import BadInput

PROTOCOL = (
    "Results at x2; the library measures noise, window and acquired part on each whole scan",
    "split {split} and its {slices} central slices for noise and pictures; seed {seed}",
    "Weights: {weights}",
)
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "phantom": ("Phantoms", phantom.table),
    "rescan": ("Scan and rescan", rescan.table),
    "field": ("0.055 T against 3 T", field.table),
    "noise": ("Noise and overshoot", noise.table),
    "sheet": ("Pictures", sheet.table),
}


def table(rows: Rows) -> list[str]:
    """The parts that are done."""
    lines: list[str] = []
    for part, (title, made) in TABLES.items():
        if part in rows:
            lines += [f"## {title}", "", *made(rows[part]), ""]
    return lines


def main(
    lists: Positional[tuple[Path, ...]],
    parts: tuple[str, ...] = tuple(TABLES),
    split: str = "test",
    slices: int = 8,
    only: str = "",
    ways: tuple[str, ...] = NAMES,
    seed: int = 0,
    threads: int = 0,
    out: Path = PAPER,
    pictures: Path | None = None,
) -> None:
    """Measure; a part that is done again replaces what was there of it.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them; phantoms and pairs are in splits of their own.
        parts: see `TABLES`.
        split: of the scans whose noise is measured and which are drawn.
        slices: how many central slices of a scan are sharpened for noise and rescan; 0 for all.
        only: scans of the split whose file names contain this.
        ways: methods that are measured on noise, phantoms and rescans; other parts have all.
        seed: of the order of the blind sheet.
        threads: of the CPU; 0: all.
        out: folder of ``real.json`` and ``real.md``; those of other splits bear their names.
        pictures: folder of the pictures; without it ``real`` for the paper's own table, else ``out``.
    """
    if set(parts) - set(TABLES):
        raise BadInput(f"expected some of {', '.join(TABLES)}, got {', '.join(parts)}")
    engine = Engine(threads=threads)
    facts = {"split": split, "slices": slices or "all", "seed": seed, "weights": digests(ways)}
    protocol = [line.format(**facts) for line in PROTOCOL]
    path, drawn = out / f"real{f'-{split}' * (split != 'test')}.json", shown(pictures, out, Path("real"))
    rows = load(path, protocol)

    def of(name: str) -> list[Source]:
        chosen = [s for s in sources(lists, name) if name != split or only in s.path.name]
        if not chosen:
            raise BadInput(f"no scan of the split {name} has {only!r} in its name")
        return chosen

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "phantom": lambda: phantom.compute(of("phantom"), drawn, engine, ways),
        "rescan": lambda: rescan.compute(of("pair"), slices, engine, ways),
        "field": lambda: field.compute(of("pair"), engine),
        "noise": lambda: noise.compute(of(split), slices, engine, ways),
        "sheet": lambda: sheet.compute(of(split), seed, drawn, engine),
    }
    if {"sheet", "phantom"} & set(parts):
        drawn.mkdir(parents=True, exist_ok=True)
    for part in parts:
        rows[part] = work[part]()
        write(path, protocol, {p: rows[p] for p in TABLES if p in rows}, table)
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    program(main)
