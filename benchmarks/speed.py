"""The network's time, run in four ways, in turn, and how near that is to what the machine can do.

    python benchmarks/speed.py                     # 120x120x96 voxels at x2, on a quiet machine
    python benchmarks/speed.py --scale 4 --repeats 3 --slices 16

The same shipped SERAN: PyTorch in float32 as research code runs it, PyTorch in bf16 with channels last, ONNX Runtime
in float32, and what `seran upscale` does. Every way gets the whole volume in memory and returns it; nothing is read
or written. The ceiling is the best rate of any bf16 matrix product tried in the same run, small ones included that
stay in a core's cache.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import onnxruntime
import torch
import tyro
from numpy import ndarray
from torch.utils.flop_counter import FlopCounterMode

from seran import weights
from seran.engines.torch import load, network
from seran.machine import cpus
from seran.methods import Engine, method

SIDES = {2: 120, 3: 80, 4: 60}
"""Low-resolution pixels a side, so that a slice of the result has 240."""
PRODUCTS = ((128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (4096, 576, 64), (2048, 2048, 2048))
"""Rows, inner dimension and columns of the matrix products of the ceiling."""

Way = Callable[[ndarray], ndarray]


def eager(data: bytes, card: weights.Card) -> Way:
    """PyTorch, float32, contiguous, slice by slice: what a research repository does."""
    made = network(data, card)

    @torch.inference_mode()
    def run(low: ndarray) -> ndarray:
        return np.stack([made(torch.from_numpy(one)[None, None])[0, 0].numpy() for one in low])

    return run


def onnx_runtime(data: bytes) -> Way:
    """ONNX Runtime's CPU provider, float32, slice by slice."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda low: np.concatenate([session.run(None, {"low": one[None, None]})[0][:, 0] for one in low])


def operations(data: bytes, card: weights.Card, side: int) -> float:
    """Floating-point operations for one slice."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(data, card)(torch.zeros(1, 1, side, side))
    return counter.get_total_flops()


def ceiling(seconds: float = 1.0) -> tuple[float, str]:
    """The best rate of bf16 matrix products, in operations a second, and the sizes that reach it."""
    best, which = 0.0, ""
    for n, k, m in PRODUCTS:
        a, b = torch.randn(n, k).bfloat16(), torch.randn(k, m).bfloat16()
        out = a @ b
        began, count, times = time.perf_counter(), 0, []
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            repeats = max(1, 10**9 // (2 * n * k * m))
            for _ in range(repeats):
                torch.matmul(a, b, out=out)
            times.append((time.perf_counter() - start) / repeats)
            count += 1
        rate = 2 * n * k * m / min(times)
        if rate > best:
            best, which = rate, f"{n}x{k} by {k}x{m}"
    return best, which


def main(scale: int = 2, slices: int = 96, repeats: int = 5) -> None:
    """Time and print.

    Args:
        scale: 2, 3 or 4.
        slices: of the volume.
        repeats: how often every way gets the volume.
    """
    torch.set_num_threads(cpus())
    name = f"seran-x{scale}-bd"
    data, card, _ = weights.read(weights.shipped()[name])
    side = SIDES[scale]
    low = np.random.default_rng(0).random((slices, side, side), dtype=np.float32)
    default = method("seran", scale, engine=Engine())
    ways: dict[str, Way] = {
        "PyTorch float32, contiguous": eager(data, card),
        "PyTorch bf16, channels last": load(data, card, "cpu", "bf16")[0],
        "ONNX Runtime float32": onnx_runtime(data),
        f"seran ({default.engine}, {default.precision})": default.predict,
    }
    for run in ways.values():
        run(low[:2])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            began = time.perf_counter()
            run(low)
            seconds[way].append(time.perf_counter() - began)
    most, which = ceiling()
    work = operations(data, card, side) * slices
    own = median(seconds[default_name := list(ways)[-1]])
    print(f"{name}, {side}x{side}x{slices} voxels, {cpus()} threads, median of {repeats} runs in turn")  # noqa: T201
    print(f"ceiling: {most / 1e12:.3f} TFLOP/s (bf16 product of {which})\n")  # noqa: T201
    print("| way | seconds | from … to | of ours | TFLOP/s | of the ceiling |\n|---|---|---|---|---|---|")  # noqa: T201
    for way, found in seconds.items():
        mid = median(found)
        print(  # noqa: T201
            f"| {way} | {mid:.2f} | {min(found):.2f} … {max(found):.2f} | {mid / own:.2f}x | "
            f"{work / mid / 1e12:.3f} | {work / mid / most:.0%} |"
        )
    del default_name


if __name__ == "__main__":
    tyro.cli(main)
