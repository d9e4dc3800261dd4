"""How a trained network is run: engines with one signature, ``load(weights, engine) -> Running``.

OpenVINO is the engine for CPUs, with MNN for a part of the network; torch (an optional dependency) is the
engine for CUDA and Apple GPUs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran.errors import BadInput

Precision = Literal["auto", "bf16", "f32", "int8"]


@dataclass(frozen=True)
class Engine:
    """How networks are run.

    Attributes:
        device: ``auto`` and ``cpu`` use OpenVINO, and MNN for float32 where it suits; ``cuda``, ``cuda:N``
            and ``mps`` use PyTorch.
        precision: of the convolutions; ``auto`` is bf16 where the processor has it; int8 is for the CPU and
            weights that are calibrated for it.
        threads: CPU threads; 0 for every CPU this process may use.

    Raises:
        BadInput: for an unknown device, a negative number of threads, or int8 on a GPU.
    """

    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise BadInput(f"--device {self.device}: expected auto, cpu, cuda, cuda:N or mps")
        if self.threads < 0:
            raise BadInput(f"--threads {self.threads}: must be 0 (all) or more")
        if self.precision == "int8" and self.device not in ("auto", "cpu"):
            raise BadInput(f"--precision int8: is for the CPU, not --device {self.device}")


@dataclass(frozen=True)
class Running:
    """A network that is ready to run.

    Attributes:
        predict: slices of about [0, 1] to finer ones; of threads that call it at once, one waits.
        engine: what runs it, in words.
        precision: bf16, f32 or int8.
    """

    predict: Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]]
    engine: str
    precision: str


@runtime_checkable
class Lane(Protocol):
    """What computes one batch at a time, beside others."""

    def start(self, low: Float[ndarray, "n h w"]) -> None:
        """Give it slices; it may return before they are done."""

    def result(self) -> Float[ndarray, "n sh sw"]:
        """What it made of them, valid until the next start."""


def in_turn(
    low: Float[ndarray, "n h w"],
    high: Float[ndarray, "n sh sw"],
    lanes: Sequence[Lane],
    batch: int,
) -> None:
    """Every slice of ``low`` to its place in ``high``; the lanes take turns at batches.

    Args:
        low: the slices.
        high: is filled.
        lanes: one or more; each computes a batch while the others' results are fetched.
        batch: slices that a lane gets at a time.
    """
    parts = [slice(i, i + batch) for i in range(0, len(low), batch)]
    for i in range(len(parts) + len(lanes)):
        lane, done = lanes[i % len(lanes)], i - len(lanes)
        if done >= 0:
            high[parts[done]] = lane.result()
        if i < len(parts):
            lane.start(np.ascontiguousarray(low[parts[i]], np.float32))
