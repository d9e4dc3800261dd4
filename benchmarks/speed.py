"""The network's time, run in several ways in turn, and how near that is to what the machine can do.

    python benchmarks/speed.py --scale 2          # 120x120x96 voxels, on a quiet machine
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/speed.py --repeats 3         # without AMX and AVX-512
    python benchmarks/speed.py --device cuda

The same shipped SERAN: PyTorch in float32 as research code runs it, PyTorch in bf16 with channels last, ONNX
Runtime in float32, and what `seran upscale` does, as it is and with `--precision int8`. Every way gets the
volume in memory and returns it. The ceiling is the best rate of any bf16 matrix product tried in the same
run, by PyTorch and by OpenVINO, small ones that stay in a core's cache included. Where the processor does not
compute bf16, or may not, float32 takes its place everywhere. On a GPU, float32 is without TF32 and
the only other way. Rates count the operations of the network as it was trained; seran makes fewer of them
(`seran.subpixel`; MNN's convolutions).

On a CPU there are two more ways: the method `fast`, whose rate is that of its own operations; and seran on
one thread, held against the ceiling of one thread. Where cores share a matrix unit (AMX), one thread may
already have its full rate; then no division of the work among cores makes the network faster.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Literal

import numpy as np
import onnxruntime
import torch
import tyro
from measure import in_turn, record, spread
from numpy import ndarray
from torch.utils.flop_counter import FlopCounterMode

from seran import weights
from seran.engines import Engine
from seran.engines.openvino import native
from seran.engines.runtime import hint, opset, ov, properties
from seran.engines.torch import load, network
from seran.machine import cpus
from seran.methods import method

SIDES = {2: 120, 3: 80, 4: 60}
"""Low-resolution pixels a side, so that a slice of the result has 240."""
PRODUCTS = (
    (128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048),
    (14400, 576, 64),
)  # fmt: skip
"""Rows, inner dimension, columns of the products of the ceiling; the last is a layer of the network."""
LARGER = ((4096, 4096, 4096), (8192, 8192, 8192))
"""What a GPU gets besides."""

Way = Callable[[ndarray], ndarray]


def eager(held: weights.Weights, device: str) -> Way:
    """PyTorch, float32, contiguous, slice by slice: what a research repository does."""
    made = network(held).to(device)

    @torch.inference_mode()
    def run(low: ndarray) -> ndarray:
        return np.stack(
            [made(torch.from_numpy(one)[None, None].to(device))[0, 0].cpu().numpy() for one in low]
        )

    return run


def onnx_runtime(data: bytes) -> Way:
    """ONNX Runtime's CPU provider, float32, slice by slice."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda low: np.concatenate([session.run(None, {"low": one[None, None]})[0][:, 0] for one in low])


