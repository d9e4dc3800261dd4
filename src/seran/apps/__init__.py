"""Programs: one module per sub-command of ``seran``, with a function of its name.

The function's signature is the command line (tyro), its docstring the help; what it returns is printed.
"""

from pathlib import Path
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")
Positional = Annotated[T, tyro.conf.Positional]
FLAT = tyro.conf.arg(name="")
"""Marks a dataclass whose fields become plain options of the command."""

__all__ = ["FLAT", "Path", "Positional"]
