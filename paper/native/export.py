"""The trained native network as a weights file, with its card: ``export.py PACKED WEIGHTS [OUT]``.

Validation PSNR is that of plain truncation at x2; spacings are those of the training scans, scores the gains
in ``paper/native_matrix.json``, made before or after: the same command again renews the evidence.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import tyro
from evaluate import enlarge
from network import HEADS, Native
from numpy import ndarray
from safetensors import safe_open
from shards import volumes
from tyro.conf import Positional

import seran
from seran import files, weights
from seran.acquisition import NONE, Acquisition
from seran.export import export_heads
from seran.weights import Card, Evidence, Spacings

PAPER = Path(__file__).parents[1]
DOCS = PAPER.parent / "docs" / "weights"
FACTS = ("repository", "licence", "contrast", "subject", "sha256")
"""Of a training scan, in the card."""
SLICES, SCALE = 6, 2
FAILS = [
    "- Only the plane of the slices is sharpened; what is thick stays thick.",
    "- Bicubic reductions get less than from the weights that are made for them.",
    "- Where air is masked away, the noise is a bound from tissue and can be two or three times too large: "
    "such scans are smoothed more than they need.",
    "- Weak filters are not undone; strong ones only where the noise in air has passed them.",
]


def psnr(network: Native, x: ndarray) -> float:
    """Of the central slices of a volume, truncated; no value below 0."""
    first = max(0, (len(x) - SLICES) // 2)
    x = x[first : first + SLICES].astype(np.float32)
    x = x[:, : x.shape[1] // SCALE * SCALE, : x.shape[2] // SCALE * SCALE]
    acquired = x.shape[1] // SCALE, x.shape[2] // SCALE
    made = enlarge(network, Acquisition(acquired)(x), acquired, NONE, 0.0, SCALE)
    return -10 * float(np.log10(((np.maximum(made, 0) - x) ** 2).mean(dtype=np.float64)))


def validated(network: Native, packed: Path) -> dict[str, float]:
    """PSNR per contrast on the validation split."""
    found: dict[str, list[float]] = {}
    for row in volumes(packed, "val"):
        found.setdefault(row["contrast"], []).append(psnr(network, row["stack"]))
    return {contrast: round(float(np.mean(values)), 3) for contrast, values in sorted(found.items())}


def spacings(rows: list[dict]) -> Spacings:
    """Least and greatest of the training scans."""
    across, *plane = zip(*(row["spacing"] for row in rows), strict=True)
    fine = [x for axis in plane for x in axis]
    a, b = ((round(min(mm), 2), round(max(mm), 2)) for mm in (fine, across))
    return Spacings(a, b)


def scores(matrix: Path) -> dict[str, dict[str, float]]:
    """Gains over zero-filling in dB of each contrast on the test split, by acquisition."""
    if not matrix.is_file():
        return {}
    rows = json.loads(matrix.read_text())["results"].values()
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for column, cell in row["psnr"].items():
            if {"native", "zerofill"} <= cell.keys():
                gain = cell["native"] - cell["zerofill"]
                found.setdefault(row["contrast"], {}).setdefault(f"gain {column}", []).append(gain)
    return {c: {n: round(float(np.mean(v)), 3) for n, v in by.items()} for c, by in sorted(found.items())}


def document(held: weights.Weights) -> str:
    """The card as markdown."""
    sys.path.insert(0, str(PAPER))
    from cards import USE, seen, trained

    told = [line.replace(f"{held.card.scale} times that", "1 to 4 times that") for line in seen(held)]
    gains = [
        f"- {contrast}: " + ", ".join(f"{n.removeprefix('gain ')} {v:+.2f}" for n, v in by.items())
        for contrast, by in held.evidence.scores.items()
    ]
    parts = {
        "# seran-native": [
            "SERAN (Zhang et al., CVPR, 2021) on the acquired grid, with heads for ×1 to ×4, undoing what a "
            "scanner does: truncation of k-space, filter, noise, zero-filling.",
            "",
            f"SHA-256 `{held.digest}`. Made by `python paper/native/export.py PACKED WEIGHTS`.",
        ],
        "## Intended use": [USE],
        "## Trained on": told,
        "## Training": trained(held),
        "## Scores": [
            "Gain over zero-filling on the test split at ×2, dB, mean over the volumes of a contrast; the "
            "library measures what it uses ([the whole matrix](../../paper/native_matrix.md)).",
            "",
            *gains,
        ],
        "## Where it fails": FAILS,
    }
    return "\n\n".join("\n".join([head, "", *body]) for head, body in parts.items()) + "\n"


def main(
    packed: Positional[Path],
    trained: Positional[Path],
    out: Positional[Path] = weights.SHIPPED / "seran-native.onnx",
    matrix: Path = PAPER / "native_matrix.json",
    machine: str = "one CPU core with AMX",
    docs: Path = DOCS,
) -> None:
    """Export, if what is exported agrees with torch, and write the card.

    Args:
        packed: a folder that `kit.py unpack` made.
        trained: averaged weights with steps, seconds and patches in their metadata.
        out: the weights file.
        matrix: gains on the test split.
        machine: what trained them, in words.
        docs: folder of the card.
    """
    network = Native()
    with safe_open(trained, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        facts = file.metadata()
    rows = [row for row in json.loads((packed / "volumes.json").read_text()) if row["split"] == "train"]
    network.eval().to(memory_format=torch.channels_last)
    body = weights.read(weights.shipped()["seran-x2-td"]).card  # where its body began
    card = Card(
        model="seran", scale=max(HEADS), degradation="native", anchor="center", options={}, residual=False,
        recipe={"init": facts.get("init", "seran-x2-td, seran-x3-bd, seran-x4-bd"), "seed": 0},
        scans=[{name: str(row[name]) for name in FACTS} for row in rows],
        patches=int(facts["patches"]) + body.patches,
        seconds=float(facts["seconds"]) + body.seconds, machine=machine,
        command="python paper/native/kit.py train KIT RUN", validation=validated(network, packed),
        export_error=math.nan, version=seran.__version__,
    )  # fmt: skip
    made = export_heads(network, out, card)
    evidence = Evidence(spacings=spacings(rows), scores=scores(matrix))
    with files.atomic(out) as part:
        part.write_bytes(weights.with_evidence(weights.read(out).data, evidence))
    held = weights.read(out)
    with files.atomic(docs / f"{out.stem}.md") as part:
        part.write_text(document(held))
    sys.stdout.write(f"{out}: {out.stat().st_size:,} bytes, within {made.export_error:.2g} of torch\n")


if __name__ == "__main__":
    tyro.cli(main)
