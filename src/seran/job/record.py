"""The record of a result: how it came about, what was asked for, and what its checks say. JSON beside it."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import seran
from seran import files, grid, io, methods
from seran.degrade import DEGRADATIONS
from seran.engines import Engine
from seran.grid import Anchor
from seran.job.options import Options
from seran.quality.checks import Check, Provenance, Verdict, worst


@dataclass(frozen=True)
class Record:
    """What is stated of a result; in JSON the names are BIDS's, ``WeightsSHA256`` for ``weights_sha256``.

    Attributes:
        version: of seran.
        method: as `seran methods` lists it.
        weights: name of the weights file, empty for a classical method.
        weights_sha256: digest in the weights file.
        scale: of the network.
        resampled: it was put on another grid than the network's.
        kspace_support: measured part of k-space along rows and columns.
        fourier_crop: the scan was first taken to the grid that was measured.
        slice_axis: array axis along which the slices are stacked.
        degradation: that the method undoes.
        grid_anchor: what its grid and the scan's have in common.
        engine: what ran the network.
        precision: of its convolutions.
        input: name of the scan.
        input_sha256: of the scan.
        key: of all that decides the result, see `key`.
        volumes: how many.
        requested_engine: device, precision and threads as they were asked for.
        trained_spacings: mm that the weights saw: in the plane from, to, across from, to.
        shape_before: voxels of the scan.
        voxel_size_before: mm of the scan.
        shape_after: voxels of the result.
        voxel_size_after: mm of the result.
        checks: of all volumes the worst verdict on each question.
        verdict: the worst of them.
        seconds: from start to file.
        facts: what else is stated, by the name that it has in JSON.
    """

    version: str
    method: str
    weights: str
    weights_sha256: str
    scale: int
    resampled: bool
    kspace_support: tuple[float, ...]
    fourier_crop: bool
    slice_axis: int
    degradation: str
    grid_anchor: Anchor
    engine: str
    precision: str
    input: str
    input_sha256: str
    key: str
    volumes: int
    shape_before: tuple[int, ...] = ()
    voxel_size_before: tuple[float, ...] = ()
    shape_after: tuple[int, ...] = ()
    voxel_size_after: tuple[float, ...] = ()
    requested_engine: dict[str, Any] = field(default_factory=dict)
    trained_spacings: tuple[float, ...] | None = None
    checks: tuple[Check, ...] = ()
    verdict: Verdict = "not known"
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        weights = f", {self.weights} in {self.precision}" * bool(self.weights)
        return f"Record({self.method}{weights}, x{self.scale}, {self.verdict})"

    def judged(self, checks: tuple[Check, ...]) -> "Record":
        """With the checks of one more volume."""
        named = {check.name: check for check in self.checks}
        for check in checks:
            if check.name not in named or worst([check, named[check.name]]) != named[check.name].verdict:
                named[check.name] = check
        return dataclasses.replace(self, checks=tuple(named.values()), verdict=worst(list(named.values())))

    def stated(self) -> dict[str, Any]:
        """As it is written."""
        own = {_camel(f.name): getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "facts"}
        own["Checks"] = [dataclasses.asdict(check) for check in self.checks]
        return {"Software": "seran", **own, "ResearchUseOnly": True, **self.facts}

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(json.dumps(self.stated(), indent=1) + "\n")

    @property
    def provenance(self) -> Provenance:
        """How the result came from the scan: what the checks ask."""
        return Provenance(
            self.scale,
            self.slice_axis,
            self.degradation,
            self.resampled,
            bool(self.weights),
            self.trained_spacings,
        )

    def summary(self, out: Path) -> str:
        """In one line."""
        shown = self.method + f" ({self.weights}, {self.precision})" * bool(self.weights)
        before, after = (
            (grid.dimensions(shape), grid.dimensions(size, ".3f"))
            for shape, size in (
                (self.shape_before, self.voxel_size_before),
                (self.shape_after, self.voxel_size_after),
            )
        )
        filled = "; k-space is filled beyond {:.0%} x {:.0%}, see --fourier-crop".format(*self.kspace_support)
        several = f"{self.volumes} volumes, " * (self.volumes > 1)
        return (
            f"{shown}: {self.seconds:.1f} s, {several}matrix {before[0]} -> {after[0]}, "
            f"voxel {before[1]} -> {after[1]} mm, {out}"
            f"{filled * (min(self.kspace_support) < 1 and not self.fourier_crop)}"
        )


def _camel(name: str) -> str:
    return "".join(w.upper() if w == "sha256" else w.capitalize() for w in name.split("_"))


def sidecar(out: Path) -> Path:
    """The JSON record beside an image or the folder of a series."""
    return out.with_name(io.stem(out) + ".json")


def read(out: Path) -> Record | None:
    """The record of the result at ``out``; none if a file of it is missing, or the record is not ours."""
    if not sidecar(out).is_file() or not all(path.exists() for path in io.written(out)):
        return None
    try:
        found = json.loads(sidecar(out).read_text())
        return _parsed(found) if found.get("Software") == "seran" else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _parsed(found: dict[str, Any]) -> Record:
    """From what `Record.stated` gave.

    Raises:
        TypeError: if a value is not of its field's kind, or a field without a default is missing.
        ValueError: if it is of a method that this version does not have.
    """
    names = {_camel(f.name): f.name for f in dataclasses.fields(Record) if f.name != "facts"}
    own = {names[name]: value for name, value in found.items() if name in names}
    own["checks"] = tuple(Check(**check) for check in own.get("checks", ()))
    for name, kind in typing.get_type_hints(Record).items():
        value = own.get(name)
        if isinstance(value, list):
            own[name] = value = tuple(value)
        kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        plain = tuple(k for k in (typing.get_origin(k) or k for k in kinds) if isinstance(k, type))
        if name in own and plain and not isinstance(value, (*plain, int) if float in plain else plain):
            raise TypeError(f"{name}: {value!r}")
    if (
        own["scale"] not in (2, 3, 4)
        or own["slice_axis"] not in range(3)
        or own["degradation"] not in DEGRADATIONS
    ):
        raise ValueError("a method that this version does not have")
    facts = {k: v for k, v in found.items() if k not in names and k not in ("Software", "ResearchUseOnly")}
    return Record(**own, facts=facts)


def key(scan: str, options: Options, engine: Engine) -> str:
    """Hex digest of all that decides a result: the scan, weights, options, engine as asked for, version.

    Threads are left out: they change when a result is there, not what it is.

    Args:
        scan: digest of the scan's files.
        options: how it is sharpened.
        engine: how the network is run.

    Raises:
        BadInput: if the weights cannot be read.
    """
    stated = dataclasses.asdict(options)
    name, _ = methods.implied(options.method, options.weights)
    stated["method"] = name
    plain = name.removesuffix("+")
    used = [methods.named(options.weights)] if options.weights else methods.files_of(plain)
    stated["weights"] = [files.sha256(path) for path in used]
    if options.target.like is not None:
        stated["target"]["like"] = files.sha256_of(io.resolve(options.target.like).files)
    stated["engine"] = [engine.device, engine.precision]
    stated["source"] = scan
    stated["version"] = seran.__version__
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def is_done(source: Path, out: Path, options: Options, engine: Engine) -> bool:
    """Whether the result at ``out`` is the one that this run would make.

    Args:
        source: the scan.
        out: the result.
        options: how the scan is sharpened.
        engine: how the network is run.

    Raises:
        BadInput: if the scan or the weights cannot be read.
    """
    found = read(out)
    if found is None:
        return False
    return found.key == key(files.sha256_of(io.resolve(source, options.read.series).files), options, engine)
