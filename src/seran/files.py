"""Writing files so that nothing half-written can ever be mistaken for a result; digests of files."""

import ctypes
import hashlib
import os
import platform
import shutil
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

ONE_AT_A_TIME = threading.Lock()  # held while a descriptor, which belongs to the process, leads elsewhere
LONG = 50  # characters from which a name is long: it has at most 255 bytes, and each takes up to four


@cache
def place() -> str:
    """Where the number of this process means something: the machine and, on Linux, the container."""
    names = [platform.node()]
    with suppress(OSError):  # not on every system
        names.append(Path("/etc/machine-id").read_text())
    with suppress(OSError):
        names.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def part(path: Path) -> Path:
    """The hidden name under which this process writes ``path``; of a long one, a digest and its end."""
    name = path.name
    if len(name) > LONG:
        name = hashlib.sha256(name.encode()).hexdigest()[:12] + name[-LONG:]
    return path.with_name(f".part-{place()}-{os.getpid()}-{name}")


@cache
def sweep(folder: Path) -> None:
    """Remove, once, what dead processes of this `place` left in a folder, unless their number is in use."""
    if os.name != "posix":  # elsewhere, to ask a process whether it is there may end it
        return
    for left in folder.glob(f".part-{place()}-*-*"):
        # of another user, swept by another process at this moment, or no number of a process
        with suppress(OSError, OverflowError, ValueError):
            try:
                os.kill(int(left.name.split("-")[2]), 0)
            except ProcessLookupError:
                _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@contextmanager
def together(*paths: Path) -> Iterator[list[Path]]:
    """Yield the `part` of each path, for a file or folder of files; on success flush and rename all in order.

    Whatever ends the block early (an error, a full disk, Ctrl-C) removes the parts and leaves former files.
    """
    for path in paths:
        sweep(path.parent.absolute())
    parts = [part(path) for path in paths]
    try:
        yield parts
        for made in parts:
            for inside in made.iterdir() if made.is_dir() else [made]:
                with inside.open("rb+") as file:
                    os.fsync(file.fileno())
        for made, path in zip(parts, paths, strict=True):
            made.replace(path)
    except OSError as error:
        error.filename = str(paths[-1])  # a full disk names none, and the hidden one means nothing to a user
        raise
    finally:
        for made in parts:
            _remove(made)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """`together` for one file."""
    with together(path) as (made,):
        yield made


def below(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Every file in a folder and in those below it; and what of it cannot be reached, with the reason.

    Links are followed, and a folder is entered once however many lead to it, as itself where it lies here.
    What is hidden (``.git``, ``.snapshot``) is left out.
    """
    found: list[Path] = []
    lost: dict[Path, str] = {}
    seen: set[tuple[int, int]] = set()
    left = deque([folder])  # links to folders last
    while left:
        here = left.popleft()
        try:
            status, entries = here.stat(), [e for e in here.iterdir() if not e.name.startswith(".")]
        except OSError as error:
            lost[here] = error.strerror or "cannot be reached"
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            try:
                if entry.is_dir():
                    (left.append if entry.is_symlink() else left.appendleft)(entry)
                elif entry.is_file():
                    found.append(entry)
                elif entry.is_symlink():
                    lost[entry] = "a link to what is not there"
            except OSError as error:
                lost[entry] = error.strerror or "cannot be reached"
    return sorted(found), lost


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return digest(path, "sha256")


def sha256_of(paths: Iterable[Path]) -> str:
    """Hex digest of a file; of several, that of what ``sha256sum * | sort`` prints for them."""
    first, *others = paths
    if not others:
        return sha256(first)
    lines = sorted(f"{sha256(path)}  {path.name}\n" for path in (first, *others))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest(path: Path, algorithm: str, before: bytes = b"") -> str:
    """Hex digest of ``before`` and a file's bytes.

    Args:
        path: the file.
        algorithm: its name in `hashlib`.
        before: bytes that are put before those of the file.
    """
    hashed = hashlib.new(algorithm, before)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


@contextmanager
def quiet(descriptor: int) -> Iterator[None]:
    """Send what native libraries print to standard output (1) or standard error (2) nowhere."""
    flush = ctypes.CDLL(None).fflush if os.name == "posix" else lambda all_streams: None  # of C's library
    with ONE_AT_A_TIME:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        flush(None)
        kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, descriptor)
            yield
        finally:
            flush(None)
            os.dup2(kept, descriptor)
            os.close(kept)
            os.close(nowhere)
