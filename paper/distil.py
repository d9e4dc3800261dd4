"""Prepared pairs whose training truths a larger network has drawn: what a small one learns from more quickly.

    seran prepare DATA open --also-stored
    python paper/distil.py open distilled --teacher seran --scale 2
    seran train fast-x2-bd distilled RUN

A truth holds noise and detail that no network can know from the coarse slice; they only make the gradients of
a small one noisy. Its target is here ``weight`` parts of what the teacher makes of that slice and the rest of
the truth (Hinton et al., 2015). The splits ``val`` and ``test`` keep their truths. One scale only: the
targets of another are others. A patch that `--augment` varies is degraded from its target.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from results import program
from tqdm import tqdm

from seran import files
from seran.data.pairs import Packed, PreparedSet, load_prepared
from seran.errors import BadInput
from seran.methods import Method, method
from seran.progress import QUIET
from seran.sharpen import sharpen


def taught(
    volume: Packed, pairs: PreparedSet, teacher: Method, weight: float, slices: int, out: Path
) -> Packed:
    """Write a volume's coarse slices and targets; what the manifest says of them.

    Args:
        volume: of the training split.
        pairs: where its slices are.
        teacher: what draws the targets.
        weight: of what it draws, from 0 to 1; the rest is the truth's.
        slices: at most so many, evenly spread; 0 for all.
        out: folder of the new pairs.
    """
    file, copy = (folder / f"{volume.name}.npy" for folder in (out / "high", out / f"x{teacher.scale}"))
    n = len(pairs.high(volume))
    chosen = np.unique(np.linspace(0, n - 1, min(slices or n, n)).round().astype(int))
    if not file.exists():
        low, truth = pairs.low(volume, teacher.scale)[chosen], pairs.high(volume)[chosen]
        made = sharpen(low, teacher).image
        for path, stack in ((copy, low), (file, weight * made + (1 - weight) * truth)):
            with files.atomic(path) as part, part.open("wb") as stream:
                np.save(stream, stack.astype(np.float32))
    kept = np.load(file, mmap_mode="r")
    bounds, shape = (float(kept.min()), float(kept.max())), (len(chosen), *volume.shape[1:])
    return replace(volume, shape=shape, range=bounds, high_sha256=files.sha256(file))


def main(
    data: Path,
    out: Path,
    /,
    teacher: str = "seran",
    scale: Literal[2, 3, 4] = 2,
    weight: float = 0.75,
    ensemble: bool = False,
    slices: int = 0,
) -> None:
    """Make the pairs; volumes that are there already are kept.

    Args:
        data: a folder made by `seran prepare`, float32.
        out: folder of the new pairs.
        teacher: a method whose weights undo what degraded the pairs.
        scale: 2, 3 or 4.
        weight: of the teacher in a target.
        ensemble: let the teacher average over the eight symmetries.
        slices: of a training volume at most so many, evenly spread; 0 for all.
    """
    pairs = load_prepared(data)
    chosen = method(teacher + "+" * ensemble, scale)
    if pairs.integer or chosen.degradation != pairs.degradation:
        found = f"{pairs.degradation}, {'integer' if pairs.integer else 'float32'}"
        raise BadInput(f"{data}: expected pairs of {chosen.degradation} in float32, got {found}")
    for folder in ("high", f"x{scale}"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    volumes = []
    for volume in tqdm(pairs.volumes, unit="scan", disable=QUIET.get()):
        if volume.split == "train":
            made = taught(volume, pairs, chosen, weight, slices, out)
        else:
            made = volume
            for name in (f"high/{volume.name}.npy", f"x{scale}/{volume.name}.npy"):
                if not (out / name).exists():
                    os.link(pairs.root / name, out / name)
        volumes.append(replace(made, unit={str(scale): volume.unit[str(scale)]}))
    replace(pairs, root=out, volumes=volumes).write_manifest()


if __name__ == "__main__":
    program(main)
