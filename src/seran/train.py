"""Training: one loop, top to bottom, on one CPU, one GPU, several processes or several machines.

    seran train seran-x2-bd DATA RUN                        # CPU, or the GPU if there is one
    seran train seran-x2-bd DATA RUN --devices 2            # two processes (DDP)
    torchrun --nnodes 2 --nproc-per-node 8 … -m seran train … --devices 8 --nodes 2   # RUN on a shared disk

Killed at any moment, the same command continues from the last checkpoint in RUN: on the CPU bit for bit.
Interrupted (Ctrl-C, SIGTERM), one process ends its step and writes a checkpoint first.
"""

import atexit
import csv
import math
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.loggers import TensorBoardLogger
from lightning_fabric.strategies import DDPStrategy
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from seran import degrade, evaluate, files
from seran.classical import CLASSICAL
from seran.data.pairs import PreparedSet
from seran.data.patches import Patches
from seran.errors import BadInput
from seran.machine import cpus, has_bf16
from seran.progress import QUIET, say
from seran.recipes import Recipe
from seran.run import CHECKPOINT, Run

Row = dict[str, float]
Predict = Callable[[ndarray], ndarray]
MEETING = "SERAN_MEETING"  # the file in which processes of one machine find each other
LOSSES = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "l2-sum": lambda made, true: F.mse_loss(made, true, reduction="sum") / (2 * len(true)),
}


def native(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """``bf16-mixed`` where the accelerator computes bf16 natively: elsewhere float32 is far faster."""
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # there is no way to ask MPS
        mps = accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available())
        has = not mps and has_bf16()
    return "bf16-mixed" if has else "32-true"


@contextmanager
def launched(fabric: Fabric) -> Iterator[None]:
    """Processes that were started, or found: on one machine they meet in a file and talk over loopback.

    By default PyTorch would listen on every interface of the machine, for anyone. Processes that something
    else has started (torchrun, SLURM) meet as that says.
    """
    strategy = fabric.strategy
    with ExitStack() as stack:
        if isinstance(strategy, DDPStrategy) and strategy.num_nodes == 1:
            if not strategy.cluster_environment.creates_processes_externally:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="seran-"))
                os.environ[MEETING] = str(Path(folder, "meeting"))
                stack.callback(os.environ.pop, MEETING)
            if MEETING in os.environ:
                usual = strategy.setup_environment

                def setup() -> None:
                    _meet(strategy)
                    usual()

                strategy.setup_environment = setup
        fabric.launch()
        yield


