"""The network across slices, fine-tuned on the scan that it is for: pairs of its own slices.

A scan is sharp in the plane of its slices. Either axis x of that plane, seen by the scan's own profile, gives
pairs of its own contrast, anatomy and artefacts (Zhao et al., SMORE, IEEE TMI 2021; ECLARE begins with
nothing, this with the shipped weights). With slice selection W (`seran.profiles`) and noise z ~ N(0, σ²),

    low = W (x + a z),    high = x - z / a,    a² = 1 / Σ w² - 1,    minimize |network(low) - high|²

x itself has noise of the scan, n. Were it wanted as it is, that would be learned as detail, because low has
it, too. But n + a z and n - z / a are independent (Pang et al., Recorrupted-to-Recorrupted, CVPR 2021), and a
makes the noise of low that of the scan. Where the scan is darker than its noise, whose mean is not zero in a
magnitude, what the network said before is wanted. Own slices have no neighbours a pixel away: each is shown
three times.

Adam at a constant rate with a moving average of the parameters: what so many steps make does not depend on
how many were meant to be made. Slices that nothing was learned from decide whether the shipped weights are
kept.
"""

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage

from seran import machine, methods
from seran.engines import Engine
from seran.errors import BadInput
from seran.isotropic import told
from seran.machine import has_bf16, needed
from seran.native import joined
from seran.profiles import Profile, selection
from seran.progress import unseen
from seran.sharpen import Across, Normalisation, Progress
from seran.weights import HALF, Weights
from seran.weights.graph import DATA_TYPE, DTYPES, GRAPH, INITIALIZER, NAME, RAW_DATA, encoded, fields

try:
    import torch
    from torch import Tensor, nn

    from seran.engines.torch import network
except ModuleNotFoundError as error:  # upscaling needs it for nothing else on a CPU
    raise needed("--adapt", error) from error

RATE, BETAS, CLIP, WARMUP = 3e-5, (0.9, 0.99), 0.5, 10
AVERAGED = 4  # of t steps, the last t / 4 or so decide the average
PATCH = 20, 40  # low rows and columns
SLICES, EACH = 8, 2  # of a step, and patches of each slice
FEWEST = 8  # low rows of a patch
MOST = 96  # slices that are used of a scan
HELD, CHECKED = 8, 4  # one slice of so many is not learned from; batches that it is judged by
DARK, NOISES = 0.02, 3.0
"""What is brighter than this part of the range, and than so many times the noise, is lit."""
TEXTURE, TRIES = 0.03, 8  # standard deviation of a patch that shows something; places that are tried for it
LOST = 0.1  # of the variance of noise, at least, that the averages of slices count as having lost
LEAST, GREATEST = 1e-12, 1e9  # squared errors: of dark patches, and of what is no number
WORTH = 0.02
"""dB on slices that nothing was learned from, below which the shipped weights are kept."""
TOO_FEW = "too few of its slices show enough"
TOO_SHORT = "no step of training fits into the seconds, give more"
Batch = tuple[ndarray, ndarray, ndarray]  # low patches (b, p, q), high ones (b, k p, q), what is lit of these


@dataclass(frozen=True)
class Adapted:
    """A network across slices for one scan, and how it came about.

    Attributes:
        across: the network; the one that was given, where `gain` is not worth it.
        steps: of training.
        seconds: that all of it took.
        gain: over the given network on the scan's own pairs that nothing was learned from, in dB.
        kept: why the given network is kept; empty if it is not.
    """

    across: Across
    steps: int = 0
    seconds: float = 0.0
    gain: float = 0.0
    kept: str = ""

    @property
    def helped(self) -> bool:
        """Whether the network is another one than before."""
        return not self.kept


