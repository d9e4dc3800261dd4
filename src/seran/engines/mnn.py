"""MNN on the CPU: what of a network has the size of its input, in float32, by Winograd's convolutions.

Those make a 3x3 convolution of up to four times fewer multiplications (Lavin and Gray, CVPR 2016); OpenVINO
and PyTorch convolve directly on x86. MNN's command ``mnnconvert`` tells its makers that it was called; the
converter inside, which is called here, opens no connection.
"""

import functools
import os
import tempfile
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from seran import files, machine

MOST_THREADS = 8  # with more, the blocks into which MNN divides one slice of 120x120 no longer suffice
FEATURES = 2500  # bytes for a pixel of a slice
KEPT: list[Any] = []  # every network that was loaded: none is taken down while the process lives


def suits(threads: int) -> bool:
    """Whether MNN is installed and pays with so many threads."""
    return threads <= MOST_THREADS and os.name == "posix" and util.find_spec("MNN") is not None


def trunk(
    data: bytes, output: str, threads: int
) -> tuple[Callable[[Float[ndarray, "1 m h w"]], Float[ndarray, "1 c h w"]], str]:
    """The first part of a network, for slices of any size, and the engine in words.

    MNN is loaded when it gets the first slice; what it returns holds until its next call.

    Args:
        data: an ONNX model with the input ``low`` (n, m, h, w).
        output: the name of what the part ends with, (n, c, h, w).
        threads: CPU threads.
    """
    kept = None  # MNN's variables own the memory that they are read from
    loaded = functools.cache(lambda: _load(data, output, threads))

    def run(low: Float[ndarray, "1 m h w"]) -> Float[ndarray, "1 c h w"]:
        nonlocal kept
        network, expr = loaded()
        try:
            found = network.forward([expr.const(low, list(low.shape), expr.NCHW)])
            kept = expr.convert(found[0], expr.NCHW)
            return kept.read()
        except (IndexError, SystemError) as error:  # there is nothing to read, and it does not say why
            why = f"MNN could not run the network on a slice of {low.shape[2]}x{low.shape[3]}"
            raise (MemoryError if machine.BOUND.get() else RuntimeError)(why) from error

    return run, f"MNN {metadata.version('mnn')}"


def _load(data: bytes, output: str, threads: int) -> tuple[Any, Any]:
    """A network of MNN's, and its module of expressions; without messages on the standard output."""
    with files.quiet(1), tempfile.TemporaryDirectory(prefix="seran-") as folder:
        import _tools
        from MNN import expr, nn

        source, made = Path(folder, "network.onnx"), Path(folder, "network.mnn")
        source.write_bytes(data)
        words = ["--modelFile", str(source), "--MNNModel", str(made), "--bizCode", "seran"]
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *words])
        if not made.is_file():
            raise RuntimeError("MNN could not convert the network")
        settings = {"backend": "CPU", "numThread": threads, "precision": "high"}
        runtime = nn.create_runtime_manager((settings,))
        KEPT.append(nn.load_module_from_file(str(made), ["low"], [output], runtime_manager=runtime))
        return KEPT[-1], expr
