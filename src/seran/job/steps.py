"""What happens to a scan in memory: measured, planned, sharpened, checked; for library and command alike."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

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
class Result:
    """What became of a volume.

    Attributes:
        image: sharper, on its grid.
        spread: how far each voxel may be off, where the method says.
        checks: whether it keeps what it promises.
    """

    image: Volume
    spread: Volume | None
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Steps:
    """What is decided once for all volumes of a scan.

    Attributes:
        options: what was asked for.
        engine: how the network was asked to run.
        method: what sharpens.
        plan: where the result lies.
        band: measured part of k-space along rows and columns.
    """

    options: Options
    engine: Engine
    method: Method
    plan: Plan
    band: tuple[float, float]

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
        band = kspace.support(Plan(first.grid, axis, (1, 1), "corner").stack(first.data))
        if options.read.fourier_crop and min(band) < 1:
            first = resample.acquired(first, axis, band)
        if loaded is None:
            name, default = methods.implied(options.method, options.weights)
            scale, target = options.target.reach(first.grid, axis, default)
            name = name.removesuffix("+") + "+" * (options.ensemble or name.endswith("+"))
            loaded = methods.method(name, scale, file=options.weights, engine=engine)
        else:
            scale, target = options.target.reach(first.grid, axis, loaded.scale)
        plan = Plan(first.grid, axis, loaded.factors, loaded.anchor, target)
        return cls(options, engine, loaded, plan, band)

    def __call__(
        self,
        volume: Volume,
        progress: Progress = lambda _: None,
        allocate: Allocator = scratch.memory,
    ) -> Result:
        """Sharpen one volume, and check it.

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
        stored = np.dtype(self.options.dtype)
        kept = (
            image
            if stored.kind == "f"
            else image.on(cast(image.data, stored).astype(np.float32), image.affine)
        )
        return Result(image, spread, tuple(checks.all_of(volume, kept, self.record().provenance)))

    def record(
        self,
        name: str = "",
        digest: str = "",
        key: str = "",
        volumes: int = 1,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> Record:
        """What can be stated before the first volume is sharpened.

        Args:
            name: of the scan.
            digest: of its files.
            key: of all that decides the result.
            volumes: how many there are.
            facts: what is stated besides.
        """
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
            input=name,
            input_sha256=digest,
            key=key,
            volumes=volumes,
            requested_engine=dataclasses.asdict(self.engine),
            trained_spacings=method.spacings,
            shape_before=before.shape,
            voxel_size_before=sizes[0],
            shape_after=after.shape,
            voxel_size_after=sizes[1],
            facts=facts,
        )
