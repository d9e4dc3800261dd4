"""Weights made ready for 8-bit convolutions: what their inputs span, and what the precision costs.

Both are measured on the validation split, never on the scans that are scored, and become evidence.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from seran import evaluate, files, weights
from seran.data.pairs import Packed, PreparedSet
from seran.engines import Engine, int8, openvino
from seran.engines.runtime import ov
from seran.errors import BadInput
from seran.weights import Evidence

MOST = 0.03  # dB of PSNR that may be lost on the worst validation volume
SLICES = 8  # of each validation volume: half of them are measured, the others scored
ENDS = (0, 1, 2, 4, 8, 16, 24)  # convolutions left alone in turn at either end, where networks are sensitive
SPARE = 1.1  # bounds are so much wider than what is measured: other scans are brighter somewhere


def calibrate(path: Path, data: PreparedSet, progress: Callable[[int], object] = lambda _: None) -> Evidence:
    """Measure what 8 bits need, and write it into a weights file, behind what is sealed, or refuse.

    Args:
        path: the weights file; it is replaced.
        data: pairs of its degradation; the split ``val`` is used.
        progress: called with 1 before each choice of convolutions is scored.
    """
    held = weights.read(path)
    scale, volumes = held.card.scale, data.pick("val")
    if not volumes:
        raise BadInput(f"{data.root}: expected volumes in the split 'val', found none")
    if data.degradation != held.card.degradation:
        raise BadInput(f"{data.root} holds {data.degradation} pairs, {path} is for {held.card.degradation}")
    stacks = (evaluate.low_unit(data, v, scale, _slices(v, data, 0)) for v in volumes)
    found = int8.spans(ov.Core().read_model(held.data), stacks)
    wider = [(name, [SPARE * a, SPARE * b]) for name, (a, b) in found.items()]

    def scores(ranges: dict[str, list[float]]) -> dict[str, float]:
        given = dataclasses.replace(held, evidence=dataclasses.replace(held.evidence, ranges=ranges))
        predict = openvino.load(given, Engine(precision="int8" if ranges else "f32"), direct=True).predict
        return {v.name: evaluate.psnr(predict, data, v, scale, _slices(v, data, 1)) for v in volumes}

    exact, loss, worst = scores({}), np.inf, "every volume: no convolution is left"
    for ends in ENDS:
        progress(1)
        ranges = dict(wider[ends : len(wider) - ends])
        if ranges:
            loss, worst = max((exact[name] - psnr, name) for name, psnr in scores(ranges).items())
        if loss <= MOST or not ranges:
            break
    if not loss <= MOST:
        raise BadInput(
            f"{path}: 8 bits cost {loss:.3f} dB on {worst}, expected at most {MOST}; the file stays as it was"
        )
    evidence = dataclasses.replace(held.evidence, ranges=ranges, int8_loss=loss)
    with files.atomic(path) as part:
        part.write_bytes(weights.with_evidence(held.data, evidence))
    return evidence


def _slices(volume: Packed, data: PreparedSet, first: int) -> list[int]:
    """Evenly spaced slices, every other one: those to measure (0), or to score (1)."""
    at = np.linspace(0.1, 0.9, SLICES) * (len(data.high(volume)) - 1)
    return sorted({round(i) for i in at[first::2]})
