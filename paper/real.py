"""Real scans, at x2: phantoms, scan and rescan, low against high field, noise and overshoot, pictures.

    python paper/real.py MANIFEST.csv NATIVE.csv --out pictures             # all parts, the test split
    python paper/real.py NATIVE.csv --parts phantom rescan --out pictures

There is no truth. What counts as evidence:

- phantom: on the ACR phantom's arrays of 4x4 holes, modulation (hole - between) / (hole + between), and the
  ringing in the flat part of the insert that holds them. Higher modulation with less ringing is "sharper".
- rescan: Fourier ring correlation of a result with a second, untouched scan of the same pelvis, as given and
  from half of its k-space, where every frequency above half is the method's own. Never of two results.
- field: structure of results from 0.055 T against 3 T: normalised mutual information, correlation of
  gradients, edge width.
- noise: what became of it and how far results leave the scan, see `seran.quality.measures`.
- sheet: the same crop by every method, named; and once more in random order, with the key in another file.

The library measures noise, window and acquired part on each whole scan, as for a user. The phantom is found
without being told where it is: the insert is the largest dark part of the bright disc. Its three pairs of
arrays are rendered band-limited, as the scanner sees them (`HOLES`), in every orientation of a slice;
where the sum of the three correlations, a `STEP` apart along the insert, is greatest, the pairs are fitted
to a part of a pixel and a degree, on the given image, for all methods alike. A hole's value is taken in its
centre, what is between in the middle between two holes of its row: no search for extremes, which noise feeds.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import busiest, save
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from native_matrix import SCALE, WAYS, aligned, as_scan, central, digests, found, sources
from numpy import ndarray
from results import Rows, load, markdown, program, write
from scipy import ndimage, optimize, signal
from tyro.conf import Positional

from seran import files, grid, io, kspace
from seran.acquisition import Acquisition
from seran.data.sources import Source, read_source
from seran.engines import Engine
from seran.errors import BadInput
from seran.job.run import Steps
from seran.measure import measured
from seran.quality.measures import LARGE, SMALL, measures
from seran.sharpen import sharpen

NAMES = ("bicubic", "seran-bd", "seran-td", "native")
Made = dict[str, Float[ndarray, "n h w"]]
PROTOCOL = (
    "Results at x2; the library measures noise, window and acquired part on each whole scan",
    "split {split} and its {slices} central slices for noise and pictures; seed {seed}",
    "Weights: {weights}",
)

# the phantom
HOLES = (1.1, 1.0, 0.9)
"""Diameters in mm, a pair of arrays each; their distance is twice that."""
SKEW = 0.09
"""A row of holes begins so much further along than the one before it, as a part of the distance; measured."""
STEP = 23.4
"""mm between pairs; measured."""
SIDE = 11
"""Pixels from the middle of what is compared with the rendered pair to its edge."""

# scan and rescan
PAIR = ("tra", "tra-again")
BANDS = 10
FIELD_BINS = 48


def result(
    stack: Float[ndarray, "n h w"], chosen: Float[ndarray, "m h w"], name: str, engine: Engine
) -> tuple[Float[ndarray, "m sh sw"], Steps]:
    """What a method makes of some slices, and how the library went about it.

    Args:
        stack: the whole scan, on which the library measures.
        chosen: the slices that are sharpened.
        name: of the method, see `WAYS`.
        engine: of the networks.
    """
    steps = Steps(as_scan(stack), WAYS[name].options(SCALE), engine)
    return sharpen(chosen, steps.method).image, steps


def made_of(
    stack: Float[ndarray, "n h w"], chosen: Float[ndarray, "m h w"], engine: Engine
) -> tuple[Made, Steps]:
    """Results of all methods about the voxel centres of the scan, see `result`; how native came about."""
    made: Made = {}
    for name in NAMES:
        image, steps = result(stack, chosen, name, engine)
        made[name] = aligned(image, steps.method.anchor, "center", SCALE).astype(np.float32)
    return made, steps


def known(steps: Steps) -> dict[str, Any]:
    """What the library measured on a scan."""
    return found(steps.known, steps.gain)


def stack_of(path: Path) -> tuple[Float[ndarray, "n h w"], tuple[float, float]]:
    """Slices of a scan as stored, and the mm of rows and columns."""
    volume = io.read(path, affine="either")
    axis = grid.slice_axis(volume.affine, volume.data.shape)
    mm = np.delete(grid.spacing(volume.affine), axis).tolist()
    return np.ascontiguousarray(np.moveaxis(volume.data, axis, 0), np.float32), (mm[0], mm[1])


# --- phantom ---------------------------------------------------------------------------------------------


def pair(distance: float) -> Float[ndarray, "2 4 4 2"]:
    """Centres of a pair of arrays about its middle: (array, row of holes, hole, (y, x)).

    The rows of the first run along x, each `SKEW` further along than the one before it; of the second along
    y. The last hole of the first is the first of the second.
    """
    line, along = np.mgrid[:4, :4] * distance
    first = np.stack([line, along + SKEW * line], -1)
    second = np.stack([along + SKEW * line, line], -1) + first[-1, -1]
    both = np.stack([first, second])
    return both - (both[0, 0, 0] + both[1, -1, -1]) / 2


def turns() -> list[Float[ndarray, "2 2"]]:
    """The orientations of a slice that are unlike: exchanged axes exchange the arrays of a pair."""
    return [np.diag([a, b]) for a in (1.0, -1.0) for b in (1.0, -1.0)]


def rendered(holes: Float[ndarray, "*n 2"], diameter: float, shape: tuple[int, int]) -> ndarray:
    """Bright discs as a scanner that measures all frequencies of a grid sees them; all in pixels."""
    centres = np.unique(holes.reshape(-1, 2).round(6), axis=0)
    y, x = np.meshgrid(*[(np.arange(5) - 2) / 5 * diameter] * 2, indexing="ij")
    disc = np.stack([y, x], -1)[np.hypot(y, x) <= diameter / 2]
    points = (centres[:, None] + disc).reshape(-1, 2)
    rows, columns = (np.sinc(np.arange(n)[:, None] - p) for n, p in zip(shape, points.T, strict=True))
    return rows @ columns.T


def _correlation(image: Float[ndarray, "h w"], part: Float[ndarray, "a b"]) -> Float[ndarray, "h w"]:
    """Normalised correlation of a part with every place of an image, at its middle."""
    part = part - part.mean()
    wide = image.astype(np.float64)
    mean, square = (ndimage.uniform_filter(x, part.shape) for x in (wide, wide**2))
    spread = np.sqrt(np.maximum((square - mean**2) * part.size, 1e-9 * square.max()))
    return signal.fftconvolve(wide, part[::-1, ::-1], "same") / (spread * np.linalg.norm(part))


def insert(image: Float[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """The block that holds the arrays, with all that is in it; `BadInput` if there is none."""
    level = float(np.percentile(image, 90))
    labels, count = ndimage.label(ndimage.binary_opening(image > 0.5 * level, iterations=2))
    if not count:
        raise BadInput("no phantom is seen: expected a bright disc")
    disc = ndimage.binary_fill_holes(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
    dark = ndimage.binary_erosion(disc, iterations=3) & (image < 0.35 * level)
    labels, count = ndimage.label(ndimage.binary_closing(dark, iterations=4))
    if not count:
        raise BadInput("no phantom is seen: expected a dark block in the bright disc")
    return ndimage.binary_fill_holes(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


@dataclass(frozen=True)
class Found:
    """The arrays of a phantom on its slice.

    Attributes:
        holes: for each diameter, centres of the holes in pixels, as `pair` has them.
        fit: how well each pair, rendered, correlates with the image.
        flat: what is neither edge nor hole nor bright in the insert.
        level: of the water.
    """

    holes: dict[float, Float[ndarray, "2 4 4 2"]]
    fit: dict[float, float]
    flat: Bool[ndarray, "h w"]
    level: float


def located(image: Float[ndarray, "h w"], mm: float) -> Found:
    """Where the arrays are on a slice of a phantom; `BadInput` if there are none.

    Args:
        image: the slice, its pixels square.
        mm: of a pixel.
    """
    block = insert(image)
    inner = ndimage.binary_erosion(block, iterations=SIDE - 2)
    tried = [_arrays(image, inner, turn, mm) for turn in turns()]
    holes, fit = max(tried, key=lambda one: sum(one[1].values()))
    if fit[HOLES[0]] < 0.5:
        raise BadInput(f"no hole arrays are seen: they fit only to {fit[HOLES[0]]:.2f}")
    level = float(np.percentile(image[ndimage.binary_dilation(block, iterations=9) & ~block], 75))
    busy = block & (image > 0.3 * level)
    for centres in holes.values():
        busy[tuple(np.rint(centres.reshape(-1, 2)).astype(int).T)] = True
    flat = ndimage.binary_erosion(block, iterations=3) & ~ndimage.binary_dilation(busy, np.ones((7, 7)))
    return Found(holes, fit, flat, level)


def _arrays(
    image: Float[ndarray, "h w"], inner: Bool[ndarray, "h w"], turn: ndarray, mm: float
) -> tuple[dict[float, ndarray], dict[float, float]]:
    """Holes and fit of each pair in one orientation: together as far as a pixel, then each on its own."""
    size, halves = (2 * SIDE + 1,) * 2, [np.array([y, x]) for y in (0, 0.5) for x in (0, 0.5)]
    seen = [
        np.max(
            [_correlation(image, rendered(pair(2 * d / mm) @ turn + SIDE + h, d / mm, size)) for h in halves],
            axis=0,
        )
        for d in HOLES
    ]
    near, best = [ndimage.maximum_filter(one, 5) for one in seen[1:]], (-9.0, np.zeros(2), np.zeros(2))
    for way in np.array([(0, 1), (0, -1), (1, 0), (-1, 0)]) * STEP / mm:
        total = seen[0] + sum(ndimage.shift(one, -way * i, order=0) for i, one in enumerate(near, 1))
        at = np.unravel_index(np.where(inner, total, -9).argmax(), total.shape)
        best = max(best, (float(total[at]), np.array(at), way), key=lambda one: one[0])
    holes, fit, angle = {}, {}, None
    for i, d in enumerate(HOLES):
        start = np.rint(best[1] + i * best[2]).astype(int)
        holes[d], fit[d], angle = _fitted(image, start, turn, d / mm, angle)
    return holes, fit


def _fitted(
    image: Float[ndarray, "h w"], start: ndarray, turn: ndarray, diameter: float, angle: float | None
) -> tuple[ndarray, float, float]:
    """Centres, correlation and angle of the pair next to a place; the angle is found if it is not given."""
    top, left = start - SIDE
    part = image[top : top + 2 * SIDE + 1, left : left + 2 * SIDE + 1]

    def centres(y: float, x: float, a: float) -> ndarray:
        rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        return pair(2 * diameter) @ (rotation @ turn).T + SIDE + np.array([y, x])

    def unlike(v: ndarray) -> float:
        drawn = rendered(centres(v[0], v[1], v[2] if angle is None else angle), diameter, part.shape)
        return -float(np.corrcoef(drawn.ravel(), part.ravel())[0, 1])

    places = [np.array([y, x, 0.0]) for y in np.arange(-2, 2.1, 0.5) for x in np.arange(-2, 2.1, 0.5)]
    first = min(places, key=unlike)
    simplex = first + np.array([[0, 0, 0], [0.3, 0, 0], [0, 0.3, 0], [0, 0, 0.02]])
    simplex = simplex if angle is None else simplex[:3, :2]
    made = optimize.minimize(unlike, simplex[0], method="Nelder-Mead", options={"initial_simplex": simplex})
    turned = float(made.x[2]) if angle is None else angle
    return centres(made.x[0], made.x[1], turned) + np.array([top, left]), -float(made.fun), turned


def modulations(
    fine: Float[ndarray, "h w"], holes: Float[ndarray, "2 4 4 2"], scale: int
) -> Float[ndarray, "8"]:
    """(hole - between) / (hole + between) of each row of holes, along x first; negative where holes are dark.

    Args:
        fine: ``scale`` times as fine as the grid of the holes, about the same voxel centres.
        holes: centres, as `pair` has them.
        scale: of the image.
    """
    between = (holes[:, :, 1:] + holes[:, :, :-1]) / 2
    smooth = ndimage.spline_filter(fine.astype(np.float64), 3)

    def at(places: ndarray) -> ndarray:
        where = np.moveaxis(places * scale, -1, 0)
        return ndimage.map_coordinates(smooth, where, order=3, prefilter=False).mean(-1)

    high, low = np.maximum(at(holes), 0), np.maximum(at(between), 0)
    return ((high - low) / np.maximum(high + low, 1e-9)).ravel()


def ringing(fine: Float[ndarray, "h w"], flat: Bool[ndarray, "a b"], scale: int) -> float:
    """RMS of what is finer than two of the scan's pixels in a flat part."""
    mask = flat.repeat(scale, 0).repeat(scale, 1).astype(np.float64)
    image, wide = fine.astype(np.float64), 2.0 * scale
    around = ndimage.gaussian_filter(image * mask, wide) / np.maximum(
        ndimage.gaussian_filter(mask, wide), 1e-9
    )
    return float(np.sqrt((((image - around) ** 2) * mask).sum() / mask.sum()))


