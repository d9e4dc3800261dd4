"""Every method on every acquisition: gain over zero-filling on simulated scans, at x2.

    python paper/native_matrix.py MANIFEST.csv NATIVE.csv                 # the test split
    python paper/native_matrix.py MANIFEST.csv NATIVE.csv --split val     # while something is being made

What is made of a truth (see `acquisitions`) is given to a method as a user gives a scan: noise, window and
acquired part are measured by the library; ``--oracle`` states them instead.

Rows of finished volumes are kept between calls, method by method, with the digests of the weights that made
them: where a method that is asked for has other weights now, its cells of all volumes are left out, and made
again where they are asked for.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from acquisitions import CASES, Case, acquired, aligned, psnr, sources, truth
from gains import picture, table
from jaxtyping import Float
from numpy import ndarray
from results import PAPER, Rows, load, ordered, program, shown, write
from tyro.conf import Positional
from ways import BASE, WAYS, digest, found, runs, stated, through

from seran.data.sources import Source
from seran.engines import Engine
from seran.errors import BadInput
from seran.quality.paired import FEWEST

DEFAULT = "native"
"""The way whose measurements are shown."""
PROTOCOL = (
    "Gain over zero-filling in dB, x2; split {split}, the {slices} central slices of each volume, PSNR of "
    "them together, both images held at 0 from below; truth: {grid}, its 99.9th percentile 1",
    "Acquired: half of each axis; noise as a part of the 99.9th percentile, before the filter; the same "
    "noise for every method; {known}",
    "95 % intervals over subjects in brackets, where there are {fewest} or more; then the worst volume",
)


def cell(
    x: Float[ndarray, "n h w"], case: Case, names: Sequence[str], engine: Engine, oracle: bool
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """PSNR of methods on one acquisition of a volume, and what the library measured for `DEFAULT`."""
    x, s = acquired(x, case)
    scores, known = {}, None
    for name in names:
        way = WAYS[name]
        if case.scale == 1 and not way.native:
            if name in (BASE, "bicubic"):  # neither changes anything
                scores[name] = psnr(x, s)
            continue
        made, steps = through(s, way, case.scale, engine, stated(s, case) if oracle else None)
        scores[name] = psnr(x, aligned(made, steps.method.anchor, case.anchor, case.scale))
        if name == DEFAULT:
            known = found(steps.known, steps.gain)
    return scores, known


def forget(rows: Rows, digests: dict[str, str]) -> None:
    """Leave out the cells of methods that were made with other weights.

    Args:
        rows: by volume.
        digests: of the weights that methods have now; cells of methods without one are kept.
    """
    for row in rows.values():
        old = [name for name, made in row["weights"].items() if digests.get(name, made) != made]
        for name in old:
            del row["weights"][name]
            for scores in row["psnr"].values():
                scores.pop(name, None)
        if DEFAULT in old:  # how much noise is told depends on the weights
            row["measured"].clear()


def computed(
    rows: Rows,
    given: Sequence[Source],
    names: Sequence[str],
    columns: Sequence[str],
    digests: dict[str, str],
    work: Callable[[Source, str, Sequence[str]], tuple[dict[str, float], dict[str, Any] | None]],
) -> Iterator[str]:
    """Fill the rows, cell by cell; yields the name of each volume to which something was added.

    Args:
        rows: by volume; what is there is not computed again, unless with other weights.
        given: the volumes.
        names: the methods.
        columns: the acquisitions.
        digests: of the weights that the methods have now, of those that have any.
        work: gives the scores of methods on an acquisition of a volume.
    """
    forget(rows, digests)
    for source in given:
        facts = {"contrast": source.contrast, "subject": source.subject}
        facts |= {"weights": {}, "psnr": {}, "measured": {}}
        for column in columns:
            row = rows.get(source.path.name, facts)
            done = row["psnr"].get(column, {})
            missing = [n for n in (BASE, *names) if n not in done and runs(n, CASES[column])]
            if missing := list(dict.fromkeys(missing)):
                scores, known = work(source, column, missing)
                row["psnr"][column] = done | scores
                row["weights"] |= {n: digests[n] for n in WAYS if n in scores and n in digests}
                if known:
                    row["measured"][column] = known
                rows[source.path.name] = row
                yield source.path.name


def main(
    lists: Positional[tuple[Path, ...]],
    split: str = "test",
    slices: int = 8,
    ways: tuple[str, ...] = tuple(WAYS),
    columns: tuple[str, ...] = tuple(CASES),
    only: str = "",
    oracle: bool = False,
    stored: bool = False,
    threads: int = 0,
    out: Path = Path(__file__).parent,
    figures: Path | None = None,
) -> None:
    """Fill the matrix; what is done already is kept.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        split: of the scans.
        slices: how many central slices of each; 0 for all.
        ways: rows, see `WAYS`.
        columns: see `CASES`.
        only: volumes whose file names contain this.
        oracle: tell the native network what is true of the acquisition, instead of measuring it.
        stored: take scans as they are, with the zeros that a scanner filled in.
        threads: of the CPU; 0: all.
        out: folder of ``native_matrix.json`` and ``.md``; those of other splits bear their names.
        figures: folder of the heat map; without it ``docs`` for the paper's own table, else ``out``.
    """
    for word, known in ((ways, WAYS), (columns, CASES)):
        if set(word) - set(known):
            raise BadInput(f"expected some of {', '.join(known)}, got {', '.join(word)}")
    given = [s for s in sources(lists, split) if only in s.path.name]
    words = "noise, window and acquired part are stated" if oracle else "the library measures what it uses"
    facts = {"split": split, "slices": slices or "all", "known": words, "fewest": FEWEST}
    facts["grid"] = "the scan as it is stored" if stored else "the k-space that was measured"
    protocol = [line.format(**facts) for line in PROTOCOL]
    name = "-".join(
        ["native_matrix", *[split] * (split != "test"), *["oracle"] * oracle, *["stored"] * stored]
    )
    path, engine = out / f"{name}.json", Engine(threads=threads)
    rows = load(path, protocol)
    held: dict[Path, ndarray] = {}

    def work(source: Source, column: str, missing: Sequence[str]) -> tuple[dict, dict | None]:
        if source.path not in held:
            held.clear()
            held[source.path] = truth(source, slices, stored)
        scores, known = cell(held[source.path], CASES[column], missing, engine, oracle)
        said = ", ".join(f"{n} {v:.2f}" for n, v in scores.items())
        sys.stderr.write(f"{source.path.name}, {CASES[column].title}: {said}\n")
        return scores, known

    every = tuple(s.path.name for s in sources(lists, split))
    digests = {way: made for way in ways if (made := digest(way))}
    for _ in computed(rows, given, ways, columns, digests, work):
        write(path, protocol, ordered(rows, every), table)
    rows = ordered(rows, every)
    write(path, protocol, rows, table)
    figures = shown(figures, out, PAPER.parent / "docs")
    figures.mkdir(parents=True, exist_ok=True)
    picture(rows, figures / f"{name}.png")
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    program(main)
