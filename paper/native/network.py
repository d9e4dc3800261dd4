"""What training knows of the network besides `seran.models.native`: what it is told, and where it starts."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seran import weights
from seran.models.native import HEADS, Native, joined

__all__ = ["HEADS", "Native", "fresh", "joined", "parameters", "told", "warm"]


def parameters(path: Path) -> dict[str, Tensor]:
    """Of a network, by name: from a weights file, final weights, or the average in a checkpoint."""
    if path.suffix == ".onnx":
        found = {k: torch.from_numpy(v.copy()) for k, v in weights.tensors(weights.read(path).data).items()}
    else:
        found = load_file(path)
    if any(k.startswith("average.") for k in found):
        found = {k: v for k, v in found.items() if k.startswith("average.")}
    return {k.removeprefix("average.").removeprefix("network."): v.float() for k, v in found.items()}


def fresh(network: nn.Module) -> nn.Module:
    """Start from the network's own initialisation."""
    return network


def told(facts: Tensor) -> Tensor:
    """What the network is told of scans: of their noise and three times `leftover` (b, 4), 0 to about 1."""
    return torch.cat([(20 * facts[:, :1]).sqrt(), facts[:, 1:]], 1)


@torch.no_grad()
def warm(network: Native) -> Native:
    """Start from shipped weights: body and x2 of seran-x2-td, upsampling x3 and x4 of their bicubic kin."""
    content = {}
    for s, name in ((2, "seran-x2-td"), (3, "seran-x3-bd"), (4, "seran-x4-bd")):
        content[s] = parameters(weights.shipped()[name])
    state = network.state_dict()
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "body":
            value.copy_(content[2][key])
        elif part in ("up", "tail") and rest[0] != "1":
            value.copy_(content[int(rest[0])][f"{part}.{rest[2:]}"])
    network.head.weight.zero_()
    network.head.weight[:, :1].copy_(content[2]["head.weight"])
    network.head.bias.copy_(content[2]["head.bias"])
    return network
