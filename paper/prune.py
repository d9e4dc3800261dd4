"""A shallower `fast` network, to train on: of a deeper one, without the layers that validation misses least.

    python paper/prune.py fast-x2-bd pairs start.onnx --depth 16
    seran train fast-x2-bd distilled RUN --init start.onnx --options '{"depth": 16}'

Each layer began as the identity and a little more (`seran.models.fast`), so that the rest still fits without
one. They are taken out one at a time; after each the validation PSNR of every candidate is measured anew.
"""

import copy
import re
from pathlib import Path

import torch
from numpy import ndarray
from results import needed, placed, program
from torch import nn
from tqdm import tqdm

from seran import evaluate, facts, weights
from seran.data.pairs import PreparedSet
from seran.engines.torch import parameters
from seran.errors import BadInput
from seran.export import export
from seran.models import build
from seran.progress import QUIET, say
from seran.recipes import Recipe
from seran.run import Run

LAYER = re.compile(r"body\.(\d+)\.conv\.weight$")


def validated(network: nn.Module, pairs: PreparedSet, scale: int) -> dict[str, float]:
    """Mean PSNR in dB per contrast of the central slices of the validation split."""

    @torch.inference_mode()
    def predict(low: ndarray) -> ndarray:
        made: ndarray = network(torch.from_numpy(low)[:, None])[:, 0].numpy()
        return made

    found: dict[str, list[float]] = {}
    for volume in pairs.pick("val"):
        at = [len(pairs.high(volume)) // 2]
        found.setdefault(volume.contrast, []).append(evaluate.psnr(predict, pairs, volume, scale, at))
    return {contrast: sum(each) / len(each) for contrast, each in found.items()}


def without(network: nn.Module, at: int) -> nn.Module:
    """A copy that lacks the layer ``at`` of its body."""
    made = copy.deepcopy(network)
    for module in made.modules():
        if isinstance(body := getattr(module, "body", None), nn.Sequential):
            module.body = nn.Sequential(*(layer for i, layer in enumerate(body) if i != at))
    return made


def main(name: str, data: Path, out: Path, /, depth: int) -> None:
    """Write the weights of the shallower network.

    Args:
        name: weights of `fast`, a shipped name or a file.
        data: a folder made by `seran prepare`; its validation split is looked at.
        out: the new file.
        depth: layers of the body that are left.
    """
    start = weights.read(weights.named(Path(name)))
    card = start.card
    pairs = needed(data, card.scale, ["val"])
    if card.model != "fast" or card.degradation != pairs.degradation:
        found = f"{card.model} and {card.degradation} with pairs of {pairs.degradation}"
        raise BadInput(f"{name}: expected weights of fast, and pairs of what they undo, got {found}")
    before = len([key for key in weights.tensors(start.data) if LAYER.search(key)])
    if not 0 < depth < before:
        raise BadInput(f"expected a depth from 1 to {before - 1}: {name} has {before} layers, got {depth}")
    network = build("fast", card.scale, {**card.options, "depth": before}, card.residual)
    network.load_state_dict(parameters(network, start, False))
    whole = validated(network.eval(), pairs, card.scale)
    for left in tqdm(range(before, depth, -1), unit="layer", disable=QUIET.get()):
        made = [without(network, i) for i in range(left)]
        scores = [validated(one, pairs, card.scale) for one in made]
        best = max(range(left), key=lambda i: sum(scores[i].values()))
        lost = ", ".join(f"{contrast} {scores[best][contrast] - whole[contrast]:+.2f}" for contrast in whole)
        say(f"without layer {best + 1} of {left}: {lost} dB")
        network = made[best]
    recipe = facts.of(Recipe, card.recipe | {"options": {**card.options, "depth": depth}, "init": ""})
    run = Run(recipe)
    run.best.load_state_dict(network.state_dict())
    run.patches, run.seconds, run.scans, run.command = card.patches, card.seconds, card.scans, card.command
    export(
        run,
        placed(out),
        card.machine,
        f"{before - depth} of {before} layers were taken out (paper/prune.py).",
    )


if __name__ == "__main__":
    program(main)
