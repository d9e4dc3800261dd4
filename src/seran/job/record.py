"""The record of a result: how it came about, what was asked for, and what its checks say. JSON beside it."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from seran import acquisition, facts, files, grid, io, profiles, progress
from seran.degrade import DEGRADATIONS
from seran.errors import BadInput, counted
from seran.quality.checks import THINNER, Check, Verdict, worst
from seran.quality.provenance import Acquired, Off, Provenance

ADAPT = ("adapt_steps", "adapt_gain", "adapt_kept")
MAPS = {"uncertainty": "Uncertainty", "estimated": "Estimated part"}
"""Images beside a result, and what headers say that they are."""
OUTSIDE = 0.1  # part of a result outside the scan that is told
LENGTHS = {
    "kspace_support": (2,), "factors": (0, 2), "noise_range": (0, 2), "trained_spacings": (4,),
    "shape_before": (3,), "shape_after": (3,), "voxel_size_before": (3,), "voxel_size_after": (3,),
}  # fmt: skip
"""How many numbers above 0 a record has of each."""


@dataclass(frozen=True)
class ReadAs:
    """What of a scan was read, and how, where its files leave a choice: the options of that name."""

    volume: int | None = None  # one of several, counted from 0; None: all
    affine: Literal["auto", "sform", "qform"] = "auto"
    fill: float | None = None
    series: str | None = None  # a number: a UID tells of a patient's study, and is not stated


@dataclass(frozen=True)
class Record:
    """What is stated of a result; in JSON the names are BIDS's, ``WeightsSHA256`` for ``weights_sha256``."""

    version: str  # of seran
    method: str
    weights: str  # name of the file, empty for a classical method
    weights_sha256: str
    scale: int  # of the network
    resampled: bool  # put on another grid than the network's
    kspace_support: tuple[float, ...]  # measured part of k-space along rows and columns
    slice_axis: int  # array axis along which the slices are stacked
    degradation: str  # that the method undoes
    grid_anchor: grid.Kept
    engine: str  # what ran the network
    precision: str  # of its convolutions
    input: str = ""  # name of the scan
    input_sha256: str = ""
    read_as: ReadAs = ReadAs()
    factors: tuple[int, ...] = ()  # of the network along rows and columns; records without have one, `scale`
    native: bool = False  # what is known of the acquisition was undone: `kspace_support`, window, noise
    window: str = "none"  # the scanner's filter, see `seran.acquisition.Window`
    noise: float | None = None  # standard deviation as a part of the range; None where it is not known
    noise_by: str = "unknown"  # what it is known by, see `seran.acquisition.HOW`; of a series all of these
    noise_range: tuple[float, ...] = ()  # of a series: least and greatest; `noise` is the first volume's
    background: float | None = None  # the value of a constant one, of a series in the first volume
    masked: int = 0  # volumes with a constant background
    consistent: bool = False  # slices that left the scan by more than its noise were changed
    projected: int = 0  # how many these were, of the scan's
    spikes: int = 0  # damaged voxels, far above all others, which the median around replaced
    slice_factor: int = 1  # thin slices for each thick one, by a network
    slice_profile: str = ""  # what the thick ones are taken to see, see `seran.profiles.Profile`
    slice_thickness_by: str = ""  # what their thickness is known by: stated, header, json or assumed
    slice_weights: str = ""  # of that network
    slice_weights_sha256: str = ""
    adapt_steps: int = 0  # of fine-tuning these on the scan's own slices
    adapt_gain: float | None = None  # dB on some that they were not tuned on; None: not asked for
    adapt_kept: str = ""  # why the weights are as shipped all the same
    half_width: float | None = None  # mean over tissue, as a part of the range, see `seran.uncertainty`
    half_width_most: float | None = None  # the greatest of the calibration's scans
    psnr_bound: float | None = None  # dB
    calibrated_on: int = 0  # subjects
    calibrated_for: str = ""  # contrasts: T1, if DICOM's header or the scan's name says so, or other
    interpolated_across: float = 1.0  # slices of the result for each of the scan, by interpolation alone
    sharpened: bool = False  # the scan was a result of seran's, by the record beside it
    key: str = ""  # of all that decides the result, see `seran.job.resume`
    volumes: int = 1
    shape_before: tuple[int, ...] = ()
    voxel_size_before: tuple[float, ...] = ()  # mm
    shape_after: tuple[int, ...] = ()
    voxel_size_after: tuple[float, ...] = ()  # mm
    outside: float = 0.0  # part of the result's field of view that the scan does not have: it is 0 there
    requested_engine: dict[str, Any] = field(default_factory=dict)  # device, precision and threads
    trained_spacings: tuple[float, ...] | None = None  # mm: in the plane from, to, across from, to
    checks: tuple[Check, ...] = ()  # of all volumes the worst verdict on each question
    seconds: float = 0.0  # from start to file
    maps: tuple[str, ...] = ()  # images beside it, of `MAPS`
    result_bytes: tuple[int, ...] = ()  # sizes as written, of the image and of these
    result_sha256: tuple[str, ...] = ()  # their digests
    stamp: str = ""  # of sizes and modification times of scan and result, see `seran.job.resume`
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else is stated, by its name in JSON
    claimed: Verdict | None = None  # by the file that it was read from, where its own checks say another

    def __repr__(self) -> str:
        weights = f", {self.weights} in {self.precision}" * bool(self.weights)
        return f"Record({self.method}{weights}, x{self.scale}, {self.verdict})"

    def joined(self, other: "Record") -> "Record":
        """With one more volume of the series."""
        noise = [n for n in (*(self.noise_range or (self.noise,)), other.noise) if n is not None]
        by = dict.fromkeys([*self.noise_by.split(", "), other.noise_by])
        made = replace(
            self,
            noise_range=(min(noise), max(noise)) if noise else (),
            noise_by=", ".join(by),
            masked=self.masked + other.masked,
            **{name: getattr(self if self.adapt_steps else other, name) for name in ADAPT},
            projected=self.projected + other.projected,
            spikes=self.spikes + other.spikes,
            half_width=_worse(max, self.half_width, other.half_width),
            psnr_bound=_worse(min, self.psnr_bound, other.psnr_bound),
        )
        return made.judged(other.checks)

    def judged(self, checks: Sequence[Check]) -> "Record":
        """With the checks of one more volume."""
        kept = tuple(worst(pair) for pair in zip(self.checks or checks, checks, strict=True))
        return replace(self, checks=kept)

    def stated(self) -> dict[str, Any]:
        """As it is written."""
        own = {name: getattr(self, f.name) for name, f in _stated().items()}
        own |= {"Checks": [asdict(check) for check in self.checks], "Verdict": self.verdict}
        own["ReadAs"] = asdict(self.read_as)
        return {"Software": "seran", **own, "ResearchUseOnly": True, **self.facts}

    def sealed(self, images: Sequence[Path]) -> "Record":
        """With size and digest of the `outputs`, as written."""
        return replace(self, result_bytes=_sizes(images), result_sha256=digests(images))

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_text(facts.dumps(self.stated(), indent=1) + "\n")

    @property
    def words(self) -> str:
        """What made the result, in a header of it: a network's work, or the name of what is none."""
        return "Super-resolution" if self.weights else self.method

    def said(self, name: str) -> str:
        """The same of one of its `MAPS`, or of the result itself, which has no name."""
        return MAPS[name] if name else self.words

    @property
    def provenance(self) -> Provenance:
        """How the result came from the scan: what the checks ask."""
        rows, columns = self.factors or (self.scale, self.scale)
        facts = self.kspace_support, acquisition.window(self.window), self.noise, self.background
        across = profiles.profile(self.slice_profile) if self.slice_profile else None
        how = self.slice_axis, self.degradation, self.resampled, bool(self.weights)
        off = None
        if "uncertainty" in self.maps:
            known = self.half_width, self.half_width_most or 0.0, self.psnr_bound or 0.0
            off = Off(*known, self.calibrated_on, self.calibrated_for)
        return Provenance((rows, columns), *how, Acquired(*facts, self.native, self.sharpened), across, off)

    @property
    def more_slices(self) -> float:
        """Of the result for each of the scan."""
        return self.shape_after[self.slice_axis] / self.shape_before[self.slice_axis]

    @property
    def thin(self) -> str:
        """What was done to thick slices, in words; empty if nothing was."""
        if not self.slice_profile:
            if self.interpolated_across < THINNER:
                return ""
            times = f"{self.interpolated_across:.3g} times as many slices"
            return f"{times} by interpolation alone: thick ones stay thick, see --isotropic"
        profile = profiles.profile(self.slice_profile)
        mm = profile.thickness * self.voxel_size_before[self.slice_axis]
        by = {"stated": "as stated", "header": "by the header", "json": "by the JSON beside it"}
        known = by.get(self.slice_thickness_by, "assumed: their distance")
        thick = f"{mm:.3g} mm thick, {known}; profile {profile.kind}"
        tuned = ""
        if self.adapt_gain is not None:
            gained = (
                f"{self.adapt_steps} steps of tuning on its own slices: {self.adapt_gain:+.2f} dB on others"
            )
            tuned = f"; not tuned on the scan: {self.adapt_kept}" if self.adapt_kept else f"; {gained}"
        of = "" if self.more_slices == self.slice_factor else f", resampled from {self.slice_factor}"
        return f"{self.more_slices:.3g} thin slices estimated for each thick one{of} ({thick}){tuned}"

    def known(self) -> dict[str, str]:
        """What is known of the acquisition, in words."""
        noise = self.noise_range or ([] if self.noise is None else [self.noise])
        background = "" if self.background is None else f"{self.background:g}"
        if 0 < self.masked < self.volumes or (self.masked and not background):
            background = f"{background or 'some value'} in {self.masked} of {self.volumes} volumes"
        window = acquisition.window(self.window)
        return acquisition.words(self.kspace_support, window, noise, self.noise_by, background)

    def summary(self, out: Path) -> str:
        """In one line."""
        shown = self.method + f" ({self.weights}, {self.precision})" * bool(self.weights)
        several = f"{self.volumes} volumes, " * (self.volumes > 1)
        matrix = f"matrix {grid.dimensions(self.shape_before)} -> {grid.dimensions(self.shape_after)}"
        before, after = (grid.dimensions(s, ".3f") for s in (self.voxel_size_before, self.voxel_size_after))
        seen = {
            "k-space": min(self.kspace_support) < 1,
            "filter": self.window != "none",
            "noise": self.native,
        }
        told = "".join(f"; {text}" for name, text in self.known().items() if seen.get(name))
        told += f"; {self.thin}" * bool(self.thin)
        told += f"; {counted(self.spikes, 'damaged voxel')} replaced by the median around" * bool(self.spikes)
        told += f"; {self.outside:.0%} of the result is outside the scan, and 0" * (self.outside >= OUTSIDE)
        told += self.judged_as(out)
        return f"{shown}: {self.seconds:.1f} s, {several}{matrix}, voxel {before} -> {after} mm, {out}{told}"

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        return worst(self.checks).verdict if self.checks else "not known"

    @property
    def disputed(self) -> str:
        """That the file states another verdict than its checks, in words; empty where it does not."""
        if self.claimed is None:
            return ""
        said = f"its checks say {self.verdict}" if self.checks else "it has no checks"
        return f"its record states {self.claimed}, but {said}, and that counts; the record was changed"

    @property
    def failed(self) -> list[str]:
        """The checks that say FAIL."""
        return [check.name for check in self.checks if check.verdict == "FAIL"]

    def judged_as(self, out: Path) -> str:
        """WARN or FAIL and where to read why, as the end of a line; empty of other verdicts."""
        disputed = f"; {self.disputed}" * bool(self.disputed)
        if self.verdict not in ("WARN", "FAIL"):
            return disputed
        by = f": {', '.join(self.failed)}" * bool(self.failed)
        return f"; {self.verdict}{by}, see Checks in {sidecar(out).name}{disputed}"


