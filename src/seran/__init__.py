"""seran: MR image super-resolution that states its grid, its protocol and its limits.

The library in four words::

    scan = seran.read("scan.nii.gz")
    sharp = seran.upscale(scan, scale=2)
    seran.write(sharp, "sharp.nii.gz")
    model = seran.load("seran", scale=2)      # loaded once, used many times: model(scan)

Nothing heavy is imported before one of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["BadInput", "Model", "Scan", "Scanner", "load", "read", "upscale", "write"]

if TYPE_CHECKING:
    from seran.api import Model, Scan, load, read, upscale, write
    from seran.errors import BadInput
    from seran.job.options import Scanner


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in __all__:
        raise AttributeError(f"module 'seran' has no attribute {name!r}")
    homes = {"BadInput": "seran.errors", "Scanner": "seran.job.options"}
    return getattr(import_module(homes.get(name, "seran.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
