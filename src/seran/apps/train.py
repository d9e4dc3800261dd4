"""``seran train``."""

import dataclasses
import functools
import logging
import math
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from seran import files, machine
from seran.apps.arguments import nearest
from seran.data.pairs import load_prepared
from seran.engines import refuse_threads
from seran.errors import BadInput
from seran.recipes import RECIPES, VARIANTS, Recipe
from seran.systems import SYSTEMS


def _listed(kind: str) -> str:
    rows = [[f"{name}-x{scale}-bd{kind}" for scale in (2, 3, 4)] for name in VARIANTS]
    return "".join(f"  {a:30}{b:30}{c}\n" for a, b, c in rows if a in RECIPES)


def bind(args: list[str]) -> tuple[Callable[..., str], list[str]]:
    """``seran train RECIPE …``: the command with the named recipe's settings as its defaults."""
    if args[:1] in (["-h"], ["--help"]):
        text = (
            "usage: seran train RECIPE DATA RUN [OPTIONS]\n\n"
            f"recipes: one for all systems, for fair comparison,\n{_listed('')}"
            f"and the one that each system was published with:\n{_listed('-paper')}\n"
            "seran train RECIPE --help lists every setting with its value."
        )
        return lambda: text, []
    if not args:
        raise BadInput("train needs RECIPE, DATA and RUN; see seran train --help")
    name, *rest = args
    if name not in RECIPES:
        meant = nearest(name, list(RECIPES)) or "see seran train --help"
        raise BadInput(f"train {name}: unknown recipe; {meant}")
    return functools.partial(train, recipe=RECIPES[name]), rest


def _minutes(seconds: float, inherited: float | None) -> str:
    """How long a run took, in words; ``inherited`` of the seconds are of the weights that it began with."""
    if inherited is None:
        return f"{seconds / 60:.1f} minutes with the weights it began with"
    more = f" ({seconds / 60:.1f} with the weights it began with)" * (inherited > 0)
    return f"{(seconds - inherited) / 60:.1f} minutes{more}"


def train(
    data: Path,
    run: Path,
    /,
    recipe: Recipe,
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
        run: folder of the run: checkpoint, log.csv, TensorBoard's events.
        recipe: what to train.
        accelerator: where; auto takes a GPU if there is one.
        devices: processes on this machine (more than one: DDP).
        nodes: machines; start the same command on each, with torchrun.
        precision: bf16-mixed keeps weights, attention, bicubic and loss in float32; auto takes it where the
            processor computes bf16 natively.
        threads: CPU threads per process; 0: OMP_NUM_THREADS where that is set, or every CPU this process may
            use.
        minutes: pause after this long.
        validate_every: steps between validations on whole slices of the split val.
    """
    import torch  # not for --help
    from lightning_fabric import Fabric

    from seran import train as library
    from seran.models import adopt

    refuse_threads(threads)
    for option, value in {"devices": devices, "nodes": nodes, "validate-every": validate_every}.items():
        if value < 1:
            raise BadInput(f"--{option} {value}: must be 1 or more")
    pairs = load_prepared(data)
    if recipe.model not in SYSTEMS:
        recipe = dataclasses.replace(recipe, model=adopt(recipe.model, recipe.scale, recipe.options))
    if recipe.residual and SYSTEMS[recipe.model].adds_bicubic:
        raise BadInput(f"{recipe.model} adds the bicubic enlargement itself; give --no-residual")
    torch.set_num_threads(threads or machine.threads(devices))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells the precision; the end does
    strategy = "ddp" if devices * nodes > 1 else "auto"
    chosen = library.native(accelerator) if precision == "auto" else precision
    try:
        fabric = Fabric(
            accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=nodes, precision=chosen
        )
    except (RuntimeError, ValueError) as error:  # no such accelerator here; SLURM started other processes
        raise BadInput(str(error)) from error
    command = f"seran {shlex.join(map(files.nameless, sys.argv[1:]))}"
    try:
        with library.launched(fabric):
            made = library.train(
                recipe, pairs, run, fabric, validate_every=validate_every, minutes=minutes, command=command
            )
    except RuntimeError as error:  # another process does not answer; gloo has no class of its own for that
        why = " ".join(str(error).split())[:200]
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error).lower():
            raise
        raise BadInput(
            f"another process of this run has ended; the same command continues from the checkpoint ({why})"
        ) from error
    if not fabric.is_global_zero:
        return ""
    speed = [row["patches_per_s"] for row in made.rows if "patches_per_s" in row] or [math.nan]
    state = "done" if made.step >= recipe.steps else "paused; the same command continues"
    return (
        f"{run}: step {made.step} of {recipe.steps} ({state}), {_minutes(made.seconds, made.inherited)}, "
        f"median {statistics.median_high(speed):.1f} patches of {recipe.patch}x{recipe.patch} per second "
        f"in {chosen}"
    )