def phantom(given: Sequence[Source], out: Path, engine: Engine) -> dict[str, Any]:
    """Modulation and ringing on the first slice of each phantom; a picture of its arrays."""
    rows = {}
    for source in given:
        stack, mm = stack_of(source.path)
        seen = located(stack[0], mm[0])
        rest, steps = made_of(stack, stack[:1], engine)
        filled = kspace.regridded(stack[:1], (SCALE * stack.shape[1], SCALE * stack.shape[2]))
        made = {"zero-filling": filled} | rest
        rows[source.path.name] = {
            "fit": {str(d): round(v, 3) for d, v in seen.fit.items()},
            "flat_pixels": int(seen.flat.sum()),
            **known(steps),
            "methods": {
                name: {
                    "modulation": {
                        str(d): [round(float(m), 4) for m in modulations(image[0], seen.holes[d], SCALE)]
                        for d in HOLES
                    },
                    "ringing": ringing(image[0], seen.flat, SCALE) / seen.level,
                }
                for name, image in made.items()
            },
        }
        places = np.concatenate([h.reshape(-1, 2) for h in seen.holes.values()])
        top, left = np.maximum(np.rint(places.min(0)).astype(int) - 4, 0)
        bottom, right = np.rint(places.max(0)).astype(int) + 5
        box = (slice(SCALE * top, SCALE * bottom), slice(SCALE * left, SCALE * right))
        draw({name: x[0][box] for name, x in made.items()}, 0.6 * seen.level, out / _png(source))
        _say(f"{source.path.name}: {rows[source.path.name]['fit']}")
    return rows


