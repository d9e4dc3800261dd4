"""Prepared sets: folders of packed pairs of high- and low-resolution slices, with a manifest.

A prepared folder holds, per volume, ``high/NAME.npy`` (slices, h, w) and ``x2/NAME.npy`` … for every scale,
float32 (int32 with ``integer``), and ``manifest.json``, without which it is not a prepared set.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from seran import facts, files
from seran.errors import BadInput

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Packed:
    """One prepared volume, as listed in the manifest."""

    name: str
    source: str
    subject: str
    contrast: str
    split: str
    licence: str
    repository: str
    band: tuple[float, float]  # measured in-plane k-space support of the source, as fractions of Nyquist
    shape: tuple[int, int, int]  # slices, rows, columns of the high-resolution stack
    spacing: tuple[float, float, float]  # mm of (slice, row, column) of that stack
    range: tuple[float, float]  # smallest and largest high-resolution intensity
    unit: dict[str, list[float]]  # per scale, the offset and gain that normalise the low slices
    sha256: str  # of the source file
    high_sha256: str  # of ``high/NAME.npy``
    affine: list[list[float]] | None = None  # (slice, row, column) of that stack to mm (RAS+), 4x4

    @property
    def span(self) -> float:
        """Largest less smallest intensity of the truth, what PSNR and SSIM count from."""
        return self.range[1] - self.range[0]


@dataclass(frozen=True)
class PreparedSet:
    """A prepared folder."""

    root: Path
    degradation: str
    integer: bool
    fourier_crop: bool
    volumes: list[Packed]
    skipped: list[dict[str, str]] = field(default_factory=list)

    def pick(self, split: str) -> list[Packed]:
        """The volumes of one split, in the manifest's order."""
        return [v for v in self.volumes if v.split == split]

    def scans(self, split: str) -> list[dict[str, str]]:
        """Where the scans of a split come from, each once, for the card of what is trained on them."""
        names = ("repository", "licence", "contrast", "subject", "sha256")
        return list({v.sha256: {n: getattr(v, n) for n in names} for v in self.pick(split)}.values())

    def file(self, name: str, scale: int = 1) -> Path:
        """Where the slices of a volume lie: low-resolution ones of a scale, or the truth."""
        return self.root / ("high" if scale == 1 else f"x{scale}") / f"{name}.npy"

    def high(self, volume: Packed) -> Real[ndarray, "n h w"]:
        """Memory-mapped ground truth."""
        return self._stack(self.file(volume.name), volume.shape)

    def low(self, volume: Packed, scale: int) -> Real[ndarray, "n a b"]:
        """Memory-mapped input at ``scale``; `BadInput` if it was prepared without."""
        if str(scale) not in volume.unit:
            raise BadInput(f"{self.root}: it was prepared without x{scale}; run `seran prepare` again")
        n, h, w = volume.shape
        return self._stack(self.file(volume.name, scale), (n, h // scale, w // scale))

    def write_manifest(self) -> None:
        """What makes the folder a prepared set; atomically."""
        stated = {name: value for name, value in asdict(self).items() if name != "root"}
        with files.atomic(self.root / "manifest.json") as part:
            part.write_text(facts.dumps(stated, indent=1))

    def _stack(self, path: Path, shape: tuple[int, int, int]) -> Real[ndarray, "n h w"]:
        kind = np.dtype(np.int32 if self.integer else np.float32)
        try:
            found = np.load(path, mmap_mode="r")
            got = f"{found.shape} of {found.dtype}"
        except (OSError, ValueError, AttributeError, EOFError) as error:
            found, got = np.empty(0), " ".join(str(error).split())
        if (found.shape, found.dtype) != (shape, kind):
            raise BadInput(f"{path}: the manifest promises {shape} of {kind}, got {got}; prepare again")
        return found


def load_prepared(root: Path | str) -> PreparedSet:
    """Read the manifest of a prepared folder; `BadInput` if it is none, or states what cannot be."""
    path = Path(root, "manifest.json")
    if not path.is_file():
        raise BadInput(f"{root}: expected a folder made by `seran prepare`, but it has no manifest.json")
    try:
        found = facts.of(PreparedSet, {**facts.parsed(path.read_bytes()), "root": path.parent})
        for volume in found.volumes:
            _refuse_impossible(volume)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{path}: expected a manifest of `seran prepare` ({error}); prepare again") from error
    return found


def _refuse_impossible(volume: Packed) -> None:
    """Raise `ValueError` for what `seran prepare` never states."""
    numbers = [*volume.range, *volume.spacing, *(one for pair in volume.unit.values() for one in pair)]
    pairs = all(len(pair) == 2 for pair in volume.unit.values())
    if volume.split not in SPLITS or Path(volume.name).name != volume.name:
        raise ValueError(f"a volume {volume.name!r} in the split {volume.split!r}")
    if min(volume.shape) < 1 or not pairs or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{volume.name} of shape {volume.shape}, range {volume.range} and units {volume.unit}"
        )
    if volume.affine is not None and not _places(volume.affine):
        raise ValueError(f"{volume.name} with the affine {volume.affine}")


def _places(rows: list[list[float]]) -> bool:
    """Whether these are the rows of an affine."""
    if [len(row) for row in rows] != [4] * 4:
        return False
    with np.errstate(all="ignore"):
        return 0 < abs(float(np.linalg.det(rows))) < math.inf