def _worse(choose: Callable[..., float], *found: float | None) -> float | None:
    known = [value for value in found if value is not None]
    return choose(known) if known else None


def _stated() -> dict[str, Field[Any]]:
    """The fields that a file states as they are, by their names there."""
    return {_camel(f.name): f for f in fields(Record) if f.name not in ("facts", "claimed")}


def _camel(name: str) -> str:
    return "".join(w.upper() if w == "sha256" else w.capitalize() for w in name.split("_"))


def sidecar(out: Path) -> Path:
    """The JSON record beside an image or the folder of a series, which may be called ``.``."""
    out = out.resolve() if out.name in ("", "..") else out
    return out.with_name(io.stem(out) + ".json")


def outputs(out: Path, maps: Sequence[str]) -> list[Path]:
    """The image, and those of its maps: of BIDS names, the label of ``desc-`` is longer by what they are."""
    stem = io.stem(out)
    end = out.name[len(stem) :]
    labelled = re.search("_desc-[A-Za-z0-9]+", stem)
    at = labelled.end() if labelled else len(stem)
    joint = "" if labelled else "_"
    return [out, *(out.with_name(f"{stem[:at]}{joint}{name}{stem[at:]}{end}") for name in maps)]


def number(name: str) -> int:
    """Of one of `MAPS`, from 1, the same whichever of them there are; 0 of the result itself."""
    return [*MAPS].index(name) + 1 if name else 0


