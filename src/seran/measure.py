"""What a scan says of its own acquisition: measured band, the scanner's filter, noise, masked background.

The power spectrum of tissue, without air (whose rectified noise spreads to twice the band), is explained
along each axis as ``P(k) = W(k/f)² (Σ αⱼ Sⱼ(k) + N) + c``: anatomy falls by Lorentzians Sⱼ, noise N is flat,
both are filtered by the window W and end at the fraction f of the grid; beyond it is only c, what the
magnitude of noise leaves there, so at most a few hundredths of N. All are ≥ 0 and maximise the likelihood of
averaged powers (a Gamma law, hence the Itakura–Saito divergence; multiplicative updates of Févotte 2009).
Power off both axes, where noise shows, then chooses the window, given what air says of the noise. The
simplest explanation wins; what must be beaten is the whole band without a window.

Noise comes from air where its mean and spread are those of a Rayleigh law, E s² = 2 σ² mean W², or of its
kin of several coils (Constantinides 1997); else from the least power in the band of tissue, an upper bound.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import fft, ndimage

from seran import kspace, noise
from seran.acquisition import NONE, Window, block, canonical

Source = Literal["air", "k-space", "tissue", "stated", "unknown"]
Band = tuple[tuple[float, float], Window]  # acquired part of the grid along rows and columns, and the filter
Fit = tuple[Float[ndarray, " _"], Float[ndarray, "w _"]]
STRONG = 0.19
"""Largest attenuation at the edge of a window that is believed."""
LARGEST = 0.06
"""Largest noise that is believed of tissue, of the 99.9th percentile: the bound is not near above it."""
BRIGHTEST = 10.0  # times the 99.9th percentile: what is above is damage and is held there
WINDOWS = (
    NONE,
    *(Window("tukey", a) for a in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)),
    *(Window("hamming", a) for a in (0.1, 0.2, 0.3, 0.4, 0.46)),
    *(Window("fermi", a, b) for a in (0.9, 1.0) for b in (0.04, 0.06, 0.1)),
)
"""The filters that are looked for."""
COST = np.array([{"none": 0.0, "fermi": 20.0}.get(w.kind, 14.0) for w in WINDOWS])
"""Log-likelihood that a window must win."""
EDGE_COST = 12.0
"""Log-likelihood that the end of the band must win, per axis."""
APART = 40.0  # log-likelihood that a window of its own for each axis must win
INNER = 100.0  # weight of the power off both axes, in bins of a spectrum
STEP = 3.0
"""Times as much as its window alone explains by which power falls at a band's end, if it ends in a step."""
NEAR, FAR = 0.03, 0.15  # of the grid, from an end: what is compared on either side of it
DARKER = 0.05  # of the voxels at most are below the darkest constant
RIM = 0.5  # of a slice's outermost pixels, that a background has which is not the darkest of the scan
MOST = 0.96  # fraction of the grid above which all of it counts as measured
LEAST = 0.3  # fraction of the grid below which no end of the band is looked for
FROM = 0.08  # fraction of the grid from which spectra are explained: below, anatomy has no law
STRIP = 0.12  # half width of the averaged strip about the other axis, where elliptical windows look separable
SOFT = 0.05
"""Blur of the tissue's weight: standard deviation, in fields of view. It blurs spectra by few samples."""
FLOOR = 0.05  # largest power beyond the band, of the noise's
MISSED, FEW = 3.0, 8
"""Times the noise's power that is found beyond an end, in so many slices, if it is none; else at most 1."""
STEPS = 60  # of the multiplicative updates
BINS = 100  # at most so many bins per half spectrum, up to the next whole number of samples in each


@dataclass(frozen=True)
class Measured:
    """What is known of a scan.

    Attributes:
        fraction: acquired part of the given grid along rows and columns.
        window: the scanner's filter that explains the fall of the spectrum at the edge.
        sigma: standard deviation of the real and of the imaginary noise, as `Acquisition` takes it: in image
            units of the acquired grid without the window; 0 if none is measurable.
        by: where sigma comes from. k-space: an upper bound, by flat tissue; tissue: as much more than was
            measured as keeps flat tissue quiet, a bound, too; stated is not measured.
        background: the value of a masked background.
    """

    fraction: tuple[float, float] = (1.0, 1.0)
    window: Window = NONE
    sigma: float = 0.0
    by: Source = "unknown"
    background: float | None = None

    @property
    def band(self) -> Band:
        """What is the same for all volumes of a scan."""
        return self.fraction, self.window

    @property
    def sure(self) -> tuple[bool, bool]:
        """Of each axis, whether the end of the band was seen; else its fraction is 1."""
        return self.fraction[0] < 1, self.fraction[1] < 1


