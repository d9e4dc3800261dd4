"""The networks, one per file: low (b, 1, h, w) -> high (b, 1, s·h, s·w), intensities of about [0, 1]."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from seran.errors import BadInput
from seran.models.csn import CSN
from seran.models.edsr import EDSR
from seran.models.fscwrn import FSCWRN
from seran.models.idn import IDN
from seran.models.layers import OverBicubic
from seran.models.rdn import RDN
from seran.models.seran import SERAN
from seran.models.srcnn import SRCNN
from seran.models.vdsr import VDSR

__all__ = ["MODELS", "build"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "srcnn": SRCNN,
    "vdsr": VDSR,
    "idn": IDN,
    "fscwrn": FSCWRN,
    "rdn": RDN,
    "csn": CSN,
    "edsr": EDSR,
    "seab": partial(SERAN, reasoning=False),
    "seran": SERAN,
}


def build(model: str, scale: int, options: dict[str, Any], residual: bool) -> nn.Module:
    """The network ``model`` with its ``options``, as a correction of bicubic if ``residual``.

    Raises:
        BadInput: for a name that is not in `MODELS`.
    """
    if model not in MODELS:
        raise BadInput(f"expected a model of {', '.join(MODELS)}, got {model!r}")
    network = MODELS[model](scale=scale, **options)
    return OverBicubic(network, scale) if residual else network
