"""Which intensities a picture of a scan shows: from those of its tissue, whatever fat and vessels are."""

from typing import NamedTuple

import numpy as np

from seran.sharpen import Normalisation
from seran.volume import Volume

SEEN = 1 << 20  # voxels that are looked at, about, evenly apart
BINS = 128
ABOVE, BELOW = 3.0, 4.0  # widths of the upper, of the lower half of tissue by which the window reaches beyond
LEAST, MOST = 0.2, 1.0  # of the scan's range, that the window has


class Window(NamedTuple):
    """What is black and what is white, in the scan's units."""

    low: float
    high: float


def window(scan: Volume, norm: Normalisation) -> Window:
    """From the middle half of the tissue on: its median, and how far its quartiles are from that.

    Tissue is what lies above the threshold that parts air from it best (Otsu 1979). Bright fat, fluid or
    contrast agent is less than a quarter of it as a rule, and then moves none of the three.

    Args:
        scan: before.
        norm: its range.
    """
    gain = norm.gain or 1.0
    step = max(1, round((scan.data.size / SEEN) ** (1 / 3)))
    x = np.clip((scan.data[::step, ::step, ::step].ravel() - norm.offset) / gain, 0, 1)
    counts, edges = np.histogram(x, BINS, (0, 1))
    below, total = np.cumsum(counts)[:-1], counts.sum()
    sums = np.cumsum(counts * (edges[1:] + edges[:-1]) / 2)
    above = total - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between = np.nan_to_num(between)
    least = edges[1:-1][int(between.argmax())] if between.any() else 0.0
    first, middle, third = np.percentile(x[x >= least / 2], (25, 50, 75))  # Otsu's takes dark tissue for air
    high = float(np.clip(middle + ABOVE * (third - middle), LEAST, MOST))
    low = float(np.clip(middle - BELOW * (middle - first), 0, max(0.0, high - LEAST)))
    return Window(norm.offset + low * gain, norm.offset + high * gain)
