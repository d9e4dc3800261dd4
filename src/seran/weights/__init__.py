"""Weights: their cards, their files, and those of this version, with the package or in the user's cache."""

import csv
import hashlib
import os
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

from seran import files
from seran.errors import BadInput
from seran.weights import file as sealed
from seran.weights.card import SLICES, UNCERTAINTY, Card, Evidence, Spacings
from seran.weights.file import Weights, seal, with_evidence
from seran.weights.graph import HALF, tensors
from seran.weights.heads import head, scales

__all__ = [
    "HALF", "REGISTRY", "SLICES", "UNCERTAINTY", "Card", "Evidence", "Spacings", "Weights", "at_hand",
    "cache_folder", "head", "known", "listed", "named", "read", "scales", "seal", "shipped", "state",
    "tensors", "with_evidence",
]  # fmt: skip

SHIPPED = Path(__file__).parent / "shipped"
REGISTRY = SHIPPED / "registry.csv"  # made by ``seran weights register``


@cache
def shipped() -> dict[str, Path]:
    """The weights that come with the package: ``MODEL-xSCALE-DEGRADATION`` -> file."""
    return {p.stem: p for p in sorted(SHIPPED.glob("*.onnx"))}


def cache_folder() -> Path:
    """Where `seran weights pull` puts weights: below ``$SERAN_CACHE``, or the user's cache folder."""
    import platformdirs  # a machine that only trains may lack it

    own = os.environ.get("SERAN_CACHE")
    return (Path(own) if own else platformdirs.user_cache_path("seran")) / "weights"


def at_hand() -> dict[str, Path]:
    """The shipped weights, and those of `REGISTRY` that were pulled: name -> file."""
    pulled = {name: cache_folder() / f"{name}.onnx" for name in listed() if name not in shipped()}
    return shipped() | {name: path for name, path in pulled.items() if path.is_file()}


def named(file: Path) -> Path:
    """A weights file by its path, or by the name of weights that are at hand (``seran-x2-td``)."""
    return file if file.is_file() else at_hand().get(str(file), file)


def read(path: Path) -> Weights:
    """A verified weights file; what lies in `cache_folder` is what the registry lists, or is refused."""
    held = sealed.read(path)
    pulled = path.stem in listed() and path.parent.name == "weights" and path.parent == cache_folder()
    if pulled and hashlib.sha256(held.data).hexdigest() != listed()[path.stem][1]:
        told = f"remove it, and get it again: seran weights pull {path.stem}"
        raise BadInput(f"{path}: expected the weights that the registry lists, got others; {told}")
    return held


def known(path: Path) -> Weights:
    """What `read` gives, without the network; read once for as long as size and time of the file stay."""
    there = path.stat() if path.is_file() else None
    return _known(path, there and (there.st_size, there.st_mtime_ns))


@lru_cache(maxsize=32)
def _known(path: Path, _: tuple[int, int] | None) -> Weights:
    return replace(read(path), data=b"")


@cache
def listed() -> dict[str, tuple[int, str]]:
    """The weights that belong to this version: name -> bytes and SHA-256 of the file."""
    with REGISTRY.open(newline="") as file:
        return {row["name"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(file)}


def state(name: str) -> str:
    """Where weights of the registry are, or what is wrong with them; every byte is hashed.

    >>> state("seran-x2-bd")
    'with the package'
    """
    path, (size, digest) = at_hand().get(name), listed()[name]
    if path is None:
        return "not here"
    if path.stat().st_size != size or files.sha256(path) != digest:
        return f"damaged: {path}"
    return "with the package" if path.parent == SHIPPED else str(path)
