"""A weights file: one ONNX file that runs anywhere, states what it is, and proves that it is intact.

It is a plain ONNX model with more ``metadata_props`` at its very end. ``seran.card`` (a `Card` as JSON) and
``seran.sha256``, the digest of every byte before it, seal it. Behind the seal may follow ``seran.evidence``
(an `Evidence` as JSON) and ``seran.evidence.sha256``, that of the first digest and this JSON: evidence may
change, and the weights are the same. Because a protocol buffer may be extended by appending fields, the file
stays valid ONNX, and verifying it needs no ONNX library.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from seran.errors import BadInput
from seran.weights.card import Card, Evidence, of_this_version

METADATA, GRAPH, INITIALIZER = 14, 7, 5
"""Field numbers of onnx.proto: ModelProto.metadata_props, ModelProto.graph, GraphProto.initializer."""
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}
"""TensorProto.DataType: FLOAT and FLOAT16; networks hold nothing else."""
HALF = ".half"
"""Suffix of an initializer that is stored in float16 and cast to float32 where it is used."""
ONCE_IN_CARD = ("ranges", "int8_loss")
"""Evidence that version 0.1 sealed inside the card."""


@dataclass(frozen=True)
class Weights:
    """A verified weights file; two are equal if their digests and evidence are.

    Attributes:
        path: where it was read.
        data: the ONNX model, card and evidence included.
        card: what was trained.
        evidence: what was measured afterwards.
        digest: SHA-256 of what is sealed, that is of all but the evidence.
    """

    path: Path = field(compare=False)
    data: bytes = field(compare=False, repr=False)
    card: Card = field(compare=False, repr=False)
    evidence: Evidence = field(repr=False)
    digest: str


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


SEAL = _entry("seran.sha256", "0" * 64)[:-64]
"""What the digest follows; no card or evidence can hold these bytes, because JSON escapes them."""


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


def with_evidence(data: bytes, evidence: Evidence) -> bytes:
    """A weights file with this evidence in place of what it had; the sealed bytes stay as they are."""
    end = data.rindex(SEAL) + len(SEAL) + 64
    return data[:end] + _entries(evidence.json(), data[end - 64 : end].decode())


def _entries(evidence: str, digest: str) -> bytes:
    """What follows the seal of the weights with this digest."""
    proof = hashlib.sha256((digest + evidence).encode()).hexdigest()
    return _entry("seran.evidence", evidence) + _entry("seran.evidence.sha256", proof)


def read(path: Path) -> Weights:
    """A verified weights file.

    Raises:
        BadInput: if the file is missing, is not one of seran's, or any byte of it has changed.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such weights file")
    data = path.read_bytes()
    body, seal, rest = data.rpartition(SEAL)
    if not seal or len(rest) < 64:
        raise BadInput(f"{path}: expected weights written by `seran export`, got another or a cut-off file")
    digest, stated, behind = hashlib.sha256(body).hexdigest(), rest[:64], rest[64:]
    if stated != digest.encode():
        raise BadInput(
            f"{path}: the weights are damaged: their SHA-256 is {digest[:16]}…, "
            f"expected {stated[:16].decode('ascii', 'replace')}…; install or copy the file again"
        )
    evidence = _evidence(behind, digest)
    if evidence is None:
        raise BadInput(f"{path}: the evidence behind the weights is damaged; install or copy the file again")
    try:
        card = json.loads(_metadata(body)["seran.card"])
        measured = {name: card.pop(name) for name in ONCE_IN_CARD if name in card}
        known = Evidence.of(evidence or measured)
        return Weights(path, data, of_this_version(Card, card), known, digest)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{path}: its card is not one this version of seran reads ({error})") from error


def _evidence(behind: bytes, digest: str) -> dict[str, Any] | None:
    """The fields in what follows a seal, if anything does; None if any byte of it has changed."""
    with suppress(KeyError, IndexError, TypeError, ValueError):
        stated = _metadata(behind).get("seran.evidence", "{}")
        if behind in (b"", _entries(stated, digest)):
            return dict(json.loads(stated))
    return None


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


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value
