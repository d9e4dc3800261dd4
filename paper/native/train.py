"""Training of the networks for native scans: one loop for every device, a cosine over the wall clock.

A step trains one ending of a network that has several: a scale of the native one, a factor across slices.

`kit.py train` runs it. It goes on from the checkpoint in the folder of the run, or from a newer one that was
brought in parts. At the end RUN/final.safetensors holds the averaged weights.
"""

import csv
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import network
import numpy as np
import shards
import thick
import torch
from draw import Draw
from network import Native, joined, parameters, told
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from seran import files, weights
from seran.data.simulate import Size
from seran.errors import BadInput
from seran.models.native import FastNative

Sizes = dict[str, dict[str, Size]]
"""Device -> loss -> batch; a GPU wants large ones, of few scans: each costs the CPU about a millisecond."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        network: makes it.
        warm: what training began with, where no weights are named.
        weights: those that are in the repository.
        shares: of the steps, for each ending.
        sizes: of batches.
        draw: what makes them, from volumes, a seed and a device.
        lr: the highest learning rate, where none is named.
    """

    network: Callable[[], nn.Module]
    warm: Callable[[Any], nn.Module]
    weights: Path
    shares: dict[int, float]
    sizes: Sizes
    draw: Callable[[Any, int, str], Any]
    lr: float = 2.5e-4


IN_PLANE: Sizes = {
    "cpu": {"l1": Size((32, 32), 8, 1, 2), "l2": Size((48, 48), 8, 1, 1)},
    "cuda": {"l1": Size((32, 32), 8, 4, 4), "l2": Size((48, 48), 8, 4, 2)},
}

TASKS = {
    "native": Task(
        Native,
        network.warm,
        weights.SHIPPED / "seran-native.onnx",
        {1: 0.15, 2: 0.5, 3: 0.2, 4: 0.15},
        IN_PLANE,
        Draw,
    ),
    "fast": Task(
        FastNative,
        network.fresh,
        Path(__file__).parent / "fast" / "fast-native.safetensors",
        {1: 0.15, 2: 0.45, 3: 0.2, 4: 0.2},
        IN_PLANE,
        Draw,
        1.5e-3,
    ),
    "isotropic": Task(
        thick.Isotropic,
        thick.warm,
        weights.SHIPPED / "seran-isotropic.onnx",
        {2: 0.1, 3: 0.2, 4: 0.2, 5: 0.2, 6: 0.12, 7: 0.12, 8: 0.06},
        {
            "cpu": {"l1": Size((20, 40), 8, 1, 2), "l2": Size((24, 64), 8, 1, 1)},
            "cuda": {"l1": Size((20, 40), 8, 4, 4), "l2": Size((24, 64), 8, 4, 2)},
        },
        thick.ThickDraw,
    ),
}
CLIP, EMA, WARMUP, TAIL = 0.5, 0.998, 100, 0.25
ERROR = 0.015
"""Of a scan without noise, about, as a standard deviation; see `weigh`."""
BETAS = (0.9, 0.99)
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        task: of `TASKS`.
        minutes: of training in all; the rate falls over them.
        stop: pause after so many minutes of this call.
        save: minutes between checkpoints.
        every: steps between rows of the log.
        lr: the highest learning rate; without it that of the task.
        seed: of what is drawn.
        device: cpu or cuda.
        weights: to begin with; without them those of the task; ``start``: what its first training began with.
        result: a folder for the weights, the log, and the checkpoint in parts, at every checkpoint.
        compiled: the body of the network by torch.compile.
    """

    task: str = "native"
    minutes: float = 110
    stop: float = math.inf
    save: float = 5
    every: int = 100
    lr: float | None = None
    seed: int = 0
    device: str = "cpu"
    weights: Path | None = None
    result: Path | None = None
    compiled: bool = False


def rate(lr: float, step: int, done: float) -> float:
    """Learning rate; ``done`` of the time is over."""
    return lr * min(1.0, (step + 1) / WARMUP) * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


def ending(task: Task, seed: int, step: int) -> int:
    """Which one a step trains."""
    drawn = np.random.default_rng((seed, step, 1)).choice(list(task.shares), p=list(task.shares.values()))
    return int(drawn)


def weigh(sigma: Tensor, power: int) -> Tensor:
    """What the patches of a batch count, (b, 1, 1, 1) of mean 1: noisy ones less, so that dB count alike.

    One over the expected error, to the power of the loss; otherwise the noisiest scans decide alone.
    """
    weight = (1 + (sigma / (2 * ERROR)) ** 2) ** (-power / 2)
    return (weight / weight.mean())[:, None, None, None]


def write(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Atomically."""
    with files.atomic(path) as part:
        part.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, meta))


