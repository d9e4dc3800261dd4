"""A weights file: one ONNX file that runs anywhere, states what it is, and proves that it is intact.

It is a plain ONNX model with more ``metadata_props`` at its very end, as a protocol buffer may be extended.
``seran.card`` (a `Card` as JSON) and ``seran.sha256``, the digest of every byte before it, seal it. Behind
the seal may follow ``seran.evidence`` (an `Evidence` as JSON) and ``seran.evidence.sha256``, that of the
first digest and this JSON: evidence may change, and the weights are the same. No ONNX library is needed.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from seran.errors import BadInput
from seran.weights.card import Card, Evidence, of_this_version

# Fields of onnx.proto: of ModelProto (two), of GraphProto, of TensorProto.
METADATA, GRAPH, INITIALIZER, DIMS, DATA_TYPE, NAME, RAW_DATA = 14, 7, 5, 1, 2, 8, 9
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}  # all that networks hold
HALF = ".half"  # suffix of an initializer that is stored in float16 and cast to float32 where it is used
ONCE_IN_CARD = ("ranges", "int8_loss")  # evidence that version 0.1 sealed inside the card


@dataclass(frozen=True)
class Weights:
    """A verified weights file; two are equal if their digests and evidence are."""

    path: Path = field(compare=False)
    data: bytes = field(compare=False, repr=False)  # the ONNX model, card and evidence included
    card: Card = field(compare=False, repr=False)
    evidence: Evidence = field(repr=False)
    digest: str  # SHA-256 of what is sealed, that is of all but the evidence


def _varint(n: int) -> bytes:
    """Seven bits in each byte, the lowest first; the eighth says that more follow."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _varint(n >> 7)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _entry(key: str, value: str) -> bytes:
    """One metadata_props field as protocol-buffer bytes."""
    return _field(METADATA, _field(1, key.encode()) + _field(2, value.encode()))


SEAL = _entry("seran.sha256", "0" * 64)[:-64]
"""What the digest follows; no card or evidence can hold these bytes, because JSON escapes them."""


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
    evidence = behind[behind.find(b'{"') : behind.rfind(b"}") + 1].decode(errors="replace")
    if behind and behind != _entries(evidence, digest):
        raise BadInput(f"{path}: the evidence behind the weights is damaged; install or copy the file again")
    try:
        *_, (_, entry) = _fields(body)
        card = json.loads(dict(_fields(entry))[2])
        measured = {name: card.pop(name) for name in ONCE_IN_CARD if name in card}
        known = Evidence.of(json.loads(evidence) if behind else measured)
        return Weights(path, data, of_this_version(Card, card), known, digest)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{path}: its card is not one this version of seran reads ({error})") from error


def _number(stream: io.BytesIO) -> int:
    """What `_varint` wrote."""
    value = shift = 0
    while (byte := stream.read(1)[0]) > 127:
        value |= (byte & 127) << shift
        shift += 7
    return value | byte << shift


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a protocol buffer that has numbers (0) and bytes (2) only."""
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        number, kind = divmod(_number(stream), 8)
        value = _number(stream)
        yield number, value if kind == 0 else stream.read(value)


def tensors(data: bytes) -> dict[str, ndarray]:
    """The parameters in a weights file, as float32, under the names of the torch module."""
    found = {}
    for number, value in _fields(dict(_fields(data))[GRAPH]):
        if number == INITIALIZER:
            tensor = list(_fields(value))
            shape, stated = [item for key, item in tensor if key == DIMS], dict(tensor)
            if stated[DATA_TYPE] in DTYPES:
                array = np.frombuffer(stated[RAW_DATA], DTYPES[stated[DATA_TYPE]]).reshape(shape)
                found[stated[NAME].decode().removesuffix(HALF)] = array.astype(np.float32)
    return found
