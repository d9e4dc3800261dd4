"""Train the native network: one loop, one scale per step, a cosine over the wall clock.

``python paper/native/train.py PACKED RUN --minutes 110``; the same command continues from
RUN/checkpoint.safetensors. At the end RUN/final.safetensors holds the averaged weights.
"""

import csv
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from draw import Draw
from network import SCALES, Native, warm
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tyro.conf import Positional

SHARES = {1: 0.15, 2: 0.5, 3: 0.2, 4: 0.15}
STAGES = {"l1": (32, 8, 2), "l2": (48, 8, 1)}
"""Loss -> low pixels a side, slices, patches of each."""
CLIP, EMA, WARMUP, TAIL = 0.5, 0.998, 100, 0.25
ERROR = 0.015
"""Of a scan without noise, about, as a standard deviation; see `weigh`."""
BETAS = (0.9, 0.99)


def rate(lr: float, step: int, done: float) -> float:
    """Learning rate; ``done`` of the time is over."""
    return lr * min(1.0, (step + 1) / WARMUP) * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


def scale_of(seed: int, step: int) -> int:
    """Which head a step trains."""
    return int(np.random.default_rng((seed, step, 1)).choice(list(SHARES), p=list(SHARES.values())))


def weigh(told: torch.Tensor, power: int) -> torch.Tensor:
    """What the patches of a batch count, (b, 1, 1, 1) of mean 1: noisy ones less, so that dB count alike.

    One over the expected error, to the power of the loss; otherwise the noisiest scans decide alone.
    """
    sigma = told[:, 0] ** 2 / 20
    weight = (1 + (sigma / (2 * ERROR)) ** 2) ** (-power / 2)
    return (weight / weight.mean())[:, None, None, None]


def write(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, str]) -> None:
    """Atomically."""
    part = path.with_suffix(".part")
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, part, meta)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)


class Run:
    """Network, its average, optimiser, step and seconds."""

    def __init__(self, lr: float) -> None:
        self.network = warm(Native()).to(memory_format=torch.channels_last)
        self.average = warm(Native()).to(memory_format=torch.channels_last).requires_grad_(False)
        self.names = [k for k, _ in self.network.named_parameters()]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=lr, betas=BETAS, fused=True)
        self.step, self.seconds, self.patches = 0, 0.0, 0

    def save(self, path: Path) -> None:
        """Everything to one file."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        write(path, tensors, {"state": json.dumps([self.step, self.seconds, self.patches])})

    def restore(self, path: Path) -> None:
        """Go on from a file."""
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            self.step, self.seconds, self.patches = json.loads(file.metadata()["state"])
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        self.network.load_state_dict(parts["network"])
        self.average.load_state_dict(parts["average"])
        kept: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, name = key.split(".")
            laid = value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
            kept.setdefault(int(index), {})[name] = laid
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": kept})

    @torch.no_grad()
    def averaged(self) -> None:
        """One step of the moving average."""
        weight = 1 - min(EMA, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), weight)


def main(
    packed: Positional[Path],
    run_folder: Positional[Path],
    minutes: float = 110,
    lr: float = 4e-4,
    seed: int = 0,
    every: int = 100,
    stop: float = math.inf,
) -> None:
    """Train, or go on.

    Args:
        packed: the folder of `draw.py`.
        run_folder: of the checkpoint and the log.
        minutes: of training in all; the rate falls over them.
        lr: the highest learning rate.
        seed: of what is drawn.
        every: steps between rows of the log.
        stop: end this call after so many seconds.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = run_folder / "checkpoint.safetensors", run_folder / "log.csv"
    draw, run = Draw(packed, "train", seed), Run(lr)
    if checkpoint.is_file():
        run.restore(checkpoint)
    first, began, drawing, saved = run.seconds, time.perf_counter(), 0.0, time.perf_counter()
    losses: dict[int, list[float]] = {s: [] for s in SCALES}
    mark, mark_patches = began, run.patches
    budget = 60 * minutes
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))  # saves, and can go on
    while run.seconds < budget and run.seconds - first < stop and not ended:
        done, scale, clock = run.seconds / budget, scale_of(seed, run.step), time.perf_counter()
        stage = "l1" if done < 1 - TAIL else "l2"
        low, told, high = draw.batch(run.step, scale, *STAGES[stage])
        drawing += time.perf_counter() - clock
        now_lr = rate(lr, run.step, done)
        for group in run.optimizer.param_groups:
            group["lr"] = now_lr
        with torch.autocast("cpu", torch.bfloat16):
            made = run.network(low, told, scale)
        power = 1 if stage == "l1" else 2
        loss = (weigh(told, power) * (made - high).abs() ** power).mean()
        run.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(run.network.parameters(), CLIP)
        run.optimizer.step()
        run.averaged()
        run.step, run.patches = run.step + 1, run.patches + len(low)
        run.seconds = first + time.perf_counter() - began
        losses[scale].append(float(loss.detach()))
        if run.step % every == 0:
            now = time.perf_counter()
            row = {"step": run.step, "seconds": round(run.seconds, 1), "lr": f"{now_lr:.3g}"}
            row |= {"loss": stage}
            row |= {f"x{s}": f"{np.mean(v):.6f}" if v else "" for s, v in losses.items()}
            row["patches_per_s"] = f"{(run.patches - mark_patches) / (now - mark):.2f}"
            row["drawing"] = f"{drawing / (now - mark):.3f}"
            with log.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
            sys.stderr.write(f"{row}\n")
            losses, mark, mark_patches, drawing = {s: [] for s in SCALES}, now, run.patches, 0.0
        if time.perf_counter() - saved > 300:
            run.save(checkpoint)
            saved = time.perf_counter()
    run.save(checkpoint)
    if run.seconds >= budget:
        meta = {"steps": str(run.step), "seconds": str(run.seconds), "patches": str(run.patches)}
        write(run_folder / "final.safetensors", run.average.state_dict(), meta)
        sys.stderr.write(f"finished: {meta}\n")


if __name__ == "__main__":
    tyro.cli(main)
