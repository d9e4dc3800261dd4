"""The network in a weights file: an ONNX model read as a protocol buffer, without a library of ONNX's.

Whoever writes a file can seal it, so a seal says nothing of what a model does. One that reads other files,
repeats itself without end or draws random numbers is refused before any engine sees it.
"""

import io
import math
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy import ndarray

# Fields of onnx.proto: of ModelProto (two), GraphProto (two), NodeProto (three), AttributeProto, TensorProto.
METADATA, GRAPH, NODE, INITIALIZER, OPERATOR, ATTRIBUTE, DOMAIN = 14, 7, 1, 5, 4, 5, 7
TENSOR, DIMS, DATA_TYPE, NAME, RAW_DATA = 5, 1, 2, 8, 9
KNOWN = {  # fields that may be there: no functions, no graphs in graphs, no values in other files
    "model": {1, 2, 3, 4, 5, 6, GRAPH, 8, METADATA},
    "graph": {NODE, 2, INITIALIZER, 10, 11, 12, 13},
    "node": {1, 2, 3, OPERATOR, ATTRIBUTE, 6, DOMAIN, 9},
    "attribute": {1, 2, 3, 4, TENSOR, 7, 8, 9, 13, 20},
    "tensor": {DIMS, DATA_TYPE, 4, 5, 7, NAME, RAW_DATA, 10, 11, 12},
}
OPERATORS = set(
    re.findall(
        r"\w+",
        """
    Abs Add And AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor Gather Gelu
    Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish
    Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow Range Reciprocal
    ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize Round Selu SequenceAt Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth
    Split SplitToSequence Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where
""",
    )
)
"""What a network may be made of."""
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}  # all that networks hold
HALF = ".half"  # suffix of an initializer that is stored in float16 and cast to float32 where it is used


def varint(n: int) -> bytes:
    """Seven bits in each byte, the lowest first; the eighth says that more follow."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def encoded(number: int, value: bytes | int | float) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def _number(stream: io.BytesIO) -> int:
    """What `varint` wrote; a `ValueError` if that has more than 64 bits, or is cut off."""
    value = 0
    for shift in range(0, 64, 7):
        [byte] = stream.read(1) or b"\xff"
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number without an end")


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a protocol buffer of integers, bytes and floats; or `ValueError`."""
    stream = io.BytesIO(message)
    while stream.tell() < len(message):
        number, kind = divmod(_number(stream), 8)
        value = 4 if kind == 5 else _number(stream)
        if number == 0 or kind not in (0, 2, 5) or (kind and value > len(message) - stream.tell()):
            raise ValueError("no protocol buffer, or one that is cut off")
        content = stream.read(value) if kind else b""
        yield number, struct.unpack("<f", content)[0] if kind == 5 else content if kind else value


def refuse_strange(data: bytes) -> None:
    """Raise `ValueError` for a model that is more than `OPERATORS` and the parameters in it."""
    [graph] = _all("model", data, GRAPH)
    for tensor in _all("graph", graph, INITIALIZER):
        _refuse_tensor(tensor)
    for node in _all("graph", graph, NODE):
        attributes, stated = _all("node", node, ATTRIBUTE), dict(fields(node))
        name, domain = stated.get(OPERATOR, b"").decode(), stated.get(DOMAIN, b"").decode()
        if name not in OPERATORS or domain not in ("", "ai.onnx"):
            raise ValueError(f"it has the operator {domain}{':' * bool(domain)}{name}")
        for tensor in (one for attribute in attributes for one in _all("attribute", attribute, TENSOR)):
            _all("tensor", tensor, RAW_DATA)


def _all(kind: str, message: bytes, number: int) -> list[bytes]:
    """The values of one field of a message of a kind, all of whose fields must be `KNOWN`."""
    found = list(fields(message))
    if unknown := {n for n, _ in found} - KNOWN[kind]:
        raise ValueError(f"it has {kind} field {min(unknown)}")
    return [value for n, value in found if n == number]


def _refuse_tensor(message: bytes) -> None:
    raw, stated = _all("tensor", message, RAW_DATA), list(fields(message))
    kind, shape = DTYPES.get(dict(stated).get(DATA_TYPE, 0)), [value for n, value in stated if n == DIMS]
    if kind and math.prod(shape) * kind.itemsize != len(b"".join(raw)):
        raise ValueError(f"parameters of shape {shape} have {len(b''.join(raw))} bytes")


def tensors(data: bytes) -> dict[str, ndarray]:
    """The parameters in a weights file, as float32, under the names of the torch module."""
    found = {}
    for number, value in fields(dict(fields(data))[GRAPH]):
        if number == INITIALIZER:
            tensor = list(fields(value))
            shape, stated = [item for key, item in tensor if key == DIMS], dict(tensor)
            if stated[DATA_TYPE] in DTYPES:
                array = np.frombuffer(stated[RAW_DATA], DTYPES[stated[DATA_TYPE]]).reshape(shape)
                found[stated[NAME].decode().removesuffix(HALF)] = array.astype(np.float32)
    return found