def _meet(strategy: DDPStrategy) -> None:
    """Make the group of the processes of this machine, which what follows then uses."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "")
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
    device, world = strategy.root_device, strategy.num_processes
    store = torch.distributed.FileStore(os.environ[MEETING], world)  # type: ignore[attr-defined]
    backend, own = ("gloo", None) if device.type == "cpu" else ("nccl", device)
    torch.distributed.init_process_group(
        backend, store=store, rank=strategy.local_rank, world_size=world, device_id=own
    )
    if own is not None:
        atexit.register(torch.distributed.destroy_process_group)


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


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batch ``k`` of a run is what step ``k`` sees: one process's equal part of the rounded-up batch."""

    def __init__(self, patches: Patches, recipe: Recipe, rank: int, world: int) -> None:
        self.patches, self.recipe, self.rank, self.world = patches, recipe, rank, world

    def __getitem__(self, step: int) -> tuple[Float[Tensor, "b 1 p p"], Float[Tensor, "b 1 sp sp"]]:
        _, patch, batch = stage(self.recipe, step)
        each = -(-batch // self.world)
        return self.patches.batch(step, range(self.rank * each, (self.rank + 1) * each), patch)


def _clip(fabric: Fabric, network: nn.Module, optimizer: Optimizer, recipe: Recipe, now: float) -> None:
    """Limit the gradients as the recipe says, at ``now``, the learning rate of the step."""
    if recipe.clip and recipe.clip_by == "norm":
        fabric.clip_gradients(network, optimizer, max_norm=recipe.clip)
    elif recipe.clip:
        fabric.clip_gradients(network, optimizer, clip_val=recipe.clip / now)


def _psnr(predict: Predict, data: PreparedSet, scale: int, slices: int) -> dict[str, float]:
    """Mean PSNR in dB per contrast of the validation split, over ``slices`` whole slices per volume."""
    found: dict[str, list[float]] = {}
    for volume in data.pick("val"):
        n = len(data.high(volume))
        at = [round((i + 1) * (n - 1) / (slices + 1)) for i in range(min(slices, n))]
        found.setdefault(volume.contrast, []).append(evaluate.psnr(predict, data, volume, scale, at))
    return {k: sum(v) / len(v) for k, v in sorted(found.items())}


@torch.inference_mode()
def _validate(run: Run, data: PreparedSet, fabric: Fabric, slices: int, base: dict[str, float]) -> Row:
    """What a row of the log says of the validation split, told in a line, too: PSNR, gain over ``base``."""

    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        x = torch.from_numpy(low).to(fabric.device)
        with fabric.autocast():
            return torch.stack([run.best(one[None, None])[0, 0].float() for one in x]).cpu().numpy()

    psnr = _psnr(predict, data, run.recipe.scale, slices)
    if psnr:
        over = degrade.named(data.degradation).baseline
        words = [f"{k} {v:.3f} dB ({v - base[k]:+.3f} over {over})" for k, v in psnr.items()]
        say(f"step {run.step}: {', '.join(words)}")
    gains = {f"gain_{k}": v - base[k] for k, v in psnr.items()}
    return {f"psnr_{k}": v for k, v in psnr.items()} | gains


@contextmanager
def _interruptions(alone: bool) -> Iterator[list[int]]:
    """Meanwhile Ctrl-C and SIGTERM are only noted, so that a step is ended and kept; a second one interrupts.

    Args:
        alone: there is no other process, which would not know of it and wait.

    Yields:
        the signals that came.
    """
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if not alone or threading.current_thread() is not threading.main_thread():
        yield came
        return
    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


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
        workers: processes that draw patches ahead; by default up to 8 beside a GPU. They draw the same.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the step is ended and kept; the same call continues.
    """
    if workers is None:  # on a CPU the network needs every core itself
        workers = 0 if fabric.device.type == "cpu" else min(8, cpus() - 1)
    run, loader = _begin(recipe, data, out, fabric, workers)
    if command not in run.command.split("; then "):
        run.command = "; then ".join(filter(None, [run.command, command]))
    network, optimizer = fabric.setup(run.network, run.optimizer)
    run.optimizer = optimizer.optimizer
    run.average.to(fabric.device)
    hidden = not fabric.is_global_zero or QUIET.get()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard imports TensorFlow where there is one
    board = TensorBoardLogger(out, name="", version="", purge_step=run.step)
    _ = board.experiment  # says what is missing before the bar is there
    base = _base(recipe, data, slices) if fabric.is_global_zero else {}
    if fabric.is_global_zero and not base:
        say(f"{data.root}: no scan of the split val; nothing is validated")
    if recipe.init and not run.step and not run.rows and fabric.is_global_zero:
        run.rows.append({"step": 0} | _validate(run, data, fabric, slices, base))
        _record(run, out, board)
    fabric.barrier()
    bar = tqdm(total=recipe.steps, initial=run.step, unit="step", disable=hidden, smoothing=0.05)
    began = mark = time.perf_counter()
    first, seen, loss_sum = run.step, run.patches, torch.zeros((), device=fabric.device)
    with _interruptions(fabric.world_size == 1) as came:
        for pair in loader:
            loss_sum += _learn(run, network, optimizer, fabric, pair)
            bar.update()
            paused = bool(came)
            if minutes < math.inf:  # every process must see the same answer
                paused |= fabric.broadcast(time.perf_counter() - began > 60 * minutes)
            judged = run.step % validate_every == 0 or run.step == recipe.steps
            if run.step % every and not judged and not paused:
                continue
            clock = time.perf_counter()
            run.seconds += clock - mark
            row = {"step": run.step, "loss": float(loss_sum) / (run.step - first)}
            row |= {"lr": rate(recipe, run.step - 1), "patches_per_s": (run.patches - seen) / (clock - mark)}
            if fabric.is_global_zero:
                if judged and (not came or run.step == recipe.steps):
                    row |= _validate(run, data, fabric, slices, base)
                run.rows.append(row)
                _record(run, out, board)
                bar.set_postfix(loss=f"{row['loss']:.5f}", patches_per_s=f"{row['patches_per_s']:.1f}")
            fabric.barrier()
            mark, first, seen = time.perf_counter(), run.step, run.patches
            loss_sum = torch.zeros_like(loss_sum)
            if paused or came:
                break
    bar.close()
    board.finalize("")
    if came and run.step < recipe.steps:
        raise KeyboardInterrupt(
            f"{out}: paused at step {run.step} of {recipe.steps}; the same command continues there"
        )
    return run


def _base(recipe: Recipe, data: PreparedSet, slices: int) -> dict[str, float]:
    """PSNR of what gains are over, bicubic or zero-filling, on the slices that are validated."""
    return _psnr(
        CLASSICAL[degrade.named(data.degradation).baseline](recipe.scale, 0), data, recipe.scale, slices
    )


def _begin(
    recipe: Recipe, data: PreparedSet, out: Path, fabric: Fabric, workers: int
) -> tuple[Run, DataLoader[Sequence[Tensor]]]:
    """The run, new or from its checkpoint, and the batches of the steps that it has not made yet."""
    if data.degradation != recipe.degradation:
        raise BadInput(f"{data.root} holds {data.degradation} pairs, the recipe wants {recipe.degradation}")
    patches = Patches(data, "train", recipe.scale, recipe.seed, recipe.augment)
    run = Run(recipe, fresh=not (out / CHECKPOINT).is_file())
    if (out / CHECKPOINT).is_file():
        run.restore(out / CHECKPOINT)
    run.scans += [scan for scan in data.scans("train") if scan not in run.scans]
    if run.step != fabric.broadcast(run.step):
        raise BadInput(f"{out}: processes start from different steps; RUN must be on a disk they share")
    if fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
    batches = Batches(patches, recipe, fabric.global_rank, fabric.world_size)
    steps, pinned = range(run.step, recipe.steps), fabric.device.type == "cuda"
    apart: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "spawn"} if workers else {}
    return run, DataLoader(batches, batch_size=None, sampler=steps, pin_memory=pinned, **apart)


def _learn(
    run: Run, network: nn.Module, optimizer: Optimizer, fabric: Fabric, pair: Sequence[Tensor]
) -> Float[Tensor, ""]:
    """One step of the run; the loss before it."""
    recipe = run.recipe
    low, high = (side.to(fabric.device, non_blocking=True) for side in pair)
    now = rate(recipe, run.step)
    for group in optimizer.param_groups:
        group["lr"] = now * group["factor"]
    predicted = network(low.to(memory_format=torch.channels_last)).float()
    loss = LOSSES[stage(recipe, run.step)[0]](predicted, high)
    optimizer.zero_grad()
    fabric.backward(loss)
    _clip(fabric, network, optimizer, recipe, now)
    optimizer.step()
    if recipe.ema:
        run.average.update_parameters(run.network)
    run.step += 1
    run.patches += len(low) * fabric.world_size
    return loss.detach()


def _record(run: Run, out: Path, board: TensorBoardLogger) -> None:
    """The last row to TensorBoard, all of them to log.csv, and the checkpoint."""
    board.log_metrics(run.rows[-1], run.step)
    names = list(dict.fromkeys([*("step", "loss", "lr", "patches_per_s"), *(k for r in run.rows for k in r)]))
    with files.atomic(out / "log.csv") as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(run.rows)
    run.save(out / CHECKPOINT)
