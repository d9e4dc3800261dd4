"""A trained native network as a weights file, with its card: ``export.py PACKED WEIGHTS [--task fast]``.

Validation PSNR is that of plain truncation at x2; spacings are those of the training scans, scores the gains
in ``paper/native_matrix.json``, made before or after: the same command again renews the evidence.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

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
from seran.models.isotropic import Isotropic
from seran.models.native import FastNative, Headed
from seran.weights import Card, Evidence, Spacings

PAPER = Path(__file__).parents[1]
DOCS = PAPER.parent / "docs" / "weights"
FACTS = ("repository", "licence", "contrast", "subject", "sha256")
"""Of a training scan, in the card."""
SLICES, SCALE = 6, 2


@dataclass(frozen=True)
class About:
    """The words of a card.

    Attributes:
        name: of the weights.
        what: they are.
        program: that made them.
        times: as fine as what they are given.
        scored: what the scores are.
        fails: where the network fails.
        unless: what of the intended use they do.
    """

    name: str
    what: str
    program: str
    times: str
    scored: str
    fails: Sequence[str]
    unless: str = ""


FAILS = [
    "- Only the plane of the slices is sharpened; what is thick stays thick.",
    "- Bicubic reductions get less than from the weights that are made for them.",
    "- Where air is masked away, the noise is a bound from tissue and can be two or three times too large: "
    "such scans are smoothed more than they need.",
    "- Weak filters are not undone; strong ones only where the noise in air has passed them.",
]
UNDOES = "undoing what a scanner does: truncation of k-space, filter, noise, zero-filling."
SCORED = (
    "Gain over zero-filling on the test split at ×2, dB, mean over the volumes of a contrast; the library "
    "measures what it uses ([the whole matrix](../../paper/native_matrix.md))."
)
ABOUT = {
    "native": About(
        "seran-native",
        f"SERAN (Zhang et al., CVPR, 2021) on the acquired grid, with heads for ×1 to ×4, {UNDOES}",
        "paper/native/export.py",
        "1 to 4",
        SCORED,
        FAILS,
    ),
    "fast": About(
        "fast-native",
        "Plain 3x3 convolutions (`seran.models.fast`) on the acquired grid, with heads for ×1 to ×4, "
        f"{UNDOES}",
        "paper/native/export.py",
        "1 to 4",
        SCORED,
        [*FAILS, "- It is quicker than seran-native and worse: see both in the matrix."],
    ),
}


def psnr(network: Headed, x: ndarray) -> float:
    """Of the central slices of a volume, truncated; no value below 0."""
    first = max(0, (len(x) - SLICES) // 2)
    x = x[first : first + SLICES].astype(np.float32)
    x = x[:, : x.shape[1] // SCALE * SCALE, : x.shape[2] // SCALE * SCALE]
    acquired = x.shape[1] // SCALE, x.shape[2] // SCALE
    made = enlarge(network, Acquisition(acquired)(x), acquired, NONE, 0.0, SCALE)
    return -10 * float(np.log10(((np.maximum(made, 0) - x) ** 2).mean(dtype=np.float64)))


def validated(score: Callable[[ndarray], float], packed: Path) -> dict[str, float]:
    """Mean per contrast on the validation split.

    Args:
        score: of the stack of a volume.
        packed: a folder that `kit.py unpack` made.
    """
    found: dict[str, list[float]] = {}
    for row in volumes(packed, "val"):
        found.setdefault(row["contrast"], []).append(score(row["stack"]))
    return {contrast: round(float(np.mean(values)), 3) for contrast, values in sorted(found.items())}


def spacings(rows: list[dict]) -> Spacings:
    """Least and greatest of the training scans."""
    across, *plane = zip(*(row["spacing"] for row in rows), strict=True)
    fine = [x for axis in plane for x in axis]
    a, b = ((round(min(mm), 2), round(max(mm), 2)) for mm in (fine, across))
    return Spacings(a, b)


def scores(table: Path, way: str, base: str, mark: str = "") -> dict[str, dict[str, float]]:
    """Gains in dB of each contrast on the test split, by acquisition; none if there is no such file.

    Args:
        table: rows with the PSNR of ways.
        way: whose gains.
        base: the way that they are over.
        mark: before the name of an acquisition.
    """
    rows = json.loads(table.read_text())["results"].values() if table.is_file() else []
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for column, cell in row["psnr"].items():
            if {way, base} <= cell.keys():
                gain = cell[way] - cell[base]
                found.setdefault(row["contrast"], {}).setdefault(f"gain {mark}{column}", []).append(gain)
    return {c: {n: round(float(np.mean(v)), 3) for n, v in by.items()} for c, by in sorted(found.items())}


def read(network: Headed | Isotropic, trained: Path, packed: Path) -> tuple[dict[str, str], list[dict]]:
    """Put trained weights into a network; what they say of their training, and the scans that it was on."""
    with safe_open(trained, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        facts = file.metadata()
    network.eval().to(memory_format=torch.channels_last)
    rows = json.loads((packed / "volumes.json").read_text())
    return facts, [row for row in rows if row["split"] == "train"]


def write(
    network: Headed | Isotropic, out: Path, card: Card, evidence: Evidence, about: About, docs: Path
) -> None:
    """Export, if what is exported agrees with torch, and write the card.

    Args:
        network: what was trained.
        out: the weights file.
        card: all that is known but the error of the export.
        evidence: what was measured.
        about: the words of the card.
        docs: folder of the card.
    """
    for place in (out.parent, docs):
        place.mkdir(parents=True, exist_ok=True)
    made = export_heads(network, out, card)
    with files.atomic(out) as part:
        part.write_bytes(weights.with_evidence(weights.read(out).data, evidence))
    with files.atomic(docs / f"{out.stem}.md") as part:
        part.write_text(document(weights.read(out), about))
    sys.stdout.write(f"{out}: {out.stat().st_size:,} bytes, within {made.export_error:.2g} of torch\n")
    sys.stdout.write(f"validation: {card.validation}\n")


def document(held: weights.Weights, about: About) -> str:
    """The card as markdown."""
    sys.path.insert(0, str(PAPER))
    from cards import USE, seen, trained

    told = [line.replace(f"{held.card.scale} times that", f"{about.times} times that") for line in seen(held)]
    gains = [
        f"- {contrast}: " + ", ".join(f"{n.removeprefix('gain ')} {v:+.2f}" for n, v in by.items())
        for contrast, by in held.evidence.scores.items()
    ]
    made = f"SHA-256 `{held.digest}`. Made by `python {about.program} PACKED WEIGHTS`."
    parts = {
        f"# {about.name}": [about.what, "", made],
        "## Intended use": [USE.replace(about.unless, "") if about.unless else USE],
        "## Trained on": told,
        "## Training": trained(held),
        "## Scores": [about.scored, "", *gains],
        "## Where it fails": list(about.fails),
    }
    return "\n\n".join("\n".join([head, "", *body]) for head, body in parts.items()) + "\n"


def main(
    packed: Positional[Path],
    trained: Positional[Path],
    out: Path | None = None,
    task: Literal["native", "fast"] = "native",
    matrix: Path = PAPER / "native_matrix.json",
    machine: str = "one CPU core with AMX",
    docs: Path = DOCS,
) -> None:
    """Export, if what is exported agrees with torch, and write the card.

    Args:
        packed: a folder that `kit.py unpack` made.
        trained: averaged weights with steps, seconds and patches in their metadata.
        out: the weights file; without it the shipped one.
        task: of `kit.py train`.
        matrix: gains on the test split.
        machine: what trained them, in words.
        docs: folder of the card.
    """
    about = ABOUT[task]
    model, way, network = (
        ("seran", "native", Native()) if task == "native" else ("fast", "fast", FastNative())
    )
    facts, rows = read(network, trained, packed)
    patches, seconds, begun = int(facts["patches"]), float(facts["seconds"]), facts.get("init", "")
    if task == "native":
        body = weights.read(weights.shipped()["seran-x2-td"]).card  # where its body began
        patches, seconds = patches + body.patches, seconds + body.seconds
        begun = begun or "seran-x2-td, seran-x3-bd, seran-x4-bd"
    card = Card(
        model=model, scale=max(HEADS), degradation="native", anchor="center", options={}, residual=False,
        recipe={"init": begun, "seed": 0}, scans=[{name: str(row[name]) for name in FACTS} for row in rows],
        patches=patches, seconds=seconds, machine=machine,
        command="python paper/native/kit.py train KIT RUN" + " --task fast" * (task == "fast"),
        export_error=math.nan, validation=validated(partial(psnr, network), packed),
        version=seran.__version__,
    )  # fmt: skip
    evidence = Evidence(spacings=spacings(rows), scores=scores(matrix, way, "zerofill"))
    write(network, out or weights.SHIPPED / f"{about.name}.onnx", card, evidence, about, docs)


if __name__ == "__main__":
    tyro.cli(main)
