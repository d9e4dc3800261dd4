"""Slice selection: what a scanner's slices see of anatomy along the axis through them.

A slice j at z_j is s_j = Σ_z h(z - z_j) x(z) with a profile h of unit sum, whose full width at half maximum
is the slice thickness. x lies on voxels of their own width p, so that h is as wide as what is missing,
√(t² - p²) (as in radifox-utils). Slices have the distance d = k p, k any real factor, and the outer faces
of the stack are those of x; beyond them x goes on as at its ends. The operator is a matrix, and its adjoint
the transpose.

>>> selection(12, 4, Profile("gaussian", 1.0)).sum(1).round(6).tolist()
[1.0, 1.0, 1.0]
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from math import log, sqrt
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran.errors import BadInput

Kind = Literal["rect", "gaussian", "slr"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SOFTNESS = {"rect": 0.0, "slr": 0.1, "gaussian": 1.0}
"""What the network is told of a kind."""
PRODUCT, SAMPLES, RIPPLE = 16, 128, 0.01
"""Of the pulse: time-bandwidth product, samples, and ripple in the pass- and in the stopband."""


@dataclass(frozen=True)
class Profile:
    """A slice profile.

    Attributes:
        kind: rect; gaussian; slr: of a 90° pulse by the Shinnar-Le Roux algorithm (Pauly et al., IEEE TMI
            1991) with a least-squares filter.
        thickness: full width at half maximum, as a part of the slice distance.
    """

    kind: Kind = "gaussian"
    thickness: float = 1.0

    def __post_init__(self) -> None:
        if not 0.2 <= self.thickness <= 2:
            raise BadInput(f"expected slices 0.2 to 2 times as thick as far apart, got {self.thickness:g}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.thickness:.3g}"


def profile(words: str) -> Profile:
    """From what `Profile.__str__` gives; a `ValueError` if it is none.

    >>> profile("slr:0.9")
    Profile(kind='slr', thickness=0.9)
    """
    kind, _, thickness = words.partition(":")
    if kind not in KINDS:
        raise ValueError(f"expected one of {', '.join(KINDS)}, got {kind}")
    return Profile(kind, float(thickness))


@cache
def _slr() -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Transverse magnetisation after the pulse against the place in slice thicknesses.

    |Mxy| = 2 |b| √(1 - |b|²) with the β polynomial b of the pulse, a least-squares filter, for 90°.
    """
    from scipy.signal import firls, freqz  # only simulation needs it

    d1, d2 = sqrt(RIPPLE / 2), RIPPLE / sqrt(2)
    l1, l2 = np.log10(d1), np.log10(d2)
    wide = (5.309e-3 * l1**2 + 7.114e-2 * l1 - 4.761e-1) * l2 + (-2.66e-3 * l1**2 - 5.941e-1 * l1 - 4.278e-1)
    part = wide / PRODUCT  # of the band, that the transition takes (Parks & McClellan's estimate)
    ends = np.array([0, (1 - part) * PRODUCT / 2, (1 + part) * PRODUCT / 2, SAMPLES / 2]) / (SAMPLES / 2)
    taps = firls(SAMPLES + 1, ends, [1, 1, 0, 0], weight=[1, d1 / d2])
    place = np.linspace(0, 2, 1025)  # in thicknesses, each PRODUCT / SAMPLES cycles a sample
    b = np.abs(freqz(taps, worN=2 * np.pi * place * PRODUCT / SAMPLES)[1]) / sqrt(2)
    return place, 2 * b * np.sqrt(np.maximum(1 - b**2, 0))


def taps(kind: Kind, width: float) -> Float[ndarray, " n"]:
    """A profile of this full width at half maximum in voxels, at voxels around its middle; of unit sum."""
    reach = max(1, round(width))
    at = np.abs(np.arange(-reach, reach + 1.0))
    if kind == "gaussian":
        made = np.exp(-4 * log(2) * (at / width) ** 2)
    elif kind == "rect":
        made = np.clip(width / 2 - at + 0.5, 0, 1)
    else:
        place, height = _slr()
        made = np.interp(at / width, place, height)
    return made / made.sum()


@lru_cache(256)
def selection(n: int, factor: float, profile: Profile) -> Float[ndarray, "m n"]:
    """What slices see of n voxels; rows sum to one, the array is read-only.

    Args:
        n: voxels along the axis.
        factor: their number in a slice distance, from 1.
        profile: of the slices.

    Returns:
        Weights of m = round(n / factor) slices, at least one, about the middle of the voxels.
    """
    from scipy.ndimage import convolve1d, map_coordinates  # only simulation needs it

    if factor < 1:
        raise BadInput(f"expected slices at least a voxel apart, got {factor:g}")
    width, m = sqrt(max((profile.thickness * factor) ** 2 - 1, 0.0)), max(1, round(n / factor))
    blurred = np.eye(n)
    if width > 0:
        blurred = convolve1d(blurred, taps(profile.kind, width), axis=0, mode="nearest")
    at = (n - 1) / 2 + factor * (np.arange(m) - (m - 1) / 2)
    whole = np.rint(at)
    if np.allclose(at, whole, atol=1e-9):
        made = blurred[np.clip(whole.astype(int), 0, n - 1)]
    else:
        places = np.broadcast_arrays(at[:, None], np.arange(n))
        made = map_coordinates(blurred, places, order=3, mode="nearest")
    made.setflags(write=False)
    return made


@lru_cache(16)
def unseen(n: int, factor: float, profile: Profile) -> Float[ndarray, "n n"]:
    """What takes from n voxels all that goes beyond the smoothest voxels which slices see alike; read-only.

    Of all u with A u = A x, where A is the `selection`, the one of least curvature |D u|², D the second
    difference, is x - T x with T = N (Nᵀ Dᵀ D N)⁻¹ Nᵀ Dᵀ D, the columns of N an orthonormal basis of what A
    does not see. So A T = 0, T T = T, and T x = 0 of whatever is flat or a ramp.

    Args:
        n: voxels along the axis, of two slices at least.
        factor: their number in a slice distance, from 1.
        profile: of the slices.
    """
    from scipy.linalg import null_space  # only maps of what was not measured need it

    hidden = null_space(selection(n, factor, profile))
    bent = np.diff(np.eye(n), 2, axis=0)
    made = hidden @ np.linalg.solve((bent @ hidden).T @ (bent @ hidden), (bent @ hidden).T @ bent)
    made.setflags(write=False)
    return made
