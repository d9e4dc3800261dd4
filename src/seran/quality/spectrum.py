"""The spectra that a report draws: of a scan before and after, in the plane of its slices or across them."""

import base64
from io import BytesIO

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import grid, kspace
from seran.quality.provenance import Provenance
from seran.volume import Volume

GRAY, BLUE = "#7d8791", "#2f8be6"
DEEPEST = -100  # dB below the strongest, that is drawn
FINER = 1.1  # times as fine in the plane, from which thin slices have a spectrum of that, too
IN_PLANE = (
    "Mean power of the slices over spatial frequency. Beyond the scan's Nyquist frequency there was nothing: "
    "what after holds there is the method's estimate."
)
ACROSS = (
    "Mean power along the axis through the slices over spatial frequency. Slices tell nothing beyond their "
    "Nyquist frequency, and what lies just beyond it they show just below: what after holds beyond is the "
    "method's estimate, and so is how the two were parted below."
)

Curve = tuple[Float[ndarray, "_"], Float[ndarray, "_"]]
"""Frequencies in cycles per mm, and power in dB."""


def spectra(before: Volume, after: Volume, made: Provenance | None, normal: int) -> str:
    """Pictures of the spectra as HTML, each with what it shows.

    Args:
        before: the scan.
        after: what became of it.
        made: how, if that is known.
        normal: world axis across the scan's slices.
    """
    both, told = (before, after), ""
    sizes = [grid.spacing(v.affine) for v in both]
    worlds = [grid.world_axes(v.affine) for v in both]
    if made is not None and made.across is not None:
        told += _figure([_across(v, normal) for v in both], "across the slices", ACROSS)
        plane = [
            np.delete(size, world.index(normal)).min() for size, world in zip(sizes, worlds, strict=True)
        ]
        if plane[0] < FINER * plane[1]:
            return told
    return told + _figure([_in_plane(v, normal) for v in both], "in the plane of the slices", IN_PLANE)


def _in_plane(volume: Volume, normal: int) -> Curve:
    at = grid.world_axes(volume.affine).index(normal)
    a, b = np.delete(grid.spacing(volume.affine), at).tolist()
    return kspace.radial(np.moveaxis(volume.data, at, 0), (a, b))


def _across(volume: Volume, normal: int) -> Curve:
    at = grid.world_axes(volume.affine).index(normal)
    return kspace.along(np.moveaxis(volume.data, at, 0), float(grid.spacing(volume.affine)[at]))


def _figure(curves: list[Curve], where: str, words: str) -> str:
    """Power before and after, in colours for a light and a dark page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    parts = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    with rc_context({**dict.fromkeys(parts, GRAY), "font.size": 9}):
        figure = Figure((6, 3.2), layout="constrained")
        axes = figure.add_subplot(xlabel="cycles per mm", ylabel="dB")
        peak = max(float(p.max(initial=-np.inf)) for _, p in curves)
        for (f, p), name, colour in zip(curves, ("before", "after"), (GRAY, BLUE), strict=True):
            axes.plot(f, np.maximum(p - peak, DEEPEST), color=colour, label=name)
        for end in curves[0][0][-1:]:
            axes.axvline(end, color=GRAY, linestyle=":")
            axes.text(end, 0, "Nyquist, before ", ha="right", va="bottom")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower left")
        picture = BytesIO()
        figure.savefig(picture, dpi=200, transparent=True)
    label = f"Mean power {where} over spatial frequency, before and after"
    data = base64.b64encode(picture.getvalue()).decode()
    return f'<img alt="{label}" src="data:image/png;base64,{data}"><p class="hint">{words}</p>'
