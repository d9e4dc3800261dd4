"""Structure of results from 0.055 T against a scan of the same head at 3 T, which is moved onto them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from acquisitions import SCALE
from jaxtyping import Bool, Float
from numpy import ndarray
from registration import Rigid, matched, nmi, placed
from results import markdown
from scans import known, made_of, say, stack_of
from scipy import ndimage

from seran.data.sources import Source
from seran.engines import Engine


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


def compute(given: Sequence[Source], engine: Engine) -> dict[str, Any]:
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
        down, right = np.array([rigid.down, rigid.right]) + rigid.turn @ back
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
        say(f"{low.name}: {rigid}")
    return rows


def table(rows: dict[str, Any]) -> list[str]:
    """Each pair of scans, by every method."""
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
