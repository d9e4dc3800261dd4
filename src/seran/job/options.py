"""What can be asked for: how a scan is read, what sharpens it, and the grid of the result."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import acquisition, grid, io, isotropic, measure, methods, native, profiles, resample
from seran.errors import BadInput, refuse_unlisted
from seran.job.record import ReadAs
from seran.measure import Band, Measured
from seran.profiles import Profile
from seran.sharpen import Method

THINNEST, THICKEST = 0.3, 1.6  # of slices, as a part of their distance
THICK = 1.5  # times the other spacing, from which slices lie across thick ones
FINER = 0.02  # part of a pixel, by which a finer one counts as the same
LEAST = 0.25  # part of k-space along an axis that may be stated as measured
Transform = Literal["auto", "sform", "qform"]


@dataclass(frozen=True)
class ReadOptions:
    """How the input is read.

    Attributes:
        plane: which slices to sharpen; auto: those that the file names, or with the two finest spacings.
        force_plane: sharpen the slices of --plane even if they lie across thick ones.
        affine: which transform of the header is right, when they disagree.
        fill: value for voxels that are NaN, infinite or beyond 1e30.
        volume: which one of several (4-D, echoes), counted from 0; without it all, one after the other.
        series: which series of a DICOM folder, by number or UID (`seran info FOLDER` lists them).
        label_check: refuse what looks like no scan by its header, name, record or values: a segmentation or
            mask, phase, a result of seran's.
    """

    plane: grid.Plane = "auto"
    force_plane: bool = False
    affine: Transform = "auto"
    fill: Annotated[float | None, "VALUE"] = None
    volume: int | None = None
    series: str | None = None
    label_check: bool = True

    def __post_init__(self) -> None:
        refuse_unlisted("plane", self.plane, get_args(grid.Plane))
        refuse_unlisted("affine", self.affine, get_args(Transform))

    @property
    def stated(self) -> ReadAs:
        """What a record states of it."""
        series = None if self.series is None or "." in self.series else self.series
        return ReadAs(self.volume, self.affine, self.fill, series)

    def refuse_thick_plane(self, scan: grid.Grid, axis: int) -> None:
        """Raise `BadInput` if slices of a stated plane lie across thick ones, unless that is forced."""
        size = np.delete(grid.spacing(scan.affine), axis)
        if self.plane == "auto" or self.force_plane or size.max() < THICK * size.min():
            return
        raise BadInput(
            f"--plane {self.plane}: these slices, of pixels of {grid.dimensions(size, '.3g', ' x ')} mm, lie "
            "across thick ones, which is not undone; give --isotropic for thin slices, or --force-plane"
        )


@dataclass(frozen=True)
class Scanner:
    """What was done to the scan before it was given: measured, unless it is stated.

    Attributes:
        acquisition: auto: what a scanner does (measured below), undone by native weights, where the method
            has any; bicubic: antialiased bicubic reduction, as in the paper and in resampled images;
            truncation: of k-space, nothing else.
        acquired: part of k-space that was measured along the first and along the second axis of a slice, of
            DICOM along its rows and along its columns (phase is encoded along the first where
            InPlanePhaseEncodingDirection is ROW, else along the second); the rest is filled with zeros.
        window: the scanner's filter: none, tukey:A, hamming:A, fermi:A:B, and :elliptical behind it.
        noise: auto, off, or its standard deviation as a part of the scan's 99.9th percentile.
        background: value of a constant background, which the result keeps; off for none.
        slice_thickness: in mm, for --isotropic; without it what the DICOM header or the JSON beside a file
            says, or else the distance of the slices.
        slice_profile: what a slice sees across its thickness: slr (of a 90 degree pulse), gaussian or rect.
    """

    acquisition: Literal["auto", "bicubic", "truncation"] = "auto"
    acquired: Annotated[tuple[float, float] | None, "ROWS COLUMNS"] = None
    window: Annotated[str, "WINDOW"] = "auto"
    noise: Annotated[str | float, "NOISE"] = "auto"
    background: Annotated[str | float, "VALUE"] = "auto"
    slice_thickness: Annotated[float | None, "MM"] = None
    slice_profile: profiles.Kind = "slr"

    def __post_init__(self) -> None:
        refuse_unlisted("slice-profile", self.slice_profile, profiles.KINDS)
        if self.slice_thickness is not None and not 0 < self.slice_thickness < math.inf:
            raise BadInput(f"--slice-thickness {self.slice_thickness:g}: must be above 0")
        refuse_unlisted("acquisition", self.acquisition, ("auto", "bicubic", "truncation"))
        if self.acquired and not all(LEAST <= f <= 1 for f in self.acquired):
            raise BadInput(f"--acquired {self.acquired[0]:g} {self.acquired[1]:g}: must be from {LEAST} to 1")
        try:
            acquisition.window("none" if self.window == "auto" else self.window)
        except ValueError as error:
            wanted = f"auto, none, {acquisition.WORDS}, and :elliptical behind it where it is so"
            raise BadInput(f"--window {self.window}: expected {wanted}") from error
        if self.noise not in ("auto", "off"):
            _number("noise", str(self.noise), "auto, off or a part of the range from 0 to 0.5", 0, 0.5)
        if self.background not in ("auto", "off"):
            _number("background", str(self.background), "auto, off or an intensity", -math.inf, math.inf)

    def refuse_measures(self, method: Method) -> None:
        """Raise `BadInput` if what only native weights use is stated for a method without them."""
        self.refuse_stated(
            f"the weights {method.weights} do not" if method.weights else f"{method.name} does not"
        )

    def refuse_stated(self, has: str) -> None:
        """Raise `BadInput` if what only native weights use is stated; ``has``: what does not, and that."""
        self._refuse(("acquired", "window", "noise", "background"), f"only native weights use it, {has}")

    def refuse_kept_plane(self) -> None:
        """Raise `BadInput` if what is undone in the plane of the slices is stated and that stays as it is."""
        why = "has no effect here, because the pixels do not become finer"
        self._refuse(("acquired", "window"), why)

    def _refuse(self, names: Sequence[str], why: str) -> None:
        if given := [name for name in names if getattr(self, name) not in ("auto", None)]:
            raise BadInput(f"--{given[0]}: {why}; leave it out")

    def profile(
        self, distance: float, header: float | None, beside: float | None = None
    ) -> tuple[Profile, str]:
        """What slices see, and what their thickness is known by: stated, header, json or assumed.

        Args:
            distance: of the slices, in mm.
            header: their thickness in mm by their header, if it says it.
            beside: the same by the JSON beside their file.
        """
        known = {"stated": self.slice_thickness, "header": header, "json": beside, "assumed": distance}
        by, thickness = next((by, mm) for by, mm in known.items() if mm)
        if not THINNEST <= thickness / distance <= THICKEST:
            named = {"stated": "--slice-thickness", "header": "the header's SliceThickness"}.get(
                by, "SliceThickness in the JSON beside it"
            )
            raise BadInput(
                f"{named}, {thickness:.3g} mm: slices {distance:.3g} mm apart must be {THINNEST:g} to "
                f"{THICKEST:g} times as thick; give the right --slice-thickness"
            )
        return Profile(self.slice_profile, thickness / distance), by

    def refuse_background(self, stacks: Sequence[Float[ndarray, "n h w"]]) -> None:
        """Raise `BadInput` if no region of any volume has the background's stated value."""
        value = self._background
        if value is not None and not any(native.background(stack, value).any() for stack in stacks):
            raise BadInput(
                f"--background {self.background}: no region of the scan has this value; "
                "leave it out to have the value found, or say off"
            )

    @property
    def _background(self) -> float | None:
        """What is stated of it, as a number."""
        return None if self.background in ("auto", "off") else float(self.background)

    def known(self, stack: Float[ndarray, "n h w"], gain: float, band: Band | None = None) -> Measured:
        """What is known of slices: measured, or stated in its place.

        Args:
            stack: of one volume.
            gain: its range.
            band: acquired part of k-space and filter, where they are known.
        """
        found = measure.measured(stack, band)
        stated = (
            self.acquired or found.fraction,
            found.window if self.window == "auto" else acquisition.window(self.window),
        )
        if stated != found.band:
            found = measure.measured(stack, stated)
        if self.noise != "auto":
            part = 0.0 if self.noise == "off" else float(self.noise)
            found = replace(found, sigma=part * gain, by="stated")
        if self.background != "auto":
            value = self._background
            there = value is not None and native.background(stack, value).any()
            found = replace(found, background=value if there else None)
        return found


