"""How a network is trained: presets as values. Each field but `rates` is an option of ``seran train``.

``NAME-xSCALE-bd`` is the common recipe, the same for every system, for fair comparison on one data set;
``NAME-xSCALE-bd-paper`` is the recipe that the system was published with.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from seran import files
from seran.systems import SYSTEMS, networks

JSON: PrimitiveConstructorSpec[dict[str, Any]] = PrimitiveConstructorSpec(
    1, "JSON", lambda words: json.loads(words[0]), lambda x: isinstance(x, dict), lambda x: [json.dumps(x)]
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run, data apart.

    Attributes:
        model: a name in `seran.systems.SYSTEMS`, or FILE.py:CLASS of your own: ``CLASS(scale=2, **options)``
            takes low (b, 1, h, w) to high (b, 1, scale·h, scale·w).
        scale: 2, 3 or 4.
        degradation: what the data were made with (``bd`` or ``td``).
        options: further arguments of the network, as a JSON object.
        residual: learn a correction of bicubic enlargement (off in the paper).
        initializer: of convolutions: the network's own, or another and zero biases (``gaussian``: std 1e-3).
        init: weights to start from, a file or a shipped name; from another scale, all but the upsampling.
        augment: fraction of the patches whose resolution and contrast vary; symmetries are always drawn.
        patch: low-resolution pixels a side.
        last_patch: the same for the last `tail` of the steps.
        batch: patches per step over all processes; of `last_patch`, as many as hold the same pixels.
        steps: optimiser steps.
        optimizer: ``adam``, or ``sgd`` with the first of `betas` as its momentum.
        betas: of Adam.
        weight_decay: added to the gradient, times the weights.
        lr: largest learning rate.
        rates: factors of `lr` for the parameters whose names match a pattern (the first that does).
        schedule: ``cosine`` to `lr`/1000 after `warmup`, or ``step``: times `step_factor` every `step_every`.
        warmup: steps of linear warm-up.
        step_every: steps, see `schedule`.
        step_factor: see `schedule`.
        loss: ``l1`` or ``l2`` per pixel, or ``l2-sum``: half the sum of squares of a patch, as in Caffe.
        tail: fraction of the steps, at the end, that use `last_patch` and l2.
        clip: 0 for none, or the limit of `clip_by`.
        clip_by: the ``norm`` of all gradients, or every ``value``, at `clip`/rate (VDSR).
        ema: decay of the average of the weights that is validated and exported; 0 for none.
        seed: of initialisation and sampling.
    """

    model: Annotated[str, "FILE.py:CLASS"]
    scale: int
    degradation: str = "bd"
    options: Annotated[dict[str, Any], JSON, "JSON"] = field(default_factory=dict)
    residual: bool = False
    initializer: Literal["network", "he", "xavier", "gaussian"] = "network"
    init: str = ""
    augment: float = 0.0
    patch: int = 32
    last_patch: int = 32
    batch: int = 96
    steps: int = 200_000
    optimizer: Literal["adam", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    lr: float = 1e-4
    rates: Annotated[dict[str, float], tyro.conf.Fixed] = field(default_factory=dict)
    schedule: Literal["cosine", "step"] = "step"
    warmup: int = 0
    step_every: int = 100_000
    step_factor: float = 0.5
    loss: Literal["l1", "l2", "l2-sum"] = "l1"
    tail: float = 0.0
    clip: float = 0.0
    clip_by: Literal["norm", "value"] = "norm"
    ema: float = 0.0
    seed: int = 0


def stated(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a checkpoint and a card state it; with the ``source`` of a user's own network."""
    source = SYSTEMS[recipe.model].source
    named = dataclasses.replace(recipe, init=files.nameless(recipe.init))
    return json.loads(json.dumps(dataclasses.asdict(named))) | ({"source": source} if source else {})


def differences(recipe: Recipe, other: dict[str, Any]) -> list[str]:
    """The settings in which a recipe is unlike the one that a checkpoint or a card states."""
    other = {**other, "init": files.nameless(other.get("init", ""))}  # earlier ones stated the whole path
    return [name for name, value in stated(recipe).items() if value != other.get(name)]


COMMON = Recipe(
    "", 0, patch=40, last_patch=48, batch=12, steps=4_800, betas=(0.9, 0.99), lr=8e-4, schedule="cosine",
    warmup=200, tail=0.15, clip=0.5, ema=0.998,
)  # fmt: skip
"""The common recipe; bicubic enlargement is added to every network that does not add it by itself."""

# SERAN §4.1-4.2: patches of 32, batch 96, Adam, 1e-4 halved every 200 epochs (500 steps: 48,000 slices).
# 400 epochs, l1, the eight symmetries and the scan's 99.9th percentile are this project's choice. In the EDSR
# code an epoch seems to have 1000 steps: ``--steps 400000 --step-every 200000``.
EDSR = Recipe("edsr", 0)

PUBLISHED: dict[str, Recipe] = {
    # Sub-images of 33; the optimiser of the ECCV paper. 8e8 back-propagations. The batch is not stated: 128.
    "srcnn": Recipe("srcnn", 0, initializer="gaussian", batch=128, steps=6_250_000, optimizer="sgd",
                    rates={"reconstruct.*": 0.1}, step_every=10**9, loss="l2-sum"),
    # One network for all scales there, one per scale here. Patches of 41 high pixels. 80 epochs are 9960
    # steps. The threshold θ of the clipping is not stated: 0.01.
    "vdsr": Recipe("vdsr", 0, batch=64, steps=9_960, optimizer="sgd", weight_decay=1e-4, lr=0.1,
                   step_every=2_490, step_factor=0.1, loss="l2-sum", clip=0.01, clip_by="value"),
    # The authors' Caffe solver; the fine-tuning with l2 that the paper adds is `--tail`.
    "idn": Recipe("idn", 0, batch=64, steps=600_000, weight_decay=1e-4,
                  rates={"*.bias": 0.1, "tail.*": 0.1}, step_every=250_000, step_factor=0.1),
    # There ×3 and ×4 begin from ×2 (here with `--init`), and intensities are 0 … 255 less their mean.
    "rdn": Recipe("rdn", 0, batch=16, steps=1_000_000, step_every=200_000),
    # Not readable in the paper; the first author's own framework of that year.
    "csn": Recipe("csn", 0, patch=48, batch=16, steps=1_000_000, step_every=200_000),
    **dict.fromkeys(("edsr", "seab", "seran"), EDSR),
}  # fmt: skip
"""What is known of each system's own training. FSCWRN's is not known."""

PATCHES = {"srcnn": (17, 11, 8), "vdsr": (21, 14, 10), "idn": (29, 15, 11), "rdn": (48, 32, 32)}
"""Low pixels a side at ×2, ×3 and ×4, where they differ."""

ATTENTION = ((1,), (20,), (1, 20), (1, 40), (20, 40), (1, 20, 40))
"""After which residual blocks SERAN's attention stands, besides the last alone (Table 2)."""

ALTERED: dict[str, dict[str, dict[str, Any]]] = {
    "idn": {"idn-caffe": {"groups": 4, "tail": "deconv"}},
    "rdn": {"rdn-sum": {"fusion": "sum"}},
    "seab": {"seab-norescale": {"scaling": 1.0}},
    "seran": {
        "seran-p16": {"primitives": 16},
        **{f"seran-at-{'-'.join(map(str, at))}": {"positions": list(at)} for at in ATTENTION},
    },
}
"""System -> its networks with other options, by their names in recipes: those of Tables 1 to 3."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (model, options)
    for model in networks()
    for name, options in [(model, {}), *ALTERED.get(model, {}).items()]
}
"""Name in a recipe -> model and options: every system as it is, and the altered ones."""


def _recipe(model: str, scale: int, published: bool) -> Recipe:
    if not published:
        return dataclasses.replace(COMMON, model=model, scale=scale, residual=not SYSTEMS[model].adds_bicubic)
    patch = PATCHES[model][scale - 2] if model in PATCHES else PUBLISHED[model].patch
    return dataclasses.replace(PUBLISHED[model], model=model, scale=scale, patch=patch, last_patch=patch)


RECIPES = {
    f"{name}-x{scale}-bd{suffix}": dataclasses.replace(_recipe(model, scale, bool(suffix)), options=options)
    for suffix in ("", "-paper")
    for name, (model, options) in VARIANTS.items()
    for scale in (2, 3, 4)
    if not suffix or model in PUBLISHED
}
