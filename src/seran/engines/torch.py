"""PyTorch on CUDA or Apple's GPU (and on the CPU, for comparison)."""

import re
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from seran import weights
from seran.errors import BadInput
from seran.models import build
from seran.weights import Card

UPSAMPLING = re.compile(r"(network\.)?(up|tail)\.")
"""Names of the parameters that may differ between the scales of one system."""


def parameters(
    network: nn.Module, data: bytes, name: str = "the weights file", rescaled: bool = False
) -> dict[str, torch.Tensor]:
    """The state that a weights file holds for a network.

    Args:
        network: what the state is for.
        data: the file.
        name: what the text of an error calls the file.
        rescaled: the file is of another scale; what does not fit of the upsampling stays as it was.

    Raises:
        BadInput: if the file is of another network.
    """
    found = {k: torch.from_numpy(v) for k, v in weights.tensors(data).items()}
    wanted = network.state_dict()
    unlike = [k for k in wanted if k not in found or found[k].shape != wanted[k].shape]
    kept = [k for k in unlike if rescaled and UPSAMPLING.match(k)]
    if len(kept) < len(unlike):
        wrong = next(k for k in unlike if k not in kept)
        raise BadInput(f"{name} holds another network: {wrong} is missing or of another shape")
    return {k: wanted[k] if k in kept else found[k] for k in wanted}


def network(data: bytes, card: Card) -> nn.Module:
    """The torch network of a weights file, with its parameters, in float32."""
    made = build(card.model, card.scale, card.options, card.residual)
    made.load_state_dict(parameters(made, data))
    return made.eval()


def load(
    data: bytes, card: Card, device: str = "cpu", precision: str = "auto"
) -> tuple[Callable[[Float[ndarray, "n h w"]], Float[ndarray, "n sh sw"]], str, str]:
    """A weights file on a torch device; ``auto`` is bf16 where a GPU computes it.

    Returns:
        The predictor, the engine in words, and the precision.

    Raises:
        BadInput: if PyTorch cannot use the device.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"PyTorch {torch.__version__} cannot use the device {device}: {reason}") from error
    half = precision == "bf16" or (
        precision == "auto" and device.startswith("cuda") and torch.cuda.is_bf16_supported()
    )
    made = network(data, card).to(device)
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        results = []
        for one in low:
            x = torch.from_numpy(np.ascontiguousarray(one[None, None], np.float32)).to(device)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                results.append(made(x)[0, 0].float().cpu().numpy())
        return np.stack(results)

    return predict, f"PyTorch {torch.__version__} {device}", "bf16" if half else "f32"