def _number(name: str, word: str, expected: str, least: float, most: float) -> None:
    with contextlib.suppress(ValueError):
        if least <= float(word) <= most and math.isfinite(float(word)):
            return
    raise BadInput(f"--{name} {word}: expected {expected}")


@dataclass(frozen=True)
class Target:
    """The grid of the result, by one of these; what is left out follows.

    Attributes:
        scale: how many times finer the slices become, up to 4; 1 keeps the grid (native weights only): noise
            and filter are undone, and what a scanner filled with zeros is estimated. Numbers that are not
            whole: the network of the next whole number and one antialiased resampling.
        spacing: of the result in the plane of the slices, in mm.
        like: an image whose grid the result is put on.
        isotropic: thick slices become thin ones, estimated by a network: every axis at the finest spacing of
            the scan, or at MM, in the same field of view.
    """

    scale: float | None = None
    spacing: Annotated[float | None, "MM"] = None
    like: Annotated[Path | None, "FILE"] = None
    isotropic: Annotated[float | Literal["auto"] | None, "[MM]"] = None  # auto: the finest of the scan

    def __post_init__(self) -> None:
        given = [n for n in ("scale", "spacing", "like", "isotropic") if getattr(self, n) is not None]
        if len(given) > 1:
            raise BadInput(f"--{' and --'.join(given)}: give only one of them")
        if self.spacing is not None and not 0 < self.spacing < math.inf:
            raise BadInput(f"--spacing {self.spacing:g}: must be above 0")
        if self.isotropic not in (None, "auto") and not 0 < float(self.isotropic) < math.inf:
            raise BadInput(f"--isotropic {self.isotropic:g}: must be above 0")
        if self.scale is not None and not 1 <= self.scale <= resample.LARGEST:
            raise BadInput(f"--scale {self.scale:g}: must be 1 or more and at most {resample.LARGEST:g}")

    def reach(self, scan: grid.Grid, axis: int, default: int) -> tuple[int, grid.Grid | None]:
        """The whole factor of the network, and the grid to resample to, if that is not all.

        Args:
            scan: the grid of the scan.
            axis: along which its slices are stacked.
            default: the factor where nothing is asked for.
        """
        scale = self.scale or default
        if self.isotropic is not None:
            return self._within(scan, axis)
        if self.like is not None:
            to = next(io.read_series(self.like, voxels=False).volumes).grid
            name = f"--like {self.like}"
            resample.refuse_apart(scan, to, name)
        elif self.spacing is None and scale in (1, 2, 3, 4):
            return int(scale), None
        else:
            size = np.delete(grid.spacing(scan.affine), axis).tolist()
            a, b = (self.spacing or s / scale for s in size)
            name = f"--spacing {self.spacing:g}" if self.spacing else f"--scale {scale:g}"
            resample.refuse_beyond([size[0] / a, size[1] / b], name)  # before so large a grid is counted
            to = resample.finer(scan, axis, (a, b))
        return resample.factor(scan, axis, to, name), to

    def thin(self, scan: grid.Grid, axis: int) -> grid.Grid:
        """The grid of isotropic voxels, see `seran.isotropic.wanted`."""
        return isotropic.wanted(scan, axis, self.millimetres)

    @property
    def millimetres(self) -> float | None:
        """The spacing of isotropic voxels, where one is stated."""
        return None if self.isotropic in (None, "auto") else float(self.isotropic)

    def _within(self, scan: grid.Grid, axis: int) -> tuple[int, grid.Grid | None]:
        """The same in the plane of thick slices: 1 where that is fine enough."""
        thin = self.thin(scan, axis)
        plane = grid.with_counts(scan, np.where(np.arange(3) == axis, scan.shape, thin.shape))
        if plane.shape == scan.shape:
            return 1, None
        fine = float(np.delete(grid.spacing(scan.affine), axis).min())
        if (self.millimetres or fine) >= (1 - FINER) * fine:
            return 1, plane
        return resample.factor(scan, axis, plane, f"--isotropic {self.isotropic:g}"), plane


