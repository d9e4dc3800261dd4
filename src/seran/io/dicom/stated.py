"""What headers state of a measurement: shown beside what is measured, and used for nothing but a contrast.

Of free texts nothing is taken but which words of a closed list there are (`seran.contrast`).
"""

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray

from seran import grid
from seran.contrast import OTHER, T1, named
from seran.errors import BadInput
from seran.io.dicom.elements import header, numbers, texts
from seran.io.dicom.folder import Listed
from seran.io.voxels import LARGEST_MM, refuse_sizes

SQUARE = 0.01  # that directions may differ from length 1, and their product from 0
LATEST = 40.0  # ms: no T1-weighted image has an echo time above it
TEXTS = ("SeriesDescription", "ProtocolName")  # of which the first that names a contrast counts
LAID = (
    "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
)  # fmt: skip
MATRIX = ("AcquisitionMatrix", "InPlanePhaseEncodingDirection", "Rows", "Columns", "PercentSampling")


def contrast(image: pydicom.Dataset, echo: float) -> str:
    """Of an image, as `seran.contrast` has it; empty where its texts name none.

    Args:
        image: its header.
        echo: its echo time in ms; one of more than `LATEST` is of no T1, whatever is said.
    """
    said = next((one for name in TEXTS if (one := named(" ".join(texts(image, name))))), "")
    return OTHER if said == T1 and echo > LATEST else said


@dataclass(frozen=True)
class Matrix:
    """Samples of k-space that a header says were measured, along a row and along a column of the image."""

    acquired: tuple[int, int]
    given: tuple[int, int]
    phase: int  # along which of them phase was encoded: 0, which DICOM calls ROW, or 1, COL
    sampling: float | None  # percent of the lines of that matrix

    @property
    def fraction(self) -> tuple[float, float]:
        """Part of the image's matrix; 1 where more was measured than is shown."""
        rows, columns = (min(1.0, a / g) for a, g in zip(self.acquired, self.given, strict=True))
        return rows, columns

    def __str__(self) -> str:
        parts = (f"{a} of {g}" for a, g in zip(self.acquired, self.given, strict=True))
        along, down = (
            f"{part} along {line}" + " (phase encoding)" * (self.phase == i)
            for i, (part, line) in enumerate(zip(parts, ("rows", "columns"), strict=True))
        )
        sampled = "" if self.sampling is None else f" (PercentSampling {self.sampling:g})"
        return f"{along} and {down} were measured{sampled}"


def matrix(path: Path) -> Matrix | None:
    """What a slice's header says; None where it says nothing, or two different things.

    AcquisitionMatrix is frequency along a row, along a column, phase along a row, along a column; of each
    kind one is 0.
    """
    image = header(path, MATRIX)
    with suppress(BadInput):
        four = numbers(path, [image], "AcquisitionMatrix", 4)
        size = [int(numbers(path, [image], name)[0]) for name in ("Columns", "Rows")]
        whole = (four == np.rint(four)).all() and four.min() >= 0 and min(size) > 0
        frequency, phase = np.flatnonzero(four[:2]), np.flatnonzero(four[2:])
        if not whole or len(frequency) != 1 or len(phase) != 1 or frequency[0] == phase[0]:
            return None
        at = int(phase[0])
        if texts(image, "InPlanePhaseEncodingDirection") not in ([], [("ROW", "COL")[at]]):
            return None
        acquired = four[:2] + four[2:]
        sampling = None
        with suppress(BadInput):
            sampling = float(numbers(path, [image], "PercentSampling")[0])
        return Matrix((int(acquired[0]), int(acquired[1])), (size[0], size[1]), at, sampling)
    return None


def laid(series: Listed) -> dict[str, Any]:
    """Plane, matrix, pixels, thickness and distance of a series by its headers, as far as they say it.

    Where the pixels are of a size that none can have, a ``fault`` says so in place of ``pixel_mm``.
    """
    headers = [header(path, LAID) for path in series.paths]
    first, path = headers[0], series.paths[0]
    told: dict[str, Any] = {}
    with suppress(BadInput):
        told["matrix"] = [int(numbers(path, [first], name)[0]) for name in ("Columns", "Rows")]
    try:
        spacing = numbers(path, [first], "PixelSpacing", 2)
        refuse_sizes(path, spacing, "PixelSpacing")
        told["pixel_mm"] = spacing[::-1].round(4).tolist()
    except BadInput as error:
        if texts(first, "PixelSpacing"):  # an enhanced image says it elsewhere
            told["fault"] = str(error).removeprefix(f"{path}: ")
    with suppress(BadInput):
        told["thickness_mm"] = float(numbers(path, [first], "SliceThickness")[0])
    with suppress(BadInput):
        both = [numbers(path, [one], "ImageOrientationPatient", 6).reshape(2, 3) for one in headers]
        for directions in both:
            refuse_directions(path, directions)
        normals = np.array([np.cross(*one) for one in both])
        if not np.allclose(normals, normals[0], atol=0.01):
            return told | {"plane": "several planes"}
        told |= {"plane": _plane(normals[0])}
        at = np.array([numbers(path, [one], "ImagePositionPatient", 3) for one in headers])
        if np.abs(at).max() >= LARGEST_MM:
            return told
        steps = [b - a for a, b in pairwise(sorted({round(float(p @ normals[0]), 3) for p in at}))]
        if steps:
            told["distance_mm"] = round(float(np.median(steps)), 3)
    return told


def refuse_directions(path: Path, directions: Float[ndarray, "2 3"]) -> None:
    """Raise `BadInput` for directions along a row and down a column that are none."""
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(directions @ directions.T - np.eye(2)).max()
    if not off <= SQUARE:
        told = f"expected two directions of length 1 at right angles, got {directions.tolist()}"
        raise BadInput(f"{path}: {told}; correct ImageOrientationPatient")


def _plane(normal: Float[ndarray, "3"]) -> str:
    """The plane that is nearest to one with this normal."""
    axis = int(np.abs(normal).argmax())
    return next(plane for plane, i in grid.NORMALS.items() if i == axis)