def maps_of(out: Path, whole: bool = False) -> list[Path]:
    """The maps that a record of seran's beside ``out`` says there are, whatever became of them.

    Args:
        out: the result.
        whole: only those that are there as they were written: what took the place of another is somebody's.
    """
    try:
        found = facts.parsed(sidecar(out).read_bytes())
        names = found["Maps"] if found["Software"] == "seran" else []
        maps = outputs(out, [name for name in names if name in MAPS])[1:]
        if not whole:
            return maps
        known = found["ResultSHA256"][1:]
        return [path for path, digest in zip(maps, known, strict=True) if _digest_of(path) == digest]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def slice_thickness(source: Path) -> float | None:
    """What the JSON beside an image says of its slices' thickness in mm (BIDS, dcm2niix), if it says it."""
    beside = sidecar(source)
    if not source.is_file() or not beside.is_file():
        return None
    try:
        found = facts.parsed(beside.read_bytes())
        thickness = found.get("SliceThickness") if isinstance(found, dict) else None
        return None if thickness is None else facts.typed(thickness, float, "SliceThickness")
    except ValueError as error:
        raise BadInput(f"{beside}: {error}; mend it, or give --slice-thickness") from error


def _digest_of(image: Path) -> str | None:
    """Of an image that is there; None where it is not, or not whole."""
    try:
        return digests([image])[0]
    except OSError:
        return None


