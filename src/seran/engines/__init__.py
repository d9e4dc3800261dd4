"""How a trained network is run: one module per engine, each with ``load``: weights -> predictor.

A predictor is `seran.sharpen.Predict`. OpenVINO is the engine for CPUs; torch (an optional dependency) is the
engine for CUDA and Apple GPUs.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@runtime_checkable
class Lane(Protocol):
    """What computes one batch at a time, beside others."""

    def start(self, low: Float[ndarray, "n h w"]) -> None:
        """Give it slices; it may return before they are done."""

    def result(self) -> Float[ndarray, "n sh sw"]:
        """What it made of them, valid until the next start."""


def in_turn(
    low: Float[ndarray, "n h w"],
    high: Float[ndarray, "n sh sw"],
    lanes: Sequence[Lane],
    batch: int,
) -> None:
    """Every slice of ``low`` to its place in ``high``; the lanes take turns at batches."""
    parts = [slice(i, i + batch) for i in range(0, len(low), batch)]
    for i in range(len(parts) + len(lanes)):
        lane, done = lanes[i % len(lanes)], i - len(lanes)
        if done >= 0:
            high[parts[done]] = lane.result()
        if i < len(parts):
            lane.start(np.ascontiguousarray(low[parts[i]], np.float32))
