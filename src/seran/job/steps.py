"""One scan in memory, in `Steps` that are decided by its first volume: for the command and the library."""

import importlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import (
    __version__,
    consistency,
    grid,
    io,
    isotropic,
    kspace,
    methods,
    native,
    progress,
    resample,
    scratch,
    sharpen,
    uncertainty,
)
from seran.contrast import contrast_of
from seran.degrade import DEGRADATIONS
from seran.engines import Engine
from seran.errors import BadInput
from seran.io import voxels
from seran.job.options import Options, Scanner
from seran.job.record import Record
from seran.measure import Band, Measured
from seran.progress import enter, unseen
from seran.quality import checks
from seran.quality.provenance import estimated
from seran.scratch import Allocator
from seran.sharpen import Across, Method, Normalisation, Progress
from seran.uncertainty import Widths
from seran.volume import Volume

AHEAD, LOOKED = 4, 16  # volumes that a band is measured on: so many that are not of one value, of the first
ALIKE = 1.25  # times the noise of another volume: what is told of it is told again


@dataclass(frozen=True)
class Fitted:
    """A method made for one volume of a scan, and what is known of that."""

    method: Method
    known: Measured
    norm: Normalisation
    tally: list[bool]  # of the slices that were sharpened, whether they were changed to keep to the scan

    @property
    def gain(self) -> float:
        """The range of the volume."""
        return self.norm.gain


