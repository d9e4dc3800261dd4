"""The network of one scale in a weights file that holds several: its part of the ONNX graph."""

import dataclasses
import functools
import re

from seran.errors import BadInput
from seran.weights.file import Weights
from seran.weights.graph import GRAPH, INITIALIZER, METADATA, NAME, NODE, encoded, fields

OUTPUT = 12  # a field of onnx.proto's GraphProto
INPUTS, OUTPUTS = 1, 2  # of NodeProto
VALUE_NAME = 1  # of ValueInfoProto


def scales(weights: Weights) -> tuple[int, ...]:
    """Those that there are networks for."""
    return tuple(weights.card.options.get("heads", [weights.card.scale]))


@functools.lru_cache(maxsize=8)
def head(weights: Weights, scale: int) -> Weights:
    """The weights of one scale; `BadInput` if there are none.

    In a file with several the results are called ``x1``, ``x2``, ... and the parameters that a head does not
    share ``up.2.…`` and ``tail.2.…``; here they have the names that networks of one scale have.
    """
    if scale not in scales(weights):
        raise BadInput(f"--scale {scale}: {weights.path} is for x{', x'.join(map(str, scales(weights)))}")
    if "heads" not in weights.card.options:
        return weights
    model = [(n, value) for n, value in fields(weights.data) if n != METADATA]
    data = b"".join(encoded(n, _part(value, scale) if n == GRAPH else value) for n, value in model)
    card, digest = dataclasses.replace(weights.card, scale=scale), f"{weights.digest} x{scale}"
    return dataclasses.replace(weights, data=data, card=card, digest=digest)


def _part(graph: bytes, scale: int) -> bytes:
    """What the result of a scale depends on."""
    parts = list(fields(graph))
    needed, kept = {f"x{scale}"}, []
    for number, value in reversed(parts):  # nodes follow those that they depend on
        if number == NODE:
            node = list(fields(value))
            if needed & {v.decode() for n, v in node if n == OUTPUTS}:
                needed |= {v.decode() for n, v in node if n == INPUTS}
                kept.append((number, _renamed(node, (INPUTS, OUTPUTS), scale)))
    made = list(reversed(kept))
    for number, value in parts:
        if number == INITIALIZER:
            tensor = list(fields(value))
            if dict(tensor)[NAME].decode() in needed:
                made.append((number, _renamed(tensor, (NAME,), scale)))
        elif number != NODE and (number != OUTPUT or dict(fields(value))[VALUE_NAME].decode() in needed):
            made.append((number, value))
    return b"".join(encoded(*part) for part in made)


def _renamed(message: list[tuple[int, bytes | int]], names: tuple[int, ...], scale: int) -> bytes:
    """A message, with the names in these fields as a network of one scale has them."""

    def own(value: bytes) -> bytes:
        return re.sub(rf"^(up|tail)\.{scale}\.".encode(), rb"\1.", value.removeprefix(b"network."))

    return b"".join(encoded(n, own(v) if n in names and isinstance(v, bytes) else v) for n, v in message)