def _phantom_table(rows: dict[str, Any]) -> list[str]:
    body = []
    for scan, row in rows.items():
        for name, one in row["methods"].items():
            cells = [f"{np.mean(m):.3f} ({np.max(m):.3f})" for m in one["modulation"].values()]
            body.append([scan, name, *cells, f"{one['ringing']:.2%}"])
    head = ["phantom", "method", *(f"{d} mm" for d in HOLES), "ringing"]
    words = "Modulation, mean of the eight rows of holes (best of them); ringing as a part of the water"
    return [words, "", *markdown(head, body)]


# --- scan and rescan -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rigid:
    """In the plane of slices: where on the moving image a voxel of the fixed one lies.

    Attributes:
        angle: degrees about the middle of the field of view, from rows to columns.
        down: shift in mm along rows' axis.
        right: the same along columns' axis.
    """

    angle: float
    down: float
    right: float


def placed(
    moving: Float[ndarray, "n h w"],
    rigid: Rigid,
    shape: tuple[int, int] | None = None,
    mm: tuple[float, float] = (1, 1),
    onto: tuple[float, float] | None = None,
    order: int = 3,
) -> Float[ndarray, "n a b"]:
    """Slices on the grid of a fixed image, whose field of view has the same middle before the movement.

    Args:
        moving: slices.
        rigid: the movement.
        shape: of the fixed grid; by default that of the moving one.
        mm: of a voxel of the moving image.
        onto: of a voxel of the fixed one; by default as of the moving one.
        order: of the splines.
    """
    shape, onto = shape or moving.shape[1:], onto or mm
    a = np.deg2rad(rigid.angle)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix = turn * np.array(onto) / np.array(mm)[:, None]
    middle = (np.array(shape) - 1) / 2
    centre = (np.array(moving.shape[1:]) - 1) / 2 + np.array([rigid.down, rigid.right]) / np.array(mm)
    offset = centre - matrix @ middle
    made = [
        ndimage.affine_transform(x.astype(np.float64), matrix, offset, shape, order=order) for x in moving
    ]
    return np.stack(made).astype(np.float32)


