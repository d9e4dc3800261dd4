"""A weights file: one ONNX file that runs anywhere, states what it is, and proves that it is intact.

It is a plain ONNX model with more ``metadata_props`` at its very end, as a protocol buffer may be extended.
``seran.card`` (a `Card` as JSON) and ``seran.sha256``, the digest of every byte before it, seal it. Behind
the seal may follow ``seran.evidence`` (an `Evidence` as JSON) and ``seran.evidence.sha256``, that of the
first digest and this JSON: evidence may change, and the weights are the same. No ONNX library is needed.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from seran import facts
from seran.errors import BadInput
from seran.weights.card import Card, Evidence
from seran.weights.graph import METADATA, encoded, fields, refuse_strange

LARGEST = 1 << 30  # bytes of a file
ONCE_IN_CARD = ("ranges", "int8_loss")  # evidence that version 0.1 sealed inside the card


@dataclass(frozen=True)
class Weights:
    """A verified weights file; two are equal if their digests and evidence are."""

    path: Path = field(compare=False)
    data: bytes = field(compare=False, repr=False)  # the ONNX model, card and evidence included
    card: Card = field(compare=False, repr=False)
    evidence: Evidence = field(repr=False)
    digest: str  # SHA-256 of what is sealed, that is of all but the evidence


def _entry(key: str, value: str) -> bytes:
    """One metadata_props field as protocol-buffer bytes."""
    return encoded(METADATA, encoded(1, key.encode()) + encoded(2, value.encode()))


SEAL = _entry("seran.sha256", "0" * 64)[:-64]
"""What the digest follows; no card or evidence can hold these bytes, because JSON escapes them."""


def seal(onnx: bytes, card: Card) -> bytes:
    """An ONNX model with its card and digest appended; `BadInput` for one that `read` would refuse."""
    try:
        refuse_strange(onnx)
    except ValueError as error:
        raise BadInput(f"the network is not one that seran runs from a file: {error}") from error
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
    if (size := path.stat().st_size) > LARGEST:
        raise BadInput(f"{path}: expected weights of at most {LARGEST:,} bytes, got {size:,}")
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
        *_, (_, entry) = fields(body)
        stated = facts.parsed(dict(fields(entry))[2])
        measured = {name: stated.pop(name) for name in ONCE_IN_CARD if name in stated}
        card, known = (
            facts.of(Card, stated),
            facts.of(Evidence, facts.parsed(evidence) if behind else measured),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: its card is not one this version of seran reads ({error})") from error
    try:
        refuse_strange(data)
    except (AttributeError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: its network is not one that seran runs: {error}") from error
    return Weights(path, data, card, known, digest)
