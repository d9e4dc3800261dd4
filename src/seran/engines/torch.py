"""PyTorch on CUDA or Apple's GPU (and on the CPU, for comparison)."""

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from seran import subpixel
from seran.engines import Engine, Lane, Running, predictor
from seran.errors import BadInput
from seran.models import build, isotropic
from seran.models.isotropic import OneFactor
from seran.models.native import TOLD, FastOneHead, OneHead
from seran.models.uncertainty import MAPS, HalfWidth
from seran.weights import SLICES, UNCERTAINTY, Weights, tensors

PIXELS = 1 << 20  # of high resolution in a batch on a GPU


def parameters(network: nn.Module, weights: Weights, rescaled: bool = False) -> dict[str, torch.Tensor]:
    """The state that a weights file holds for a network; a `BadInput` if it is of another one.

    Args:
        network: what the state is for.
        weights: of the same system.
        rescaled: they are of another scale; what does not fit of the upsampling stays as it was.
    """
    state, found = network.state_dict(), tensors(weights.data)
    for name, value in state.items():
        if name in found and found[name].shape == value.shape:
            state[name] = torch.from_numpy(found[name])
        elif value.is_floating_point() and not (rescaled and subpixel.in_ending(name)):  # no count of steps
            raise BadInput(f"{weights.path} holds another network: {name} is missing or of another shape")
    return state


def network(weights: Weights) -> nn.Module:
    """The torch network of a weights file, with its parameters, in float32."""
    card = weights.card
    if card.model == UNCERTAINTY:
        made: nn.Module = HalfWidth()
    elif "heads" in card.options:
        whole = FastOneHead if card.model == "fast" else OneHead
        made = (OneFactor if card.degradation == SLICES else whole)(card.scale)
    else:
        made = build(card.model, card.scale, card.options, card.residual)
    made.load_state_dict(parameters(made, weights))
    return made.eval()


def load(weights: Weights, engine: Engine) -> Running:
    """Weights on a torch device (``auto`` is the CPU); ``auto`` precision is bf16 where a GPU computes it."""
    device, card = engine.device.replace("auto", "cpu"), weights.card
    maps = 1 if "heads" not in card.options else isotropic.MAPS if card.degradation == SLICES else 1 + TOLD
    maps = MAPS if card.model == UNCERTAINTY else maps
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"PyTorch {torch.__version__} cannot use the device {device}: {reason}") from error
    native = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    half = engine.precision == "bf16" or (engine.precision == "auto" and native)
    made = network(weights).to(device)
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(low: torch.Tensor) -> torch.Tensor:
        # A recorded graph must cast the weights itself: what autocast keeps is gone when it is replayed.
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half, cache_enabled=False):
            high: torch.Tensor = made(low)
        return high.float()

    plain = Lane(lambda low: run(torch.from_numpy(low).to(device)), lambda high: high[:, 0].cpu().numpy())

    @functools.lru_cache(maxsize=1)
    def graphs(n: int, h: int, w: int) -> list[Lane]:
        return [_graph(run, torch.zeros((n, maps, h, w), device=device)) for _ in range(2)]

    def lanes(h: int, w: int) -> tuple[list[Lane], int]:
        batch = 1 if device == "cpu" else max(1, PIXELS // (math.prod(card.factors) * h * w))
        return graphs(batch, h, w) if device.startswith("cuda") else [plain], batch

    what = f"PyTorch {torch.__version__} {device}"
    return Running(predictor(card.factors, lanes), what, "bf16" if half else "f32")


def _graph(run: Callable[[torch.Tensor], torch.Tensor], low: torch.Tensor) -> Lane:
    """A network as a CUDA graph on one input, not all of which need be used, with a stream of its own.

    Slices travel through pinned memory, so that of two that take turns one computes while the other's travel.
    """
    stream, graph = torch.cuda.Stream(low.device), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(low.device))
    # It turns off whatever it is not told to leave on, cuDNN itself included.
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    with torch.cuda.stream(stream), cudnn:
        for _ in range(3):  # cuDNN tries its algorithms before anything is recorded
            run(low)
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            high = run(low)
    sent, got = torch.zeros(low.shape, pin_memory=True), torch.empty(high.shape, pin_memory=True)

    def start(slices: Float[ndarray, "n c h w"]) -> int:
        sent[: len(slices)] = torch.from_numpy(slices)
        with torch.cuda.stream(stream):
            low.copy_(sent, non_blocking=True)
            graph.replay()
            got.copy_(high, non_blocking=True)
        return len(slices)

    def result(n: int) -> Float[ndarray, "n sh sw"]:
        stream.synchronize()
        return got[:n, 0].numpy()

    return Lane(start, result)
