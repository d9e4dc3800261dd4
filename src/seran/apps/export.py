"""``seran export``."""

from pathlib import Path
from typing import Annotated

from seran import export as library
from seran.errors import BadInput
from seran.run import CHECKPOINT, Run


def export(
    run: Path,
    out: Path,
    /,
    machine: Annotated[str, "TEXT"] = "",
    notes: Annotated[str, "TEXT"] = "",
    model: Annotated[str, "FILE.py:CLASS"] = "",
    force: bool = False,
) -> str:
    """Turn a training run into a weights file: float16 ONNX with a card and a digest inside.

    Args:
        run: folder of `seran train`.
        out: the weights file (.onnx); for a shipped set, MODEL-xSCALE-DEGRADATION.onnx.
        machine: what it was trained on, in words, for the card.
        notes: anything else a user should know.
        model: the network, if it is your own: the same file that `seran train` was given.
        force: replace an existing file.
    """
    if out.exists() and not force:
        raise BadInput(f"{out} exists; give --force to replace it")
    held = Run.load(run / CHECKPOINT, model)
    card = library.export(held, out, machine, notes)
    short = f", step {held.step} of {held.recipe.steps}, not finished" * (held.step < held.recipe.steps)
    return (
        f"{out}: {card.model} x{card.scale} {card.degradation}, {out.stat().st_size / 1e6:.1f} MB, "
        f"largest difference from torch {card.export_error:.1e} for inputs in [0, 1]{short}"
    )
