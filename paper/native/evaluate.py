"""Gain of the native network over zero-filling on simulated scans, dB, x2, window and noise known exactly.

``python paper/native/evaluate.py PACKED paper/native/native.safetensors``. PSNR of the central slices of a
volume together, both images held at 0 from below; means over the volumes of a contrast. The gains
that are to be reached, with everything measured by the library, are in ``paper/gains.py``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from network import Native, joined, told, warm
from numpy import ndarray
from safetensors.torch import load_file
from shards import volumes
from tyro.conf import Positional

from seran.acquisition import NONE, Acquisition, Window, canonical, leftover
from seran.kspace import regridded

SCALE = 2
CASES = {
    "truncation": (NONE, 0.0, 1),
    "noise 1 %": (NONE, 0.01, 1),
    "noise 3 %": (NONE, 0.03, 1),
    "noise 5 %": (NONE, 0.05, 1),
    "hamming 0.46, 1 %": (Window("hamming", 0.46), 0.01, 1),
    "tukey 0.4, 2 %, filled": (Window("tukey", 0.4), 0.02, 2),
}
"""Name -> window, noise, zero-filling by the scanner (2: to the target grid)."""


def load(weights: str) -> Native:
    """The network with weights from a file, or as training begins."""
    network = warm(Native())
    if weights != "start":
        found = load_file(weights)
        if any(k.startswith("average.") for k in found):
            found = {k.removeprefix("average."): v for k, v in found.items() if k.startswith("average.")}
        network.load_state_dict(found)
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def enlarge(network: Native, s: ndarray, acquired: tuple[int, int], window: Window, sigma: float) -> ndarray:
    """Given slices (n, h, w) of any gain -> slices on SCALE times the acquired grid."""
    gain = float(np.percentile(s, 99.9))
    low = torch.from_numpy(canonical(s, acquired, window) / np.float32(gain))
    said = told(torch.tensor([[sigma / gain, *leftover(window)]]))
    with torch.autocast("cpu", torch.bfloat16):
        made = [network(joined(one[None, None], said), SCALE)[0, 0] for one in low]
    return torch.stack(made).numpy() * gain


def gain(network: Native, x: ndarray, case: str) -> float:
    """Of one volume."""
    window, sigma, filling = CASES[case]
    acquired = (x.shape[1] // SCALE, x.shape[2] // SCALE)
    given = (acquired[0] * filling, acquired[1] * filling)
    s = Acquisition(acquired, window, given)(x, sigma, np.random.default_rng(0))
    filled = regridded(s, x.shape[1:])
    made = enlarge(network, s, acquired, window, sigma)
    errors = [float(((np.maximum(y, 0) - x) ** 2).mean(dtype=np.float64)) for y in (filled, made)]
    return 10 * np.log10(errors[0] / errors[1])


def main(packed: Positional[Path], weights: Positional[str], split: str = "val", slices: int = 6) -> None:
    """Print the table.

    Args:
        packed: a folder that `kit.py unpack` made.
        weights: ``start``, a checkpoint (its average) or final weights.
        split: of the volumes.
        slices: how many central slices of each.
    """
    torch.set_num_threads(1)
    network, means = load(weights), {}
    head = f"| volume | contrast | {' | '.join(CASES)} |\n|---|---|{'---|' * len(CASES)}"
    sys.stdout.write(f"{weights}, {split}: gain over zero-filling, dB\n\n{head}\n")
    for v in volumes(packed, split):
        first = max(0, (len(v["stack"]) - slices) // 2)
        x = v["stack"][first : first + slices].astype(np.float32)
        row = [gain(network, x, case) for case in CASES]
        means.setdefault(v["contrast"], []).append(row)
        _row(v["source"], v["contrast"], row)
    for contrast, rows in means.items():
        _row("mean", contrast, np.mean(rows, 0))


def _row(name: str, contrast: str, gains: Sequence[float]) -> None:
    sys.stdout.write(f"| {name} | {contrast} | {' | '.join(f'{g:+.2f}' for g in gains)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    tyro.cli(main)
