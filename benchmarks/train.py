"""Patches a second in training: seran's loop against a plain one in float32, in turn.

    python benchmarks/train.py --data pairs        # a set made by `seran prepare`, on a quiet machine
    python benchmarks/train.py --data pairs --device cuda --batch 128

Both train SERAN with batches of the same size. The plain loop is a research repository's: float32,
contiguous, Adam, and crops that are already at hand. The third row is what of seran's step is the network
alone, forward and backward; the rest is drawing crops, the optimiser and averaging.
"""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import tyro
from lightning_fabric import Fabric
from measure import record, table
from torch import nn

from seran import train
from seran.data.pairs import PreparedSet, load_prepared
from seran.machine import cpus
from seran.models import build
from seran.recipes import RECIPES, Recipe
from seran.run import CHECKPOINT, Run

Rates = list[float]


def whole(recipe: Recipe, data: PreparedSet, folder: Path, seconds: float, device: str) -> Rates:
    """Patches a second of each step of seran's loop after this call's first; it goes on in ``folder``.

    On a GPU of each hundred steps: what is drawn ahead while a row is written must not count.

    Args:
        recipe: what to train.
        data: pairs to train on.
        folder: of the run, which may have begun.
        seconds: of this call.
        device: ``cpu`` or ``cuda``.
    """
    fabric = Fabric(accelerator=device, devices=1, precision=train.native(device))
    fabric.launch()
    before = Run.load(folder / CHECKPOINT).step if folder.is_dir() else 0
    every = 1 if device == "cpu" else 100
    run = train.train(recipe, data, folder, fabric, every, validate_every=10**9, minutes=seconds / 60)
    return [row["patches_per_s"] for row in run.rows[before + 1 :]]


def timed(step: Callable[[], object], batch: int, seconds: float) -> Rates:
    """Patches a second of each step after the first.

    Args:
        step: makes one step.
        batch: patches of a step.
        seconds: after which no further step begins.
    """
    times = [time.perf_counter()]
    while times[-1] - times[0] < seconds or len(times) < 4:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())
    return [batch / (b - a) for a, b in pairwise(times[1:])]


def network_alone(recipe: Recipe, device: str) -> Callable[[], object]:
    """Forward and backward as seran's loop does them, on one batch."""
    made = build(recipe.model, recipe.scale, recipe.options, recipe.residual)
    made.to(device, memory_format=torch.channels_last)
    mixed = train.native(device) == "bf16-mixed"
    low = torch.rand(recipe.batch, 1, recipe.patch, recipe.patch).to(
        device, memory_format=torch.channels_last
    )

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            made(low).float().abs().mean().backward()

    return step


def plain(recipe: Recipe, device: str) -> Callable[[], object]:
    """A step of a float32 loop, on one batch, layer by layer as published (see `layers.finish`)."""
    made = build(recipe.model, recipe.scale, recipe.options, recipe.residual).to(device).eval()
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-4)
    low = torch.rand(recipe.batch, 1, recipe.patch, recipe.patch, device=device)
    high = torch.rand(recipe.batch, 1, *[recipe.scale * recipe.patch] * 2, device=device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.l1_loss(made(low), high).backward()
        optimizer.step()

    return step


def main(
    data: Path,
    patch: int = 32,
    batch: int = 16,
    rounds: int = 3,
    seconds: float = 20,
    device: Literal["cpu", "cuda"] = "cpu",
    scale: int = 2,
) -> None:
    """Time both loops in turn; print the table and keep it in results.md.

    Args:
        data: a folder made by `seran prepare`.
        patch: low-resolution pixels a side.
        batch: patches per step.
        rounds: how often each has its turn.
        seconds: of each turn.
        device: where.
        scale: 2, 3 or 4.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(cpus())
    recipe = RECIPES[f"seran-x{scale}-bd"]
    recipe = dataclasses.replace(recipe, patch=patch, batch=batch, steps=10**9, warmup=10**9)
    pairs, folder = load_prepared(data), Path(tempfile.mkdtemp())
    alone, bare = network_alone(recipe, device), plain(recipe, device)
    ways: dict[str, Callable[[], Rates]] = {
        "seran train": lambda: whole(recipe, pairs, folder / "run", seconds, device),
        "plain loop, float32": lambda: timed(bare, batch, seconds),
        "of seran's, the network": lambda: timed(alone, batch, seconds),
    }
    rates: dict[str, Rates] = {name: [] for name in ways}
    try:
        for _ in range(rounds):
            for name, way in ways.items():
                rates[name] += way()
    finally:
        shutil.rmtree(folder)
    own, other, core = (median(row) for row in rates.values())
    lines = [
        f"SERAN x{scale}, {batch} patches of {patch}x{patch} a step; "
        "patches a second, median (least … most).",
        "",
        *table("what | patches / s", rates),
        "",
        f"seran trains {own / other:.1f} times as fast as the plain loop; "
        f"{own / core:.0%} of its step is the network.",
    ]
    where = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    record(f"Training{f' x{scale}' * (scale != 2)}{where}", lines, ("torch",))


if __name__ == "__main__":
    tyro.cli(main)
