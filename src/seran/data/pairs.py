"""Prepared sets: folders of packed pairs of high- and low-resolution slices, with a manifest.

A prepared folder holds, per volume, ``high/NAME.npy`` (slices, h, w) and ``x2/NAME.npy`` … for every
scale, all float32 (or int32, with ``integer``) and meant to be memory-mapped, and ``manifest.json``,
which is written last: a folder without it is not a prepared set.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from seran.errors import BadInput

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Packed:
    """One prepared volume, as listed in the manifest.

    Attributes:
        band: measured in-plane k-space support of the source, as fractions of Nyquist.
        shape: slices, rows, columns of the high-resolution stack.
        spacing: mm of (slice, row, column) of that stack.
        range: smallest and largest high-resolution intensity.
        unit: per scale, the offset and gain that take the low slices to about [0, 1].
        sha256: of the source file.
        high_sha256: of ``high/NAME.npy``.
    """

    name: str
    source: str
    subject: str
    contrast: str
    split: str
    licence: str
    repository: str
    band: tuple[float, float]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    range: tuple[float, float]
    unit: dict[str, tuple[float, float]]
    sha256: str
    high_sha256: str

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
        rows = {v.sha256: {name: getattr(v, name) for name in names} for v in self.pick(split)}
        return list(rows.values())

    def file(self, name: str, scale: int = 1) -> Path:
        """Where the slices of a volume lie: low-resolution ones of a scale, or the truth."""
        return self.root / ("high" if scale == 1 else f"x{scale}") / f"{name}.npy"

    def high(self, volume: Packed) -> Real[ndarray, "n h w"]:
        """Memory-mapped ground truth."""
        return np.load(self.file(volume.name), mmap_mode="r", allow_pickle=False)

    def low(self, volume: Packed, scale: int) -> Real[ndarray, "n a b"]:
        """Memory-mapped input at ``scale``; `BadInput` if it was prepared without."""
        if str(scale) not in volume.unit:
            raise BadInput(f"{self.root}: it was prepared without x{scale}; run `seran prepare` again")
        return np.load(self.file(volume.name, scale), mmap_mode="r", allow_pickle=False)


def load_prepared(root: Path | str) -> PreparedSet:
    """Read the manifest of a prepared folder.

    Raises:
        BadInput: if ``root`` is not a prepared folder.
    """
    root = Path(root)
    path = root / "manifest.json"
    if not path.is_file():
        raise BadInput(f"{root}: expected a folder made by `seran prepare`, but it has no manifest.json")
    try:
        text = json.loads(path.read_text())
        volumes = [_packed(entry) for entry in text.pop("volumes")]
        return PreparedSet(root, volumes=volumes, **text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path}: expected a manifest of `seran prepare` ({error!r}); prepare again"
        ) from error


def _packed(entry: dict[str, Any]) -> Packed:
    """One row of the manifest: JSON has lists where `Packed` has tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    values["unit"] = {scale: tuple(pair) for scale, pair in entry["unit"].items()}
    return Packed(**values)
