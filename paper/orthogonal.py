"""Thick stacks of one pelvis in three orientations: what is made isotropic of one, against another one.

    python paper/orthogonal.py SHARED/pair

A stack becomes isotropic, is moved to another one, and is seen by slices like those of that one
(`seran.profiles`). The movement is found by neither way: see `registration.Lines`.
"""

import itertools
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from registration import LOCAL, PLAN, Lines, Stack, aligned, carried
from results import Rows, load, markdown, program, write
from scipy import ndimage
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
COARSE = 8  # pixels between those whose movement is found, for the others it is interpolated
AGREED = 0.8  # correlation in a window, at least, where two stacks are said to agree
TISSUE = 0.1  # of a stack's peak: its mean in a window, at least
PROTOCOL = (
    "ProstateX-0001, T2, {stacks}: each made isotropic, or left to cubic B-splines, and seen by slices like "
    "those of another one; slices as thick as apart, profile {profile}; weights {digest}",
    "Movements are found by neither way, but on the lines in which slices of two stacks cross, where nothing "
    "is interpolated across slices; smooth: a shift for each place, in windows of {narrow:g} mm (standard "
    "deviation); rigid: the rigid movement nearest to it where the stacks agree",
    "Intensities: for each way by itself, least squares of a gain (a quadratic polynomial of the place) and "
    "an offset; peak: the 99.9th percentile",
    "Tissue: both stacks have means of {tissue:.0%} of their peaks or more in a window of {local:g} mm "
    "(standard deviation); {margin:g} mm next to the ends of either field of view do not count",
    "The stacks agree where they correlate by {agreed:g} or more in that window, on those lines: neither way "
    "has a part in it; low contrast is left out, too",
    "True: the slope of what B-splines miss on what the network adds: 1 if all of it is in the other stack, "
    "0 if nothing; above 0.5 the network agrees better. Slices: those with the higher PSNR",
)
PROFILE = Profile("slr", 1.0)
KINDS = ("rigid", "smooth")
HEAD = ["from", "to", "movement", "part", "B-spline", "made isotropic", "gain", "NCC", "true", "slices"]
MOVED = ["from", "to", "turn, °", "shift, mm", "smooth beyond rigid, mm", "there and back, mm"]


