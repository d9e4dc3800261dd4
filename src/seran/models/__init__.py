"""The networks, one per file: low (b, 1, h, w) -> high (b, 1, s·h, s·w), intensities of about [0, 1]."""

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from seran.errors import BadInput
from seran.models.layers import OverBicubic
from seran.systems import SYSTEMS, System, networks


def build(model: str, scale: int, options: dict[str, Any], residual: bool) -> nn.Module:
    """The network of a system, with new parameters.

    Args:
        model: a name in `seran.systems.SYSTEMS`; nothing that is not listed there is ever imported.
        scale: 2, 3 or 4.
        options: further arguments of the network.
        residual: make it a correction of bicubic enlargement.
    """
    if model not in networks():
        raise BadInput(
            f"--model {model}: expected {', '.join(networks())}, or FILE.py:CLASS to train and export a "
            "network of your own; its weights run on the CPU"
        )
    module, name = SYSTEMS[model].network.split(":")
    network = getattr(importlib.import_module(module), name)
    try:
        made = network(scale=scale, **{**SYSTEMS[model].options, **options})
    except (TypeError, ValueError) as error:
        raise BadInput(f"{model} cannot be made with scale {scale} and options {options}: {error}") from error
    return OverBicubic(made, scale) if residual else made


def adopt(given: str, scale: int, options: dict[str, Any]) -> str:
    """Enter a user's own network into `SYSTEMS`, if it fits, under its class's name in lower case.

    Args:
        given: ``FILE.py:CLASS``, named on the command line: its code is run.
        scale: 2, 3 or 4.
        options: further arguments of the network.
    """
    path, _, class_name = given.rpartition(":")
    file, name = Path(path), class_name.lower()
    if file.suffix != ".py" or not file.is_file() or not class_name:
        raise BadInput(f"--model {given}: must be FILE.py:CLASS with a file that exists")
    if name in SYSTEMS and not SYSTEMS[name].source:
        raise BadInput(f"{given}: {name} is a method of seran; give the class another name")
    code = file.read_bytes()
    digest = hashlib.sha256(code).hexdigest()
    module = ModuleType(f"seran_own_{digest[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    source = f"{file.name}:{class_name} sha256:{digest}"
    SYSTEMS[name] = System(class_name, 0, file.name, None, f"{module.__name__}:{class_name}", source=source)
    try:
        exec(compile(code, file, "exec"), vars(module))
        _refuse_absent(module, class_name)
        _refuse_other_shapes(build(name, scale, options, False), scale)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        del SYSTEMS[name]
        kind = "" if isinstance(error, BadInput) else f"{type(error).__name__}: "
        raise BadInput(f"{given}: {kind}{error}") from error
    return name


def _refuse_absent(module: ModuleType, name: str) -> None:
    own = [k for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
    if not hasattr(module, name):
        raise BadInput(f"it has no class {name}; it has {', '.join(own) or 'none'}")


@torch.inference_mode()
def _refuse_other_shapes(network: object, scale: int) -> None:
    if not isinstance(network, nn.Module) or not list(network.parameters()):
        raise BadInput("a network must be a torch.nn.Module with parameters")
    for n, h, w in (2, 11, 14), (1, 16, 9):
        high = network(torch.rand(n, 1, h, w))
        wanted, got = (n, 1, scale * h, scale * w), tuple(getattr(high, "shape", ()))
        if got != wanted:
            raise BadInput(f"low {(n, 1, h, w)} must become high {wanted}, got {got or type(high).__name__}")