def measured(stack: Float[ndarray, "n h w"], known: Band | None = None) -> Measured:
    """Measure magnitude images; what cannot be known is left at the cautious side.

    Args:
        stack: slices first.
        known: the band, where it is: then noise and background are measured.
    """
    bare = Measured(*(known or ()))
    if min(stack.shape) < 1 or not np.isfinite(stack).all() or stack.min() == stack.max():
        return bare
    chosen = kspace.strong(stack).astype(np.float32)
    background, outside = masked(chosen)
    zero = np.float32(background or 0)
    if background is not None and (chosen < zero).mean() > DARKER:
        dark = np.percentile(chosen, 0.1).astype(np.float32)
        chosen, zero = np.where(chosen == zero, dark, chosen), dark
    chosen = chosen - zero
    unit = float(np.percentile(np.abs(chosen), 99.9)) or float(np.abs(chosen).max())
    if min(stack.shape[1:]) < 24 or not unit:
        return replace(bare, background=background)
    chosen = np.clip(chosen / np.float64(unit), -BRIGHTEST, BRIGHTEST).astype(np.float32)
    weight = tissue(chosen, outside)
    if not weight.any():
        return replace(bare, background=background)
    power = folded(chosen * weight)
    energy = float((weight**2).sum((1, 2)).mean())
    variance, air = noise.in_air(chosen, outside)
    fits = [] if known else spectra(power, folded(weight))
    fraction, window = known or band(power, fits)
    most = noise.in_band(power, fraction, window, energy)
    real = most / 50 < np.sqrt(variance / window.passed) < 1.3 * most
    if not known:
        if real:
            fraction, window = band(power, fits, energy * variance)
        window = _certain(window, fraction, air if real else air[:0], chosen.shape[1:])
    by: Source = "air"
    if real:
        sigma = float(np.sqrt(variance / window.passed))
    else:
        grid = round(fraction[0] * chosen.shape[1]), round(fraction[1] * chosen.shape[2])
        sigma = noise.in_tissue(canonical(chosen, grid, window), kspace.nearest(weight > 0.5, grid))
        by = "k-space" if 0 < sigma < LARGEST else "unknown"
        sigma = sigma if by == "k-space" else 0.0
    if not known and sigma and min(fraction) < 1:
        missed = _missed((chosen * weight)[:FEW], fraction) / (weight[:FEW] ** 2).mean(dtype=np.float64)
        if missed > MISSED * sigma**2:
            return measured(stack, ((1.0, 1.0), NONE))
    return Measured(fraction, window, sigma * unit, by, background)


def _missed(stack: Float[ndarray, "n h w"], fraction: tuple[float, float]) -> float:
    """Power per pixel beyond an end of the band."""
    inside = kspace.regridded(kspace.regridded(stack, block(fraction, stack.shape[1:])), stack.shape[1:])
    return float(np.square(stack - inside, dtype=np.float64).mean())


def _certain(
    window: Window, fraction: tuple[float, float], air: Float[ndarray, "m b b"], shape: tuple[int, int]
) -> Window:
    """A window, if it is strong and the noise in air has passed it or zeros follow it; else none.

    A weak one is hard to tell from an anatomy that falls, and leaves little to undo.
    """
    if window.curve(np.ones(1, np.float32)).item() > STRONG:
        return NONE
    if len(air):
        return noise.filtered(air, shape, fraction, (window,))
    return window if max(fraction) < 1 else NONE


def masked(stack: Float[ndarray, "n h w"]) -> tuple[float | None, Bool[ndarray, "n h w"]]:
    """The constant that fills large regions of slices (None without), and where they are.

    It is the darkest of the scan, or surrounds what is in the slices: saturated tissue does neither.
    """
    values, counts = np.unique(stack, return_counts=True)
    value = values[counts.argmax()]
    same = stack == value
    nothing = None, np.zeros_like(same)
    if counts.max() < 0.03 * stack.size:
        return nothing
    solid = ndimage.binary_opening(same, np.ones((1, 5, 5), bool))
    label, count = ndimage.label(
        solid, np.array([[[0] * 3] * 3, [[0, 1, 0], [1] * 3, [0, 1, 0]], [[0] * 3] * 3])
    )
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    large = sizes >= 0.01 * stack[0].size
    large[0] = False
    outside = large[label]
    if outside.mean() < 0.03:
        return nothing
    rim = np.ones(stack.shape[1:], bool)
    rim[1:-1, 1:-1] = False
    around = outside[outside.any((1, 2))][:, rim].mean()
    darkest = counts[values < value].sum() <= DARKER * stack.size
    return (float(value), outside) if darkest or around >= RIM else nothing


