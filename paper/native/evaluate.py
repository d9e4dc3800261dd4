"""Gain of the native network over zero-filling on simulated scans, dB, window and noise known exactly.

    python paper/native/evaluate.py PACKED src/seran/weights/shipped/seran-native.onnx

PSNR of the central slices of a volume together, both images held at 0 from below; means over the volumes
of a contrast. The gains that are to be reached, with everything measured by the library, are in
``paper/gains.py``.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from network import Native, joined, parameters, told, warm
from numpy import ndarray
from shards import volumes
from tyro.conf import Positional

from seran.acquisition import NONE, Acquisition, Window, canonical, leftover
from seran.kspace import regridded

CASES = {
    "truncation": (NONE, 0.0, False, 1.0),
    "noise 1 %": (NONE, 0.01, False, 1.0),
    "noise 3 %": (NONE, 0.03, False, 1.0),
    "noise 5 %": (NONE, 0.05, False, 1.0),
    "hamming 0.46, 1 %": (Window("hamming", 0.46), 0.01, False, 1.0),
    "tukey 0.4, 2 %, filled": (Window("tukey", 0.4), 0.02, True, 1.0),
    "partial Fourier 6/8, 1 %": (NONE, 0.01, False, 0.75),
}
"""Name -> window, noise, whether the scanner fills with zeros to the target grid, part of the lines measured.

The network is never told of partial Fourier, and no training slice had it.
"""


def load(weights: str) -> Native:
    """The network with weights from a file, or as training begins."""
    network = warm(Native())
    if weights != "start":
        network.load_state_dict(parameters(Path(weights)))
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def enlarge(
    network: Native,
    s: ndarray,
    acquired: tuple[int, int],
    window: Window,
    sigma: float,
    scale: int,
) -> ndarray:
    """Slices on a multiple of the acquired grid.

    Args:
        network: on one thread's CPU.
        s: given slices (n, h, w) of any gain.
        acquired: rows and columns of the acquired grid.
        window: the scanner's.
        sigma: standard deviation of the noise, in units of ``s``.
        scale: of `HEADS`.
    """
    gain = float(np.percentile(s, 99.9))
    low = torch.from_numpy(canonical(s, acquired, window) / np.float32(gain))
    said = told(torch.tensor([[sigma / gain, *leftover(window)]]))
    with torch.autocast("cpu", torch.bfloat16):
        made = [network(joined(one[None, None], said), scale)[0, 0] for one in low]
    return torch.stack(made).numpy() * gain


def gain(network: Native, x: ndarray, case: str, scale: int) -> float:
    """Of one volume."""
    window, sigma, filled, partial = CASES[case]
    x = x[:, : x.shape[1] // scale * scale, : x.shape[2] // scale * scale]
    acquired = (x.shape[1] // scale, x.shape[2] // scale)
    given = (x.shape[1], x.shape[2]) if filled else acquired
    s = Acquisition(acquired, window, given, partial)(x, sigma, np.random.default_rng(0))
    made = enlarge(network, s, acquired, window, sigma, scale)
    errors = [((np.maximum(y, 0) - x) ** 2).mean(dtype=np.float64) for y in (regridded(s, x.shape[1:]), made)]
    return 10 * float(np.log10(errors[0] / errors[1]))


def main(
    packed: Positional[Path],
    weights: Positional[str],
    split: str = "val",
    slices: int = 6,
    scale: int = 2,
) -> None:
    """Print the table.

    Args:
        packed: a folder that `kit.py unpack` made.
        weights: ``start``, a checkpoint (its average), final weights or a weights file.
        split: of the volumes.
        slices: how many central slices of each.
        scale: 2, 3 or 4.
    """
    torch.set_num_threads(1)
    network, means = load(weights), {}
    head = f"| volume | contrast | {' | '.join(CASES)} |\n|---|---|{'---|' * len(CASES)}"
    sys.stdout.write(f"{weights}, {split}, x{scale}: gain over zero-filling, dB\n\n{head}\n")
    for v in volumes(packed, split):
        first = max(0, (len(v["stack"]) - slices) // 2)
        x = v["stack"][first : first + slices].astype(np.float32)
        row = [gain(network, x, case, scale) for case in CASES]
        means.setdefault(v["contrast"], []).append(row)
        _row(v["source"], v["contrast"], row)
    for contrast, rows in means.items():
        _row("mean", contrast, np.mean(rows, 0))


def _row(name: str, contrast: str, gains: Sequence[float]) -> None:
    sys.stdout.write(f"| {name} | {contrast} | {' | '.join(f'{g:+.2f}' for g in gains)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    tyro.cli(main)