def _hann(shape: tuple[int, int]) -> Float[ndarray, "h w"]:
    rows, columns = (np.hanning(n + 2)[1:-1] for n in shape)
    return rows[:, None] * columns


def translation(
    fixed: Float[ndarray, "n h w"], moving: Float[ndarray, "n h w"]
) -> tuple[float, float, float]:
    """By phase correlation of all slices together: the shift in pixels, and how sharp its peak is."""
    h, w = fixed.shape[1:]
    window = _hann((h, w))
    a, b = (np.fft.fft2((x - x.mean()) * window) for x in (fixed, moving))
    cross = (a.conj() * b).sum(0)
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)
    weight = np.exp(-(fy**2 + fx**2) / (2 * 0.15**2))  # the finest frequencies are mostly noise
    phase = weight * cross / np.maximum(np.abs(cross), 1e-12 * np.abs(cross).max())
    peak = np.fft.ifft2(phase).real
    start = [
        float((i + n // 2) % n - n // 2)
        for i, n in zip(np.unravel_index(peak.argmax(), peak.shape), (h, w), strict=True)
    ]

    def less(v: ndarray) -> float:
        rows, columns = np.exp(2j * np.pi * fy[:, 0] * v[0]), np.exp(2j * np.pi * fx * v[1])
        return -float((rows @ phase @ columns).real)

    simplex = np.array(start) + np.array([[0, 0], [0.4, 0], [0, 0.4]])
    made = optimize.minimize(
        less, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-4}
    )
    return float(made.x[0]), float(made.x[1]), -float(made.fun) / float(weight.sum())


def registered(
    fixed: Float[ndarray, "n h w"],
    moving: Float[ndarray, "n h w"],
    mm: tuple[float, float] = (1, 1),
    most: float = 4,
) -> Rigid:
    """The movement between two stacks of one contrast and grid: the angle at which their phases agree best.

    Args:
        fixed: slices.
        moving: slices of the same shape.
        mm: of their voxels.
        most: degrees that are looked at to either side.
    """

    def less(angle: float, order: int = 3) -> float:
        return -translation(fixed, placed(moving, Rigid(angle, 0, 0), mm=mm, order=order))[2]

    angles = np.arange(-most, most + 0.25, 0.5)
    best = float(angles[np.argmin([less(a, 1) for a in angles])])
    found = optimize.minimize_scalar(
        less, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 0.01}
    )
    angle = float(found.x)
    y, x, _ = translation(fixed, placed(moving, Rigid(angle, 0, 0), mm=mm))
    a = np.deg2rad(angle)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    down, right = turn @ np.array([y * mm[0], x * mm[1]])
    return Rigid(angle, float(down), float(right))