@dataclass(frozen=True)
class Options:
    """How a scan is sharpened.

    Attributes:
        method: `seran methods` lists them; without it that of the weights, or seran.
        fast: the same as --method fast: a small network, six to seven times as fast, see docs/speed.md.
        weights: a weights file to use instead of those shipped for it, or a name of `seran weights list`.
        ensemble: average over the eight symmetries of a slice: a little better, eight times slower.
        adapt: seconds to fine-tune the network of --isotropic on the scan's own slices (needs the extra
            train); it is used if it does better on those that it was not tuned on.
        consistent: on: a result of weights that, put through the acquisition, leaves the scan by more than
            its noise is changed as little as it takes not to; off: it stays as the network made it.
        maps: write a second image, NAME_estimated, of what the scan did not measure of the result: what is
            beyond the band of its k-space and, of thin slices, beyond the smoothest image that thick ones
            see alike.
        uncertainty: write a second image, NAME_uncertainty, of how far each voxel may be off: half of the
            width of an interval that, on average over scans like those of the calibration, covers the
            error of 9 of 10 tissue voxels.
        dtype: type of a voxel of the result; integers are rounded, and refused if they cannot hold the scan.
        target: the grid of the result; without any of its options twice as fine.
        scanner: what is known of the acquisition.
        read: how the input is read.
    """

    method: str | None = None
    weights: Annotated[Path | None, "FILE"] = None
    ensemble: bool = False
    adapt: Annotated[float | None, "SECONDS"] = None
    consistent: Literal["on", "off"] = "on"
    maps: bool = False
    uncertainty: bool = False
    dtype: Literal["float32", "float64", "uint8", "int16", "uint16", "int32"] = "float32"
    target: Target = Target()
    scanner: Scanner = Scanner()
    read: ReadOptions = ReadOptions()
    fast: bool = False

    def __post_init__(self) -> None:
        if self.fast and self.method not in (None, methods.FAST):
            raise BadInput(f"--fast is --method {methods.FAST}, and --method {self.method} is another")

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of the images that come beside a result."""
        return ("uncertainty",) * self.uncertainty + ("estimated",) * self.maps

    def implied(self) -> tuple[str, int]:
        """The method's name, with its ``+`` where it is ensembled, and the scale where none is asked for."""
        name, scale = methods.implied(methods.FAST if self.fast else self.method, self.weights)
        return name + "+" * (self.ensemble and not name.endswith("+")), scale

    @property
    def thin(self) -> bool:
        """Whether thick slices are to become thin."""
        return self.target.isotropic is not None

    def refuse_unfit(self) -> None:
        """Raise `BadInput` for options that suit no scan at all: of many scans, before the first."""
        self.refuse_isotropic()
        name, scale = self.implied()
        if self.maps and not (methods.is_network(name) or self.thin):
            raise BadInput(f"--maps: {name} estimates nothing; leave it out")
        if self.thin or self.weights is not None:
            return  # the rest is decided by what weights hold
        target, native = self.target, self.degradation == methods.NATIVE
        if target.like is None and target.spacing is None:
            methods.refuse_unknown(name, math.ceil(target.scale or scale), self.degradation)
        if not (native and methods.is_network(name)):
            self.scanner.refuse_stated(f"{name} does not")
            if self.uncertainty:
                raise BadInput(
                    f"--uncertainty: half-widths are of native weights, not of {name}; leave it out"
                )

    def refuse_isotropic(self) -> None:
        """Raise `BadInput` if options of thick slices are given without, or with what cannot be with them."""
        scanner, usual = self.scanner, Scanner()
        if not self.thin:
            named = ["adapt"] if self.adapt is not None else []
            for name in ("slice_thickness", "slice_profile"):
                named += [name] if getattr(scanner, name) != getattr(usual, name) else []
            if named:
                raise BadInput(f"--{named[0].replace('_', '-')}: only --isotropic uses it; leave it out")
            return
        if self.adapt is not None and not 0 < self.adapt < math.inf:
            raise BadInput(f"--adapt {self.adapt:g}: must be above 0")
        name = self.implied()[0]
        if name.endswith("+"):
            raise BadInput("--ensemble: --isotropic has none; leave it out")
        if name != methods.DEFAULT:
            raise BadInput(f"--method {name}: only {methods.DEFAULT} estimates what lies between slices")
        if scanner.acquisition != "auto":
            raise BadInput(
                f"--acquisition {scanner.acquisition}: --isotropic is for scans as scanners give them"
            )

    def refuse_coarse(self, scale: int) -> None:
        """Raise `BadInput` if a grid as coarse as the scan is asked for of a method that only enlarges."""
        name, target = self.implied()[0], self.target
        keeps = methods.is_network(name) and (self.weights or self.degradation == methods.NATIVE)
        if scale > 1 or keeps or (target.like is None and target.spacing is None):
            return
        asked = f"--like {target.like}" if target.like else f"--spacing {target.spacing:g}"
        raise BadInput(
            f"{asked}: is as coarse as the scan in the plane of its slices, and {name} only enlarges; "
            f"name a finer one, or have native weights sharpen it ({methods.DEFAULT})"
        )

    def refuse_degradation(self, method: Method) -> None:
        """Raise `BadInput` if a method undoes something else than is stated."""
        asked, found = self.scanner.acquisition, methods.NATIVE if method.heads else method.degradation
        if asked != "auto" and found != self.degradation:
            named = f"the weights {method.weights} are" if method.weights else f"{method.name} is"
            kind = {methods.NATIVE: "scans as scanners give them", "td": "truncated k-space"}
            wanted = kind.get(found, "bicubic reductions")
            raise BadInput(f"--acquisition {asked}: {named} for {wanted}; leave it out, or choose others")

    @property
    def degradation(self) -> str:
        """That of the shipped weights that are wanted: native where there are such, if no other is named."""
        name, asked = self.implied()[0], self.scanner.acquisition
        named = {"bicubic": "bd", "truncation": "td"}
        return named.get(asked) or (methods.NATIVE if methods.is_native(name) else "bd")
