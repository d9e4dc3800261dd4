"""What is known of a set of weights: how and on what it was trained."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from seran.grid import Anchor


@dataclass(frozen=True)
class Card:
    """What was trained, on what, and how well it does.

    Attributes:
        model: a name in `seran.systems.SYSTEMS`, or of a user's own network.
        scale: 2, 3 or 4.
        degradation: ``bd`` or ``td``.
        anchor: the grid convention that follows from the degradation.
        options: arguments of the network.
        residual: whether the network corrects bicubic enlargement.
        recipe: every setting of the run.
        scans: what it was trained on, with what the weights it started from were: repository, licence,
            contrast, subject and the file's sha256 of each scan.
        patches: training patches seen, with those of the weights it started from.
        seconds: of training, on ``machine``, with the same.
        machine: in words.
        command: that repeats the run.
        validation: PSNR in dB per contrast on the validation split.
        export_error: largest difference between the file and the torch network with the same float16
            parameters, for inputs in [0, 1].
        version: of seran.
        notes: anything else a user should know.
        ranges: what 8-bit convolutions need, see `seran.engines.int8`; empty where it was not measured.
        int8_loss: PSNR in dB that they cost at most on a validation volume.
    """

    model: str
    scale: int
    degradation: str
    anchor: Anchor
    options: dict[str, Any]
    residual: bool
    recipe: dict[str, Any]
    scans: list[dict[str, str]]
    patches: int
    seconds: float
    machine: str
    command: str
    validation: dict[str, float]
    export_error: float
    version: str
    notes: str = ""
    ranges: dict[str, list[float]] = field(default_factory=dict)
    int8_loss: float = 0.0

    @property
    def data(self) -> list[dict[str, Any]]:
        """How many scans of which repository, licence and contrast."""
        counted = Counter((s["repository"], s["licence"], s["contrast"]) for s in self.scans)
        return [
            {"repository": r, "licence": li, "contrast": c, "scans": n}
            for (r, li, c), n in sorted(counted.items())
        ]
