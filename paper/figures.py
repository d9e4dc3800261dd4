"""Figures 1, 7 and 8, and what the paper only describes: where the primitives look, and their graph.

    python paper/figures.py --out figures                        # the sample slice that ships with matplotlib
    python paper/figures.py --data open --volume papaya --runs runs --out figures

Pictures of scans belong to whoever may show them: nothing is written into the repository unasked.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy import ndarray
from results import program

from seran import files, weights
from seran.apps import demo
from seran.data.pairs import load_prepared
from seran.degrade import Bicubic
from seran.engines.torch import network
from seran.errors import BadInput
from seran.methods import is_network, method
from seran.models.seran import SEAB, PrimitiveReasoning
from seran.quality import metrics
from seran.sharpen import Normalisation, sharpen
from seran.systems import title as system_title

SHOWN = 12
"""Primitives whose maps are drawn: those that look at the fewest positions."""


def truth_of(data: Path | None, volume: str, index: int | None) -> tuple[str, ndarray]:
    """A name and one high-resolution slice (rows, columns): of a test volume, or matplotlib's sample."""
    if data is None:
        return "matplotlib's sample slice", np.ascontiguousarray(demo.sample().data[:, :, 0].T)
    pairs = load_prepared(data)
    found = [v for v in pairs.pick("test") if volume in v.source]
    if len(found) != 1:
        known = ", ".join(v.source for v in pairs.pick("test"))
        raise BadInput(f"expected --volume to name one test volume of {known}; {len(found)} fit {volume!r}")
    stack = pairs.high(found[0])
    at = len(stack) // 2 if index is None else index
    if not 0 <= at < len(stack):
        raise BadInput(f"expected a slice of 0 to {len(stack) - 1}, got {at}")
    return f"{found[0].source}, slice {at}", np.asarray(stack[at], np.float32)


def busiest(truth: ndarray, side: int) -> tuple[int, int]:
    """Top and left of the square of ``side`` pixels with the most edges: what is enlarged."""
    edges = np.hypot(*np.gradient(truth))
    total = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    box = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(box.argmax(), box.shape)
    return int(top), int(left)


def comparison(name: str, truth: ndarray, made: dict[str, ndarray], path: Path) -> None:
    """The slice with its enlarged part marked; that part and its error for every method."""
    side = min(truth.shape) // 4
    top, left = busiest(truth, side)
    box = (slice(top, top + side), slice(left, left + side))
    span = float(np.ptp(truth))
    limit = float(np.percentile(np.abs(made["bicubic"] - truth)[box], 99.5))
    figure = Figure(figsize=(3.6 + 1.9 * (len(made) + 1), 4.4), layout="constrained")
    grid = figure.add_gridspec(2, len(made) + 3, width_ratios=[1, 1, *[1] * (len(made) + 1)])
    whole = figure.add_subplot(grid[:, :2])
    whole.imshow(truth, cmap="gray", vmin=truth.min(), vmax=truth.max())
    whole.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="red"))
    whole.set_title(name, fontsize=9)
    whole.set_axis_off()
    for column, (title, image) in enumerate({**made, "truth": truth}.items(), start=2):
        part, error = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        part.imshow(image[box], cmap="gray", vmin=truth.min(), vmax=truth.max(), interpolation="nearest")
        part.set_axis_off()
        error.set_axis_off()
        if title == "truth":
            part.set_title("truth", fontsize=9)
            continue
        score = metrics.scores(truth[None], image[None], span)
        label = system_title(title)
        part.set_title(f"{label}\n{score['psnr']:.2f} dB / {score['ssim_slice']:.4f}", fontsize=9)
        error.imshow(np.abs(image - truth)[box], cmap="inferno", vmin=0, vmax=limit, interpolation="nearest")
    save(figure, path)


