"""The trained network across slices as a weights file, with its card: ``PACKED WEIGHTS [OUT]``.

Validation PSNR is that of four thin slices for each thick one, noise 1 %; scores are the gains over cubic
B-splines in ``paper/isotropic.json``, made before or after: the same command again renews the evidence.
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from export import DOCS, FACTS, PAPER, About, read, scores, spacings, validated, write
from numpy import ndarray
from tyro.conf import Positional

import seran
from seran import isotropic, weights
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
ABOUT = About(
    "seran-isotropic",
    "SERAN (Zhang et al., CVPR, 2021) across thick slices: 2 to 8 thin ones for each, undoing slice "
    "selection and noise.",
    "paper/native/export_isotropic.py",
    "2 to 8",
    "Gain over cubic B-splines on the test split, dB, mean over the scans of a contrast "
    "([the table](../../paper/isotropic.md)).",
    FAILS,
    ", nor across thick slices",
)


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
    facts, rows = read(network, trained, packed)
    body = weights.read(weights.shipped()["seran-native"]).card  # where its body began
    card = Card(
        model="seran", scale=max(FACTORS), degradation=SLICES, anchor="corner", options={}, residual=False,
        recipe={"init": "seran-native", "seed": 0},
        scans=[{name: str(row[name]) for name in FACTS} for row in rows],
        patches=int(facts["patches"]) + body.patches,
        seconds=float(facts["seconds"]) + body.seconds, machine=machine,
        command="python paper/native/kit.py train KIT RUN --task isotropic", export_error=math.nan,
        validation=validated(partial(psnr, network), packed), version=seran.__version__,
    )  # fmt: skip
    evidence = Evidence(spacings=spacings(rows), scores=scores(table, "seran", "B-spline", "x"))
    write(network, out, card, evidence, ABOUT, docs)


if __name__ == "__main__":
    tyro.cli(main)
