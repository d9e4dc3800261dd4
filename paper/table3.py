"""Table 3 on data of your own: every system, trained alike by the same patches, or minutes, scored alike.

Needs a set of `seran prepare` with the splits train, val and test at the scale, and for timing a scan of val
with 240x240x96 voxels:

    seran prepare DATA open
    python paper/table3.py --data open --patches 12000     # trains, scores, times; resumes; table3-x2.*
    python paper/table3.py --data open --scale 4 --patches 30000 --minutes 20     # and again, and again

The common recipe is used (same data, patches, optimiser, schedule, average), its schedule ending with the
last patch. A training pauses after ``--minutes`` of a call and goes on in the next one; its row is made all
the same, and marked for as long as it is short.

    python paper/table3.py --data open --budget 12.2       # table3-x2-minutes.*

gives every network the same minutes instead, which favours small ones: large ones see fewer patches. The
table states how many, and the minutes that they took.
"""

import math
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from budget import SHORT, fitted, lasting, trained
from results import ORDER, TIMED, Rows, heading, load, markdown, needed, ordered, program, score, write
from torch.utils.flop_counter import FlopCounterMode

from seran import evaluate, weights
from seran.data.pairs import PreparedSet
from seran.degrade import Bicubic
from seran.errors import BadInput
from seran.methods import Method, is_network, method
from seran.models import build
from seran.quality.paired import FEWEST, interval
from seran.recipes import RECIPES
from seran.sharpen import sharpen
from seran.systems import SYSTEMS, title

PROTOCOL = (
    "Every network with the project's common recipe, in which SRCNN, RDN, CSN, EDSR, SEAB and SERAN, too, "
    "learn a correction of bicubic, for {budget} on {machine}.",
    "GMACs per 240x240 slice of the result; seconds for a volume of 240x240x96 voxels on the same machine.",
)
GAINS = (
    "In brackets the gain over bicubic in dB and, where there are {fewest} subjects or more, its 95 % "
    "interval over subjects."
)
MARKED = (
    "†: still short of its patches: the average of the weights where training paused, its rate not yet low. "
    "Such a row says little of its system."
)


def gmacs(name: str, scale: int) -> float:
    """Multiplications of the default network for one 240x240 slice of the result, in 10⁹."""
    side = 240 // scale
    network = build(name, scale, {}, False).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, side, side))
    return counter.get_total_flops() / 2e9