@torch.inference_mode()
def attention(file: Path, low: ndarray) -> tuple[ndarray, ndarray]:
    """M of the last attention block as maps (P, h, w), and its graph R (P, P), for one slice."""
    held = weights.read(file)
    if held.card.model != "seran":
        raise BadInput(f"{file}: expected weights of seran, these are of {held.card.model}")
    made = network(held)
    kept: dict[str, torch.Tensor] = {}
    block = [layer for layer in made.modules() if isinstance(layer, SEAB)][-1]
    graph = block.reasoning
    if not isinstance(graph, PrimitiveReasoning):
        raise BadInput(f"{file}: its attention has no reasoning step")
    block.register_forward_pre_hook(lambda _, given: kept.update(features=given[0]))
    graph.register_forward_pre_hook(lambda _, given: kept.update(primitives=given[0]))
    made(torch.from_numpy(Normalisation.of(low[None]).apply(low))[None, None])
    where = block.where(kept["features"])[0].reshape(-1, *low.shape)
    return where.numpy(), graph.relations(kept["primitives"])[0].numpy()


def primitives(where: ndarray, low: ndarray, path: Path) -> None:
    """Where the most selective primitives look, beside the slice; a map's colours span its own range."""
    entropy = -(where * np.log(np.maximum(where, 1e-30))).sum((1, 2))
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots(2, 1 + SHOWN // 2).ravel()
    for ax in axes:
        ax.set_axis_off()
    axes[0].imshow(low, cmap="gray")
    axes[0].set_title("input", fontsize=9)
    order = np.argsort(entropy)[:SHOWN]
    places = [ax for i, ax in enumerate(axes) if i not in (0, len(axes) // 2)]
    for ax, p in zip(places, order, strict=True):
        ax.imshow(where[p], cmap="inferno")
        share = np.exp(entropy[p]) / low.size
        ax.set_title(f"{p}: {share:.0%}", fontsize=9)
    figure.suptitle(
        "primitive: share of the positions it looks at (exp of the entropy of its weights)", fontsize=9
    )
    save(figure, path)


def reasoning(relations: ndarray, path: Path) -> None:
    """The graph R: row i shows what primitive i takes from the others."""
    figure = Figure(figsize=(5.4, 4.6), layout="constrained")
    ax = figure.subplots()
    shown = ax.imshow(relations, cmap="viridis")
    ax.set_xlabel("from primitive")
    ax.set_ylabel("to primitive")
    figure.colorbar(shown, ax=ax, label="R / P")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a picture (PNG), whole or not at all."""
    with files.atomic(path) as part:
        figure.savefig(part, dpi=110)


def main(
    out: Path,
    data: Path | None = None,
    volume: str = "",
    index: int | None = None,
    scale: Literal[2, 3, 4] = 2,
    methods: tuple[str, ...] = ("bicubic", "nlm", "srcnn", "seran"),
    runs: Path | None = None,
) -> None:
    """Draw a slice as every method restores it, and what SERAN's attention block does with it.

    Args:
        out: folder of the pictures.
        data: a folder made by `seran prepare`; without it, matplotlib's sample slice.
        volume: part of the file name of one of its test volumes.
        index: which slice of it; without it, the central one.
        scale: 2, 3 or 4.
        methods: what is compared, bicubic among them.
        runs: folder with weights as the programs of the tables leave them; without it, the shipped ones.
    """
    if "bicubic" not in methods:
        raise BadInput(
            f"expected bicubic among the methods, its errors set the scale; got {', '.join(methods)}"
        )
    name, truth = truth_of(data, volume, index)
    low = Bicubic((scale, scale))(truth[None])
    weight_files = {
        m: runs / f"{m.removesuffix('+')}-x{scale}-bd.onnx" for m in methods if is_network(m) and runs
    }
    made = {}
    for one in methods:
        chosen = method(one, scale, file=weight_files.get(one))
        made[one] = sharpen(low, chosen).image[0]
    out.mkdir(parents=True, exist_ok=True)
    comparison(f"{name}, x{scale}", truth, made, out / f"comparison-x{scale}.png")
    if "seran" in methods:
        file = weight_files.get("seran") or weights.shipped()[f"seran-x{scale}-bd"]
        where, relations = attention(file, low[0])
        primitives(where, low[0], out / f"primitives-x{scale}.png")
        reasoning(relations, out / f"reasoning-x{scale}.png")


if __name__ == "__main__":
    program(main)
