"""What is known of a set of weights: how and on what they were trained, and what was measured afterwards."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from seran.grid import Anchor

SLICES = "slices"
"""The degradation of weights for thick slices: rows are slices, and columns stay as they are."""
UNCERTAINTY = "uncertainty"
"""The model of weights that say how far results of others may be off, behind whose name it stands, too."""


@dataclass(frozen=True)
class Card:
    """What was trained, and on what: sealed with the parameters and never changed."""

    model: str  # a name in `seran.systems.SYSTEMS`, or of a user's own network
    scale: int
    degradation: str
    anchor: Anchor  # follows from the degradation
    options: dict[str, Any]  # arguments of the network
    residual: bool  # whether the network corrects bicubic enlargement
    recipe: dict[str, Any]  # every setting of the run
    # These three include what the weights it started from were trained on.
    scans: list[dict[str, str]]  # repository, licence, contrast, subject and the file's sha256 of each
    patches: int
    seconds: float  # on ``machine``
    machine: str  # in words
    command: str  # repeats the run
    validation: dict[str, float]  # PSNR in dB per contrast on the validation split
    export_error: float  # largest difference from torch with the same parameters, for inputs in [0, 1]
    version: str  # of seran
    notes: str = ""  # anything else a user should know

    @property
    def factors(self) -> tuple[int, int]:
        """Fine rows and columns for each that the network is given."""
        return self.scale, 1 if self.degradation == SLICES else self.scale

    @property
    def data(self) -> list[dict[str, Any]]:
        """How many scans of which repository, licence and contrast."""
        names = ("repository", "licence", "contrast")
        counted = Counter(tuple(scan[name] for name in names) for scan in self.scans)
        return [{**dict(zip(names, key, strict=True)), "scans": n} for key, n in sorted(counted.items())]


@dataclass(frozen=True)
class Spacings:
    """Voxel spacings of the truths that weights were trained on, least and greatest, in mm."""

    plane: tuple[float, float]  # in the plane of the slices; that of their inputs is the scale times as much
    across: tuple[float, float]  # from slice to slice


@dataclass(frozen=True)
class Evidence:
    """What was measured of weights after their training; it may grow, and the weights stay the same."""

    spacings: Spacings | None = None  # None where nobody measured them
    ranges: dict[str, list[float]] = field(default_factory=dict)  # for 8 bits: `seran.engines.int8.spans`
    int8_loss: float = 0.0  # dB of PSNR that these cost at most on a validation volume
    scores: dict[str, dict[str, float]] = field(default_factory=dict)  # test split: contrast, metric -> mean
    widths: dict[str, dict[str, float]] = field(default_factory=dict)  # see `seran.uncertainty.Calibration`

    def __hash__(self) -> int:
        return hash(self.json())

    def json(self) -> str:
        """All of it, as it is written into a weights file."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)
