"""Methods without a network: stacks of slices -> stacks of slices."""

from collections.abc import Callable

from seran.classical.interpolation import Predict, bicubic, zerofill

__all__ = ["CLASSICAL", "VOLUMETRIC", "bicubic", "zerofill"]


def _nlm(scale: int, threads: int) -> Predict:
    from seran.classical.nlm import nlm  # with its compiler, which is imported when it is asked for

    return nlm(scale, threads)


CLASSICAL: dict[str, Callable[[int, int], Predict]] = {
    "bicubic": lambda scale, threads: bicubic(scale),
    "zerofill": lambda scale, threads: zerofill(scale),
    "nlm": _nlm,
}
"""By name: a predictor of a scale, on so many threads where it uses more than one."""
VOLUMETRIC = ("nlm",)
"""Methods that look across slices and so need a stack whole."""
