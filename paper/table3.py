"""Table 3 on data of your own: every system, trained alike for the same minutes, scored alike.

    seran prepare DATA pairs
    python paper/table3.py pairs runs          # trains, scores, times; resumes; writes paper/table3-x2.*
    python paper/table3.py pairs runs --scale 4 --minutes 30 --slices 0

The common recipe is used (same data, patches, optimiser, schedule, average), its schedule ending with the
budget. A budget of minutes favours small networks: large ones see fewer patches. The table states how many.
"""

import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from budget import trained
from torch.utils.flop_counter import FlopCounterMode

from seran import evaluate, files, prepare, weights
from seran.classical import CLASSICAL
from seran.degrade import Bicubic
from seran.infer import sharpen
from seran.methods import Method, is_network, method
from seran.models import build
from seran.prepare import PreparedSet
from seran.systems import SYSTEMS

ORDER = ("bicubic", "nlm", "srcnn", "vdsr", "idn", "fscwrn", "rdn", "csn", "edsr", "seab", "seran", "seran+")
PROTOCOL = (
    "Every network with the project's common recipe for {minutes:g} minutes on {machine}; classical "
    "methods need none. GMACs per 240x240 slice of the result; seconds for a volume of "
    "240x240x96 voxels on the same machine."
)


def gmacs(name: str, scale: int) -> float:
    """Multiplications of the default network for one 240x240 slice of the result, in 10⁹."""
    side = 240 // scale
    network = build(name, scale, {}, False)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, side, side))
    return counter.get_total_flops() / 2e9


def seconds(chosen: Method, data: PreparedSet) -> float:
    """For the central 240x240x96 voxels of a validation scan, without reading and writing it."""
    for volume in data.pick("val"):
        high = data.high(volume)
        if high.shape[0] >= 96 and min(high.shape[1:]) >= 240:
            a, b, c = ((n - m) // 2 for n, m in zip(high.shape, (96, 240, 240), strict=True))
            low = Bicubic(chosen.scale)(np.asarray(high[a : a + 96, b : b + 240, c : c + 240], np.float32))
            sharpen(low[:2], chosen.predict, chosen.scale, whole=chosen.whole)
            began = time.perf_counter()
            sharpen(low, chosen.predict, chosen.scale, whole=chosen.whole)
            return time.perf_counter() - began
    raise SystemExit("expected a validation scan of at least 240x240x96 voxels to time the methods on")


def markdown(results: dict[str, dict[str, Any]], head: list[str]) -> str:
    """One row per system: size, cost, what it saw, PSNR/SSIM and gain per contrast."""
    first = next(iter(results.values()))
    contrasts = list(first["means"])
    lines = [*(f"- {line}" for line in head), ""]
    lines.append(
        "| system | parameters | GMACs | s / volume | patches | "
        + " | ".join(f"{c} ({first['means'][c]['volumes']})" for c in contrasts)
        + " |"
    )
    lines.append("|---" * (5 + len(contrasts)) + "|")
    for name, r in results.items():
        cells = [
            SYSTEMS[name.removesuffix("+")].title + "+" * name.endswith("+"),
            f"{r['parameters'] / 1e6:.3f}M" if r["parameters"] else "–",
            f"{r['gmacs']:.1f}" if r["gmacs"] else "–",
            f"{r['seconds']:.1f}" if "seconds" in r else "–",
            f"{r['patches']:,}" if r["patches"] else "–",
        ]
        for c in contrasts:
            mean, base = r["means"][c], results["bicubic"]["means"][c]
            gain = mean["psnr"] - base["psnr"]
            cells.append(f"{mean['psnr']:.2f} / {mean['ssim_volume']:.4f} ({gain:+.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(
    data: tyro.conf.Positional[Path],
    runs: tyro.conf.Positional[Path],
    scale: Literal[2, 3, 4] = 2,
    minutes: float = 12.0,
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
        minutes: of training per network.
        slices: central slices of each test volume that are scored; 0 for all.
        machine: what it runs on, in words, for the table.
        systems: which rows.
        stages: what to do; timing wants a quiet machine.
        out: folder of the table.
    """
    pairs = prepare.load(data)
    path = out / f"table3-x{scale}.json"
    results: dict[str, dict[str, Any]] = json.loads(path.read_text())["results"] if path.is_file() else {}
    protocol = evaluate.protocol(pairs, scale, "test", slices)
    for name in systems:
        plain = name.removesuffix("+")
        file = None
        if is_network(name):
            recipe = f"{plain}-x{scale}-bd"
            file = runs / f"{recipe}.onnx"
            if "train" in stages:
                file = trained(recipe, pairs, runs, minutes, machine)
            if not file.is_file():
                continue
        chosen = method(name, scale, file=file)
        row = results.get(name, {})
        if "score" in stages and row.get("sha256") != chosen.sha256:
            tested = [method("bicubic", scale)] + [chosen] * (name != "bicubic")
            report = evaluate.evaluate(pairs, tested, "test", slices=slices)
            row = {
                "sha256": chosen.sha256,
                "means": {m["contrast"]: m for m in report.means() if m["method"] == name},
                "volumes": [r for r in report.rows if r["method"] == name],
                "parameters": (SYSTEMS[plain].parameters or (0,) * 3)[scale - 2],
                "gmacs": 0.0
                if plain in CLASSICAL
                else gmacs(plain, scale) * (8 if name.endswith("+") else 1),
                "patches": 0,
            }
            if file is not None:
                card = weights.read(file)[1]
                row |= {"patches": card.patches, "training_seconds": card.seconds, "command": card.command}
        if "time" in stages and "means" in row and "seconds" not in row:
            row["seconds"] = seconds(chosen, pairs)
        if row:
            results[name] = row
        results = {n: results[n] for n in ORDER if n in results}
        head = [PROTOCOL.format(minutes=minutes, machine=machine), *protocol]
        for end, text in ((".json", json.dumps({"protocol": head, "results": results}, indent=1) + "\n"),
                          (".md", f"# Table 3, x{scale}\n\n" + markdown(results, head))):  # fmt: skip
            with files.atomic(path.with_suffix(end)) as part:
                part.write_text(text)


if __name__ == "__main__":
    tyro.cli(main)
