"""``seran train``."""

import dataclasses
import difflib
import functools
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch
from lightning_fabric import Fabric

from seran import train as library
from seran.apps import FLAT, Positional
from seran.data.pairs import load_prepared
from seran.errors import BadInput
from seran.machine import cpus
from seran.models import adopt
from seran.recipes import RECIPES, VARIANTS, Recipe
from seran.systems import SYSTEMS


def _listed() -> str:
    lines = ["recipes: one for all systems, for fair comparison,"]
    for kind in ("", "-paper"):
        lines += ["and the one that each system was published with:"] * bool(kind)
        for name in VARIANTS:
            row = [f"{name}-x{scale}-bd{kind}" for scale in (2, 3, 4)]
            lines += ["  " + " ".join(f"{n:29}" for n in row).rstrip()] * (row[0] in RECIPES)
    return "\n".join(lines)


def bind(args: list[str]) -> tuple[Callable[..., str], list[str]]:
    """``seran train RECIPE …``: the command with the named recipe's settings as its defaults."""
    if args[:1] in (["-h"], ["--help"]):
        sys.stdout.write(
            f"usage: seran train RECIPE DATA RUN [OPTIONS]\n\n{_listed()}\n\n"
            "seran train RECIPE --help lists every setting with its value.\n"
        )
        raise SystemExit(0)
    if not args:
        raise BadInput("expected a recipe; seran train --help lists them")
    if args[0] not in RECIPES:
        near = difflib.get_close_matches(args[0], RECIPES)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise BadInput(f"expected a recipe, got {args[0]!r}; {meant}seran train --help lists them")
    return functools.partial(train, recipe=RECIPES[args[0]]), args[1:]


def _lost(error: RuntimeError) -> bool:
    """Whether it says that another process does not answer: gloo has no class of its own for that."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


def train(
    data: Positional[Path],
    out: Positional[Path],
    recipe: Annotated[Recipe, FLAT],
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto",
    threads: int = 0,
    minutes: float = math.inf,
    validate_every: int = 1000,
) -> str:
    """Train a network; the same command continues an interrupted run.

    Args:
        data: a folder made by `seran prepare`.
        out: folder of the run: checkpoint, log.csv, TensorBoard's events.
        recipe: what to train.
        accelerator: where; auto takes a GPU if there is one.
        devices: processes on this machine (more than one: DDP).
        nodes: machines; start the same command on each, with torchrun.
        precision: bf16-mixed keeps weights, attention, bicubic and loss in float32; auto takes it where the
            processor computes bf16 natively.
        threads: CPU threads per process; 0 for every CPU this process may use.
        minutes: pause after this long.
        validate_every: steps between validations on whole slices of the split val.

    Raises:
        BadInput: for settings that cannot be, another recipe than RUN's, or if another process was lost.
    """
    if threads < 0 or devices < 1 or nodes < 1 or validate_every < 1:
        raise BadInput("--threads must be 0 or more; --devices, --nodes and --validate-every 1 or more")
    pairs = load_prepared(data)
    if recipe.model not in SYSTEMS:
        name = adopt(recipe.model, recipe.scale, recipe.options)
        recipe = dataclasses.replace(recipe, model=name)
    if recipe.residual and SYSTEMS[recipe.model].adds_bicubic:
        raise BadInput(f"{recipe.model} adds the bicubic enlargement itself; give --no-residual")
    torch.set_num_threads(threads or max(1, cpus() // devices))
    strategy = "ddp" if devices * nodes > 1 else "auto"
    chosen = library.native(accelerator) if precision == "auto" else precision
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, precision=chosen, strategy=strategy
        )
    except (RuntimeError, ValueError) as error:  # no such accelerator here; SLURM started other processes
        raise BadInput(str(error)) from error
    fabric.launch()
    command = f"seran {shlex.join(sys.argv[1:])}"
    try:
        run = library.train(
            recipe, pairs, out, fabric, validate_every=validate_every, minutes=minutes, command=command
        )
    except RuntimeError as error:
        if not _lost(error):
            raise
        why = " ".join(str(error).split())[:200]
        raise BadInput(
            f"another process of this run has ended; the same command continues from the checkpoint ({why})"
        ) from error
    if not fabric.is_global_zero:
        return ""
    speed = [row["patches_per_s"] for row in run.rows]
    half = sorted(speed)[len(speed) // 2] if speed else math.nan
    state = "done" if run.step >= recipe.steps else "paused; the same command continues"
    return (
        f"{out}: step {run.step} of {recipe.steps} ({state}), {run.seconds / 60:.1f} minutes, "
        f"median {half:.1f} patches of {recipe.patch}x{recipe.patch} per second in {chosen}"
    )
