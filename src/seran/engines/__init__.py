"""How a trained network is run: engines with one signature, ``load(weights, engine) -> Running``.

OpenVINO is the engine for CPUs, with MNN for a part of the network; torch (an optional dependency) is the
engine for CUDA and Apple GPUs.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran.errors import BadInput, refuse_unlisted
from seran.progress import PASSED

Precision = Literal["auto", "bf16", "f32", "int8"]
MOST_THREADS = 1024  # that may be asked for
Slices = Float[ndarray, "n h w"] | Float[ndarray, "n c h w"]  # the latter with what a network is told
Predict = Callable[[Slices], Float[ndarray, "n sh sw"]]


@dataclass(frozen=True)
class Engine:
    """How networks are run.

    Attributes:
        device: ``auto`` and ``cpu`` use OpenVINO, and MNN for float32 where it suits; ``cuda``, ``cuda:N``
            and ``mps`` use PyTorch.
        precision: of the convolutions; ``auto`` is bf16 where the processor has it; int8 is for the CPU and
            weights that are calibrated for it.
        threads: CPU threads, up to 1024; 0: OMP_NUM_THREADS where that is set, or every CPU this process
            may use.
    """

    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise BadInput(f"--device {self.device}: expected auto, cpu, cuda, cuda:N or mps")
        refuse_unlisted("precision", self.precision, get_args(Precision))
        refuse_threads(self.threads)
        if self.precision == "int8" and self.device not in ("auto", "cpu"):
            raise BadInput(f"--precision int8: is for the CPU, not --device {self.device}")


def refuse_threads(threads: int) -> None:
    """Raise `BadInput` for more threads than there can be."""
    if not 0 <= threads <= MOST_THREADS:
        raise BadInput(f"--threads {threads}: must be from 0 (the default) to {MOST_THREADS}")


@dataclass(frozen=True)
class Running:
    """A network that is ready to run."""

    predict: Predict  # slices of about [0, 1] to finer ones; of threads that call it at once, one waits
    engine: str  # what runs it, in words
    precision: str  # bf16, f32 or int8


@dataclass(frozen=True)
class Lane:
    """What computes one batch of slices at a time, beside others."""

    start: Callable[[Float[ndarray, "n c h w"]], Any]  # may return before the slices are done
    result: Callable[[Any], Float[ndarray, "n sh sw"]]  # of what `start` returned; it holds until the next


def predictor(factors: tuple[int, int], lanes: Callable[[int, int], tuple[Sequence[Lane], int]]) -> Predict:
    """A predictor. Lanes take turns: while one computes, what others made is fetched, and told of.

    Args:
        factors: fine rows and columns for each of a slice.
        lanes: gives those for slices of h x w pixels, and how many slices one gets at a time.
    """
    turn = threading.Lock()

    def predict(low: Slices) -> Float[ndarray, "n sh sw"]:
        low = low[:, None] if low.ndim == 3 else low
        n, _, h, w = low.shape
        high = np.empty((n, factors[0] * h, factors[1] * w), np.float32)
        started, passed = deque[Any](), PASSED.get()
        with turn:  # lanes serve one caller at a time
            found, batch = lanes(h, w)
            parts = [slice(i, i + batch) for i in range(0, n, batch)]
            for i in range(len(parts) + len(found)):
                lane, done = found[i % len(found)], i - len(found)
                if done >= 0:
                    made = lane.result(started.popleft())
                    if made.shape == high[parts[done]].shape:
                        high[parts[done]] = made
                    else:  # of no network of this scale; what others have begun is awaited
                        high[parts[done]] = np.nan
                    passed(len(high[parts[done]]))
                if i < len(parts):
                    started.append(lane.start(np.ascontiguousarray(low[parts[i]], np.float32)))
        if not np.isfinite(high).all():
            told = "use other weights or another --precision, or mend damaged intensities of the scan"
            raise BadInput(f"the network's result is no image of finite values; {told}")
        return high

    return predict