def is_map(path: Path) -> bool:
    """Whether the record of the result that an image lies beside says that it is a map of it."""
    stem = io.stem(path)
    end = path.name[len(stem) :]
    names = [stem.removesuffix(f"_{name}") for name in MAPS if stem.endswith(f"_{name}")]
    return any(name and path in maps_of(path.with_name(name + end)) for name in names)


def files_of(image: Path) -> list[Path]:
    """The files of an image; in the folder of a series not what is hidden, which systems put there."""
    inside = [(path, file) for path in io.written(image) for file in files.inside(path)]
    return [file for path, file in inside if file == path or not file.name.startswith(".")]


def _sizes(images: Sequence[Path]) -> tuple[int, ...]:
    return tuple(sum(file.stat().st_size for file in files_of(image)) for image in images)


def digests(images: Sequence[Path]) -> tuple[str, ...]:
    """Of the files of each image."""
    return tuple(files.sha256_of(files_of(image)) for image in images)


def there(out: Path) -> list[Path]:
    """What a result at ``out`` would replace: the files of an image and a record; links to nothing, too."""
    return [path for path in (*io.written(out), sidecar(out)) if os.path.lexists(path)]


def identity(out: Path) -> tuple[int, int, int] | None:
    """What changes with the record beside a result, which gets its name last; None if there is no record."""
    try:
        now = sidecar(out).stat()
    except OSError:
        return None
    return now.st_ino, now.st_mtime_ns, now.st_size


def is_readable(path: Path) -> bool:
    """Whether a file is an object of JSON, as a record is."""
    try:
        return isinstance(facts.parsed(path.read_bytes()), dict)
    except (OSError, ValueError):
        return False


