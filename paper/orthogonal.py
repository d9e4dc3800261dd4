"""Thick stacks of one pelvis in three orientations: what is made isotropic of one, against another one.

    python paper/orthogonal.py SHARED/pair

A stack becomes isotropic, is moved rigidly to another one, and is seen by slices like those of that one
(`seran.profiles`); after a linear fit of intensities it is compared where both show tissue. The movement is
found once for each pair, with the interpolation: what is to be beaten chooses.
"""

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from results import Rows, load, program, write
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation
from tyro.conf import Positional

import seran
from seran import grid, methods
from seran.engines import Engine
from seran.profiles import Profile, selection
from seran.volume import Volume

STACKS = ("sag", "cor", "tra")
FINE = 0.6  # mm of a fine slice, at most, of which a thick one is made
MARGIN = 3.0  # mm inside a stack's field of view that count
PROTOCOL = (
    "ProstateX-0001, T2, {stacks}: each made isotropic and seen by slices like those of another one; rigid "
    "movement found with B-splines, linear fit of intensities, peak: the 99.9th percentile",
    "Slices as thick as apart, profile {profile}; weights {digest}",
)
PROFILE = Profile("slr", 1.0)


@dataclass(frozen=True)
class Target:
    """A stack that is compared with: where the fine parts of its slices lie, and what selects them.

    Attributes:
        volume: it.
        axis: along which its slices are stacked.
        fine: fine slices for each.
    """

    volume: Volume
    axis: int
    fine: int

    @classmethod
    def of(cls, volume: Volume) -> "Target":
        """That of a stack."""
        axis = grid.slice_axis(volume.affine, volume.data.shape, "auto")
        return cls(volume, axis, int(np.ceil(grid.spacing(volume.affine)[axis] / FINE)))

    def places(self, step: int = 1) -> Float[ndarray, "3 a b c"]:
        """In mm, of every ``step``-th pixel of all fine slices; the slices are along the first axis."""
        counts = np.where(np.arange(3) == self.axis, self.fine, 1) * self.volume.data.shape
        affine = grid.with_counts(self.volume.grid, counts).affine
        at = np.moveaxis(np.indices(counts.tolist(), np.float32), self.axis + 1, 1)[:, :, ::step, ::step]
        return np.tensordot(affine[:3, :3], at, 1) + affine[:3, 3][:, None, None, None]

    def seen(self, fine: Float[ndarray, "kn b c"]) -> Float[ndarray, "n b c"]:
        """By its slices."""
        return np.tensordot(selection(len(fine), self.fine, PROFILE), fine, 1)

    def given(self, step: int = 1) -> Float[ndarray, "n b c"]:
        """The stack itself."""
        return np.moveaxis(self.volume.data, self.axis, 0)[:, ::step, ::step].astype(np.float64)


def moved(places: Float[ndarray, "3 a b c"], rigid: Float[ndarray, "6"]) -> Float[ndarray, "3 a b c"]:
    """Places turned about their middle (degrees) and shifted (mm)."""
    middle = places.reshape(3, -1).mean(1)[:, None, None, None]
    turn = Rotation.from_euler("xyz", rigid[:3], degrees=True).as_matrix()
    return np.tensordot(turn, places - middle, 1) + middle + rigid[3:, None, None, None]


def sampled(volume: Volume, places: Float[ndarray, "3 a b c"]) -> Float[ndarray, "a b c"]:
    """By cubic B-splines; NaN where the field of view ends, but for `MARGIN`."""
    inverse = np.linalg.inv(volume.affine)
    at = np.tensordot(inverse[:3, :3], places, 1) + inverse[:3, 3][:, None, None, None]
    made = ndimage.map_coordinates(volume.data.astype(np.float32), at, order=3, mode="nearest")
    ends = np.array(volume.data.shape)[:, None, None, None]
    margin = (MARGIN / grid.spacing(volume.affine))[:, None, None, None] - 0.5
    return np.where(((at > margin) & (at < ends - 1 - margin)).all(0), made, np.nan)


def compared(made: Float[ndarray, "n b c"], given: Float[ndarray, "n b c"]) -> dict[str, float]:
    """PSNR after a linear fit, and normalised cross-correlation, where something was made."""
    there = np.isfinite(made)
    x, y = made[there], given[there]
    slope, offset = np.polyfit(x, y, 1)
    error = float(np.square(slope * x + offset - y).mean())
    peak = float(np.percentile(given, 99.9))
    return {"psnr": 10 * np.log10(peak**2 / error), "ncc": float(np.corrcoef(x, y)[0, 1])}


def movement(source: Volume, target: Target) -> Float[ndarray, "6"]:
    """Degrees and mm that make a stack correlate best with another one, seen by its slices."""
    step = max(1, round(2 / float(np.delete(grid.spacing(target.volume.affine), target.axis).min())))
    places, given = target.places(step), target.given(step)

    def less(v: Float[ndarray, "6"]) -> float:
        return -compared(target.seen(sampled(source, moved(places, v))), given)["ncc"]

    simplex = np.vstack([np.zeros(6), np.diag([1.0, 1, 1, 1.5, 1.5, 1.5])])
    how = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-5, "maxfev": 300}
    return optimize.minimize(less, np.zeros(6), method="Nelder-Mead", options=how).x


def table(rows: Rows) -> list[str]:
    """A row for each pair."""
    lines = [
        "| from | to | B-spline | made isotropic | gain | NCC | movement |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        old, new = row["B-spline"], row["seran"]
        where = grid.dimensions(row["movement"][:3], ".1f", " ") + "°, "
        where += grid.dimensions(row["movement"][3:], ".1f", " ") + " mm"
        lines.append(
            f"| {name.replace(' to ', ' | ')} | {old['psnr']:.2f} | {new['psnr']:.2f} | "
            f"{new['psnr'] - old['psnr']:+.2f} | {old['ncc']:.4f}, {new['ncc']:.4f} | {where} |"
        )
    return lines


def main(folder: Positional[Path], threads: int = 0, out: Path = Path(__file__).parent) -> None:
    """Compare each stack with each other one; what is done already is kept, if it is of the same weights.

    Args:
        folder: of the scans ``prostatex-0001_{sag,cor,tra}_T2w.nii.gz``.
        threads: of the CPU; 0: all.
        out: folder of ``orthogonal.json`` and ``.md``.
    """
    engine, digest = Engine(threads=threads), methods.across(methods.DEFAULT).sha256[:12]
    protocol = [p.format(stacks=", ".join(STACKS), profile=PROFILE, digest=digest) for p in PROTOCOL]
    path = out / "orthogonal.json"
    rows = load(path, protocol)
    scans = {name: seran.read(folder / f"prostatex-0001_{name}_T2w.nii.gz").volume for name in STACKS}
    thin: dict[str, Volume] = {}
    for one, other in itertools.permutations(STACKS, 2):
        name = f"{one} to {other}"
        if name in rows:
            continue
        if one not in thin:
            pair = scans[one].data, scans[one].affine
            thin[one] = seran.upscale(pair, isotropic=True, engine=engine).volume
        target = Target.of(scans[other])
        rigid = movement(scans[one], target)
        places, given = moved(target.places(), rigid), target.given()
        row = {"movement": rigid.round(2).tolist()}
        for way, volume in (("B-spline", scans[one]), ("seran", thin[one])):
            row[way] = compared(target.seen(sampled(volume, places)), given)
        rows[name] = row
        sys.stderr.write(f"{name}: {row}\n")
        write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
