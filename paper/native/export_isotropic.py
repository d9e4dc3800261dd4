"""The trained network across slices as a weights file, with its card: ``PACKED WEIGHTS [OUT]``.

Validation PSNR is that of four thin slices for each thick one, noise 1 %; scores are the gains over cubic
B-splines in ``paper/isotropic.json``, made before or after: the same command again renews the evidence.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import tyro
from export import DOCS, FACTS, PAPER, spacings
from numpy import ndarray
from safetensors import safe_open
from shards import volumes
from tyro.conf import Positional

import seran
from seran import files, isotropic, weights
from seran.export import export_heads
from seran.models.isotropic import FACTORS, Isotropic
from seran.profiles import Profile, selection
from seran.weights import SLICES, Card, Evidence

K, SIGMA, PROFILE = 4, 0.01, Profile("slr", 0.9)
CENTRAL = 6
FAILS = [
    "- Thin slices are an estimate: what is thinner than a thick slice and as bright as its surroundings on "
    "average leaves no trace in it.",
    "- The profile of slices is not measured: their thickness is that of the header, their profile assumed.",
    "- Slices that moved against each other, and gaps of more than 40 %, were not trained on.",
]


@torch.inference_mode()
def psnr(network: Isotropic, x: ndarray) -> float:
    """Of central slices whose rows are selected; each without neighbours; no value below 0."""
    first = max(0, (len(x) - CENTRAL) // 2)
    x = x[first : first + CENTRAL].astype(np.float32)
    x = x[:, : x.shape[1] // K * K]
    clean = np.einsum("mh,nhw->nmw", selection(x.shape[1], K, PROFILE), x)
    a, b = SIGMA * np.random.default_rng(0).standard_normal((2, *clean.shape))
    low = torch.from_numpy(np.hypot(clean + a, b).astype(np.float32))
    said = torch.from_numpy(isotropic.told(SIGMA, PROFILE, K))[:, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        given = (torch.cat([one.expand(3, -1, -1), said.expand(-1, *one.shape)])[None] for one in low)
        made = [network(one, K)[0, 0] for one in given]
    error = np.square(np.maximum(torch.stack(made).numpy(), 0) - x).mean(dtype=np.float64)
    return -10 * float(np.log10(error))


def validated(network: Isotropic, packed: Path) -> dict[str, float]:
    """PSNR per contrast on the validation split."""
    found: dict[str, list[float]] = {}
    for row in volumes(packed, "val"):
        found.setdefault(row["contrast"], []).append(psnr(network, row["stack"]))
    return {contrast: round(float(np.mean(values)), 3) for contrast, values in sorted(found.items())}


def scores(table: Path) -> dict[str, dict[str, float]]:
    """Gains over B-splines in dB of each contrast on the test split, by factor."""
    found: dict[str, dict[str, list[float]]] = {}
    rows = json.loads(table.read_text())["results"].values() if table.is_file() else []
    for row in rows:
        for case, cell in row["psnr"].items():
            if {"seran", "B-spline"} <= cell.keys():
                gain = cell["seran"] - cell["B-spline"]
                found.setdefault(row["contrast"], {}).setdefault(f"gain x{case}", []).append(gain)
    return {c: {n: round(float(np.mean(v)), 3) for n, v in by.items()} for c, by in sorted(found.items())}


def document(held: weights.Weights) -> str:
    """The card as markdown."""
    sys.path.insert(0, str(PAPER))
    from cards import USE, seen, trained

    times = f"{min(FACTORS)} to {max(FACTORS)} times that"
    told = [line.replace(f"{held.card.scale} times that", times) for line in seen(held)]
    gains = [
        f"- {contrast}: " + ", ".join(f"{n.removeprefix('gain ')} {v:+.2f}" for n, v in by.items())
        for contrast, by in held.evidence.scores.items()
    ]
    parts = {
        "# seran-isotropic": [
            "SERAN (Zhang et al., CVPR, 2021) across thick slices: 2 to 8 thin ones for each, undoing slice "
            "selection and noise.",
            "",
            f"SHA-256 `{held.digest}`. Made by `python paper/native/export_isotropic.py PACKED WEIGHTS`.",
        ],
        "## Intended use": [USE.replace(", nor across thick slices", "")],
        "## Trained on": told,
        "## Training": trained(held),
        "## Scores": [
            "Gain over cubic B-splines on the test split, dB, mean over the scans of a contrast "
            "([the table](../../paper/isotropic.md)).",
            "",
            *gains,
        ],
        "## Where it fails": FAILS,
    }
    return "\n\n".join("\n".join([head, "", *body]) for head, body in parts.items()) + "\n"


def main(
    packed: Positional[Path],
    trained: Positional[Path],
    out: Positional[Path] = weights.SHIPPED / "seran-isotropic.onnx",
    table: Path = PAPER / "isotropic.json",
    machine: str = "one CPU core with AMX",
    docs: Path = DOCS,
) -> None:
    """Export, if what is exported agrees with torch, and write the card.

    Args:
        packed: a folder that `kit.py unpack` made.
        trained: averaged weights with steps, seconds and patches in their metadata.
        out: the weights file.
        table: gains on the test split.
        machine: what trained them, in words.
        docs: folder of the card.
    """
    network = Isotropic()
    with safe_open(trained, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        facts = file.metadata()
    rows = [row for row in json.loads((packed / "volumes.json").read_text()) if row["split"] == "train"]
    network.eval().to(memory_format=torch.channels_last)
    body = weights.read(weights.shipped()["seran-native"]).card  # where its body began
    card = Card(
        model="seran", scale=max(FACTORS), degradation=SLICES, anchor="corner", options={}, residual=False,
        recipe={"init": "seran-native", "seed": 0},
        scans=[{name: str(row[name]) for name in FACTS} for row in rows],
        patches=int(facts["patches"]) + body.patches,
        seconds=float(facts["seconds"]) + body.seconds, machine=machine,
        command="python paper/native/kit.py train KIT RUN --task isotropic", export_error=math.nan,
        validation=validated(network, packed), version=seran.__version__,
    )  # fmt: skip
    made = export_heads(network, out, card)
    evidence = Evidence(spacings=spacings(rows), scores=scores(table))
    with files.atomic(out) as part:
        part.write_bytes(weights.with_evidence(weights.read(out).data, evidence))
    held = weights.read(out)
    with files.atomic(docs / f"{out.stem}.md") as part:
        part.write_text(document(held))
    sys.stdout.write(f"{out}: {out.stat().st_size:,} bytes, within {made.export_error:.2g} of torch\n")
    sys.stdout.write(f"validation: {card.validation}\n")


if __name__ == "__main__":
    tyro.cli(main)
