"""Training at an equal budget: the same minutes for every system, spent on its own number of steps."""

import dataclasses
import shutil
from pathlib import Path

import torch
from lightning_fabric import Fabric

from seran import train
from seran.engines.openvino import cpus
from seran.export import export
from seran.prepare import PreparedSet
from seran.recipes import RECIPES


def steps(name: str, data: PreparedSet, folder: Path, minutes: float, fabric: Fabric) -> int:
    """How many steps of a recipe fit into the minutes, from a pilot whose first seconds do not count."""
    pilot = dataclasses.replace(RECIPES[name], steps=10**9, warmup=10**9)
    shutil.rmtree(folder, ignore_errors=True)
    first = train.train(pilot, data, folder, fabric, every=10**9, validate_every=10**9, minutes=minutes / 60)
    second = train.train(pilot, data, folder, fabric, every=10**9, validate_every=10**9, minutes=minutes / 20)
    shutil.rmtree(folder)
    each = (second.seconds - first.seconds) / (second.step - first.step)
    return max(10, round(60 * minutes / each))


def trained(name: str, data: PreparedSet, folder: Path, minutes: float, machine: str) -> Path:
    """Train a recipe for so many minutes, with its schedule ending with them; resumes; the weights file.

    The recipe's warm-up is cut to a tenth of the steps where it would be longer.
    """
    weights = folder / f"{name}.onnx"
    if weights.is_file():
        return weights
    torch.set_num_threads(cpus())
    fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed")
    fabric.launch()
    out = folder / name
    checkpoint = out / train.CHECKPOINT
    if checkpoint.is_file():
        recipe = train.Run.load(checkpoint).recipe
    else:
        n = steps(name, data, folder / f"{name}-pilot", minutes, fabric)
        recipe = dataclasses.replace(RECIPES[name], steps=n, warmup=min(RECIPES[name].warmup, n // 10))
    command = f"python paper/table3.py PAIRS RUNS --systems {recipe.model} --scale {recipe.scale} "
    command += f"--minutes {minutes:g}"
    run = train.train(recipe, data, out, fabric, every=25, validate_every=10**9, command=command)
    export(run, weights, data, machine, f"Equal budget of {minutes:g} minutes: {recipe.steps} steps.")
    return weights
