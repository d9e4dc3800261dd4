"""Training at a stated budget: as many steps as fit into so many quiet minutes, resumed where it stopped."""

import dataclasses
import math
import shutil
from pathlib import Path

import torch
from lightning_fabric import Fabric

from seran import train, weights
from seran.data.pairs import PreparedSet
from seran.errors import BadInput
from seran.export import export
from seran.machine import threads
from seran.recipes import Recipe, differences
from seran.run import CHECKPOINT, Run

SHORT = "-short"
"""Behind the name of weights whose training paused."""


def _fabric() -> Fabric:
    torch.set_num_threads(threads())
    fabric = Fabric(accelerator="auto", devices=1, precision=train.native("auto"))
    fabric.launch()
    return fabric


def fitted(recipe: Recipe, name: str, data: PreparedSet, runs: Path, minutes: float) -> Recipe:
    """The recipe with as many steps as fill the minutes, or as the run ``name`` began with.

    The pace is that of a pilot's quick steps, so that the run takes hardly less than the minutes; it takes
    longer where something else runs.

    Args:
        recipe: but for its steps.
        name: of the run in ``runs``.
        data: pairs to train on.
        runs: folder of the training runs.
        minutes: of one run on a quiet machine.

    Raises:
        BadInput: if that run began with another budget.
    """
    file, checkpoint = runs / f"{name}.onnx", runs / name / CHECKPOINT
    if file.is_file():
        card = weights.read(file).card
        steps, command = card.recipe["steps"], card.command
    elif checkpoint.is_file():
        run = Run.load(checkpoint)
        steps, command = run.recipe.steps, run.command
    else:
        pace = _pace(recipe, data, runs / f"{name}-pilot", minutes)
        return lasting(recipe, max(10, math.ceil(60 * minutes / pace)))
    if not command.endswith(f"--budget {minutes:g}"):
        raise BadInput(
            f"{runs / name}: expected a run of {minutes:g} minutes, got {command!r}; name another --runs"
        )
    return lasting(recipe, steps)


def lasting(recipe: Recipe, steps: int, seed: int = 0) -> Recipe:
    """The recipe with another length; a warm-up longer than a tenth of it is cut to that.

    Args:
        recipe: the rest of the settings.
        steps: optimiser steps.
        seed: of initialisation and sampling.
    """
    return dataclasses.replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 10), seed=seed)


def _pace(recipe: Recipe, data: PreparedSet, folder: Path, minutes: float) -> float:
    """Seconds per step, the lower quartile of a pilot's steps after the first."""
    pilot = dataclasses.replace(recipe, steps=10**9, warmup=10**9)
    shutil.rmtree(folder, ignore_errors=True)
    run = train.train(pilot, data, folder, _fabric(), every=1, validate_every=10**9, minutes=minutes / 15)
    shutil.rmtree(folder)
    timed = [row["patches_per_s"] for row in run.rows if "patches_per_s" in row]
    each = sorted(recipe.batch / pace for pace in timed[1:] or timed)
    return each[len(each) // 4]


def trained(
    recipe: Recipe,
    name: str,
    data: PreparedSet,
    runs: Path,
    machine: str,
    command: str,
    notes: str,
    minutes: float = math.inf,
) -> Path:
    """Train ``runs/name`` to the recipe's last step; return the weights file ``runs/name.onnx``.

    Where it is not there yet, ``runs/name-short.onnx``: the average of its weights where it paused.

    Args:
        recipe: what to train.
        name: of the run.
        data: pairs to train on.
        runs: folder of the training runs.
        machine: what trains it, in words, for the card.
        command: that repeats it, for the card.
        notes: for the card.
        minutes: of this call, after which it pauses.

    Raises:
        BadInput: if there is one of another recipe.
    """
    file, short = (runs / f"{name}{end}.onnx" for end in ("", SHORT))
    if file.is_file():
        unlike = differences(recipe, weights.read(file).card.recipe)
        if unlike:
            raise BadInput(f"{file} was trained otherwise ({', '.join(unlike)} differ); name another --runs")
    else:
        run = train.train(
            recipe,
            data,
            runs / name,
            _fabric(),
            every=25,
            validate_every=10**9,
            minutes=minutes,
            command=command,
        )
        if run.step < recipe.steps:
            export(run, short, machine, notes)
            return short
        export(run, file, machine, notes)
        short.unlink(missing_ok=True)
    return file