def tissue(stack: Float[ndarray, "n h w"], outside: Bool[ndarray, "n h w"]) -> Float[ndarray, "n h w"]:
    """A smooth weight that is 0 in air, in a masked background and at its edges, and 1 in tissue."""
    h, w = stack.shape[1:]

    k = np.hypot(fft.fftfreq(h)[:, None] * h, fft.rfftfreq(w) * w)
    gauss = np.exp(-2 * (np.pi * SOFT * k) ** 2).astype(np.float32)

    def smooth(a: Float[ndarray, "n h w"], wide: float = 1.0) -> Float[ndarray, "n h w"]:
        return np.maximum(fft.irfft2(fft.rfft2(a) * gauss ** np.float32(wide**2), (h, w)), 0)

    s = smooth(np.abs(stack))
    inside = np.clip((s / np.percentile(s, 95) - 0.15) / 0.35, 0, 1)
    if outside.any():
        deep = inside * np.clip((smooth((~outside).astype(np.float32)) - 0.8) / 0.2, 0, 1)
        return smooth(deep if deep.mean() > 0.02 else inside, 0.5)
    return smooth(inside * smooth(inside))


def folded(stack: Float[ndarray, "n h w"]) -> Float[ndarray, "a b"]:
    """Mean power of slices by |frequency| along both axes, from 0 to the highest."""
    power = sum(np.abs(fft.rfft2(part)).astype(np.float64) ** 2 for part in stack) / len(stack)
    half = len(power) // 2
    made = power[: half + 1].copy()
    made[1:] = (made[1:] + power[::-1][:half]) / 2
    return made


def spectra(power: Float[ndarray, "a b"], blur: Float[ndarray, "a b"]) -> list[Fit]:
    """What `explained` says of rows and of columns, from the folded power of tissue and of its weight."""
    strip = [max(2, round(STRIP * (n - 1))) + 1 for n in power.shape]
    rows = explained(power[:, : strip[1]].mean(1), blur[:, :3].sum(1))
    return [rows, explained(power[: strip[0]].mean(0), blur[:3].sum(0))]


def band(
    power: Float[ndarray, "a b"], fits: list[Fit], noise: float = 0.0
) -> tuple[tuple[float, float], Window]:
    """Measured fraction of each axis and the window.

    Args:
        power: of tissue, `folded`.
        fits: of rows and of columns.
        noise: what air says of the mean power of noise over the whole spectrum; 0: nothing.
    """
    alone = [cost + COST[:, None] for _, cost in fits]
    together = fits[0][1].min(1) + fits[1][1].min(1) + COST
    ends = [f[cost.argmin(1)] for f, cost in fits]
    if together.min() - sum(a.min() for a in alone) > APART:
        at = [np.unravel_index(a.argmin(), a.shape)[1] for a in alone]
        ends = [np.full(len(WINDOWS), f[i]) for (f, _), i in zip(fits, at, strict=True)]
        together = COST
    shapes = WINDOWS, [Window(w.kind, w.a, w.b, True) for w in WINDOWS]
    pairs = list(zip(*ends, strict=True))
    corner = [[inner(power, f, w, noise) for f, w in zip(pairs, some, strict=True)] for some in shapes]
    total = together + INNER * np.log(np.array(corner) + 2e-3)
    shape, best = np.unravel_index(total.argmin(), total.shape)
    chosen = shapes[shape][best] if best else NONE
    return (float(ends[0][best]), float(ends[1][best])), chosen


