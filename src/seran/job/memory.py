"""How much memory a scan takes, told before it is taken, and refused where less is allowed.

A process has its libraries, a network with the features of the slices that it is at work on, and the arrays
of a volume, as far as they do not lie on disk (`seran.scratch`), with a few blocks of them in work.
``benchmarks/memory.py`` holds the sum against what a process takes for itself, which is what ``--mem-mb``
bounds.
"""

from collections.abc import Sequence
from math import prod

from seran import machine, progress, scratch
from seran.engines import Engine, mnn
from seran.errors import BadInput

LIBRARIES, NETWORK = 185e6, 150e6  # bytes
COPIES = 3.3  # of a block of the largest image, at the same time: as it is made, checked and written
MORE = 1.25  # times what is needed, that is advised


def foresee(
    name: str, images: Sequence[Sequence[int]], slices: Sequence[Sequence[int]], engine: Engine
) -> None:
    """Tell about how many bytes a process takes at most; `BadInput` if fewer are allowed.

    Args:
        name: of the scan.
        images: shapes of those that become of it, and of its volumes that are read at once.
        slices: rows and columns of what each network gets; none without networks.
        engine: how they are run.
    """
    block = min(scratch.PART, 4 * max(map(prod, images)))
    need = LIBRARIES + sum(map(_held, images)) + COPIES * block
    need += max((NETWORK + _features(prod(one), engine) for one in slices), default=0.0)
    progress.log.info("about %s of memory", machine.amount(need))
    progress.needing(need)
    if (most := machine.allowed()) < need:
        least = f"give --mem-mb {machine.rounded(MORE * need)} or more"
        hint = least if machine.BOUND.get() else "allow each process more (--mem-mb, ulimit -d)"
        takes = f"about {machine.amount(need)} of memory"
        raise BadInput(f"{name}: needs {takes}, and {machine.amount(most)} are allowed; {hint}")


def _held(shape: Sequence[int]) -> float:
    """Bytes of an image that are in memory at the same time."""
    size = 4 * prod(shape)
    return size if size < scratch.LARGE else scratch.PART


def _features(pixels: int, engine: Engine) -> float:
    """Bytes of features of slices of so many pixels, of as many slices as are in work at a time."""
    if engine.device not in ("auto", "cpu"):
        return 0.0
    from seran.engines import openvino

    threads = engine.threads or machine.threads()
    half = engine.precision != "f32" and machine.has_bf16()
    if not half and engine.precision != "int8" and mnn.suits(threads) and pixels <= openvino.TRUNK_PIXELS:
        return mnn.FEATURES * pixels
    return prod(openvino.at_once(openvino.WIDE * pixels, half, threads))