@dataclass(frozen=True)
class Movement:
    """From a target's mm to those of a source.

    Attributes:
        lines: on which it is known.
        shift: in mm, there.
    """

    lines: Lines
    shift: Float[ndarray, "3 i j u"]

    @classmethod
    def found(cls, source: Stack, target: Stack) -> "Movement":
        """That with which two stacks agree."""
        return cls(*aligned(source, target, PROFILE))

    @property
    def places(self) -> Float[ndarray, "3 i j u"]:
        """Where it is known, in mm of the target."""
        return carried(self.lines.target.volume.affine, self.lines.voxels(self.shift)[1])

    @property
    def local(self) -> Bool[ndarray, "i j u"]:
        """Where the stacks agree."""
        return self.known[3] >= AGREED

    @property
    def rigid(self) -> "Movement":
        """The rigid one next to it: by least squares, where the stacks agree."""
        a = self.places[:, self.local].T
        b = a + self.shift[:, self.local].T
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))[0].as_matrix()
        matrix[:3, 3] = b.mean(0) - matrix[:3, :3] @ a.mean(0)
        stiff = self
        for _ in range(4):  # the places move in the target's slices with the shift
            stiff = Movement(self.lines, carried(matrix, stiff.places) - stiff.places)
        return stiff

    @cached_property
    def known(self) -> Float[ndarray, "5 i j u"]:
        """The shift, and `Lines.agreement`."""
        return np.concatenate([self.shift, self.lines.agreement(self.shift)])

    def at(self, places: Float[ndarray, "3 *n"]) -> Float[ndarray, "5 *n"]:
        """What is known, interpolated at places of the target in mm."""
        source, target = self.lines.source, self.lines.target
        to = carried(np.linalg.inv(target.volume.affine), places)
        inverse = np.linalg.inv(source.volume.affine)
        made = np.zeros((5, *places.shape[1:]))
        for _ in range(4):  # between which source slices they lie depends on the shift
            i = carried(inverse, places + made[:3])[source.axis]
            at = np.stack([i, to[target.axis], to[self.lines.along] / self.lines.step])
            made = np.stack([ndimage.map_coordinates(x, at, order=1, mode="nearest") for x in self.known])
        return made

    @cached_property
    def coarse(self) -> Float[ndarray, "5 n b c"]:
        """What is known at every `COARSE`-th pixel of the target's slices."""
        target = self.lines.target
        to = np.moveaxis(np.indices(target.volume.data.shape), target.axis + 1, 1)
        return self.at(carried(target.volume.affine, to[:, :, ::COARSE, ::COARSE]))

    def spread(self, slices: Float[ndarray, "k"], what: slice) -> Float[ndarray, "m k b c"]:
        """Some of what is known at all pixels of these of the target's slices, whole or not."""
        r, c = (np.arange(n) / COARSE for n in self.lines.target.given.shape[1:])
        at = np.stack(np.meshgrid(slices, r, c, indexing="ij"))
        return np.stack([ndimage.map_coordinates(x, at, order=1, mode="nearest") for x in self.coarse[what]])

    def seen(self, volume: Volume) -> Float[ndarray, "n b c"]:
        """A volume of the source by slices of the target, by cubic B-splines; NaN outside, or near it."""
        target, scan = self.lines.target, self.lines.target.volume
        parts = int(np.ceil(target.size[target.axis] / FINE))  # of a slice
        counts = np.where(np.arange(3) == target.axis, parts, 1) * scan.data.shape
        fine, inverse = grid.with_counts(scan.grid, counts).affine, np.linalg.inv(volume.affine)
        ends = np.array(volume.data.shape)[:, None, None]
        margin = (MARGIN / grid.spacing(volume.affine))[:, None, None] - 0.5
        coefficients = ndimage.spline_filter(volume.data.astype(np.float32), output=np.float32)
        made = np.zeros((counts[target.axis], *target.given.shape[1:]), np.float32)
        there = np.zeros(made.shape, np.float32)
        pixels = np.indices(made.shape[1:])
        for k in range(len(made)):
            to = carried(fine, np.insert(pixels, target.axis, k, 0))
            to += self.spread(np.array([(k + 0.5) / parts - 0.5]), slice(3))[:, 0]
            at = carried(inverse, to)
            made[k] = ndimage.map_coordinates(coefficients, at, order=3, prefilter=False)
            there[k] = ((at > margin) & (at < ends - 1 - margin)).all(0)
        chosen = selection(len(made), parts, PROFILE)
        return np.where(np.tensordot(chosen, 1 - there, 1) < 1e-3, np.tensordot(chosen, made, 1), np.nan)


def within(target: Stack) -> Bool[ndarray, "b c"]:
    """The pixels of its slices that are not next to the ends of their field of view."""
    sizes = np.delete(target.size, target.axis)
    ends = [
        (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) * mm > MARGIN
        for n, mm in zip(target.given.shape[1:], sizes, strict=True)
    ]
    return np.logical_and.outer(*ends)


def quadratic(where: Bool[ndarray, "n b c"]) -> Float[ndarray, "10 m"]:
    """The polynomials of the place up to degree 2, where it counts."""
    place = [2 * x / n - 1 for x, n in zip(np.nonzero(where), where.shape, strict=True)]
    one = np.ones(len(place[0]))
    return np.stack([a * b for a, b in itertools.combinations_with_replacement([one, *place], 2)])


def compared(
    ways: dict[str, Float[ndarray, "n b c"]], target: Stack, where: Bool[ndarray, "n b c"]
) -> dict[str, Any]:
    """Each way's PSNR and NCC after its fit of intensities, and what is true of what the second one adds.

    Args:
        ways: what each makes; what is to be beaten is the first.
        target: the stack that it is compared with.
        where: it is.
    """
    given, basis = target.given[where], quadratic(where)
    row: dict[str, Any] = {"share": float(where.mean())}
    errors, fits = [], []
    for name, made in ways.items():
        terms = np.vstack([basis * made[where], np.ones(len(given))])
        fits.append(np.linalg.solve(terms @ terms.T, terms @ given))
        fitted = fits[-1] @ terms
        errors.append(given - fitted)
        psnr = 10 * np.log10(target.peak**2 / np.square(errors[-1]).mean())
        row[name] = {"psnr": float(psnr), "ncc": float(np.corrcoef(fitted, given)[0, 1])}
    old, new = ways.values()
    added = (fits[0][:-1] @ basis) * (new - old)[where]
    row["true"] = float(errors[0] @ added / (added @ added))
    slices = [np.bincount(np.nonzero(where)[0], e**2, len(where)) for e in errors]
    row["better"] = [int((slices[1] < slices[0]).sum()), int((slices[0] > 0).sum())]
    return row


