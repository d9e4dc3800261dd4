"""``seran train``."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro
from lightning_fabric import Fabric

from seran import prepare
from seran import train as library
from seran.apps import Positional
from seran.engines.openvino import cpus
from seran.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    Chosen = Recipe
else:
    Chosen = tyro.extras.subcommand_type_from_defaults(RECIPES, prefix_names=False)


def train(
    recipe: Annotated[Chosen, tyro.conf.arg(name="")],
    data: Positional[Path],
    out: Positional[Path],
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed",
    threads: int = 0,
    minutes: float = math.inf,
    validate_every: int = 1000,
) -> str:
    """Train a network; the same command continues an interrupted run.

    Args:
        recipe: what to train; every setting of it is an option.
        data: a folder made by `seran prepare`.
        out: folder of the run: checkpoint, log.csv, TensorBoard's events.
        accelerator: where; auto takes a GPU if there is one.
        devices: processes on this machine (more than one: DDP).
        nodes: machines; start the same command on each, with torchrun.
        precision: bf16-mixed keeps weights, attention, bicubic and loss in float32.
        threads: CPU threads per process; 0 for every CPU this process may use.
        minutes: pause after this long.
        validate_every: steps between validations on whole slices of the split val.
    """
    torch.set_num_threads(threads or max(1, cpus() // devices))
    strategy = "ddp" if devices * nodes > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator, devices=devices, num_nodes=nodes, precision=precision, strategy=strategy
    )
    fabric.launch()
    command = f"seran {shlex.join(sys.argv[1:])}"
    run = library.train(
        recipe,
        prepare.load(data),
        out,
        fabric,
        command=command,
        validate_every=validate_every,
        minutes=minutes,
    )
    speed = [row["patches_per_s"] for row in run.rows]
    half = sorted(speed)[len(speed) // 2] if speed else math.nan
    state = "done" if run.step == recipe.steps else "paused; the same command continues"
    return (
        f"{out}: step {run.step} of {recipe.steps} ({state}), {run.seconds / 60:.1f} minutes, "
        f"median {half:.1f} patches of {recipe.patch}x{recipe.patch} per second"
    )