class Steps:
    """What is decided once for a scan, and how its volumes are sharpened; `BadInput` for unfit options.

    Grid, method, acquired band and filter are the scan's; noise and background are each volume's own. Volumes
    of about the same noise are told the same, so that a series does not flicker.

    Args:
        first: the volume whose grid is that of all.
        options: how.
        engine: how the network is run.
        loaded: the method, if it is.
        more: of a series, the volumes on which the band is measured besides the first.
        scan: its name, for what is wrong with it.
        thickness: of its slices in mm, where it is known and the volume does not say it.
    """

    def __init__(
        self,
        first: Volume,
        options: Options,
        engine: Engine,
        loaded: Method | None = None,
        more: Sequence[Volume] = (),
        scan: str = "the scan",
        thickness: float | None = None,
    ) -> None:
        self.options, self.engine = options, engine
        options.refuse_isotropic()
        axis = grid.slice_axis(first.affine, first.data.shape, options.read.plane, first.slices)
        stacks = [np.moveaxis(volume.data, axis, 0) for volume in (first, *more)]
        sharpen.refuse_small(scan, stacks[0], axis)
        name, default = (loaded.name, loaded.scale) if loaded else options.implied()
        scale, target = options.target.reach(first.grid, axis, default)
        self.across: isotropic.Thin | None = None
        contrast = first.contrast or contrast_of(Path(scan).name)
        if not options.thin:
            if loaded is None:
                options.refuse_coarse(scale)
            method = loaded or methods.method(name, scale, options.degradation, options.weights, engine)
            options.refuse_degradation(method)
            if method.heads is None:
                options.scanner.refuse_measures(method)
            elif options.uncertainty:
                method = replace(method, widths=_widths(method, engine, contrast))
        else:
            final = options.target.thin(first.grid, axis)
            if scale == 1:
                options.scanner.refuse_kept_plane()
            distance = float(grid.spacing(first.affine)[axis])
            known = options.scanner.profile(distance, first.thickness, thickness)
            network = methods.across(name, options.weights, engine)
            if (
                options.uncertainty
                and scale == 1
                and options.adapt is None
                and (target is None or min(np.subtract(target.shape, first.data.shape)) >= 0)
            ):  # else its results are not those of the calibration
                network = replace(network, widths=_widths(network, engine, contrast))
            k = isotropic.factor(first.grid, final, axis)
            self.across = isotropic.Thin(network, k, *known, final, target)
            if options.adapt is not None:
                importlib.import_module("seran.adapt")  # which says what it needs
            method = (
                self.across.alone if scale == 1 else methods.method(name, scale, methods.NATIVE, None, engine)
            )
        if options.uncertainty and not (method.widths or (self.across and self.across.network.widths)):
            raise BadInput(
                "--uncertainty: half-widths are calibrated for the shipped native weights, in the plane or "
                "across slices whose pixels stay as they are, and not after --adapt; leave --uncertainty out"
            )
        if options.maps and not (method.weights or self.across):
            raise BadInput(f"--maps: {method.name} estimates nothing; leave it out")
        if options.maps and target is not None and resample.turned(first.grid, target):
            raise BadInput("--maps: expected a grid along the scan's axes, got a turned one; leave it out")
        if method.weights:
            options.read.refuse_thick_plane(first.grid, axis)
        options.scanner.refuse_background(stacks)
        self.method, self.plan = method, grid.Plan(first.grid, axis, method.factors, method.anchor, target)
        self.sharpened = False  # a file may tell
        self.out: Path | None = None  # where results are written: checks are of what is read there again
        self.band = None if method.weights and not more else band(stacks, options.scanner)
        self.rounds = 1 if self.across is None or scale == 1 else 2  # over the slices
        self.told: list[tuple[Measured, Measured]] = []  # of volumes: what was measured, and what was told

    def __call__(
        self, volume: Volume, progress: Progress = unseen, allocate: Allocator = scratch.memory
    ) -> tuple[Volume, dict[str, Volume], Record]:
        """What `seran.sharpen.upscale` makes of a volume, its `maps`, and the record with its checks."""
        enter("measure")
        stack, spikes = kspace.despiked(np.moveaxis(volume.data, self.plan.axis, 0))
        volume = volume.on(np.moveaxis(stack, 0, self.plan.axis), volume.affine)
        voxels.refuse_lossy(volume, np.dtype(self.options.dtype))
        fitted = self.fit(stack)
        if self.across is None or self.rounds == 2:
            enter("sharpen")
            image, half = sharpen.upscale(volume, fitted.method, self.plan, progress, allocate)
        else:
            plane = self.across.plane
            image, half = resample.onto(volume, plane, allocate) if plane else volume, None
        if self.across is not None:
            sigma = self._thick_noise(fitted.known)
            if self.options.adapt is not None and not (self.across.adapted and self.across.adapted[0]):
                self.across = self._adapted(self.across, image, sigma, self.options.adapt)
            enter("thin")
            sd = sigma * float(np.sqrt(fitted.known.window.passed)) if self._compared(fitted.known) else None
            how = sigma, fitted.known.background, sd
            image, more, half = self.across(image, self.plan.axis, *how, progress, allocate)
            fitted.tally.extend([True] * more)
        enter("check")
        for made in (image, *([half] if half else [])):
            _refuse_unusable(made)
        kept = image if self.out is None else io.as_written(image, self.out, self.options.dtype)
        told = replace(self.record(fitted), spikes=spikes, projected=sum(fitted.tally))
        maps: dict[str, Volume] = {}
        if half is not None:
            told = replace(told, **self._off(image, half, fitted))
            maps["uncertainty"] = half
        if self.options.maps:
            maps["estimated"] = estimated(volume, image, told.provenance, allocate)
        maps = {name: replace(one, thickness=image.thickness) for name, one in maps.items()}
        return image, maps, told.judged(checks.all_of(volume, kept, told.provenance, allocate))

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the images that come beside a result."""
        return self.options.beside

    @property
    def final(self) -> grid.Grid:
        """Of the result."""
        return self.across.final if self.across else self.plan.target or self.plan.enlarged

    @property
    def shapes(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Of the images that become of a volume, and of the slices that networks get."""
        plan, across = self.plan, self.across
        images: list[tuple[int, ...]] = [self.final.shape] * (1 + len(self.maps))
        images += [plan.enlarged.shape] * (plan.target is not None)
        slices = [tuple(np.delete(plan.scan.shape, plan.axis).tolist())] * bool(self.method.weights)
        if across is not None:
            thick = np.array((across.plane or plan.scan).shape)
            n, rest = int(thick[plan.axis]), int(np.delete(thick, plan.axis).max())
            thin = np.where(np.arange(3) == plan.axis, across.k * n, thick)
            images += [tuple(shape.tolist()) for shape in (thick, thin)]
            slices = [(n, rest), *slices[self.rounds == 1 :]]
        return images, slices

    def fit(self, stack: Float[ndarray, "n h w"]) -> Fitted:
        """The method for the slices of a volume."""
        norm = Normalisation.of(stack)
        if not self.method.weights and self.band:  # which is enough for what estimates nothing
            return Fitted(self.method, Measured(*self.band), norm, [])
        known = self.options.scanner.known(stack, norm.gain, self.band)
        method, shape, tally = self.method, stack.shape[1:], list[bool]()
        if method.heads is not None:
            if self.options.scanner.noise == "auto":
                known = self._quieted(known, stack)
            method = native.bound(method, known, shape)
        if method.weights and self._compared(known):
            operator: consistency.Operator = DEGRADATIONS[method.degradation](method.factors)
            sd = known.sigma
            if method.heads is not None:
                operator = native.scanner(known, shape)
                sd *= float(np.sqrt(known.window.passed))
            method = consistency.consistent(
                method, operator, sd, bool(stack.min() >= 0), known.background, tally
            )
        return Fitted(method, known, norm, tally)

    def _thick_noise(self, known: Measured) -> float:
        """Of what becomes thin: none where a network in the plane undid it, less where pixels average it."""
        assert self.across is not None
        if self.rounds == 2 or self.across.plane is None:
            return known.sigma if self.rounds == 1 else 0.0
        old, new = (
            tuple(np.delete(g.shape, self.plan.axis).tolist()) for g in (self.plan.scan, self.across.plane)
        )
        return known.sigma * consistency.averaged(native.scanner(known, old), new)

    def _compared(self, known: Measured) -> bool:
        """Whether the result is held against the scan: there must be a noise to hold the residual against."""
        return self.options.consistent == "on" and known.by != "unknown"

    def _off(self, image: Volume, half: Volume, fitted: Fitted) -> dict[str, Any]:
        """What a record states of half-widths, which do not fall below 0 where they were resampled."""
        np.maximum(half.data, 0, out=half.data)
        if self.across is not None:
            widths, ending = self.across.network.widths, f"k{self.across.k}"
        else:
            shape = tuple(np.delete(self.plan.scan.shape, self.plan.axis).tolist())
            k = native.factor(native.acquired(fitted.known, shape), shape, self.method.scale)
            widths, ending = self.method.widths, f"x{k}"
        assert widths is not None  # else there were no half-widths
        norm = fitted.norm
        how = norm.offset, norm.gain, widths.of(ending), widths.contrast
        off = uncertainty.stated(image.data, half.data, *how)
        return off or {}

    def _adapted(self, across: isotropic.Thin, image: Volume, sigma: float, seconds: float) -> isotropic.Thin:
        """With a network that is tuned on a volume, of a series the first that can teach, for all of them."""
        from seran.adapt import adapted  # needs torch

        stack, told = np.moveaxis(image.data, self.plan.axis, 0), (across.k, across.profile, sigma, seconds)
        learned = progress.summing("{:.0f} %")
        with progress.stage(f"fine-tune {across.network.weights} on the scan", "adapt"):
            made = adapted(across.network, stack, *told, engine=self.engine, progress=learned)
        return replace(across, network=made.across, adapted=(made.steps, round(made.gain, 3), made.kept))

    def _quieted(self, known: Measured, stack: Float[ndarray, "n h w"]) -> Measured:
        """With the noise that the network is told, see `native.quieted`."""
        for found, told in self.told:
            if found.by == known.by and found.sigma <= ALIKE * known.sigma <= ALIKE**2 * found.sigma:
                return replace(known, sigma=told.sigma, by=told.by)
        self.told.append((known, native.quieted(self.method, known, stack, progress.trying())))
        return self.told[-1][1]

    def record(self, fitted: Fitted) -> Record:
        """What can be stated before a volume is sharpened, whatever file it came from."""
        method, known, before = fitted.method, fitted.known, self.plan.scan
        plan = self.plan if self.across is None else replace(self.plan, target=self.across.final)
        after = self.final
        same = ("weights", "scale", "factors", "degradation", "engine", "precision")
        old, new = (tuple(grid.spacing(g.affine).round(6).tolist()) for g in (before, after))
        return Record(
            version=__version__,
            method=method.name,
            weights_sha256=method.sha256,
            resampled=plan.target is not None,
            kspace_support=tuple(round(f, 3) for f in known.fraction),
            native=method.heads is not None,
            window=str(known.window),
            noise=round(known.sigma / fitted.gain, 5) if fitted.gain and known.by != "unknown" else None,
            noise_by=known.by,
            background=known.background,
            masked=int(known.background is not None),
            sharpened=self.sharpened,
            consistent=bool(method.weights) and self._compared(known),
            slice_axis=plan.axis,
            interpolated_across=1.0 if self.across else round(plan.interpolated_across, 3),
            **({} if self.across is None else self.across.facts),
            grid_anchor=plan.kept,
            outside=round(plan.outside, 3),
            **{name: getattr(method, name) for name in same},
            requested_engine=asdict(self.engine),
            trained_spacings=method.spacings,
            maps=self.maps,
            shape_before=before.shape,
            voxel_size_before=old,
            shape_after=after.shape,
            voxel_size_after=new,
        )


