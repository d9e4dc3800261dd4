"""Weights made ready for 8-bit convolutions: what their inputs span, and what the precision costs.

Both are measured on the validation split, never on the scans that are scored, and kept in the card.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov

from seran import evaluate, files, weights
from seran.data.pairs import Packed, PreparedSet
from seran.engines import int8, openvino
from seran.errors import BadInput
from seran.weights import Card

MOST = 0.03
"""Loss in dB of PSNR that is accepted, for the worst validation volume."""
SLICES = 8
"""Of each validation volume: half of them are measured, the others scored."""
ENDS = (0, 1, 2, 4, 8, 16, 24)
"""Convolutions at either end of the network, where it is most sensitive, that are left alone in turn."""
SPARE = 1.1
"""Bounds are so much wider than what is measured, because other scans are brighter somewhere."""


def calibrate(path: Path, data: PreparedSet, progress: Callable[[int], object] = lambda _: None) -> Card:
    """Measure what 8 bits need, and write it into the card of a weights file.

    Args:
        path: the weights file; it is replaced.
        data: pairs of its degradation; the split ``val`` is used.
        progress: called with 1 before each choice of convolutions is scored.

    Returns:
        The new card; its ``int8_loss`` is that of the worst volume.

    Raises:
        BadInput: if there is nothing to measure on, or the loss is above `MOST`; the file stays as it was.
    """
    content, card, _ = weights.read(path)
    volumes = data.pick("val")
    if not volumes:
        raise BadInput(f"{data.root}: expected volumes in the split 'val', found none")
    if data.degradation != card.degradation:
        raise BadInput(f"{data.root} holds {data.degradation} pairs, {path} is for {card.degradation}")
    stacks = (evaluate.low_unit(data, v, card.scale, _slices(v, data, scored=False)) for v in volumes)
    found = int8.spans(ov.Core().read_model(content), stacks)
    wider = {name: [SPARE * a, SPARE * b] for name, (a, b) in found.items()}

    def scores(ranges: int8.Ranges) -> dict[str, float]:
        predict, _, _ = openvino.load(content, card.scale, "int8" if ranges else "f32", ranges=ranges)
        return {
            v.name: evaluate.psnr(predict, data, v, card.scale, _slices(v, data, scored=True))
            for v in volumes
        }

    exact, loss, worst = scores({}), np.inf, "every volume: no convolution is left"
    for ends in ENDS:
        progress(1)
        ranges = dict(list(wider.items())[ends : len(wider) - ends])
        if not ranges:
            break
        loss, worst = max((exact[name] - psnr, name) for name, psnr in scores(ranges).items())
        if loss <= MOST:
            break
    if not loss <= MOST:
        raise BadInput(
            f"{path}: 8 bits cost {loss:.3f} dB on {worst}, expected at most {MOST}; the file stays as it was"
        )
    card = dataclasses.replace(card, ranges=ranges, int8_loss=loss)
    with files.atomic(path) as part:
        part.write_bytes(weights.seal(weights.opened(content), card))
    return card


def _slices(volume: Packed, data: PreparedSet, scored: bool) -> list[int]:
    """Evenly spaced slices, every other one for each purpose."""
    at = np.linspace(0.1, 0.9, SLICES) * (len(data.high(volume)) - 1)
    return sorted({round(i) for i in at[int(scored) :: 2]})