class Run:
    """Network, its average, optimiser, step and seconds."""

    def __init__(self, network: nn.Module, lr: float, device: str) -> None:
        """A run that begins with a network's parameters."""
        self.network = network.to(device, memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=lr, betas=BETAS, fused=True)
        self.step, self.seconds, self.patches = 0, 0.0, 0

    def save(self, path: Path) -> None:
        """Everything to one file."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        write(path, tensors, {"state": json.dumps([self.step, self.seconds, self.patches])})

    def restore(self, path: Path) -> None:
        """Go on from a file, of whatever device."""
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
        with safe_open(path, "pt") as file:
            self.step, self.seconds, self.patches = json.loads(file.metadata()["state"])
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
        self.network.load_state_dict(parts["network"])
        for name, value in self.average.items():
            value.copy_(parts["average"][name])
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, name = key.split(".")
            laid = value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
            kept.setdefault(int(index), {})[name] = laid
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": kept})

    @torch.no_grad()
    def averaged(self) -> None:
        """One step of the moving average."""
        weight, current = 1 - min(EMA, (self.step + 1) / (self.step + 10)), self.network.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [current[k] for k in self.average], weight)

    def weights(self, path: Path) -> None:
        """The averaged weights as float16, with what they were trained for."""
        meta = {"steps": str(self.step), "seconds": str(self.seconds), "patches": str(self.patches)}
        write(path, {k: v.half() for k, v in self.average.items()}, meta)


def begin(options: Options, kit: Path, folder: Path) -> Run:
    """A run, from the newest checkpoint there is, or from weights."""
    task = TASKS[options.task]
    made, begun = task.network(), options.weights or task.weights
    if begun == Path("start"):
        task.warm(made)
    else:
        made.load_state_dict(parameters(begun))
    run, checkpoint = Run(made, options.lr or task.lr, options.device), folder / CHECKPOINT
    if checkpoint.is_file():
        run.restore(checkpoint)
    if (kit / shards.PARTS).is_file() and json.loads((kit / shards.PARTS).read_text())["step"] > run.step:
        shards.join(kit, checkpoint)
        run.restore(checkpoint)
    sys.stderr.write(f"step {run.step}, {run.seconds / 60:.1f} of {options.minutes:g} minutes are over\n")
    return run


def learn(run: Run, draw: Draw | thick.ThickDraw, options: Options) -> tuple[int, Tensor]:
    """One step: the ending that was trained, and the loss before it."""
    task = TASKS[options.task]
    done, scale = run.seconds / (60 * options.minutes), ending(task, options.seed, run.step)
    loss_name = "l1" if done < 1 - TAIL else "l2"
    low, facts, high = draw.batch(run.step, scale, task.sizes[options.device][loss_name])
    for group in run.optimizer.param_groups:
        group["lr"] = rate(options.lr or task.lr, run.step, done)
    with torch.autocast(options.device, torch.bfloat16):
        made = run.network(joined(low, told(facts)).contiguous(memory_format=torch.channels_last), scale)
    power = 1 if loss_name == "l1" else 2
    loss = (weigh(facts[:, 0], power) * (made - high).abs() ** power).mean()
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.network.parameters(), CLIP)
    run.optimizer.step()
    run.averaged()
    run.step, run.patches = run.step + 1, run.patches + len(low)
    return scale, loss.detach()


def keep(run: Run, folder: Path, result: Path | None) -> None:
    """Write the checkpoint, and what leaves the machine."""
    run.save(folder / CHECKPOINT)
    if result:
        shards.split(folder / CHECKPOINT, result, run.step)
        run.weights(result / "weights.safetensors")
        if (folder / "log.csv").is_file():
            shutil.copy(folder / "log.csv", result)


def train(kit: Path, folder: Path, options: Options) -> Run:
    """Train, or go on.

    Args:
        kit: what `kit.py unpack` made.
        folder: of the checkpoint and the log.
        options: how.
    """
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    folder.mkdir(parents=True, exist_ok=True)
    for text in shards.missing(kit):
        sys.stderr.write(f"not there yet: {text}\n")
    run = begin(options, kit, folder)
    task, scans = TASKS[options.task], shards.drawn(kit)
    if not scans:
        raise BadInput(f"{kit}: no volume of the split train has come yet")
    draw = task.draw(scans, options.seed, options.device)
    if options.compiled:
        compile_body(run.network, options.device)
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # saves, and can go on
        signal.signal(number, lambda received, _: ended.append(received))
    first, began = run.seconds, time.perf_counter()
    saved, log = began, Log(folder / "log.csv", run, list(task.shares))
    while run.seconds < 60 * options.minutes and run.seconds - first < 60 * options.stop and not ended:
        log.add(*learn(run, draw, options))
        run.seconds = first + time.perf_counter() - began
        if run.step % options.every == 0:
            log.row()
        if time.perf_counter() - saved > 60 * options.save:
            keep(run, folder, options.result)
            saved = time.perf_counter()
    if options.device == "cuda":
        torch.cuda.synchronize()
    keep(run, folder, options.result)
    if run.seconds >= 60 * options.minutes:
        run.weights(folder / "final.safetensors")
    sys.stderr.write(f"paused or finished at step {run.step}: {run.patches} patches, {run.seconds:.0f} s\n")
    return run


class Log:
    """Rows of a CSV file: mean losses by ending and patches a second since the last row."""

    def __init__(self, path: Path, run: Run, endings: list[int]) -> None:
        self.path, self.run, self.endings = path, run, endings
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.losses: dict[int, list[Tensor]] = {s: [] for s in self.endings}
        self.mark, self.patches = time.perf_counter(), self.run.patches

    def add(self, scale: int, loss: Tensor) -> None:
        """A step's; it is read when the row is written, because reading waits for the device."""
        self.losses[scale].append(loss)

    def row(self) -> None:
        """Write one."""
        means = {f"x{s}": f"{torch.stack(v).mean():.6f}" if v else "" for s, v in self.losses.items()}
        speed = (self.run.patches - self.patches) / (time.perf_counter() - self.mark)
        lr = self.run.optimizer.param_groups[0]["lr"]
        row = {"step": self.run.step, "seconds": round(self.run.seconds, 1), "lr": f"{lr:.3g}", **means}
        row |= {"patches_per_s": f"{speed:.2f}"}
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        sys.stderr.write(f"{row}\n")
        self.forget()


def compile_body(network: nn.Module, device: str) -> None:
    """torch.compile for the body, tried at once; without it if that fails, and a line says so."""
    body = network.body
    assert isinstance(body, nn.Module)
    body.compile()
    try:
        x = torch.rand(2, 64, 32, 32, device=device).to(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            body(x).float().sum().backward()
    except Exception as error:  # whatever a compiler raises
        body._compiled_call_impl = None
        sys.stderr.write(f"WARNING: not compiled: {type(error).__name__}: {str(error)[:300]}\n")
    network.zero_grad()