def table(rows: Rows) -> list[str]:
    """For each part that is compared, a row for each pair and kind of movement; then the movements."""
    lines = []
    for part, title in (
        ("tissue", "Tissue, as a part of the target"),
        ("agreed", "Where the stacks agree, as a part of tissue"),
    ):
        body = []
        for (name, row), kind in itertools.product(rows.items(), KINDS):
            one, tissue = row[kind][part], row[kind]["tissue"]
            old, new = one["B-spline"], one["seran"]
            share = one["share"] / (tissue["share"] if part == "agreed" else 1)
            cells = [*name.split(" to "), kind, f"{share:.0%}", f"{old['psnr']:.2f}", f"{new['psnr']:.2f}"]
            cells += [f"{new['psnr'] - old['psnr']:+.2f}", f"{old['ncc']:.4f}, {new['ncc']:.4f}"]
            body.append([*cells, f"{one['true']:.2f}", "{} of {}".format(*one["better"])])
        lines += [f"## {title}", "", *markdown(HEAD, body), ""]
    body = [
        [*name.split(" to "), *(f"{row['moved'][k]:.2f}" for k in ("turn", "shift", "rest", "back"))]
        for name, row in rows.items()
    ]
    return [*lines, "## Movements", "", *markdown(MOVED, body)]


def moved(smooth: Movement, back: Movement) -> dict[str, float]:
    """How far a movement goes where the stacks agree.

    Args:
        smooth: it.
        back: the one the other way, found by itself.
    """
    to, shift = smooth.places[:, smooth.local], smooth.shift[:, smooth.local]
    stiff = smooth.rigid.at(to)[:3]
    ends = [(x - x.mean(1)[:, None]).T for x in (to + stiff, to)]
    return {
        "turn": float(np.rad2deg(Rotation.align_vectors(*ends)[0].magnitude())),
        "shift": float(np.linalg.norm(stiff.mean(1))),
        "rest": float(np.sqrt(np.square(shift - stiff).sum(0).mean())),
        "back": float(np.median(np.linalg.norm(shift + back.at(to + shift)[:3], axis=0))),
    }


def main(folder: Positional[Path], threads: int = 0, out: Path = Path(__file__).parent) -> None:
    """Compare each stack with each other one; what is done already is kept, if it is of the same weights.

    Args:
        folder: of the scans ``prostatex-0001_{sag,cor,tra}_T2w.nii.gz``.
        threads: of the CPU; 0: all.
        out: folder of ``orthogonal.json`` and ``.md``.
    """
    engine, digest = Engine(threads=threads), methods.across(methods.DEFAULT).sha256[:12]
    facts = {"stacks": ", ".join(STACKS), "profile": PROFILE, "digest": digest, "narrow": PLAN[-1][1]}
    facts |= {"local": LOCAL, "tissue": TISSUE, "margin": MARGIN, "agreed": AGREED}
    protocol = [p.format(**facts) for p in PROTOCOL]
    path = out / "orthogonal.json"
    rows = load(path, protocol)
    stacks = {n: Stack.of(seran.read(folder / f"prostatex-0001_{n}_T2w.nii.gz").volume) for n in STACKS}
    movement = cache(lambda one, other: Movement.found(stacks[one], stacks[other]))

    @cache
    def thin(name: str) -> Volume:
        scan = stacks[name].volume
        return seran.upscale((scan.data, scan.affine), isotropic=True, engine=engine).volume

    for one, other in itertools.permutations(STACKS, 2):
        name = f"{one} to {other}"
        if name in rows:
            continue
        smooth, target = movement(one, other), stacks[other]
        row: dict[str, Any] = {"moved": moved(smooth, movement(other, one))}
        for kind, way in zip(KINDS, (smooth.rigid, smooth), strict=True):
            made = {"B-spline": way.seen(stacks[one].volume), "seran": way.seen(thin(one))}
            there = np.isfinite(np.stack(list(made.values()))).all(0) & within(target)
            local, bright = way.spread(np.arange(there.shape[0]), slice(3, 5))
            parts = {"tissue": there & (bright >= TISSUE)}
            parts["agreed"] = parts["tissue"] & (local >= AGREED)
            row[kind] = {part: compared(made, target, where) for part, where in parts.items()}
        rows[name] = row
        sys.stderr.write(f"{name}: {row}\n")
        write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
