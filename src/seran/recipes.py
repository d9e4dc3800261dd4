"""How a network is trained: presets as values. Every field but `options` is an option of ``seran train``."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run, data apart.

    Attributes:
        model: a name in `seran.models.MODELS`.
        scale: 2, 3 or 4.
        degradation: what the data were made with (``bd`` or ``td``).
        options: further arguments of the network.
        residual: learn a correction of bicubic enlargement (off in the paper).
        patch: low-resolution pixels a side.
        last_patch: the same for the last `tail` of the steps.
        batch: patches per step over all processes, while `patch` is used; later as many as hold the
            same pixels.
        steps: optimiser steps.
        lr: largest learning rate.
        schedule: ``cosine`` to `lr`/1000 after the warm-up, or ``halving`` every `halve_every` steps
            (the paper).
        warmup: steps of linear warm-up.
        halve_every: see `schedule`.
        betas: of Adam.
        loss: ``l1`` or ``l2`` (PSNR is a measure of l2).
        tail: fraction of the steps, at the end, that use `last_patch` and l2.
        clip: largest norm of the gradient; 0 for none.
        ema: decay of the average of the weights that is validated and exported; 0 for none.
        seed: of initialisation and sampling.
        init: a weights file of the same network to start from (fine-tuning); empty: from scratch.
    """

    model: str
    scale: int
    degradation: str = "bd"
    options: Annotated[dict[str, Any], tyro.conf.Fixed] = field(default_factory=dict)
    residual: bool = False
    patch: int = 32
    last_patch: int = 32
    batch: int = 96
    steps: int = 200_000
    lr: float = 1e-4
    schedule: Literal["cosine", "halving"] = "halving"
    warmup: int = 0
    halve_every: int = 100_000
    betas: tuple[float, float] = (0.9, 0.999)
    loss: Literal["l1", "l2"] = "l1"
    tail: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    seed: int = 0
    init: str = ""


def _paper(model: str, scale: int, **options: Any) -> Recipe:  # noqa: ANN401
    """SERAN §4.1-4.2: patches of 32, batch 96, Adam, 1e-4 halved every 200 epochs of 500 steps.

    Number of epochs, loss, augmentation and normalisation are not stated: 400 epochs, l1, the eight
    symmetries and the scan's 99.9th percentile are this project's choice.
    """
    return Recipe(model, scale, options=options)


def _quick(model: str, scale: int, **options: Any) -> Recipe:  # noqa: ANN401
    """The project's own recipe: small batches, high rate, cosine, average; l2 and larger patches last."""
    return Recipe(
        model,
        scale,
        options=options,
        residual=True,
        patch=40,
        last_patch=48,
        batch=12,
        steps=4_800,
        lr=8e-4,
        schedule="cosine",
        warmup=200,
        betas=(0.9, 0.99),
        tail=0.15,
        clip=0.5,
        ema=0.998,
    )


POSITIONS = ((1,), (20,), (1, 20), (1, 40), (20, 40), (1, 20, 40))
"""Of the attention blocks, besides the last residual block alone (Table 2)."""


def _joined(positions: tuple[int, ...]) -> str:
    return "-".join(map(str, positions))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "seran": ("seran", {}),
    "seran-p16": ("seran", {"primitives": 16}),
    **{f"seran-at-{_joined(p)}": ("seran", {"positions": list(p)}) for p in POSITIONS},
    "seab": ("seran", {"reasoning": False}),
    "seab-norescale": ("seran", {"reasoning": False, "scaling": 1.0}),
    "edsr": ("edsr", {}),
}
"""Name in a recipe -> model and options: the networks of Tables 1 and 2."""

RECIPES: dict[str, Recipe] = {
    f"{name}-x{scale}-bd{suffix}": make(model, scale, **options)
    for suffix, make in (("", _quick), ("-paper", _paper))
    for scale in (2, 3, 4)
    for name, (model, options) in VARIANTS.items()
}
