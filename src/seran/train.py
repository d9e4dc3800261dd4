"""Training: one loop, top to bottom.

The same command runs on one CPU, one GPU, several processes or several machines::

    seran train seran-x2-bd DATA RUN                        # CPU, or the GPU if there is one
    seran train seran-x2-bd DATA RUN --devices 2            # two processes (DDP)
    torchrun --nnodes 2 --nproc-per-node 8 … -m seran train … --devices 8 --nodes 2   # RUN on a shared disk

Killed at any moment, the same command continues from the last checkpoint in RUN; on the CPU
bit for bit as if nothing had happened.
"""

import csv
import dataclasses
import fnmatch
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from numpy import ndarray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from seran import evaluate, files, weights
from seran.data.pairs import PreparedSet
from seran.data.patches import Patches
from seran.engines import openvino
from seran.engines.torch import parameters
from seran.errors import BadInput
from seran.machine import cpus
from seran.models import build
from seran.models.layers import initialise
from seran.progress import QUIET
from seran.recipes import Recipe, differences

CHECKPOINT = "checkpoint.safetensors"
Tensors = tuple[Tensor, ...] | list[Tensor]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "l2-sum": lambda made, true: F.mse_loss(made, true, reduction="sum") / (2 * len(true)),
}


def native(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """``bf16-mixed`` where the accelerator computes bf16 natively: elsewhere float32 is far faster."""
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        has = False  # no way to ask
    else:
        has = openvino.native() == "bf16"
    return "bf16-mixed" if has else "32-true"


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step (0-based)."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    if recipe.schedule == "step":
        return recipe.lr * recipe.step_factor ** (step // recipe.step_every)
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * done)))


def stage(recipe: Recipe, step: int) -> tuple[str, int, int]:
    """Loss, low-resolution patch and batch over all processes at a step."""
    if step < recipe.steps * (1 - recipe.tail):
        return recipe.loss, recipe.patch, recipe.batch
    pixels = recipe.batch * recipe.patch**2
    return "l2", recipe.last_patch, max(1, round(pixels / recipe.last_patch**2))


