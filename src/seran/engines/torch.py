"""PyTorch on CUDA or Apple's GPU (and on the CPU, for comparison)."""

import functools
import threading
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from seran import subpixel
from seran.engines import Engine, Running, in_turn
from seran.errors import BadInput
from seran.models import build
from seran.weights import Weights, tensors

PIXELS = 1 << 20
"""High-resolution pixels in a batch on a GPU."""


def parameters(network: nn.Module, weights: Weights, rescaled: bool = False) -> dict[str, torch.Tensor]:
    """The state that a weights file holds for a network.

    Args:
        network: what the state is for.
        weights: of the same system.
        rescaled: they are of another scale; what does not fit of the upsampling stays as it was.

    Raises:
        BadInput: if the weights are of another network.
    """
    found = {k: torch.from_numpy(v) for k, v in tensors(weights.data).items()}
    wanted = network.state_dict()
    unlike = [k for k in wanted if k not in found or found[k].shape != wanted[k].shape]
    counts = [k for k in unlike if not wanted[k].is_floating_point()]  # of steps, which no file holds
    kept = counts + [k for k in unlike if rescaled and subpixel.in_ending(k)]
    if len(kept) < len(unlike):
        wrong = next(k for k in unlike if k not in kept)
        raise BadInput(f"{weights.path} holds another network: {wrong} is missing or of another shape")
    return {k: wanted[k] if k in kept else found[k] for k in wanted}


def network(weights: Weights) -> nn.Module:
    """The torch network of a weights file, with its parameters, in float32."""
    card = weights.card
    made = build(card.model, card.scale, card.options, card.residual)
    made.load_state_dict(parameters(made, weights))
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


def load(weights: Weights, engine: Engine) -> Running:
    """Weights on a torch device (``auto`` is the CPU); ``auto`` precision is bf16 where a GPU computes it.

    Raises:
        BadInput: if PyTorch cannot use the device.
    """
    device, scale = engine.device.replace("auto", "cpu"), weights.card.scale
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"PyTorch {torch.__version__} cannot use the device {device}: {reason}") from error
    half = engine.precision == "bf16" or (
        engine.precision == "auto" and device.startswith("cuda") and torch.cuda.is_bf16_supported()
    )
    made = network(weights).to(device)
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(low: torch.Tensor) -> torch.Tensor:
        # A recorded graph must cast the weights itself: what autocast keeps is gone when it is replayed.
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half, cache_enabled=False):
            high: torch.Tensor = made(low)
        return high.float()

    @functools.lru_cache(maxsize=1)
    def graphs(shape: tuple[int, int, int]) -> list[Graph]:
        return [Graph(run, shape, device) for _ in range(2)]

    turn = threading.Lock()

    @torch.inference_mode()
    def predict(low: Float[ndarray, "n h w"]) -> Float[ndarray, "n sh sw"]:
        n, h, w = low.shape
        high = np.empty((n, scale * h, scale * w), np.float32)
        batch = 1 if device == "cpu" else max(1, PIXELS // (scale**2 * h * w))
        with turn:  # graphs serve one caller at a time
            lanes = graphs((batch, h, w)) if device.startswith("cuda") else [Plain(run, device)]
            in_turn(low, high, lanes, batch)
        return high

    return Running(predict, f"PyTorch {torch.__version__} {device}", "bf16" if half else "f32")