def frc(one: Float[ndarray, "n h w"], other: Float[ndarray, "n h w"], rings: int) -> Float[ndarray, " rings"]:
    """Fourier ring correlation of two stacks, all slices together, in a Hann window.

    Args:
        one: slices.
        other: slices of the same grid.
        rings: equal parts of the frequencies up to Nyquist's.
    """
    h, w = one.shape[1:]
    window = _hann((h, w))
    a, b = (np.fft.fft2((x - x.mean((1, 2), keepdims=True)) * window) for x in (one, other))
    f = 2 * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
    ring = np.minimum((f * rings).astype(int), rings).ravel()

    def total(x: ndarray) -> ndarray:
        return np.bincount(ring, x.sum(0).ravel(), rings + 1)[:rings]

    power = total(np.abs(a) ** 2) * total(np.abs(b) ** 2)
    return total((a * b.conj()).real) / np.sqrt(np.maximum(power, 1e-30))


def rescan(given: Sequence[Source], slices: int, engine: Engine) -> dict[str, Any]:
    """FRC of results of the first scan with the second, which is moved onto it, once for all methods."""
    named = {end: [s.path for s in given if s.path.name.endswith(f"0001_{end}_T2w.nii.gz")] for end in PAIR}
    if not all(named.values()):
        raise BadInput(f"expected scans whose names end in 0001_{'_T2w and 0001_'.join(PAIR)}_T2w")
    (first, mm), (second, _) = (stack_of(paths[0]) for paths in named.values())
    rigid = registered(central(first, 8), central(second, 8), mm)
    _say(f"scan and rescan: {rigid}")
    other = placed(central(second, slices), rigid, mm=mm)
    chosen = central(first, slices)
    shape = (chosen.shape[1], chosen.shape[2])
    half = Acquisition((shape[0] // SCALE, shape[1] // SCALE))(first)
    rows: dict[str, Any] = {"movement": asdict(rigid), "untouched": _curve(chosen, other)}
    for title, stack in (("as given", first), ("from half of k-space", half)):
        rest, steps = made_of(stack, central(stack, slices), engine)
        made = {"zero-filling": kspace.regridded(central(stack, slices), shape)} | rest
        _say(f"{title}: {known(steps)}")
        rows[title] = {name: _curve(kspace.regridded(x, shape), other) for name, x in made.items()}
    return rows


def _curve(one: ndarray, other: ndarray) -> dict[str, Any]:
    """FRC of all slices, and the mean of each."""
    each = [float(frc(a[None], b[None], BANDS).mean()) for a, b in zip(one, other, strict=True)]
    return {"frc": [round(float(v), 4) for v in frc(one, other, BANDS)], "slices": np.round(each, 4).tolist()}


def _rescan_table(rows: dict[str, Any]) -> list[str]:
    move = rows["movement"]
    lines = [
        f"The second scan lies {move['down']:+.2f}, {move['right']:+.2f} mm and {move['angle']:+.2f}° from "
        "the first. FRC with it, in tenths of the scan's frequencies; slices whose mean is above "
        "that of bicubic",
    ]
    head = ["from", "method", *(f"{(i + 1) / BANDS:.1f}" for i in range(BANDS)), "mean", "above bicubic"]
    body = []
    for title in ("as given", "from half of k-space"):
        plain = np.array(rows[title]["bicubic"]["slices"])
        for name, one in ({"the scan itself": rows["untouched"]} | rows[title]).items():
            above = int((np.array(one["slices"]) > plain).sum())
            cells = [f"{v:.3f}" for v in (*one["frc"], np.mean(one["frc"]))]
            body.append([title, name, *cells, f"{above} of {len(plain)}"])
    return [*lines, "", *markdown(head, body)]


# --- low and high field ----------------------------------------------------------------------------------


def nmi(one: ndarray, other: ndarray, bins: int = FIELD_BINS) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b), from 1 to 2 (Studholme 1999)."""
    edges = [np.linspace(*np.percentile(x, (0.5, 99.5)), bins - 1) for x in (one, other)]
    a, b = (np.searchsorted(e, x.ravel()) for e, x in zip(edges, (one, other), strict=True))
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins) / a.size

    def entropy(p: ndarray) -> float:
        p = p[p > 0]
        return -float((p * np.log(p)).sum())

    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / max(entropy(joint.ravel()), 1e-12)


def matched(
    fixed: Float[ndarray, "n h w"],
    mm: tuple[float, float],
    moving: Float[ndarray, "n a b"],
    other: tuple[float, float],
) -> Rigid:
    """The movement between stacks of unlike contrast and grid: the greatest `nmi`, coarse to fine.

    Args:
        fixed: slices.
        mm: of their voxels.
        moving: as many slices.
        other: mm of their voxels.
    """

    def score(fine: float) -> Callable[[ndarray], float]:
        # the moving image is not sampled coarsely: where two grids meet, information would leap
        a, b = (
            ndimage.gaussian_filter(x.astype(np.float64), (0, *(fine / s / 2 for s in size)))
            for x, size in ((fixed, mm), (moving, other))
        )
        shape = tuple(max(8, round(n * s / fine)) for n, s in zip(a.shape[1:], mm, strict=True))
        a = placed(a, Rigid(0, 0, 0), shape, mm, (fine, fine), order=1)

        def less(v: ndarray) -> float:
            return -nmi(a, placed(b, Rigid(*v), shape, other, (fine, fine), order=1), 24)

        return less

    first = score(4.0)
    starts = [
        np.array([a, y, x], float)
        for a in (-6, -3, 0, 3, 6)
        for y in range(-24, 25, 6)
        for x in range(-24, 25, 6)
    ]

    def refined(less: Callable[[ndarray], float], v: ndarray, size: float) -> tuple[float, ndarray]:
        simplex = v + size * np.array([[0, 0, 0], [1, 0, 0], [0, 1.5, 0], [0, 0, 1.5]])
        how = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-5}
        made = optimize.minimize(less, v, method="Nelder-Mead", options=how)
        return float(made.fun), made.x

    second, last = score(2.0), score(1.0)
    near = min((refined(second, v, 2) for v in sorted(starts, key=first)[:3]), key=lambda one: one[0])[1]
    turned = sorted((near + np.array([a, 0, 0]) for a in np.arange(-3, 3.1, 1)), key=last)[:2]
    best = min((refined(last, v, 0.7) for v in turned), key=lambda one: one[0])[1]
    return Rigid(*(float(x) for x in best))


def gradient(x: Float[ndarray, "n h w"], mm: tuple[float, float], width: float = 1.0) -> ndarray:
    """Derivatives along rows and columns over a Gaussian of so many mm."""
    sigma = [width / s for s in mm]
    along = ((0, 1, 0), (0, 0, 1))
    return np.stack([ndimage.gaussian_filter(x, (0, *sigma), o) / s for o, s in zip(along, mm, strict=True)])


def edge_width(
    image: Float[ndarray, "n h w"],
    reference: Float[ndarray, "n h w"],
    mask: Bool[ndarray, "n h w"],
    mm: tuple[float, float],
    count: int = 2000,
) -> float:
    """Of the mean profile of an image across the steepest edges of a reference: range ÷ steepest slope, mm.

    Each profile is turned so that it rises; the mean of many has little noise, which alone would look sharp.
    """
    slope = gradient(reference, mm)
    strength = np.hypot(*slope) * mask
    peaks = (strength == ndimage.maximum_filter(strength, (1, 3, 3))) & (strength > 0)
    places = np.argwhere(peaks)
    places = places[np.argsort(-strength[peaks])[:count]]
    steps = np.arange(-3, 3.01, 0.25)
    total = np.zeros(len(steps))
    for z, y, x in places:
        gy, gx = slope[:, z, y, x] / np.hypot(*slope[:, z, y, x])
        line = np.stack([y + steps * gy / mm[0], x + steps * gx / mm[1]])
        profile = ndimage.map_coordinates(image[z], line, order=1, mode="nearest")
        total += profile * np.sign(profile[steps > 0].mean() - profile[steps < 0].mean())
    mean = total / max(1, len(places))
    span = mean[-4:].mean() - mean[:4].mean()
    return float(span / max(np.gradient(mean, 0.25).max(), 1e-12))


def field(given: Sequence[Source], engine: Engine) -> dict[str, Any]:
    """Structure of results from 0.055 T against 3 T, which is moved onto them."""
    rows = {}
    for low in [s.path for s in given if "_0.055T_" in s.path.name]:
        stack, mm = stack_of(low)
        other, size = stack_of(low.with_name(low.name.replace("0.055T", "3T")))
        rigid = matched(stack, mm, other, size)
        made, steps = made_of(stack, stack, engine)
        fine = (mm[0] / SCALE, mm[1] / SCALE)
        # the fine grid keeps the centre of voxel 0: its middle lies s/4 behind that of the scan
        back = [s * (1 - 1 / SCALE) / 2 for s in mm]
        a = np.deg2rad(rigid.angle)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        down, right = np.array([rigid.down, rigid.right]) + turn @ back
        shape = next(iter(made.values())).shape[1:]
        there = placed(other, Rigid(rigid.angle, float(down), float(right)), shape, size, fine)
        bright = ndimage.gaussian_filter(there, (0, 4, 4)) > 0.1 * np.percentile(there, 99.9)
        mask = np.stack([ndimage.binary_fill_holes(one) for one in bright])
        edges = np.hypot(*gradient(there, fine))
        rows[low.name] = {
            "movement": asdict(rigid),
            **known(steps),
            "methods": {
                name: {
                    "nmi": nmi(x[mask], there[mask]),
                    "gradients": float(np.corrcoef(np.hypot(*gradient(x, fine))[mask], edges[mask])[0, 1]),
                    "edge_mm": edge_width(x, there, mask, fine),
                }
                for name, x in made.items()
            },
        }
        _say(f"{low.name}: {rigid}")
    return rows


def _field_table(rows: dict[str, Any]) -> list[str]:
    body = [
        [
            scan,
            "{angle:+.1f}° {down:+.1f} {right:+.1f}".format(**row["movement"]),
            name,
            *(f"{one['nmi']:.4f}", f"{one['gradients']:.3f}", f"{one['edge_mm']:.2f}"),
        ]
        for scan, row in rows.items()
        for name, one in row["methods"].items()
    ]
    return markdown(["scan", "movement, mm", "method", "NMI", "gradients", "edge, mm"], body)


# --- noise and pictures ----------------------------------------------------------------------------------


def noise(given: Sequence[Source], slices: int, engine: Engine) -> dict[str, Any]:
    """`seran.quality.measures` of every scan as it is stored."""
    rows = {}
    for source in given:
        read_source(source)  # refuses what is damaged or no scan
        stack, _ = stack_of(source.path)
        chosen = central(stack, slices)
        row: dict[str, Any] = {"contrast": source.contrast, "methods": {}}
        background = measured(stack).background
        for name in NAMES:
            image, steps = result(stack, chosen, name, engine)
            found = measures(chosen, image, steps.gain, steps.method.anchor, background)
            row["methods"][name] = asdict(found)
        rows[source.path.name] = row | known(steps)
        _say(f"{source.path.name}: {steps.known}")
    return rows


def _noise_table(rows: dict[str, Any]) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else f"{value:{form}}"

    body = []
    for scan, row in rows.items():
        said = f"{'×'.join(f'{f:.2f}' for f in row['fraction'])}, {row['window']}, {row['noise']:.1%}"
        for name, one in row["methods"].items():
            cells = [shown(one[k], ".2f") for k in ("tissue", "air")]
            cells += [shown(one[k], ".2%") for k in ("overshoot", "most", "rim")]
            body.append([scan, row["contrast"], said, name, *cells])
    for name in NAMES:
        one = [row["methods"][name] for row in rows.values()]
        cells = []
        for key, form in (
            ("tissue", ".2f"),
            ("air", ".2f"),
            *((k, ".2%") for k in ("overshoot", "most", "rim")),
        ):
            values = [m[key] for m in one if m[key] is not None]
            cells.append(shown(float(np.mean(values)) if values else None, form))
        body.append(["mean", "", "", name, *cells])
    head = ["scan", "contrast", "measured", "method", "noise, tissue", "noise, air"]
    head += [f"overshoot > {SMALL:.0%}", "most", f"rim > {LARGE:.0%}"]
    return ["Noise is after ÷ before", "", *markdown(head, body)]


def crops(source: Source, engine: Engine) -> tuple[Made, float]:
    """The busiest part in the middle of the central slice by every method, and what is shown white."""
    stack, _ = stack_of(source.path)
    chosen = central(stack, 1)
    made, _ = made_of(stack, chosen, engine)
    side = max(24, min(chosen.shape[1:]) // 5)
    around = [n // 5 for n in chosen.shape[1:]]  # the scalp has more edges than what is looked for
    middle = chosen[0, around[0] : -around[0], around[1] : -around[1]]
    found = busiest(ndimage.gaussian_filter(middle, 1), min(side, *middle.shape))
    top, left = (SCALE * (n + a) for n, a in zip(found, around, strict=True))
    box = (slice(top, top + SCALE * side), slice(left, left + SCALE * side))
    given = chosen[0].repeat(SCALE, 0).repeat(SCALE, 1)[box]
    shown = {"scan": given, **{name: image[0][box] for name, image in made.items()}}
    return shown, float(np.percentile(given, 99.5))


def order(names: Sequence[str], seed: int, rows: int) -> list[list[str]]:
    """The methods of each row of the blind sheet, from left to right."""
    rng = np.random.default_rng(seed)
    return [list(rng.permutation(names)) for _ in range(rows)]


def blind(rows: dict[str, tuple[Made, float]], seed: int, path: Path) -> None:
    """A sheet whose rows show methods in random order; ``-key.json`` beside it says which.

    Args:
        rows: by scan, crops by method and what is shown white.
        seed: of the order.
        path: of the picture.
    """
    names = [n for n in next(iter(rows.values()))[0] if n != "scan"]
    key = dict(zip(rows, order(names, seed, len(rows)), strict=True))
    figure = Figure(figsize=(2.4 * len(names), 2.5 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for i, (line, (scan, (shown, white))) in enumerate(zip(axes, rows.items(), strict=True), 1):
        for j, (ax, name) in enumerate(zip(line, key[scan], strict=True)):
            _show(ax, shown[name], white, f"{i}{chr(65 + j)}")
    save(figure, path)
    with files.atomic(path.with_name(f"{path.stem}-key.json")) as part:
        part.write_text(json.dumps({"seed": seed, "rows": key}, indent=1) + "\n")


def _show(ax: Any, image: ndarray, white: float, title: str, black: float = 0.0) -> None:  # noqa: ANN401
    ax.imshow(image.T, cmap="gray", vmin=black, vmax=white, origin="lower", interpolation="nearest")
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()


def draw(shown: Made, white: float, path: Path) -> None:
    """Crops side by side, and what native adds to bicubic."""
    difference = shown["native"] - shown["bicubic"]
    most = float(np.abs(difference).max()) or 1.0
    rows, columns = difference.shape
    figure = Figure(figsize=(2.8 * (len(shown) + 1), 2.8 * columns / rows + 0.4), layout="constrained")
    axes = figure.subplots(1, len(shown) + 1)
    for ax, (name, image) in zip(axes, shown.items(), strict=False):
        _show(ax, image, white, name)
    _show(axes[-1], difference, most, f"native - bicubic, ±{most / white:.0%}", -most)
    save(figure, path)


def _png(source: Source) -> str:
    return f"{source.path.name.split('.nii')[0]}.png"


def sheet(given: Sequence[Source], seed: int, out: Path, engine: Engine) -> dict[str, Any]:
    """A picture of every scan, and the blind sheet of all."""
    rows = {}
    for source in given:
        shown, white = rows[source.path.name] = crops(source, engine)
        draw(shown, white, out / _png(source))
        _say(f"{source.path.name}: drawn")
    blind(rows, seed, out / "blind.png")
    return {"scans": list(rows), "seed": seed, "blind": "blind.png", "key": "blind-key.json"}


def _sheet_table(rows: dict[str, Any]) -> list[str]:
    said = f"{rows['blind']} shows {len(rows['scans'])} scans in an order drawn with seed {rows['seed']}"
    return [f"{said}; {rows['key']} has it"]


# ---------------------------------------------------------------------------------------------------------


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "phantom": ("Phantoms", _phantom_table),
    "rescan": ("Scan and rescan", _rescan_table),
    "field": ("0.055 T against 3 T", _field_table),
    "noise": ("Noise and overshoot", _noise_table),
    "sheet": ("Pictures", _sheet_table),
}


def table(rows: Rows) -> list[str]:
    """The parts that are done."""
    lines: list[str] = []
    for part, (title, made) in TABLES.items():
        if part in rows:
            lines += [f"## {title}", "", *made(rows[part]), ""]
    return lines


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main(
    lists: Positional[tuple[Path, ...]],
    parts: tuple[str, ...] = tuple(TABLES),
    split: str = "test",
    slices: int = 8,
    only: str = "",
    seed: int = 0,
    threads: int = 0,
    out: Path = Path("real"),
    results: Path = Path(__file__).parent,
) -> None:
    """Measure; a part that is done again replaces what was there of it.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them; phantoms and pairs are in splits of their own.
        parts: see `TABLES`.
        split: of the scans whose noise is measured and which are drawn.
        slices: how many central slices of a scan are sharpened for noise and rescan; 0 for all.
        only: scans of the split whose file names contain this.
        seed: of the order of the blind sheet.
        threads: of the CPU; 0: all.
        out: folder of the pictures.
        results: folder of ``real.json`` and ``real.md``; those of other splits bear their names.
    """
    if set(parts) - set(TABLES):
        raise BadInput(f"expected some of {', '.join(TABLES)}, got {', '.join(parts)}")
    engine = Engine(threads=threads)
    facts = {"split": split, "slices": slices or "all", "seed": seed, "weights": digests()}
    protocol = [line.format(**facts) for line in PROTOCOL]
    path = results / f"real{f'-{split}' * (split != 'test')}.json"
    rows = load(path, protocol)

    def of(name: str) -> list[Source]:
        chosen = [s for s in sources(lists, name) if name != split or only in s.path.name]
        if not chosen:
            raise BadInput(f"no scan of the split {name} has {only!r} in its name")
        return chosen

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "phantom": lambda: phantom(of("phantom"), out, engine),
        "rescan": lambda: rescan(of("pair"), slices, engine),
        "field": lambda: field(of("pair"), engine),
        "noise": lambda: noise(of(split), slices, engine),
        "sheet": lambda: sheet(of(split), seed, out, engine),
    }
    if {"sheet", "phantom"} & set(parts):
        out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        rows[part] = work[part]()
        write(path, protocol, {p: rows[p] for p in TABLES if p in rows}, table)
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    program(main)