def operations(held: weights.Weights, side: int) -> float:
    """Floating-point operations for one slice: two for each multiplication with an addition."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(held)(torch.zeros(1, 1, side, side))
    return counter.get_total_flops()


def by_torch(n: int, k: int, m: int, device: str, threads: int) -> Callable[[], object]:
    """A product in PyTorch."""
    torch.set_num_threads(threads)
    kind = torch.bfloat16 if device != "cpu" or native() == "bf16" else torch.float32
    a, b, out = (torch.randn(s).to(device, kind) for s in ((n, k), (k, m), (n, m)))
    return lambda: torch.matmul(a, b, out=out)


def by_openvino(n: int, k: int, m: int, _: str, threads: int) -> Callable[[], object]:
    """A product in OpenVINO."""
    a = opset.parameter([n, k], np.float32)
    product = opset.matmul(a, opset.constant(np.random.randn(k, m).astype(np.float32)), False, False)
    kind = ov.Type.bf16 if native() == "bf16" else ov.Type.f32
    setting = {hint.inference_precision: kind, properties.inference_num_threads: threads}
    request = ov.Core().compile_model(ov.Model([product], [a]), "CPU", setting).create_infer_request()
    request.set_input_tensor(ov.Tensor(np.random.randn(n, k).astype(np.float32)))
    return request.infer


def ceiling(device: str, threads: int, seconds: float = 0.5) -> tuple[float, str]:
    """The best rate of matrix products, in operations a second, and which product reaches it."""
    best, which = 0.0, ""
    libraries = {"PyTorch": by_torch} | ({"OpenVINO": by_openvino} if device == "cpu" else {})
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    for n, k, m in PRODUCTS + LARGER * (device != "cpu"):
        for library, make in libraries.items():
            product = make(n, k, m, device, threads)
            product()
            wait()
            began, repeats = time.perf_counter(), max(1, 10**9 // (2 * n * k * m))
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                for _ in range(repeats):
                    product()
                wait()
                rate = 2 * n * k * m * repeats / (time.perf_counter() - start)
                if rate > best:
                    best, which = rate, f"{library}, {n}x{k} by {k}x{m}"
    return best, which


def main(scale: int = 2, slices: int = 96, repeats: int = 5, device: Literal["cpu", "cuda"] = "cpu") -> None:
    """Time every way; print the table and keep it in results.md.

    Args:
        scale: 2, 3 or 4.
        slices: of the volume.
        repeats: how often every way gets the volume.
        device: where.
    """
    torch.set_num_threads(cpus())
    torch.backends.cudnn.allow_tf32 = False
    name, side = f"seran-x{scale}-bd", SIDES[scale]
    held, shipped = weights.read(weights.shipped()[name]), weights.shipped()
    low = np.random.default_rng(0).random((slices, side, side), dtype=np.float32)
    own = method("seran", scale, engine=Engine(device))
    last = f"seran: {own.engine}, {own.precision}"
    ways: dict[str, Way] = {"PyTorch, float32, contiguous": eager(held, device)}
    work = dict.fromkeys([*ways, last], operations(held, side) * slices)
    single = ""
    if device == "cpu":
        half, coarse = native(), method("seran", scale, engine=Engine(precision="int8"))
        tuned = load(held, Engine("cpu", half)).predict
        ways |= {
            f"PyTorch, {half.replace('f32', 'float32')}, channels last": tuned,
            "ONNX Runtime, float32": onnx_runtime(held.data),
            f"seran: {coarse.engine}, {coarse.precision}": coarse.predict,
        }
        if cpus() > 1:
            one = method("seran", scale, engine=Engine(threads=1))
            single = f"seran: {one.engine}, {one.precision}"
            ways[single] = one.predict
        work |= dict.fromkeys(ways, work[last])
        if (fast := f"fast-x{scale}-bd") in shipped:
            quick = method("fast", scale)
            words = f"fast: {quick.engine}, {quick.precision}"
            ways[words] = quick.predict
            work[words] = operations(weights.read(shipped[fast]), side) * slices
    ways[last] = own.predict
    seconds = in_turn({way: lambda run=run: run(low) for way, run in ways.items()}, repeats)
    best, which = ceiling(device, cpus())
    limits = dict.fromkeys(ways, best)
    lines = [
        f"{side}x{side}x{slices} voxels at x{scale}; seconds: median of {repeats} runs (least … most). "
        f"Operations: of the network as trained. Ceiling: {best / 1e12:.3f} TFLOP/s ({which}).",
    ]
    if single:
        limits[single], which = ceiling(device, 1)
        times = median(seconds[single]) / median(seconds[last])
        lines += [
            "",
            f"One thread: {limits[single] / 1e12:.3f} TFLOP/s ({which}), {limits[single] / best:.2f} of what "
            f"{cpus()} reach; the network takes {times:.2f} times as long on it.",
        ]
    lines += ["", "| way | seconds | of ours | TFLOP/s | of its ceiling |", "|---|---|---|---|---|"]
    for way, found in seconds.items():
        middle = median(found)
        lines.append(
            f"| {way} | {spread(found)} | {middle / median(seconds[last]):.2f}x | "
            f"{work[way] / middle / 1e12:.3f} | {work[way] / middle / limits[way]:.0%} |"
        )
    where = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    record(f"Network, x{scale}{where}", lines, ("torch", "onnxruntime", "openvino", "mnn"))


if __name__ == "__main__":
    tyro.cli(main)