def _widths(of: Method | Across, engine: Engine, contrast: str) -> Widths | None:
    """What gives half-widths to the results of weights, for a contrast."""
    found = methods.widths(of.weights, of.sha256, engine)
    return found and replace(found, contrast=contrast)


def ahead(volumes: Iterator[Volume]) -> list[Volume]:
    """The first volumes of a series: as many as its band is measured on, and those of one value before."""
    held: list[Volume] = []
    for volume in itertools.islice(volumes, LOOKED):
        held.append(volume)
        if sum(varies(one) for one in held) == AHEAD:
            break
    return held


def band(stacks: Sequence[Float[ndarray, "_ h w"]], scanner: Scanner) -> Band:
    """The acquired band of volumes together, and their filter."""
    return scanner.known(np.concatenate([kspace.strong(stack) for stack in stacks]), 0.0).band


def varies(volume: Volume) -> bool:
    """Whether there is more than one value in it."""
    low, high = scratch.limits(volume.data)
    return low < high


def _refuse_unusable(made: Volume) -> None:
    """Raise `BadInput` for a result that holds what is no number."""
    if bad := sum(np.count_nonzero(~np.isfinite(part)) for part in scratch.parts(made.data)):
        got = f"the result: expected finite voxels, got {bad} of NaN or infinity"
        raise BadInput(f"{got}, from damaged intensities in the scan (see seran info); mend or mask them")