def seconds(chosen: Method, data: PreparedSet) -> float:
    """For the central 240x240x96 voxels of a validation scan, without reading and writing it."""
    for volume in data.pick("val"):
        high = data.high(volume)
        if all(n >= m for n, m in zip(high.shape, TIMED, strict=True)):
            a, b, c = ((n - m) // 2 for n, m in zip(high.shape, TIMED, strict=True))
            degrade = Bicubic((chosen.scale, chosen.scale))
            low = degrade(np.asarray(high[a : a + 96, b : b + 240, c : c + 240], np.float32))
            sharpen(low[:2], chosen)
            began = time.perf_counter()
            sharpen(low, chosen)
            return time.perf_counter() - began
    raise BadInput(f"{data.root}: expected a validation scan of 240x240x96 voxels to time the methods on")


def described(name: str, scale: int, file: Path | None) -> dict[str, Any]:
    """Size and cost of a system, and what its weights saw.

    Args:
        name: of the system, with or without a ``+``.
        scale: 2, 3 or 4.
        file: its weights; none for a classical method.
    """
    plain = name.removesuffix("+")
    if file is None:
        return {"parameters": 0, "gmacs": 0.0, "patches": 0}
    card = weights.read(file).card
    return {
        "parameters": (SYSTEMS[plain].parameters or (0, 0, 0))[scale - 2],
        "gmacs": gmacs(plain, scale) * (8 if name.endswith("+") else 1),
        "patches": card.patches,
        "training_seconds": card.seconds,
        "command": card.command,
        "short": file.stem.endswith(SHORT),
    }


def gain(rows: Rows, name: str, contrast: str) -> str:
    """The mean gain over bicubic, with its interval where there are enough subjects, in dB."""
    mean = f"{rows[name]['means'][contrast]['gain']:+.2f}"
    if "bicubic" not in rows or name == "bicubic":
        return mean
    base = {v["name"]: v["psnr"] for v in rows["bicubic"]["volumes"]}
    volumes = [v for v in rows[name]["volumes"] if v["contrast"] == contrast]
    subjects = [v["subject"] for v in volumes]
    if len(set(subjects)) < FEWEST:
        return mean
    low, high = interval([v["psnr"] - base[v["name"]] for v in volumes], subjects)
    return f"{mean}, {low:+.2f} to {high:+.2f}"


def table(rows: Rows) -> list[str]:
    """One row per system: size, cost, what it saw, PSNR/SSIM and gain per contrast."""
    columns = heading(rows)
    lines = []
    for name, r in rows.items():
        cells = [
            title(name) + " †" * r.get("short", False),
            f"{r['parameters'] / 1e6:.3f}M" if r["parameters"] else "–",
            f"{r['gmacs']:.1f}" if r["gmacs"] else "–",
            f"{r['seconds']:.1f}" if "seconds" in r else "–",
            f"{r['patches']:,}" if r["patches"] else "–",
            f"{r['training_seconds'] / 60:.1f}" if r["patches"] else "–",
        ]
        for c in columns:
            mean = r["means"][c]
            cells.append(f"{mean['psnr']:.2f} / {mean['ssim_volume']:.4f} ({gain(rows, name, c)})")
        lines.append(cells)
    facts = ("system", "parameters", "GMACs", "s / volume", "patches", "minutes")
    notes = [MARKED] * any(r.get("short") for r in rows.values())
    return [
        *markdown([*facts, *columns.values()], lines),
        *(text for note in (GAINS.format(fewest=FEWEST), *notes) for text in ("", note)),
    ]


def at_hand(runs: Path, key: str) -> Path | None:
    """The weights of a run: final ones, or those of where it paused."""
    return next((f for f in (runs / f"{key}.onnx", runs / f"{key}{SHORT}.onnx") if f.is_file()), None)


def main(
    data: Path = Path("open"),
    runs: Path = Path("runs"),
    scale: Literal[2, 3, 4] = 2,
    budget: float = 12.0,
    patches: int = 0,
    minutes: float = math.inf,
    slices: int = 12,
    machine: str = "two CPU cores",
    systems: tuple[str, ...] = ORDER,
    stages: tuple[Literal["train", "score", "time"], ...] = ("train", "score", "time"),
    out: Path = Path(__file__).parent,
) -> None:
    """Train, score and time the systems of Table 3; what is done already is kept.

    Args:
        data: a folder made by `seran prepare`.
        runs: folder of the training runs.
        scale: 2, 3 or 4.
        budget: quiet minutes of training per network; a pilot says how many steps they are.
        patches: of training per network, instead of a budget.
        minutes: pause the training of a network after so many of this call; the same call goes on.
        slices: central slices of each test volume that are scored; 0 for all.
        machine: what it runs on, in words, for the table.
        systems: which rows.
        stages: what to do; training and timing want a quiet machine.
        out: folder of the table.
    """
    splits = {"train": ("train", "val"), "score": ("test",), "time": ("val",)}
    pairs = needed(data, scale, [*dict.fromkeys(s for one in stages for s in splits[one])], "time" in stages)
    path = out / f"table3-x{scale}{'' if patches else '-minutes'}.json"
    words = (
        f"{patches:,} patches" if patches else f"as many steps as a pilot made in {budget:g} quiet minutes"
    )
    stated = [line.format(budget=words, machine=machine) for line in PROTOCOL]
    protocol = stated + evaluate.protocol(pairs, scale, "test", slices)
    rows = load(path, protocol)
    for name in systems:
        plain = name.removesuffix("+")
        key = f"{plain}-x{scale}-bd"
        file = at_hand(runs, key) if is_network(name) else None
        if is_network(name) and "train" in stages:
            command = f"python paper/table3.py --systems {plain} --scale {scale} "
            command += f"--patches {patches}" if patches else f"--budget {budget:g}"
            recipe = RECIPES[key]
            if patches:
                recipe = lasting(recipe, patches // recipe.batch)
            else:
                recipe = fitted(recipe, key, pairs, runs, budget)
            file = trained(recipe, key, pairs, runs, machine, command, stated[0], minutes)
        if is_network(name) and file is None:
            continue
        chosen = method(name, scale, file=file)
        row = rows.get(name, {})
        if "score" in stages and row.get("sha256") != chosen.sha256:
            row = score(chosen, pairs, slices) | described(name, scale, file)
        if row:
            rows[name] = row
            rows = ordered(rows, ORDER)
            write(path, protocol, rows, table)
        if "time" in stages and row and "seconds" not in row:
            row["seconds"] = seconds(chosen, pairs)
            write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
