"""Layers that the networks of the paper's Table 3 share."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from seran import resize, subpixel

Low = Float[Tensor, "b 1 h w"]
High = Float[Tensor, "b 1 sh sw"]
Maps = Float[Tensor, "b c h w"]
Kernels = Float[Tensor, "3 3 s s c 5 5"]


def conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """A stride-1 convolution with zero padding that keeps h and w, and a bias.

    Args:
        inputs: maps it sees.
        outputs: maps it makes.
        size: of its kernels, odd.
    """
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "xavier": nn.init.xavier_normal_,
    "gaussian": lambda w: nn.init.normal_(w, std=1e-3),
}


def initialise(network: nn.Module, initializer: str) -> None:
    """Draw the weights of every convolution anew, by a name in `INITIALIZERS`; biases become zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            INITIALIZERS[initializer](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """EDSR's block: x + conv3(ReLU(conv3(x))), no batch norm (Lim et al., CVPRW 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width)

    def forward(self, x: Maps) -> Maps:
        """Same shape as the input."""
        return x + self.second(self.first(x).relu())


class Dense(nn.Module):
    """Convolutions that each see all maps before them and add ``growth``; a 1x1 one back to ``width``."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(width + i * growth, growth) for i in range(layers))
        self.fuse = conv(width + layers * growth, width, 1)

    def forward(self, x: Maps) -> Maps:
        """Same shape as the input."""
        for layer in self.layers:
            x = torch.cat([x, layer(x).relu()], 1)
        return self.fuse(x)


def upsampler(width: int, scale: int) -> nn.Sequential:
    """Sub-pixel convolution: conv3 to s² maps each and a pixel shuffle; ×4 is ×2 twice (EDSR)."""
    if scale not in (2, 3, 4):
        raise ValueError(f"expected a scale of 2, 3 or 4, got {scale}")
    steps = [2, 2] if scale == 4 else [scale]
    return nn.Sequential(*(part for s in steps for part in (conv(width, s * s * width), nn.PixelShuffle(s))))


def finish(up: nn.Sequential, tail: nn.Conv2d, features: Maps) -> High:
    """``tail(up(features))``; in training as the one convolution of `seran.subpixel`.

    That has the same gradients and needs no fine features, but 3x3 pixels. Its float32 kernels are computed
    from the parameters of both, anew each time (online re-parameterization; Hu et al., CVPR 2022).

    Args:
        up: an `upsampler` of c maps.
        tail: a 3x3 convolution to one map.
        features: on the grid of the input.
    """
    if not tail.training:
        return tail(up(features))  # type: ignore[no-any-return]
    with torch.autocast(features.device.type, enabled=False):
        kernels, biases = _folded(up, tail)
    rows = []
    for y, (rows_met, tall, above) in enumerate(subpixel.WINDOWS):
        strip, row = features[:, :, rows_met], []
        for x, (columns_met, wide, beside) in enumerate(subpixel.WINDOWS):
            kernel, bias = kernels[y, x, :, :, :, tall, wide].flatten(0, 1), biases[y, x].flatten()
            row.append(F.conv2d(strip[..., columns_met], kernel, bias, padding=(above, beside)))
        rows.append(torch.cat(row, 3))
    return F.pixel_shuffle(torch.cat(rows, 2), kernels.shape[2])


def _folded(up: nn.Sequential, tail: nn.Conv2d) -> tuple[Kernels, Float[Tensor, "3 3 s s"]]:
    """`subpixel.folded`, with gradients."""
    assert tail.bias is not None
    kernels, biases = tail.weight[0].expand(3, 3, 1, 1, -1, -1, -1), tail.bias.expand(3, 3, 1, 1)
    for layer in reversed([part for part in up if isinstance(part, nn.Conv2d)]):
        assert layer.bias is not None
        s = round((layer.out_channels / kernels.shape[4]) ** 0.5)
        taps, outputs = (torch.from_numpy(a).to(kernels) for a in subpixel.phases(s, kernels.shape[2]))
        by_phase = torch.einsum(subpixel.BY_PHASE, taps, kernels, taps)
        flat, size = by_phase.reshape(-1, layer.out_channels, 3, 3), by_phase.shape[:4]
        constant = (flat.sum((2, 3)) @ layer.bias).unflatten(0, size)
        kernels = F.conv_transpose2d(flat, layer.weight).unflatten(0, size)
        biases = constant + torch.einsum(subpixel.REPEATED, outputs, biases, outputs)
    return kernels, biases


class Enlarge(nn.Module):
    """Exact bicubic (`seran.resize`) by an integer: no convolution, so that it stays float32 everywhere."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.taps: list[list[float]] = np.asarray(resize.phases(scale)).tolist()

    def forward(self, x: Maps) -> Float[Tensor, "b c sh sw"]:
        """Enlarge h and w; borders are reflected about the outer edge."""
        return self.rows(self.rows(x.float().transpose(-1, -2)).transpose(-1, -2))

    def rows(self, x: Maps) -> Float[Tensor, "b c sh w"]:
        """Enlarge h alone."""
        n = x.shape[-2]
        top, bottom = x[..., :1, :], x[..., n - 1 :, :]
        padded = torch.cat([x[..., 1:2, :], top, x, bottom, x[..., n - 2 : n - 1, :]], -2)
        rows = [sum(w * padded[..., t : t + n, :] for t, w in enumerate(kernel) if w) for kernel in self.taps]
        return torch.stack(rows, -2).flatten(-3, -2)  # type: ignore[arg-type]


class OverBicubic(nn.Module):
    """Any network as a correction of the bicubic enlargement: y = network(x) + bicubic(x)."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.enlarge = network, Enlarge(scale)

    def forward(self, x: Low) -> High:
        """The sum is float32 even under autocast."""
        return self.network(x).float() + self.enlarge(x)