@dataclass(frozen=True)
class Pairs:
    """Where pairs come from.

    Attributes:
        slices: of about [0, 1].
        lit: what is brighter than noise, and learned; the rest stays as it is.
        k: rows for each.
        profile: of the scan.
        sigma: of its noise.
    """

    slices: Float[ndarray, "n h w"]
    lit: Bool[ndarray, "n h w"]
    k: int
    profile: Profile
    sigma: float

    @property
    def patch(self) -> tuple[int, int]:
        """Low rows and columns."""
        side = min(self.slices.shape[1:])
        return min(PATCH[0], side // self.k - 1), min(PATCH[1], side)

    def batch(self, *seed: int) -> Batch:
        """Those that a seed draws: half of them selected along rows, half along columns."""
        rng, found = np.random.default_rng(seed), []
        for swapped in (False, True):
            chosen = rng.choice(len(self.slices), SLICES // 2, replace=len(self.slices) < SLICES // 2)
            turn = (slice(None), *(slice(None, None, int(step)) for step in rng.choice([1, -1], 2)))
            x, lit = (side[chosen][turn] for side in (self.slices, self.lit))
            found += (
                self._cut(x.swapaxes(1, 2), lit.swapaxes(1, 2), rng) if swapped else self._cut(x, lit, rng)
            )
        low, high, seen = (np.stack(part) for part in zip(*found, strict=True))
        return low, high, seen

    def _cut(self, x: ndarray, lit: ndarray, rng: np.random.Generator) -> list[Batch]:
        """`EACH` patches of each slice, whose rows are selected, the first at a random place."""
        k, (p, q), first = self.k, self.patch, int(rng.integers(self.k))
        rows = (x.shape[1] - k + 1) // k * k
        x, lit = x[:, first : first + rows], lit[:, first : first + rows]
        weights = selection(rows, k, self.profile).astype(np.float32)
        more = math.sqrt(max(1 / float(np.square(weights).sum(1).mean()) - 1, LOST))
        z = np.float32(self.sigma) * rng.standard_normal(x.shape, np.float32)
        low, high = weights @ (x + np.float32(more) * z), x - z / np.float32(more)
        ends, found = (low.shape[1] - p + 1, low.shape[2] - q + 1), []
        for i in np.repeat(np.arange(len(x)), EACH):
            for _ in range(TRIES):
                top, left = rng.integers(ends)
                fine = (i, slice(k * top, k * (top + p)), slice(left, left + q))
                if x[fine].std() > TEXTURE:
                    break
            found.append((low[i, top : top + p, left : left + q], high[fine], lit[fine]))
        return found


def pairs_of(
    stack: Float[ndarray, "n h w"], k: int, profile: Profile, sigma: float
) -> tuple[Pairs, Pairs] | None:
    """What is learned from, and what judges it; None for a scan with too few slices that show something.

    Args:
        stack: slices of about [0, 1].
        k: rows for each.
        profile: of the scan.
        sigma: of its noise.
    """
    step = -(-len(stack) // MOST)
    x = np.ascontiguousarray(stack[step // 2 :: step])
    smooth = ndimage.uniform_filter(x, (0, 5, 5))
    lit = smooth > max(DARK, NOISES * sigma)
    shown = (smooth.std((1, 2)) > max(TEXTURE, sigma)) & (lit.mean((1, 2)) > DARK)
    x, lit = x[shown], lit[shown]
    judge = np.arange(len(x)) % HELD == HELD // 2
    learned, held = (Pairs(x[part], lit[part], k, profile, sigma) for part in (~judge, judge))
    return (learned, held) if len(held.slices) and learned.patch[0] >= FEWEST else None


def adapted(
    across: Across,
    stack: Float[ndarray, "n h w"],
    k: int,
    profile: Profile,
    sigma: float = 0.0,
    seconds: float = 60.0,
    steps: int | None = None,
    engine: Engine = Engine(),  # noqa: B008
    progress: Progress = unseen,
    seed: int = 0,
) -> Adapted:
    """The network of one factor, fine-tuned on a scan's own slices; the given one where that does not help.

    Args:
        across: the network; must have come from a file.
        stack: the slices, sharp in their plane.
        k: the factor.
        profile: what the slices have seen.
        sigma: standard deviation of their noise, in their units.
        seconds: that it may take in all.
        steps: to make, however long that takes.
        engine: how it is run; the device that trains, and its threads.
        progress: called with hundredths of the work, as they are finished.
        seed: what is drawn depends on this and the number of a step.
    """
    if across.held is None:
        raise BadInput("--adapt: the network across slices is not one of a weights file")
    began, norm = time.perf_counter(), Normalisation.of(stack)
    noise = sigma / norm.gain if norm.gain else 0.0
    found = pairs_of(norm.apply(stack), k, profile, noise) if norm.gain else None
    if found is None:
        progress(100)
        return Adapted(across, seconds=time.perf_counter() - began, kept=TOO_FEW)
    held, (learned, judge) = across.held(k), found
    with threads(engine.threads or machine.threads()):
        run = Run(network(held), told(noise, profile, k), engine.device.replace("auto", "cpu"))
        before, shown = run.error(judge), 0
        judging = time.perf_counter() - began
        while steps is None or run.steps < steps:
            took = time.perf_counter() - began + judging
            done = took / seconds if steps is None else run.steps / steps
            if done >= 1:
                break
            run.learn(learned.batch(seed, run.steps))
            progress(int(100 * done) - shown)
            shown = int(100 * done)
        run.swap()
        gain = 10 * math.log10(before / run.error(judge)) if run.steps else 0.0
    progress(100 - shown)
    kept = "" if gain >= WORTH else "no better on others of its slices" if run.steps else TOO_SHORT
    made = Adapted(across, run.steps, time.perf_counter() - began, gain, kept)
    if not made.helped:
        return made
    running = methods.loaded(replaced(held, run.state()), engine)  # only this scan wants it
    return replace(made, across=replace(across, heads=lambda f: running if f == k else across.heads(f)))


class Run:
    """A network that is trained, and the average of its parameters."""

    def __init__(self, made: nn.Module, said: Float[ndarray, " t"], device: str) -> None:
        """Begin with its parameters; what it is told is always the same."""
        self.network = made.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.first = copy.deepcopy(self.network)
        self.said, self.device, self.steps = said, torch.device(device), 0
        self.average = [p.detach().clone() for p in made.parameters()]
        self.optimizer = torch.optim.Adam(made.parameters(), lr=RATE, betas=BETAS, fused=True)
        on_cpu = self.device.type == "cpu"
        self.half = has_bf16() if on_cpu else device.startswith("cuda") and torch.cuda.is_bf16_supported()

    def squares(self, batch: Batch) -> tuple[Tensor, int]:
        """The sum of squared errors, and the number of pixels."""
        low, high, lit = batch
        given = joined(np.stack([low] * 3, 1), self.said)  # own slices have no neighbours a pixel away
        x, y, known = (torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in (given, high, lit))
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                before = self.first(x)[:, 0]
            made = self.network(x)[:, 0]
        return (made - torch.where(known, y, before)).square().sum(), y.numel()

    def learn(self, batch: Batch) -> None:
        """One step."""
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, self.steps / WARMUP)
        total, count = self.squares(batch)
        self.optimizer.zero_grad()
        (total / count).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            weight = AVERAGED / (self.steps + AVERAGED)
            torch._foreach_lerp_(self.average, list(self.network.parameters()), weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their average."""
        for p, mean in zip(self.network.parameters(), self.average, strict=True):
            now = p.clone()
            p.copy_(mean)
            mean.copy_(now)

    def state(self) -> dict[str, ndarray]:
        """The parameters."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.network.named_parameters()}

    @torch.no_grad()
    def error(self, pairs: Pairs) -> float:
        """Mean squared error on pairs, always the same."""
        sums = [self.squares(pairs.batch(0, i)) for i in range(CHECKED)]
        total, count = (float(sum(parts)) for parts in zip(*sums, strict=True))
        return max(total / count, LEAST) if math.isfinite(total) else GREATEST


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def replaced(weights: Weights, state: dict[str, ndarray]) -> Weights:
    """Weights of one factor with other parameters, stored in the types that they had.

    Args:
        weights: of the same network.
        state: parameters by their names in torch.
    """

    def tensor(message: bytes) -> bytes:
        parts = list(fields(message))
        stated = dict(parts)
        values = state.get(stated[NAME].decode().removesuffix(HALF))
        if values is None:
            return message
        raw = values.astype(DTYPES[stated[DATA_TYPE]]).tobytes()
        return b"".join(encoded(n, raw if n == RAW_DATA else value) for n, value in parts)

    def graph(message: bytes) -> bytes:
        parts = fields(message)
        return b"".join(encoded(n, tensor(value) if n == INITIALIZER else value) for n, value in parts)

    data = b"".join(encoded(n, graph(value) if n == GRAPH else value) for n, value in fields(weights.data))
    return replace(weights, data=data, digest=hashlib.sha256(data).hexdigest())
