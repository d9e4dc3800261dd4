"""JSON in and out: values of the types that are expected, since nothing that comes from a file is trusted."""

import dataclasses
import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

Stated = TypeVar("Stated")
HUGE = 1 << 1000  # integers from here on are no numbers of a computer's


def parsed(text: str | bytes) -> Any:  # noqa: ANN401
    """JSON, with or without a byte-order mark; a `ValueError` for what is none, or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def finite(value: Any) -> Any:  # noqa: ANN401
    """A value as JSON can hold it: what is NaN or infinite is None, and tuples are lists.

    >>> finite({"value": float("nan"), "range": (0.5, float("inf"))})
    {'value': None, 'range': [0.5, None]}
    """
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def dumps(value: Any, **how: Any) -> str:  # noqa: ANN401
    """JSON that every program reads: it has no NaN and no infinity, which become null.

    Args:
        value: of dictionaries, lists, texts and numbers.
        how: as `json.dumps` takes it.

    >>> dumps([1.5, float("-inf")])
    '[1.5, null]'
    """
    try:
        return json.dumps(value, allow_nan=False, **how)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False, **how)


def of(kind: type[Stated], stated: object) -> Stated:
    """A dataclass of what JSON states; a `ValueError` if fields are unknown, missing or of another type.

    >>> of(dataclasses.make_dataclass("Size", [("shape", tuple[int, int])]), {"shape": [3, 4]})
    Size(shape=(3, 4))
    """
    if not isinstance(stated, Mapping):
        raise ValueError(f"expected an object, got {stated!r:.40}")
    fields, unset = {f.name: f for f in dataclasses.fields(kind)}, dataclasses.MISSING  # type: ignore[arg-type]
    needed = {name for name, f in fields.items() if f.default is unset and f.default_factory is unset}
    wrong = {"unknown": stated.keys() - fields.keys(), "missing": needed - stated.keys()}
    if any(wrong.values()):
        raise ValueError("; ".join(f"{what}: {', '.join(sorted(n))}" for what, n in wrong.items() if n))
    return kind(**{name: typed(value, fields[name].type, name) for name, value in stated.items()})


def typed(value: Any, kind: Any, name: str) -> Any:  # noqa: ANN401
    """A value from JSON as one of a type, or `ValueError`.

    Args:
        value: as `parsed` gave it.
        kind: the type; a list becomes a tuple where it asks for one.
        name: what the value is called, for the error.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Annotated, UnionType):  # of a type and None
        return None if value is None and NoneType in inner else typed(value, inner[0], name)
    if dataclasses.is_dataclass(kind):
        return of(kind, value)  # type: ignore[arg-type]
    if origin is dict and isinstance(value, dict):
        return {key: typed(each, inner[1], name) for key, each in value.items()}
    if origin in (list, tuple) and isinstance(value, list | tuple):
        kinds = inner if origin is tuple and ... not in inner else [inner[0]] * len(value)
        if len(kinds) == len(value):
            return origin(typed(each, one, name) for each, one in zip(value, kinds, strict=True))
    if origin is Literal:
        known = value in inner
    elif kind is float:
        known = type(value) is float or (type(value) is int and abs(value) < HUGE)
    else:
        plain = origin is None and kind is not Any
        known = kind is Any or (
            plain and isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
        )
    if not known:
        wanted = getattr(kind, "__name__", kind)
        if origin is tuple and ... not in inner:
            wanted = f"a list of {len(inner)}"
        raise ValueError(f"{name}: expected {wanted}, got {value!r:.40}")
    return value