def inner(
    power: Float[ndarray, "a b"], fraction: tuple[float, float], window: Window, noise: float = 0.0
) -> float:
    """Divergence, per bin, of power off both axes of the measured band from noise and anatomy in a window."""
    rows, columns = (np.arange(n) / (n - 1) / f for n, f in zip(power.shape, fraction, strict=True))
    where = [np.flatnonzero((k > 0.15) & (k < 0.94)) for k in (rows, columns)]
    if min(map(len, where)) < 6:
        return 1.0
    per = [-(-len(at) // 20) for at in where]
    where = [at[: len(at) // n * n] for at, n in zip(where, per, strict=True)]

    def blocks(a: Float[ndarray, "*t a b"]) -> Float[ndarray, "*t n"]:
        a = a.reshape(*a.shape[:-2], a.shape[-2] // per[0], per[0], a.shape[-1] // per[1], per[1]).mean(
            (-3, -1)
        )
        return a.reshape(*a.shape[:-2], -1)

    r, c = rows[where[0]], columns[where[1]]
    passed = window.at(r, c) ** 2
    radius = np.hypot(r[:, None] * fraction[0] * len(power), c * fraction[1] * power.shape[1]) / max(
        power.shape
    )
    parts = [passed * s for s in _shapes(radius)] + [passed + FLOOR / 3]
    terms = blocks(np.stack(parts)).astype(np.float32)
    known = terms[0] * np.float32(noise / window.passed / (fraction[0] * fraction[1]))
    return float(divergence(blocks(power[np.ix_(*where)]).astype(np.float32), terms[None], known)[0])


def _shapes(k: Float[ndarray, "*k"]) -> Float[ndarray, "j *k"]:
    """Powers of noise and of anatomy, as they fall with the frequency in parts of the grid's highest."""
    falls = [(1 + (k / a) ** 2) ** -p for a in (0.05, 0.15, 0.35) for p in (1, 2)]
    return np.stack([np.ones_like(k), *falls])


def explained(power: Float[ndarray, " a"], blur: Float[ndarray, " a"]) -> Fit:
    """Fractions that were tried, and the cost of each window and fraction (minus a log-likelihood)."""
    half = len(power) - 1
    per = -(-half // BINS)
    k = np.arange(half + 1) / half
    fractions = np.append(np.arange(int(LEAST * half), MOST * half, per) / half, 1.0)
    inside = np.clip((fractions[:, None] - k) * half + 0.5, 0, 1)
    inside[-1] = 1
    passed = np.stack([w.curve(k / fractions[:, None]) for w in WINDOWS]) ** 2 * inside
    kernel = blur[: max(3, round(0.1 * half)) + 1]
    kernel = np.concatenate([kernel[:0:-1], kernel])
    kernel = (kernel / kernel.sum()).astype(np.float32)
    terms = ndimage.convolve1d((passed[:, :, None] * _shapes(k)).astype(np.float32), kernel, mode="mirror")
    sloping = np.clip(1 - k / (2 * fractions[:, None]), 0, 1) ** 2
    floors = [terms[:, :, 0] + FLOOR * sloping, terms[:, :, 0] + FLOOR / 3]
    terms[:, :, 1] += 3e-5
    terms = np.concatenate([terms, np.stack(floors, 2)], 2, dtype=np.float32)
    first = max(3, int(np.ceil(FROM * half)))
    first += (half + 1 - first) % per
    data, terms = (a[..., first:].reshape(*a.shape[:-1], -1, per).mean(-1) for a in (power, terms))
    w, f, j, n = terms.shape
    apart = divergence(data.astype(np.float32), terms.reshape(w * f, j, n)).reshape(w, f)
    cost = n * np.log(apart + 2e-3) + EDGE_COST * (fractions < 1)
    return fractions, np.where(_unseen(power, passed, fractions), np.inf, cost)


def _unseen(
    power: Float[ndarray, " a"], passed: Float[ndarray, "w f a"], fractions: Float[ndarray, " f"]
) -> Bool[ndarray, "w f"]:
    """Of each window and fraction, whether the step that the window ends in is not there.

    Hamming's window ends in a step. Without one, what falls like it to there goes on to fall: anatomy.
    """
    k = np.arange(len(power)) / (len(power) - 1) - fractions[:, None]
    within, beyond = (k > -FAR) & (k < -NEAR), (k > NEAR) & (k <= FAR)
    few = np.maximum(within.sum(1), 1)
    below, above = within @ power / few, beyond @ power / np.maximum(beyond.sum(1), 1)
    edges = np.array([w.curve(np.ones(1)).item() ** 2 if w.kind == "hamming" else np.inf for w in WINDOWS])
    alone = (passed * within).sum(2) / few / edges[:, None]
    return (below < STEP * alone * above) & (fractions < 1)


def divergence(
    data: Float[ndarray, " n"], terms: Float[ndarray, "c j n"], known: Float[ndarray, " n"] | None = None
) -> Float[ndarray, " c"]:
    """Itakura–Saito divergence, per bin, of data from each candidate's best sum of non-negative terms.

    Args:
        data: averaged powers.
        terms: of each candidate.
        known: a part of the sum that is not free.
    """
    data = np.maximum(data, np.float32(1e-20) * data.max() + np.float32(1e-30))  # what has no noise may be 0
    fixed = np.zeros((len(data), 1), np.float32) if known is None else (known / data)[:, None]
    terms = terms / data
    terms /= np.maximum(terms.mean(-1, keepdims=True), 1e-20)
    turned = np.ascontiguousarray(terms.swapaxes(1, 2))
    amount = np.full((*terms.shape[:2], 1), 1 / terms.shape[1], np.float32)
    for _ in range(STEPS):
        ratio = 1 / np.maximum(turned @ amount + fixed, 1e-9)
        amount *= (terms @ ratio**2) / (terms @ ratio)
    model = np.maximum((turned @ amount + fixed)[..., 0], 1e-9)
    return (1 / model - 1 + np.log(model)).mean(-1)
