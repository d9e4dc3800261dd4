"""Weights: one ONNX file that runs anywhere, states what it is, and proves that it is intact.

A weights file is a plain ONNX model with two more ``metadata_props`` at its very end: ``seran.card`` (a
`Card` as JSON) and ``seran.sha256``, the digest of every byte before it. Because a protocol buffer may be
extended by appending fields, the file stays valid ONNX, and verifying it needs no ONNX library.
"""

import csv
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy import ndarray

from seran import files
from seran.errors import BadInput
from seran.grid import Anchor

SHIPPED = Path(__file__).parent / "shipped"
REGISTRY = SHIPPED / "registry.csv"
"""Made by ``seran weights register``."""

METADATA, GRAPH, INITIALIZER = 14, 7, 5
"""Field numbers of onnx.proto: ModelProto.metadata_props, ModelProto.graph, GraphProto.initializer."""
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}
"""TensorProto.DataType: FLOAT and FLOAT16; networks hold nothing else."""


@dataclass(frozen=True)
class Card:
    """What was trained, on what, and how well it does.

    Attributes:
        model: a name in `seran.models.MODELS`.
        scale: 2, 3 or 4.
        degradation: ``bd`` or ``td``.
        anchor: the grid convention that follows from the degradation.
        options: arguments of the network.
        residual: whether the network corrects bicubic enlargement.
        recipe: every setting of the run.
        scans: what it was trained on, with what the weights it started from were: repository, licence,
            contrast, subject and the file's sha256 of each scan.
        patches: training patches seen, with those of the weights it started from.
        seconds: of training, on ``machine``, with the same.
        machine: in words.
        command: that repeats the run.
        validation: PSNR in dB per contrast on the validation split.
        export_error: largest difference between the file and the torch network with the same float16
            parameters, for inputs in [0, 1].
        version: of seran.
        notes: anything else a user should know.
        ranges: what 8-bit convolutions need, see `seran.int8`; empty where it was not measured.
        int8_loss: PSNR in dB that they cost at most on a validation volume.
    """

    model: str
    scale: int
    degradation: str
    anchor: Anchor
    options: dict[str, Any]
    residual: bool
    recipe: dict[str, Any]
    scans: list[dict[str, str]]
    patches: int
    seconds: float
    machine: str
    command: str
    validation: dict[str, float]
    export_error: float
    version: str
    notes: str = ""
    ranges: dict[str, list[float]] = field(default_factory=dict)
    int8_loss: float = 0.0

    @property
    def data(self) -> list[dict[str, Any]]:
        """How many scans of which repository, licence and contrast."""
        counted = Counter((s["repository"], s["licence"], s["contrast"]) for s in self.scans)
        return [
            {"repository": r, "licence": li, "contrast": c, "scans": n}
            for (r, li, c), n in sorted(counted.items())
        ]


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _entry(key: str, value: str) -> bytes:
    """One metadata_props field as protocol-buffer bytes."""
    k, v = key.encode(), value.encode()
    body = b"\x0a" + _varint(len(k)) + k + b"\x12" + _varint(len(v)) + v
    return bytes([METADATA << 3 | 2]) + _varint(len(body)) + body


TRAILER = len(_entry("seran.sha256", "0" * 64))


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of one protocol-buffer message."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _read_varint(data, at)
        else:
            size = {1: 8, 5: 4}[kind]
        yield tag >> 3, data[at : at + size]
        at += size


def seal(onnx: bytes, card: Card) -> bytes:
    """An ONNX model with its card and digest appended."""
    body = onnx + _entry("seran.card", json.dumps(dataclasses.asdict(card), sort_keys=True))
    return body + _entry("seran.sha256", hashlib.sha256(body).hexdigest())


def opened(data: bytes) -> bytes:
    """What `seal` was given, from what it made."""
    body = data[:-TRAILER]
    return body[: -len(_entry("seran.card", _metadata(body)["seran.card"]))]


def read(path: Path) -> tuple[bytes, Card, str]:
    """A verified weights file: its bytes, its card, and its digest.

    Raises:
        BadInput: if the file is missing, is not one of seran's, or any byte of it has changed.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such weights file")
    data = path.read_bytes()
    body, trailer = data[:-TRAILER], data[-TRAILER:]
    digest = hashlib.sha256(body).hexdigest()
    if not trailer.startswith(_entry("seran.sha256", "0" * 64)[:-64]):
        raise BadInput(f"{path}: expected weights written by `seran export`, got another or a cut-off file")
    if trailer != _entry("seran.sha256", digest):
        raise BadInput(
            f"{path}: the weights are damaged: their SHA-256 is {digest[:16]}…, "
            f"expected {trailer[-64:][:16].decode('ascii', 'replace')}…; install or copy the file again"
        )
    try:
        return data, Card(**json.loads(_metadata(body)["seran.card"])), digest
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{path}: its card is not one this version of seran reads ({error!r})") from error


def _metadata(body: bytes) -> dict[str, str]:
    cards = {}
    for number, value in _fields(memoryview(body)):
        if number == METADATA:
            entry = dict(_fields(value))
            cards[bytes(entry[1]).decode()] = bytes(entry.get(2, b"")).decode()
    return cards


def tensors(data: bytes) -> dict[str, ndarray]:
    """The parameters in a weights file, as float32, under the names of the torch module."""
    found = {}
    graph = next(value for number, value in _fields(memoryview(data)) if number == GRAPH)
    for number, value in _fields(graph):
        if number != INITIALIZER:
            continue
        shape: list[int] = []
        dtype, name, raw = 0, "", b""
        for key, item in _fields(value):
            if key == 1:
                shape += [item] if isinstance(item, int) else list(_packed(item))
            elif key == 2:
                dtype = item
            elif key == 8:
                name = bytes(item).decode()
            elif key == 9:
                raw = bytes(item)
        if dtype in DTYPES:
            array = np.frombuffer(raw, dtype=DTYPES[dtype]).reshape(shape).astype(np.float32)
            found[name.removesuffix(HALF)] = array
    return found


HALF = ".half"
"""Suffix of an initializer that is stored in float16 and cast to float32 where it is used."""


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


@cache
def shipped() -> dict[str, Path]:
    """The weights that come with the package: ``MODEL-xSCALE-DEGRADATION`` -> file."""
    return {p.stem: p for p in sorted(SHIPPED.glob("*.onnx"))}


def cache_folder() -> Path:
    """Where `seran weights pull` puts weights: below ``$SERAN_CACHE``, or the user's cache folder."""
    own = os.environ.get("SERAN_CACHE")
    return (Path(own) if own else platformdirs.user_cache_path("seran")) / "weights"


def at_hand() -> dict[str, Path]:
    """The shipped weights, and those of `REGISTRY` that were pulled: name -> file."""
    pulled = {name: cache_folder() / f"{name}.onnx" for name in registry() if name not in shipped()}
    return shipped() | {name: path for name, path in pulled.items() if path.is_file()}


@cache
def registry() -> dict[str, tuple[int, str]]:
    """The weights that belong to this version: name -> bytes and SHA-256 of the file."""
    with REGISTRY.open(newline="") as file:
        return {row["name"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(file)}


def state(name: str) -> str:
    """Where weights of the registry are, or what is wrong with them; every byte is hashed."""
    path, (size, digest) = at_hand().get(name), registry()[name]
    if path is None:
        return "not here"
    if path.stat().st_size != size or files.sha256(path) != digest:
        return f"damaged: {path}"
    return "with the package" if path.parent == SHIPPED else str(path)
