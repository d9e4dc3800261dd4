"""What is known of a set of weights: how and on what they were trained, and what was measured afterwards."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from seran.grid import Anchor

Facts = TypeVar("Facts", "Card", "Evidence")


@dataclass(frozen=True)
class Card:
    """What was trained, and on what: sealed with the parameters and never changed.

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

    @property
    def data(self) -> list[dict[str, Any]]:
        """How many scans of which repository, licence and contrast."""
        counted = Counter((s["repository"], s["licence"], s["contrast"]) for s in self.scans)
        return [
            {"repository": r, "licence": li, "contrast": c, "scans": n}
            for (r, li, c), n in sorted(counted.items())
        ]


@dataclass(frozen=True)
class Spacings:
    """Voxel spacings of the truths that weights were trained on, least and greatest, in mm.

    Attributes:
        plane: in the plane of the slices; that of their inputs is the scale times as much.
        across: from slice to slice.
    """

    plane: tuple[float, float]
    across: tuple[float, float]


@dataclass(frozen=True)
class Evidence:
    """What was measured of weights after their training; it may grow, and the weights stay the same.

    Attributes:
        spacings: what they were trained on; None where nobody measured it.
        ranges: what 8-bit convolutions need, see `seran.engines.int8`; empty where it was not measured.
        int8_loss: PSNR in dB that these cost at most on a validation volume.
        scores: of the test split, per contrast: the mean of each of `seran.quality.metrics.METRICS`.
    """

    spacings: Spacings | None = None
    ranges: dict[str, list[float]] = field(default_factory=dict)
    int8_loss: float = 0.0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.json())

    def json(self) -> str:
        """All of it, as it is written into a weights file."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def of(cls, stated: Mapping[str, Any]) -> "Evidence":
        """What `json` wrote, parsed.

        Raises:
            ValueError: if this version does not know all of it.
        """
        seen = stated.get("spacings")
        pairs = seen and {name: (float(a), float(b)) for name, (a, b) in seen.items()}
        return of_this_version(cls, {**stated, "spacings": pairs and Spacings(**pairs)})


def of_this_version(kind: type[Facts], stated: Mapping[str, Any]) -> Facts:
    """A card, or evidence, of its fields.

    Raises:
        ValueError: if fields are unknown or missing.
    """
    fields, unset = dataclasses.fields(kind), dataclasses.MISSING
    needed = {f.name for f in fields if f.default is unset and f.default_factory is unset}
    wrong = {"unknown": stated.keys() - {f.name for f in fields}, "missing": needed - stated.keys()}
    if any(wrong.values()):
        raise ValueError("; ".join(f"{what}: {', '.join(sorted(n))}" for what, n in wrong.items() if n))
    return kind(**stated)