def is_ours(out: Path) -> bool:
    """Whether what is at ``out`` has a record of seran's, of any version and options, whole or not.

    The record may be that of an image of the same name in another format: then it must fit this one.
    """
    try:
        found = facts.parsed(sidecar(out).read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict) or found.get("Software") != "seran":
        return False
    images = {out.with_name(io.stem(out) + end) for end in ("", *io.FORMATS)}
    return read(out) is not None or not any(path.exists() for path in images - {*io.written(out)})


def read(out: Path) -> Record | None:
    """The record of the result at ``out``; none if there is none of ours, or not of files of this size."""
    if io.format_of(out) in (None, *io.ONE_FILE) or not sidecar(out).is_file():
        return None
    if not all(path.exists() for path in io.written(out)):
        return None
    try:
        made = _parsed(found) if (found := _ours(out)) else None
        if made is None or not made.result_bytes:  # earlier versions stated none
            return made
        return made if made.result_bytes == _sizes(outputs(out, made.maps)) else None
    except (ValueError, FileNotFoundError):
        return None


def fault(out: Path) -> str:
    """Why `read` gives none of a record of ours that is there; empty where it is used, or there is none."""
    name = sidecar(out).name
    try:
        if not (found := _ours(out)):
            return ""
        _parsed(found)
    except (OSError, ValueError) as error:
        return f"its record, {name}, cannot be used ({error})"
    return "" if read(out) else f"its record, {name}, is of another file"


def is_result(image: Path) -> bool:
    """Whether the record beside an image says that it is a result of seran's, or a map of one.

    Of a record that should say it, and cannot be used, it is told.
    """
    made = read(image) is not None or is_map(image)
    if not made and (why := fault(image)):
        progress.log.warning("%s: %s, so whether seran made it is not known", image, why)
    return made


def _ours(out: Path) -> dict[str, Any] | None:
    """What a record of seran's beside a result states, whatever that is; None if there is no such record."""
    if not sidecar(out).is_file():
        return None
    found = facts.finite(facts.parsed(sidecar(out).read_bytes()))
    return found if isinstance(found, dict) and found.get("Software") == "seran" else None


def _parsed(found: Mapping[str, Any]) -> Record:
    """From what `Record.stated` gave; a `ValueError` if that cannot be, or this version lacks the method."""
    known = _stated()
    if lost := [n for n, f in known.items() if n not in found and f.default is f.default_factory is MISSING]:
        raise ValueError(f"missing: {', '.join(lost)}")
    own = {f.name: facts.typed(found[name], f.type, name) for name, f in known.items() if name in found}
    more = {k: v for k, v in found.items() if k not in (*known, "Software", "Verdict", "ResearchUseOnly")}
    made = Record(**own, facts=more)
    _refuse_impossible(made)
    claimed = facts.typed(found.get("Verdict", made.verdict), Verdict, "Verdict")
    return made if claimed == made.verdict else replace(made, claimed=claimed)


def _refuse_impossible(made: Record) -> None:
    """Raise `ValueError` for what no record states."""
    for name, lengths in LENGTHS.items():
        values = getattr(made, name)
        if values is not None and not (len(values) in lengths and all(value > 0 for value in values)):
            many = " or ".join(map(str, lengths))
            raise ValueError(f"{_camel(name)}: expected {many} numbers above 0, got {list(values)!r:.40}")
    if max(made.kspace_support) > 1:
        raise ValueError(f"KspaceSupport: expected parts of k-space, got {list(made.kspace_support)!r:.40}")
    if made.maps != tuple(name for name in MAPS if name in made.maps):
        raise ValueError(f"Maps: expected some of {', '.join(MAPS)}, got {list(made.maps)!r:.40}")
    try:
        factors = made.provenance.factors
    except BadInput as error:
        raise ValueError(str(error)) from error
    if not all(1 <= factor <= 4 for factor in factors):
        raise ValueError("expected two factors from 1 to 4")
    if (
        made.scale not in (1, 2, 3, 4)
        or made.slice_axis not in range(3)
        or made.degradation not in DEGRADATIONS
    ):
        raise ValueError("a method that this version does not have")
