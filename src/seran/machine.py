"""What this machine and this installation have: CPUs, memory, bf16, and the modules that extras bring.

``pip install 'seran[train,dicom]'`` installs two extras; upscaling NIfTI, MGH and most DICOM needs none.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import util
from pathlib import Path

from seran.errors import BadInput

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

EXTRAS = {  # and the modules that each brings
    "train": ("torch", "lightning_fabric", "onnx", "onnxscript", "safetensors", "tensorboard"),
    "cluster": ("distributed", "dask", "dask_jobqueue", "cryptography"),
    "dicom": ("gdcm",),
    "winograd": ("MNN",),
}
STEP = 10**8  # bytes, to which the memory that is advised is rounded up
BOUND: ContextVar[int] = ContextVar("BOUND", default=0)
"""Bytes that this process may take, where it was `bounded`."""
CONTROLLERS = ("", "cpu", "cpu,cpuacct")  # control groups that limit CPUs: of version 2, of version 1
OUT_OF_MEMORY = re.compile(r"bad_alloc|allocate memory|failed to (allocate|map segment)", re.IGNORECASE)
"""What libraries say for want of memory that raise no `MemoryError`."""
NO_THREAD = re.compile(r"Resource temporarily unavailable|can't start new thread")
"""The same where a thread, which needs memory for itself, could not be started: also for want of threads."""
SQUARE = 1024  # rows and columns that all threads of linear algebra share
# oneDNN's names of instruction sets without bf16; Linux' names of those with it, the last of ARM.
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
BF16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """A module cannot be imported meanwhile; one that is there already comes back afterwards."""
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


def may_use_bf16() -> bool:
    """Whether ``ONEDNN_MAX_CPU_ISA``, which OpenVINO and PyTorch obey, lets bf16 be computed natively."""
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in WITHOUT_BF16


def has_bf16(cpu: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU computes bf16 natively, and may; no where the system does not tell as Linux does."""
    return may_use_bf16() and not BF16.isdisjoint(instructions(cpu))


def instructions(cpu: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The instruction sets of the CPU by Linux' names, among other words; none on other systems."""
    return {*cpu.read_text().split()} if cpu.is_file() else set()


def cpus(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """CPUs that this process may use: those it may run on, and no more than its container is granted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, *map(_granted, _groups(groups, own))])))


def threads(processes: int = 1) -> int:
    """Threads of each of so many processes where none are asked for: its share of `cpus`.

    No more than ``OMP_NUM_THREADS`` says, where that is set: so jobs and scripts state it for any program.
    """
    word, share = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip(), max(1, cpus() // processes)
    return min(share, int(word)) if word.isdecimal() and int(word) else share


def _groups(groups: Path, own: Path) -> Iterator[Path]:
    """The folders of the control groups that bound this process: its own and all above it."""
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers in CONTROLLERS:  # in a container a path may lie outside what is mounted (``/..``)
            below = Path(*(part for part in path.split("/") if part not in ("", "..")))
            yield from (groups / controllers / part for part in (below, *below.parents))


def _granted(folder: Path) -> float:
    """CPUs that one group grants; infinite where it sets no limit."""
    limits = (folder / name for name in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"))
    words = [word for file in limits if file.is_file() for word in file.read_text().split()]
    return math.inf if len(words) < 2 or words[0] in ("max", "-1") else int(words[0]) / int(words[1])


def memory(info: Path = Path("/proc/meminfo")) -> tuple[float, str]:
    """Bytes of memory that the machine has ``free``, or that are ``allowed`` to this process: the fewer."""
    found = [(math.inf, "free")]
    for line in info.read_text().splitlines() if info.is_file() else []:
        if line.startswith("MemAvailable:"):
            found.append((float(line.split()[1]) * 1024, "free"))
    limits = (_limit("RLIMIT_AS"), _limit("RLIMIT_DATA"))
    return min(found + [(most, "allowed") for most in limits if most < math.inf])


def _limit(kind: str) -> float:
    """What the system lets this process have of a kind; infinite where there is no limit."""
    most = resource.getrlimit(getattr(resource, kind))[0] if resource else -1
    return most if most >= 0 else math.inf


def allowed() -> float:
    """Bytes of memory of its own that this process may take (Linux); infinite where nothing bounds it."""
    return _limit("RLIMIT_DATA")


def held(status: Path = Path("/proc/self/status")) -> int:
    """Bytes of memory of its own that this process has: what is bounded (Linux)."""
    lines = status.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Within, this process takes no more bytes of memory of its own, nor does any that it starts (Linux).

    Have it `prepare` first, and ask what is `held`: Python waits for ever for a thread that gets no memory.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lower = [most, *(limit for limit in (soft, hard) if limit >= 0)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(lower), hard))
    token = BOUND.set(most)
    try:
        yield
    finally:
        BOUND.reset(token)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def prepare() -> None:
    """Let linear algebra (OpenBLAS, of NumPy and of SciPy) take the memory that it works in, and needs once.

    Refused it later, it ends the process with a line of its own, or tries for ever.
    """
    import numpy as np
    from scipy.linalg import blas

    square = np.ones((SQUARE, SQUARE))
    np.matmul(square, square)
    blas.dgemm(1.0, square, square)


def short_of_memory(error: BaseException) -> str | None:
    """What to tell of an error for want of memory, after what wanted it; None for any other error."""
    refused = isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))
    if not refused and not (BOUND.get() and NO_THREAD.search(str(error))):
        return None
    more, need = "more memory", 0
    if len(error.args) == 2 and hasattr(error.args[1], "itemsize"):  # numpy's: shape and type of an array
        need = math.prod(error.args[0]) * error.args[1].itemsize
        more = f"about {amount(need)} more memory"
    has, how = memory()
    least = f"--mem-mb {rounded(BOUND.get() + need)} or more" if need else "a larger --mem-mb"
    return f"needs {more}, and {amount(has)} are {how}{f'; give {least}' * bool(BOUND.get())}"


def rounded(size: float) -> int:
    """MB (10^6 bytes) to advise for so many bytes: the next `STEP`.

    >>> rounded(123_456_789)
    200
    """
    return math.ceil(size / STEP) * STEP // 10**6


def amount(size: float) -> str:
    """So many bytes of memory, in words.

    >>> amount(65_000_000), amount(7e9)
    ('65 MB', '7 GB')
    """
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.2g} GB"


def told(error: Exception) -> str:
    """What to say, in a line, of an error that is not the user's."""
    if short := short_of_memory(error):
        return f"it {short}"
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}"
    return f"unexpected {type(error).__name__}: {error}; please report it"


def missing() -> dict[str, list[str]]:
    """Of every extra, the modules that are not installed; nothing is imported."""
    return {extra: [m for m in modules if util.find_spec(m) is None] for extra, modules in EXTRAS.items()}


def needed(what: str, error: ModuleNotFoundError) -> BadInput:
    """The error to raise where ``what`` could not import a module: it names the extra that brings it."""
    name = (error.name or str(error)).split(".")[0]
    for extra, modules in EXTRAS.items():
        if name in modules:
            return BadInput(f"{what} needs {name}; pip install 'seran[{extra}]'")
    return BadInput(f"{what} needs {name}, and this installation lacks it; `pip check` says what is wrong")
