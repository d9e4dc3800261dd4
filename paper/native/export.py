"""The trained native network as a weights file: ``python paper/native/export.py PACKED WEIGHTS [OUT]``."""

import json
import math
import sys
from pathlib import Path

import tyro
from safetensors import safe_open
from tyro.conf import Positional

import seran
from seran import weights
from seran.export import export_heads
from seran.models.native import HEADS, Native
from seran.weights import Card

FACTS = ("repository", "licence", "contrast", "subject", "sha256")
"""Of a training scan, in the card."""


def main(
    packed: Positional[Path],
    trained: Positional[Path],
    out: Positional[Path] = weights.SHIPPED / "seran-native.onnx",
    machine: str = "one CPU core with AMX",
    notes: str = "",
) -> None:
    """Export, if what is exported agrees with torch.

    Args:
        packed: the folder that the training scans were packed into.
        trained: averaged weights with steps, seconds and patches in their metadata.
        out: the weights file.
        machine: what trained them, in words.
        notes: for the card.
    """
    network = Native()
    with safe_open(trained, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        facts = file.metadata()
    rows = json.loads((packed / "volumes.json").read_text())
    scans = [{name: str(row[name]) for name in FACTS} for row in rows if row["split"] == "train"]
    card = Card(
        model="seran", scale=max(HEADS), degradation="native", anchor="center", options={}, residual=False,
        recipe={"init": "seran-x2-td, seran-x3-bd, seran-x4-bd", "seed": 0}, scans=scans,
        patches=int(facts["patches"]), seconds=float(facts["seconds"]), machine=machine,
        command=f"python paper/native/export.py {packed.name} {trained.name}", validation={},
        export_error=math.nan, version=seran.__version__, notes=notes,
    )  # fmt: skip
    made = export_heads(network, out, card)
    sys.stdout.write(f"{out}: {out.stat().st_size:,} bytes, within {made.export_error:.2g} of torch\n")


if __name__ == "__main__":
    tyro.cli(main)
