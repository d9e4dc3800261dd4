"""The networks, one per file: low (b, 1, h, w) -> high (b, 1, s·h, s·w), intensities of about [0, 1]."""

from typing import Any

from torch import nn

from seran.errors import BadInput
from seran.layers import OverBicubic
from seran.models.edsr import EDSR
from seran.models.seran import SERAN

__all__ = ["MODELS", "build"]

MODELS: dict[str, type[nn.Module]] = {"edsr": EDSR, "seran": SERAN}


def build(model: str, scale: int, options: dict[str, Any], residual: bool) -> nn.Module:
    """The network ``model`` with its ``options``, as a correction of bicubic if ``residual``.

    Raises:
        BadInput: for a name that is not in `MODELS`.
    """
    if model not in MODELS:
        raise BadInput(f"expected a model of {', '.join(MODELS)}, got {model!r}")
    network = MODELS[model](scale=scale, **options)
    return OverBicubic(network, scale) if residual else network
