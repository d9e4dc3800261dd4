"""PyTorch on CUDA or Apple's GPU (and on the CPU, for comparison)."""

import functools
import re
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from seran import weights
from seran.engines import in_turn
from seran.errors import BadInput
from seran.models import build
from seran.weights import Card

PIXELS = 1 << 20
"""High-resolution pixels in a batch on a GPU."""
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


class Plain:
    """The network as it is, for batches of any size."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], device: str) -> None:
        self.run, self.device = run, device

    def start(self, low: Float[ndarray, "n h w"]) -> None:
        """Give it slices."""
        self.high = self.run(torch.from_numpy(low[:, None]).to(self.device))

    def result(self) -> Float[ndarray, "n sh sw"]:
        """What it made of them."""
        return self.high[:, 0].cpu().numpy()


class Graph:
    """The network as a CUDA graph for batches of one shape, with memory of its own and a stream of its own.

    Slices travel through pinned memory, so that of two that take turns one computes while the other's travel.

    Args:
        run: the network.
        shape: n, h and w of the batches; a smaller one is filled up.
        device: ``cuda`` or ``cuda:N``.
    """

    def __init__(
        self, run: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, int, int], device: str
    ) -> None:
        n, h, w = shape
        self.low, self.count = torch.zeros((n, 1, h, w), device=device), 0
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))
        self.graph = torch.cuda.CUDAGraph()
        # It turns off whatever it is not told to leave on, cuDNN itself included.
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        with torch.cuda.stream(self.stream), cudnn:
            for _ in range(3):  # cuDNN tries its algorithms before anything is recorded
                run(self.low)
            self.stream.synchronize()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.high = run(self.low)
        self.sent = torch.zeros(self.low.shape, pin_memory=True)
        self.got = torch.empty(self.high.shape, pin_memory=True)

    def start(self, low: Float[ndarray, "n h w"]) -> None:
        """Give it slices; returns before they are there."""
        self.count = len(low)
        self.sent[: self.count, 0] = torch.from_numpy(low)
        with torch.cuda.stream(self.stream):
            self.low.copy_(self.sent, non_blocking=True)
            self.graph.replay()
            self.got.copy_(self.high, non_blocking=True)

    def result(self) -> Float[ndarray, "n sh sw"]:
        """What it made of them, valid until the next start."""
        self.stream.synchronize()
        return self.got[: self.count, 0].numpy()


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

    def run(low: torch.Tensor) -> torch.Tensor:
        # A recorded graph must cast the weights itself: what autocast keeps is gone when it is replayed.
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half, cache_enabled=False):
            high: torch.Tensor = made(low)
        return high.float()

    @functools.lru_cache(maxsize=1)
    def graphs(shape: tuple[int, int, int]) -> list[Graph]:
        return [Graph(run, shape, device) for _ in range(2)]

    @torch.inference_mode()
    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        n, h, w = low.shape
        high = np.empty((n, card.scale * h, card.scale * w), np.float32)
        batch = 1 if device == "cpu" else max(1, PIXELS // (card.scale**2 * h * w))
        lanes = graphs((batch, h, w)) if device.startswith("cuda") else [Plain(run, device)]
        in_turn(low, high, lanes, batch)
        return high

    return predict, f"PyTorch {torch.__version__} {device}", "bf16" if half else "f32"
