"""Writing files so that nothing half-written can ever be mistaken for a result."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def together(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary path beside each of ``paths``; on success flush all, then rename them in order.

    What is written there may be a file, or a folder of files.

    Whatever ends the block early (an error, a full disk, Ctrl-C) removes the temporary files and
    leaves former ``paths`` untouched. A temporary name keeps every suffix of its path.
    """
    parts = [path.with_name(f".part-{os.getpid()}-{path.name}") for path in paths]
    try:
        yield parts
        for part in parts:
            for inside in part.iterdir() if part.is_dir() else [part]:
                with inside.open("rb+") as file:
                    os.fsync(file.fileno())
        for part, path in zip(parts, paths, strict=True):
            part.replace(path)
    except OSError as error:
        error.filename = str(
            paths[-1]
        )  # a full disk names no file, and the temporary one means nothing to a user
        raise
    finally:
        for part in parts:
            if part.is_dir():
                shutil.rmtree(part)
            part.unlink(missing_ok=True)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """`together` for one file."""
    with together(path) as (part,):
        yield part


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return digest(path, "sha256")


def sha256_of(paths: Iterable[Path]) -> str:
    """Hex digest of a file; of several, that of what ``sha256sum * | sort`` prints for them."""
    paths = list(paths)
    if len(paths) == 1:
        return sha256(paths[0])
    lines = sorted(f"{sha256(path)}  {path.name}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest(path: Path, algorithm: str, before: bytes = b"") -> str:
    """Hex digest of ``before`` and a file's bytes, by an algorithm of `hashlib`."""
    hashed = hashlib.new(algorithm, before)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()
