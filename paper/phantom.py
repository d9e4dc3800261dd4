"""ACR phantoms: modulation of their arrays of 4x4 holes, and ringing in the flat part of the insert.

The phantom is found without being told where it is: the insert is the largest dark part of the bright disc.
Its three pairs of arrays are rendered band-limited, as the scanner sees them (`HOLES`), in every orientation
of a slice; where the sum of the three correlations, a `STEP` apart along the insert, is greatest, the pairs
are fitted to a part of a pixel and a degree, on the given image, for all methods alike. A hole's value is
taken in its centre, what is between in the middle between two holes of its row: no search for extremes, which
noise feeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from acquisitions import SCALE
from jaxtyping import Bool, Float
from numpy import ndarray
from results import markdown
from scans import NAMES, known, made_of, say, stack_of
from scipy import ndimage, optimize, signal
from sheet import draw, png

from seran import kspace
from seran.data.sources import Source
from seran.engines import Engine
from seran.errors import BadInput

HOLES = (1.1, 1.0, 0.9)
"""Diameters in mm, a pair of arrays each; their distance is twice that."""
SKEW = 0.09
"""A row of holes begins so much further along than the one before it, as a part of the distance; measured."""
STEP = 23.4
"""mm between pairs; measured."""
SIDE = 11
"""Pixels from the middle of what is compared with the rendered pair to its edge."""


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


def compute(
    given: Sequence[Source], out: Path, engine: Engine, names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """Modulation and ringing on the first slice of each phantom; a picture of its arrays."""
    rows = {}
    for source in given:
        stack, mm = stack_of(source.path)
        seen = located(stack[0], mm[0])
        rest, steps = made_of(stack, stack[:1], engine, names)
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
        draw({name: x[0][box] for name, x in made.items()}, 0.6 * seen.level, out / png(source))
        say(f"{source.path.name}: {rows[source.path.name]['fit']}")
    return rows


def table(rows: dict[str, Any]) -> list[str]:
    """Means over the rows of holes, and the best."""
    body = []
    for scan, row in rows.items():
        for name, one in row["methods"].items():
            cells = [f"{np.mean(m):.3f} ({np.max(m):.3f})" for m in one["modulation"].values()]
            body.append([scan, name, *cells, f"{one['ringing']:.2%}"])
    head = ["phantom", "method", *(f"{d} mm" for d in HOLES), "ringing"]
    words = "Modulation, mean of the eight rows of holes (best of them); ringing as a part of the water"
    return [words, "", *markdown(head, body)]