def share(batch: int, rank: int, world: int) -> range:
    """The samples of a step that one of ``world`` processes takes: equal parts of the rounded-up batch."""
    each = -(-batch // world)
    return range(rank * each, (rank + 1) * each)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batch ``k`` of a run is what step ``k`` sees: of all processes' samples, those of one."""

    def __init__(self, patches: Patches, recipe: Recipe, rank: int, world: int) -> None:
        self.patches, self.recipe, self.rank, self.world = patches, recipe, rank, world

    def __getitem__(self, step: int) -> tuple[Float[Tensor, "b 1 p p"], Float[Tensor, "b 1 sp sp"]]:
        _, patch, batch = stage(self.recipe, step)
        return self.patches.batch(step, share(batch, self.rank, self.world), patch)


def drawers(device: torch.device) -> int:
    """Processes that draw patches beside the network; on a CPU the network needs every core itself."""
    return 0 if device.type == "cpu" else min(8, cpus() - 1)


def averaging(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential moving average that starts as a plain mean, so that it soon forgets the initialisation."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, n / (n + 1)))

    return update


def optimise(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; each group of parameters carries its ``factor`` of the learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        factors = [f for pattern, f in recipe.rates.items() if fnmatch.fnmatch(name, pattern)]
        groups.setdefault((factors or [1.0])[0], []).append(parameter)
    if recipe.rates and len(groups) == 1:
        raise BadInput(f"no parameter of {recipe.model} is named like {', '.join(recipe.rates)}")
    params = [{"params": members, "factor": factor} for factor, members in groups.items()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            params, lr=recipe.lr, momentum=recipe.betas[0], weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.Adam(
        params, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )


def limit(
    fabric: Fabric, network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, now: float
) -> None:
    """Clip the gradients as the recipe says; ``now`` is the learning rate of the step."""
    if recipe.clip and recipe.clip_by == "norm":
        fabric.clip_gradients(network, optimizer, max_norm=recipe.clip)
    elif recipe.clip:
        fabric.clip_gradients(network, optimizer, clip_val=recipe.clip / now)


class Run:
    """The parameters of a run and where they are kept: network, average, optimiser, step."""

    def __init__(self, recipe: Recipe, fresh: bool = True) -> None:
        """A run at step 0; without ``fresh`` one that a checkpoint will fill, without `init`."""
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.patches, self.seconds = 0, 0.0
        self.scans: list[dict[str, str]] = []
        self.network = build(recipe.model, recipe.scale, recipe.options, recipe.residual)
        if recipe.initializer != "network":
            initialise(self.network, recipe.initializer)
        if recipe.init and fresh:
            content, card, _ = weights.read(weights.at_hand().get(recipe.init, Path(recipe.init)))
            rescaled = card.scale != recipe.scale
            self.network.load_state_dict(parameters(self.network, content, recipe.init, rescaled))
            self.patches, self.seconds, self.scans = card.patches, card.seconds, card.scans
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=averaging(recipe.ema))
        self.average.requires_grad_(False)
        self.optimizer = optimise(self.network, recipe)
        self.step = 0
        self.rows: list[dict[str, Any]] = []
        self.command = ""

    @classmethod
    def load(cls, path: Path) -> "Run":
        """The run of a checkpoint.

        Raises:
            BadInput: if there is none.
        """
        if not path.is_file():
            raise BadInput(f"{path}: no such checkpoint; expected a folder made by `seran train`")
        with safe_open(path, "pt") as file:
            recipe = json.loads(file.metadata()["recipe"])
        run = cls(Recipe(**{**recipe, "betas": tuple(recipe["betas"])}), fresh=False)
        run.restore(path)
        return run

    @property
    def best(self) -> nn.Module:
        """The network to validate and export: the average if the recipe keeps one."""
        return self.average.module if self.recipe.ema else self.network

    def progress(self) -> dict[str, Any]:
        """What a checkpoint states besides tensors and the recipe."""
        names = ("step", "seconds", "patches", "scans", "rows", "command")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, atomically; no pickle is involved."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        meta = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "state": json.dumps(self.progress()),
        }
        with files.atomic(path) as part:
            part.write_bytes(save(tensors, metadata=meta))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe (``steps`` may differ).

        Raises:
            BadInput: if the checkpoint belongs to another recipe.
        """
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        differ = [k for k in differences(self.recipe, json.loads(meta["recipe"])) if k != "steps"]
        if differ:
            raise BadInput(
                f"{path} was trained with another recipe ({', '.join(differ)} differ); "
                "name another folder, or give the same settings to continue"
            )
        self.network.load_state_dict(_under("network.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in _under("optimizer.", tensors).items():
            index, name = key.split(".")
            laid_out = value.dim() == 4  # as the parameters: the fused update goes through memory in order
            kept.setdefault(int(index), {})[name] = (
                value.contiguous(memory_format=torch.channels_last) if laid_out else value
            )
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**state, "state": kept})
        for name, value in json.loads(meta["state"]).items():
            setattr(self, name, value)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@torch.inference_mode()
def validate(
    fabric: Fabric, network: nn.Module, data: PreparedSet, scale: int, slices: int
) -> dict[str, float]:
    """Mean PSNR in dB per contrast of the validation split, over ``slices`` whole slices per volume."""
    found: dict[str, list[float]] = {}

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        with fabric.autocast():
            x = torch.from_numpy(low)
            made = [network(one[None, None].to(fabric.device))[0, 0].float().cpu() for one in x]
        return torch.stack(made).numpy()

    for volume in data.pick("val"):
        n = len(data.high(volume))
        at = [round((i + 1) * (n - 1) / (slices + 1)) for i in range(min(slices, n))]
        found.setdefault(volume.contrast, []).append(evaluate.psnr(predict, data, volume, scale, at))
    return {k: sum(v) / len(v) for k, v in sorted(found.items())}


def _log(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(k for row in rows for k in row))
    with files.atomic(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def train(
    recipe: Recipe,
    data: PreparedSet,
    out: Path,
    fabric: Fabric,
    every: int = 100,
    validate_every: int = 1000,
    slices: int = 5,
    minutes: float = math.inf,
    command: str = "",
    workers: int | None = None,
) -> Run:
    """Train until the recipe's last step, or pause after ``minutes`` of this call.

    Args:
        recipe: what to train.
        data: pairs; its splits ``train`` and ``val`` are used, ``test`` never.
        out: folder of the checkpoint and the logs (``log.csv``, TensorBoard's events).
        fabric: launched; precision, devices and processes are its business.
        every: steps between checkpoints and log rows; each validation makes one, too.
        validate_every: steps between validations.
        slices: whole slices per validation volume.
        minutes: save and pause after this long; the same call continues.
        command: what the user typed, for the card.
        workers: processes that draw patches ahead; by default `drawers`. What is drawn is the same.

    Raises:
        BadInput: if the data were degraded otherwise than the recipe says.
    """
    if data.degradation != recipe.degradation:
        raise BadInput(f"{data.root} holds {data.degradation} pairs, the recipe wants {recipe.degradation}")
    patches = Patches(data, "train", recipe.scale, recipe.seed, recipe.augment)
    checkpoint = out / CHECKPOINT
    run = Run(recipe, fresh=not checkpoint.is_file())
    if checkpoint.is_file():
        run.restore(checkpoint)
    run.scans += [scan for scan in data.scans("train") if scan not in run.scans]
    if command not in run.command.split("; then "):
        run.command = "; then ".join(filter(None, [run.command, command]))
    if run.step != fabric.broadcast(run.step):
        raise BadInput(f"{out}: processes start from different steps; RUN must be on a disk they share")
    main = fabric.is_global_zero
    if main:
        out.mkdir(parents=True, exist_ok=True)
    network, optimizer = fabric.setup(run.network, run.optimizer)
    run.optimizer = optimizer.optimizer
    run.average.to(fabric.device)
    board = _board(out, run.step) if main else None
    hidden = not main or QUIET.get()
    bar = tqdm(total=recipe.steps, initial=run.step, unit="step", disable=hidden, smoothing=0.05)
    began = mark = time.perf_counter()
    first, seen, loss_sum, paused = run.step, 0, torch.zeros((), device=fabric.device), False
    workers = drawers(fabric.device) if workers is None else workers
    loader = DataLoader(
        Batches(patches, recipe, fabric.global_rank, fabric.world_size),
        batch_size=None,
        sampler=range(run.step, recipe.steps),
        num_workers=workers,
        pin_memory=fabric.device.type == "cuda",
        multiprocessing_context="spawn" if workers else None,
    )
    for pair in loader:
        low, high = (side.to(fabric.device, non_blocking=True) for side in pair)
        now = rate(recipe, run.step)
        for group in optimizer.param_groups:
            group["lr"] = now * group["factor"]
        predicted = network(low.to(memory_format=torch.channels_last))
        loss = LOSSES[stage(recipe, run.step)[0]](predicted.float(), high)
        optimizer.zero_grad()
        fabric.backward(loss)
        limit(fabric, network, optimizer, recipe, now)
        optimizer.step()
        if recipe.ema:
            run.average.update_parameters(run.network)
        run.step += 1
        seen += len(low) * fabric.world_size
        run.patches += len(low) * fabric.world_size
        loss_sum += loss.detach()
        bar.update()
        if minutes < math.inf:  # every process must see the same answer
            paused = fabric.broadcast(time.perf_counter() - began > 60 * minutes)
        last = run.step == recipe.steps
        judged = run.step % validate_every == 0 or last
        if run.step % every and not judged and not paused:
            continue
        clock = time.perf_counter()
        run.seconds += clock - mark
        row = {"step": run.step, "loss": float(loss_sum) / (run.step - first)}
        row |= {"lr": rate(recipe, run.step - 1), "patches_per_s": seen / (clock - mark)}
        if main:
            if judged:
                psnr = validate(fabric, run.best, data, recipe.scale, slices)
                row |= {f"psnr_{k}": v for k, v in psnr.items()}
                bar.write(f"step {run.step}: " + ", ".join(f"{k} {v:.3f} dB" for k, v in psnr.items()))
            run.rows.append(row)
            _record(run, row, out, board)
            bar.set_postfix(loss=f"{row['loss']:.5f}", patches_per_s=f"{row['patches_per_s']:.1f}")
        fabric.barrier()
        mark, first, seen, loss_sum = time.perf_counter(), run.step, 0, torch.zeros_like(loss_sum)
        if paused:
            break
    bar.close()
    if board is not None:
        board.close()
    return run


def _record(run: Run, row: dict[str, Any], out: Path, board: Any) -> None:  # noqa: ANN401
    for key, value in row.items():
        board.add_scalar(key, value, run.step)
    _log(out / "log.csv", run.rows)
    run.save(out / CHECKPOINT)


def _board(out: Path, step: int) -> Any:  # noqa: ANN401
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(out), purge_step=step)
