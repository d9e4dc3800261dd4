"""`seran.acquisition` in torch, on the device that trains, and what else training does to slices there.

`acquire` and `canonical` do what the functions of these names do. On a GPU the Fourier transforms are
products with matrices that are kept: random sizes would make cuFFT plan a new transform every time. Nothing
is read back from the device, so that the CPU can stay ahead of a GPU.
"""

from functools import lru_cache
from math import exp, log, pi, prod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int, UInt8
from numpy import ndarray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from seran import resize
from seran.acquisition import FLOOR, NONE, Acquisition, Window
from seran.data.patches import NEGATIVES, PARTS, POWERS, TEXTURE, TRIES
from seran.errors import BadInput

Shape = tuple[int, int]
DIFFER = 4096
"""Matrices of different sizes that are kept: on a GPU, up to about two GB."""
MATRICES = ("cuda",)
"""Kinds of devices on which a Fourier transform is a product with matrices."""


@lru_cache(DIFFER)
def _there(n: int, m: int, device: torch.device) -> Complex[Tensor, "m n"]:
    """From n samples to the central m frequencies, as `kspace.fitted` has them: zeros beyond n."""
    k, at = torch.arange(m, device=device)[:, None] - m // 2, torch.arange(n, device=device)
    inside = ((k >= -(n // 2)) & (k < n - n // 2)).double()
    return torch.polar(inside.expand(m, n) * m / n, -2 * pi * (k * at % n).double() / n).to(torch.complex64)


@lru_cache(DIFFER)
def _back(m: int, n: int, device: torch.device) -> Complex[Tensor, "n m"]:
    """From m centred frequencies to n samples."""
    return (_there(n, m, device).conj().mT / m * (n / m)).contiguous()


def spectrum(x: Tensor, shape: Shape) -> Complex[Tensor, "n a b"]:
    """Centred spectrum of slices (n, h, w), fitted to a grid: `kspace.fitted` of `kspace.spectrum`."""
    (h, w), device = x.shape[-2:], x.device
    if device.type in MATRICES:
        rows, columns = _there(h, shape[0], device), _there(w, shape[1], device)
        return rows @ x.to(torch.complex64) @ columns.mT
    whole = torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))
    return _fitted(whole, shape)


def image(block: Complex[Tensor, "n a b"], shape: Shape) -> Complex[Tensor, "n h w"]:
    """Slices of a grid from a centred spectrum on another: `kspace.image` of `kspace.fitted`."""
    (a, b), device = block.shape[-2:], block.device
    if device.type in MATRICES:
        return _back(a, shape[0], device) @ block @ _back(b, shape[1], device).mT
    return torch.fft.ifft2(torch.fft.ifftshift(_fitted(block, shape), dim=(-2, -1)))


def _fitted(block: Complex[Tensor, "n h w"], shape: Shape) -> Complex[Tensor, "n a b"]:
    h, w = block.shape[-2:]
    if (h, w) == shape:
        return block
    above, left = shape[0] // 2 - h // 2, shape[1] // 2 - w // 2
    padding = (left, shape[1] - w - left, above, shape[0] - h - above)
    return F.pad(block, padding) * (prod(shape) / (h * w))


def regridded(x: Float[Tensor, "n h w"], shape: Shape) -> Float[Tensor, "n a b"]:
    """Real slices on another grid of the same field of view, as `kspace.regridded`."""
    return x if x.shape[-2:] == shape else image(spectrum(x, shape), shape).real


@lru_cache(DIFFER)
def _frequencies(n: int, device: torch.device) -> Float[Tensor, " n"]:
    return (torch.arange(n, device=device) - n // 2).abs().float() / max(1, n // 2)


def _curve(window: Window, k: Tensor) -> Tensor:
    a, b = window.a, window.b
    if window.kind == "tukey" and a > 0:
        return 0.5 + 0.5 * torch.cos(pi * ((k - (1 - a)) / a).clamp(0, 1))
    if window.kind == "hamming":
        return 1 - a + a * torch.cos(pi * k.clamp(max=1))
    if window.kind == "fermi":
        return (1 + exp(-a / b)) / (1 + ((k - a) / b).clamp(max=60).exp())
    return torch.ones_like(k)


def on(window: Window, shape: Shape, device: torch.device) -> Float[Tensor, "h w"]:
    """A window on the centred spectrum of a grid, as `Window.on`."""
    rows, columns = (_frequencies(n, device) for n in shape)
    if window.elliptical:
        return _curve(window, torch.hypot(rows[:, None], columns))
    return _curve(window, rows)[:, None] * _curve(window, columns)


def acquire(
    x: Float[Tensor, "n h w"],
    scanner: Acquisition,
    sigma: float = 0.0,
    noise: Complex[Tensor, "n a b"] | None = None,
) -> Float[Tensor, "n g k"]:
    """The magnitude image that a scanner gives of slices, as `Acquisition.__call__`.

    Args:
        x: slices.
        scanner: what it does.
        sigma: see there.
        noise: on the acquired grid, of standard deviation 1 in both parts; needed if sigma is above 0.
    """
    block = spectrum(x, scanner.acquired)
    if sigma > 0:
        if noise is None:
            raise BadInput(f"expected noise for a sigma of {sigma}")
        block = block + sigma * prod(scanner.acquired) ** 0.5 * noise
    if scanner.window.kind != "none":
        block = block * on(scanner.window, scanner.acquired, x.device)
    block[..., : scanner.acquired[0] - round(scanner.partial * scanner.acquired[0]), :] = 0
    return image(block, scanner.given or scanner.acquired).abs()


def canonical(
    given: Float[Tensor, "n g k"], acquired: Shape, window: Window = NONE
) -> Float[Tensor, "n a b"]:
    """Given slices on their acquired grid and without their window, as `seran.acquisition.canonical`."""
    if given.shape[-2:] == acquired and window.kind == "none":
        return given
    block = spectrum(given, acquired)
    if window.kind != "none":
        w = on(window, acquired, given.device)
        block = block * (w * (1 + FLOOR**2) / (w**2 + FLOOR**2))  # `seran.acquisition.inverse`
    return image(block, acquired).real


class Size(NamedTuple):
    """Of a batch: rows and columns of low pixels, scans, slices of each, patches of each slice."""

    patch: Shape
    scans: int
    slices: int
    each: int


def heads(stack: Float[ndarray, "n h w"], rng: np.random.Generator) -> UInt8[ndarray, "n a b"]:
    """How deep each other pixel of each other row lies in the head; eroded by r is what lies deeper than r.

    The head is the largest part brighter than a random threshold, filled.
    """
    depth = np.zeros((len(stack), -(-stack.shape[1] // 2), -(-stack.shape[2] // 2)), np.uint8)
    for made, x in zip(depth, stack[:, ::2, ::2].astype(np.float32), strict=True):
        bright = ndimage.uniform_filter(x, 3) > rng.uniform(0.05, 0.2) * max(float(x.max()), 1e-3)
        labels, count = ndimage.label(bright)
        if count:
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            part = np.pad(ndimage.binary_fill_holes(labels == sizes.argmax()), 1)
            made[...] = ndimage.distance_transform_cdt(part, "taxicab")[1:-1, 1:-1].clip(max=255)
    return depth


def ellipses(facts: Float[Tensor, "6 n e"], shape: Shape) -> Bool[Tensor, "n h w"]:
    """What lies in any of e ellipses, for each of n slices.

    Args:
        facts: cosine and sine of the angle, both radii, row and column of the centre; -1 to 1 is the slice.
        shape: of the slices.
    """
    cos, sin, a, b, row, column = facts[..., None, None]
    y, x = (torch.linspace(-1, 1, n, device=facts.device) for n in shape)
    v, u = y[:, None] - row, x - column
    return (((cos * v + sin * u) / a) ** 2 + ((cos * u - sin * v) / b) ** 2 < 1).any(1)


@lru_cache(DIFFER)
def fade(n: int, end: float, device: torch.device) -> Float[Tensor, " n"]:
    """One, and a cosine to zero over the part ``end`` of a spectrum before its edge."""
    return _curve(Window("tukey", end), torch.linspace(-1, 1, n, device=device).abs())


@lru_cache(DIFFER)
def ramp(n: int, scale: int, device: torch.device) -> Complex[Tensor, " n"]:
    """Of a spectrum of n frequencies: moves slices by half of scale - 1 pixels, from center to corner."""
    angle = pi * (scale - 1) * (torch.arange(n, device=device) - n // 2) / n
    return torch.polar(torch.ones_like(angle), angle)


@lru_cache(DIFFER)
def bicubic(n: int, size: int, device: torch.device) -> Float[Tensor, "m n"]:
    """`resize.matrix`."""
    return torch.from_numpy(resize.matrix(n, size).astype(np.float32)).to(device)


@lru_cache(DIFFER)
def _nearest(n: int, m: int, device: torch.device) -> Int[Tensor, " m"]:
    return torch.from_numpy(np.minimum(np.rint(np.arange(m) * n / m).astype(int), n - 1)).to(device)


def onto(mask: Bool[Tensor, "n h w"], shape: Shape) -> Bool[Tensor, "n a b"]:
    """A mask on another grid that shares the centre of voxel 0: the nearest of its voxels."""
    if mask.shape[1:] == shape:
        return mask
    rows, columns = (_nearest(n, m, mask.device) for n, m in zip(mask.shape[1:], shape, strict=True))
    return mask[:, rows[:, None], columns]


def recontrasted(x: Float[Tensor, "n h w"], rng: np.random.Generator) -> Float[Tensor, "n h w"]:
    """Slices as another contrast: `seran.data.patches.recontrasted`, with the same numbers drawn."""
    curve, part = (exp(rng.uniform(log(least), log(most))) for least, most in (POWERS, PARTS))
    least = rng.uniform(0, max(0.0, 1 - part))
    made = x.sign() * x.abs() ** curve
    if rng.random() < NEGATIVES:
        made = 1 - made
    return least + part * made


def cut_patches(
    low: Float[Tensor, "n a b *c"],
    high: Float[Tensor, "n h w"],
    factors: Shape,
    size: Size,
    generator: torch.Generator,
    anywhere: float,
) -> tuple[Float[Tensor, "k p q *c"], Float[Tensor, "k sp tq"]]:
    """Patches of both, mostly not background: the first of `TRIES` places with texture, or the last.

    Args:
        low: slices, perhaps of several channels.
        high: as many times as fine along rows and columns.
        factors: how many times.
        size: of the batch.
        generator: of the places, on the device of the slices.
        anywhere: part of the patches for which the first place is taken.
    """
    n, device, (s, t), (p, q) = len(low), low.device, factors, size.patch
    u = torch.rand(3, n, size.each, TRIES, generator=generator, device=device)
    ends = [m - each for m, each in zip(low.shape[1:3], size.patch, strict=True)]
    top, left = ((v * (end + 1)).long().clamp(max=end) for v, end in zip(u[:2], ends, strict=True))
    which = torch.arange(n, device=device)[:, None, None, None]

    def gathered(side: Tensor, y: Tensor, x: Tensor, counts: Shape, steps: Shape = (1, 1)) -> Tensor:
        rows, columns = (step * torch.arange(m, device=device) for m, step in zip(counts, steps, strict=True))
        here = which.reshape(-1, *[1] * (y.dim() + 1))
        return side[here, (y[..., None] + rows)[..., :, None], (x[..., None] + columns)[..., None, :]]

    seen = gathered(high, s * top, t * left, (p, q), factors)
    good = (seen.std((-2, -1), correction=0) > TEXTURE) | (u[2, ..., :1] < anywhere)
    order = torch.arange(2 * TRIES, TRIES, -1, device=device) * good
    order[..., -1] = 1
    first = order.argmax(-1, keepdim=True)
    y, x = top.gather(-1, first)[..., 0], left.gather(-1, first)[..., 0]
    fine = gathered(high, s * y, t * x, (s * p, t * q))
    return gathered(low, y, x, (p, q)).flatten(0, 1), fine.flatten(0, 1)
