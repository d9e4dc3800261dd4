"""Variants of SERAN trained with the same steps, seeds and patches, scored alike: Tables 1 and 2."""

import functools
import itertools
from pathlib import Path
from statistics import fmean

import tyro
from budget import fitted, lasting, trained
from results import Rows, heading, load, markdown, needed, score, write

from seran import evaluate
from seran.data.pairs import PreparedSet
from seran.methods import method
from seran.models import build
from seran.recipes import RECIPES

PROTOCOL = (
    "Common recipe at x2. Every variant makes as many steps as SERAN in {budget:g} minutes on {machine}: "
    "{steps}."
)


PACE = "seran-x2-bd"
"""SERAN's run with seed 0, which Table 3 shares; the others there have other numbers of steps."""


def _key(variant: str, seed: int) -> str:
    name = f"{variant}-x2-bd"
    return name if (name, seed) == (PACE, 0) else f"{name}-seed{seed}"


def _row(variant: str, seed: int, file: Path, data: PreparedSet, slices: int) -> dict[str, object]:
    recipe = RECIPES[f"{variant}-x2-bd"]
    network = build(recipe.model, 2, recipe.options, False)
    facts = {"variant": variant, "seed": seed, "parameters": sum(p.numel() for p in network.parameters())}
    return facts | score(method(recipe.model, 2, file=file), data, slices)


def table(rows: Rows, titles: dict[str, str]) -> list[str]:
    """One line per variant: mean PSNR over the seeds, with the largest distance from it, and the gain."""
    columns = heading(rows)
    lines = []
    for variant, title in titles.items():
        group = [row for row in rows.values() if row["variant"] == variant]
        if not group:
            continue
        cells = [title, f"{group[0]['parameters'] / 1e6:.3f}M", str(len(group))]
        for contrast in columns:
            found = [row["means"][contrast]["psnr"] for row in group]
            gain = fmean(row["means"][contrast]["gain"] for row in group)
            spread = f" ± {max(abs(psnr - fmean(found)) for psnr in found):.2f}" * (len(found) > 1)
            cells.append(f"{fmean(found):.2f}{spread} ({gain:+.2f})")
        lines.append(cells)
    return markdown(["variant", "parameters", "seeds", *columns.values()], lines)


def compare(
    name: tyro.conf.Suppress[str],
    titles: tyro.conf.Suppress[dict[str, str]],
    seeds: tuple[int, ...],
    data: Path = Path("open"),
    runs: Path = Path("runs"),
    budget: float = 12.0,
    slices: int = 12,
    machine: str = "two CPU cores",
    out: Path = Path(__file__).parent,
) -> None:
    """Train and score every variant with every seed; what is done already is kept.

    Args:
        name: of the table's files and of the program.
        titles: variant of the recipes -> what the table calls it.
        seeds: of initialisation and order of the patches.
        data: a folder made by `seran prepare`.
        runs: folder of the training runs; SERAN's own run there sets the number of steps.
        budget: quiet minutes of one run of SERAN; the other variants make as many steps.
        slices: central slices of each test volume that are scored; 0 for all.
        machine: what it runs on, in words, for the table.
        out: folder of the table.
    """
    pairs = needed(data, 2, ("train", "val", "test"))
    pace = fitted(RECIPES[PACE], PACE, pairs, runs, budget)
    stated = PROTOCOL.format(budget=budget, machine=machine, steps=pace.steps)
    protocol = [stated, *evaluate.protocol(pairs, 2, "test", slices)]
    path = out / f"{name}.json"
    rows = load(path, protocol)
    todo = sorted(itertools.product(seeds, titles), key=lambda one: _key(one[1], one[0]) != PACE)
    for seed, variant in todo:  # the pace comes first: a stopped call then knows it
        key = _key(variant, seed)
        recipe = lasting(RECIPES[f"{variant}-x2-bd"], pace.steps, seed)
        command = f"python paper/{name}.py --seeds {seed} --budget {budget:g}"
        file = trained(recipe, key, pairs, runs, machine, command, stated)
        if key not in rows:
            rows[key] = _row(variant, seed, file, pairs, slices)
            write(path, protocol, rows, functools.partial(table, titles=titles))
