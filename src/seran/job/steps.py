"""What happens to a scan in memory: measured, planned, sharpened, checked; for library and command alike."""

import dataclasses
from dataclasses import dataclass

import numpy as np

import seran
from seran import grid, kspace, methods, resample, scratch, sharpen
from seran.engines import Engine
from seran.grid import Plan
from seran.io.voxels import cast
from seran.job.options import Options
from seran.job.record import Record
from seran.quality import checks
from seran.quality.checks import Check
from seran.scratch import Allocator
from seran.sharpen import Method, Progress
from seran.volume import Volume


@dataclass(frozen=True)
class Steps:
    """What is decided once for all volumes of a scan."""

    options: Options
    engine: Engine
    method: Method
    plan: Plan
    band: tuple[float, float]  # measured part of k-space along rows and columns

    @classmethod
    def of(cls, first: Volume, options: Options, engine: Engine, loaded: Method | None = None) -> "Steps":
        """Decide by the first volume.

        Args:
            first: the volume.
            options: what is asked for.
            engine: how a network is run.
            loaded: the method, if it is there already.

        Raises:
            BadInput: for options that cannot be, or do not fit the scan.
        """
        axis = grid.slice_axis(first.affine, first.data.shape, options.read.plane)
        band = kspace.support(np.moveaxis(first.data, axis, 0))
        if options.read.fourier_crop and min(band) < 1:
            first = resample.acquired(first, axis, band)
        name, default = (loaded.name, loaded.scale) if loaded else options.implied()
        scale, target = options.target.reach(first.grid, axis, default)
        method = loaded or methods.method(name, scale, file=options.weights, engine=engine)
        plan = Plan(first.grid, axis, method.factors, method.anchor, target)
        return cls(options, engine, method, plan, band)

    def __call__(
        self,
        volume: Volume,
        progress: Progress = lambda _: None,
        allocate: Allocator = scratch.memory,
    ) -> tuple[Volume, Volume | None, tuple[Check, ...]]:
        """Sharpen one volume: the image, its spread where there is one, and the checks of what is stored.

        Args:
            volume: as it was read.
            progress: called as slices are finished.
            allocate: makes the arrays of the result.

        Raises:
            BadInput: if its slices are too small.
        """
        if self.options.read.fourier_crop and min(self.band) < 1:
            volume = resample.acquired(volume, self.plan.axis, self.band)
        image, spread = sharpen.upscale(volume, self.method, self.plan, progress, allocate)
        stored, kept = np.dtype(self.options.dtype), image
        if stored.kind != "f":
            kept = image.on(cast(image.data, stored).astype(np.float32), image.affine)
        return image, spread, tuple(checks.all_of(volume, kept, self.record.provenance))

    @property
    def record(self) -> Record:
        """What can be stated before the first volume is sharpened, whatever file it came from."""
        method, before, after = self.method, self.plan.scan, self.plan.result
        sizes = [tuple(grid.spacing(g.affine).round(6).tolist()) for g in (before, after)]
        return Record(
            version=seran.__version__,
            method=method.name,
            weights=method.weights,
            weights_sha256=method.sha256,
            scale=method.scale,
            resampled=self.plan.target is not None,
            kspace_support=tuple(round(b, 3) for b in self.band),
            fourier_crop=self.options.read.fourier_crop,
            slice_axis=self.plan.axis,
            degradation=method.degradation,
            grid_anchor=method.anchor,
            engine=method.engine,
            precision=method.precision,
            requested_engine=dataclasses.asdict(self.engine),
            trained_spacings=method.spacings,
            shape_before=before.shape,
            voxel_size_before=sizes[0],
            shape_after=after.shape,
            voxel_size_after=sizes[1],
        )
