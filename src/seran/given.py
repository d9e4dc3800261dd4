"""What the library's functions are given: refused in a line if it is of another type or in another place."""

import difflib
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from seran.engines import Engine
from seran.errors import BadInput
from seran.io.voxels import printable
from seran.job.options import Scanner

P, R = ParamSpec("P"), TypeVar("R")
PATH, NUMBER, WORD = ((str, os.PathLike), "a path"), (Real, "a number"), (str, "a name")
YES = (int, "True or False")
EXPECTED: dict[str, tuple[Any, str]] = {  # types of arguments that are easily given as something else
    "path": PATH, "like": PATH, "weights": PATH, "scale": NUMBER, "spacing": NUMBER,
    "adapt": NUMBER, "isotropic": (Real, "True, False or a number"),
    "fill": NUMBER, "volume": (Integral, "a whole number"), "series": WORD, "method": WORD,
    "consistent": YES, "maps": YES, "uncertainty": YES,
    "scanner": (Scanner, "a seran.Scanner"), "engine": (Engine, "a seran.engines.Engine"),
}  # fmt: skip
WITHIN = {"scanner": ("seran.Scanner", Scanner), "engine": ("seran.engines.Engine", Engine)}
"""Arguments that hold several options of the command: what they are written as, and of which type."""


def refuse_types(**given: object) -> None:
    """Raise `BadInput` for an argument, by its name, that is no such thing; all but three may be None."""
    for name, value in given.items():
        kind, expected = EXPECTED[name]
        if not isinstance(value, kind) and (value is not None or name in ("path", "scanner", "engine")):
            got = printable(repr(value))[:60]
            raise BadInput(f"{name}: expected {expected}, got {got} ({type(value).__name__})")


def hinting(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: a `TypeError` for an argument that it has not says where that belongs."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        for name in options.keys() - known.keys():
            told = _place(name, options[name], [*known])
            raise TypeError(f"{function.__name__} has no argument {name}; {told}")
        return function(*args, **options)

    return call


def _place(name: str, value: object, known: list[str]) -> str:
    """Where an argument belongs that a function has not, or the nearest of those that it has."""
    for within, (written, kind) in WITHIN.items():
        if name in [field.name for field in fields(kind)]:
            return f"give {within}={written}({name}={printable(repr(value))[:40]})"
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
