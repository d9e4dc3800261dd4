"""A BIDS data set: its scans, what it says of them, and how their results are called.

Names and required metadata follow the BIDS specification's chapters on derivatives: the source's entities,
then ``res-`` and ``desc-``, the suffix unchanged. Other options make other names: no result replaces another.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from seran import facts, files, io, methods
from seran.engines import Engine
from seran.errors import BadInput
from seran.job.options import Options, Target
from seran.systems import SYSTEMS
from seran.weights import named

NAME = re.compile(r"(sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9+]+)*)_([A-Za-z0-9]+)(\.nii(?:\.gz)?)")
"""A raw image's name: entities, suffix, ending."""
NOT_MAGNITUDE = {"part-phase", "part-real", "part-imag"}
DERIVED = re.compile(r"(space|res|den|desc)-")  # entities that raw images do not have
APART = {
    "method",
    "fast",  # the method says so
    "weights",
    "ensemble",
    "maps",
    "uncertainty",
    "label_check",
    "force_plane",
    "target",
    "scanner",
    "read",
}
"""Options that make no other result, that are named in a way of their own, or that are groups of others."""
ASSUMED = "assumed"
"""What `SkullStripped`, which derivatives must state, is known by where the raw data do not state it."""
FOLDER = "expected an image, got a folder of this name; rename it"
KEPT = (
    "Modality", "MagneticFieldStrength", "Manufacturer", "ManufacturersModelName", "DeviceSerialNumber",
    "StationName", "SoftwareVersions", "InstitutionName", "ReceiveCoilName", "PulseSequenceType",
    "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "MRAcquisitionType", "EchoTime",
    "RepetitionTime", "InversionTime", "FlipAngle", "EchoTrainLength", "ImagingFrequency",
    "ContrastBolusIngredient", "TaskName", "BodyPart", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip
"""Metadata of the source that hold for the result, too."""
NUMBERS = {
    "MagneticFieldStrength", "EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "EchoTrainLength",
    "ImagingFrequency", "SliceThickness", "SpacingBetweenSlices",
}  # fmt: skip
"""Of these, the numbers and lists of numbers, by the BIDS schema."""


SINGLE = {"SliceThickness", "SpacingBetweenSlices"}
"""Of these, the numbers of which there is one."""
Value = str | int | None | list[str | int | None]
Filters = dict[str, dict[str, Value]]  # by suffix in small letters: what entities must be
SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR")
"""What is sharpened unless `--suffix` says otherwise."""
KNOWN = (
    *SUFFIXES, "T2star", "T2starw", "PDT2", "PD", "inplaneT1", "inplaneT2", "UNIT1", "MP2RAGE", "MPRAGE",
    "MEGRE", "MESE", "VFA", "IRT1", "angio", "T1map", "T2map", "T2starmap", "PDmap", "R1map", "R2map",
    "R2starmap", "bold", "cbv", "sbref", "dwi", "asl", "m0scan", "epi", "fieldmap", "magnitude", "magnitude1",
    "magnitude2",
)  # fmt: skip
"""Suffixes of BIDS: who writes one in other letters means it."""
ENTITIES = {
    "subject": "sub", "session": "ses", "sample": "sample", "task": "task", "tracksys": "tracksys",
    "acquisition": "acq", "nucleus": "nuc", "volume": "voi", "ceagent": "ce", "tracer": "trc",
    "staining": "stain", "reconstruction": "rec", "direction": "dir", "run": "run", "modality": "mod",
    "echo": "echo", "flip": "flip", "inversion": "inv", "mtransfer": "mt", "mt": "mt", "part": "part",
    "processing": "proc", "chunk": "chunk", "suffix": "suffix", "datatype": "datatype",
    "extension": "extension",
}  # fmt: skip
"""Of a filter: what PyBIDS calls entities, and what they are called in file names."""
QUERIES = {"t1w", "t2w", "pdw", "flair", "bold", "sbref", "fmap", "roi", "asl", "dwi"}
"""What other BIDS Apps filter: those of suffixes that are not wanted here may be in the same file."""
ANY, NONE = ("*", "Query.ANY"), "Query.NONE"


@dataclass(frozen=True)
class Selection:
    """Which images.

    Attributes:
        participant_label: with or without sub-; none for all.
        session_label: with or without ses-; none for all.
        suffix: which images.
        bids_filter_file: JSON as fMRIPrep and others take it: of each suffix in small letters ("t2w") the
            values of entities ("session", "acquisition", "run") of images that are wanted; null: without it.
    """

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    suffix: tuple[str, ...] = SUFFIXES
    bids_filter_file: Annotated[Path | None, "FILE"] = None

    def __post_init__(self) -> None:
        for given in self.suffix:
            right = [known for known in KNOWN if known.lower() == given.lower()]
            if right and given not in KNOWN:
                raise BadInput(f"--suffix {given}: did you mean {right[0]}?")

    def filters(self) -> Filters:
        """Those of the file; `BadInput` for what none can be."""
        if self.bids_filter_file is None:
            return {}
        path, known = self.bids_filter_file, QUERIES | {suffix.lower() for suffix in self.suffix}
        found: Filters = {}
        for query, wanted in parsed(path).items():
            if query.lower() not in known:
                what = f"expected suffixes in small letters ({', '.join(sorted(known))})"
                raise BadInput(f"{path}: {what}, got {query!r:.40}; correct that")
            if not isinstance(wanted, dict):
                raise BadInput(
                    f"{path}: {query}: expected entities with values, got {wanted!r:.40}; correct that"
                )
            for entity, value in wanted.items():
                if entity not in ENTITIES:
                    what = f"expected entities like session or acquisition, got {entity!r:.40}"
                    raise BadInput(f"{path}: {query}: {what}; correct that")
                values = value if isinstance(value, list) else [value]
                if not all(type(each) in (str, int, type(None)) for each in values):
                    what = f"expected a text, a whole number, null or a list of them, got {value!r:.40}"
                    raise BadInput(f"{path}: {query}: {entity}: {what}; correct that")
            found[query.lower()] = wanted
        return found


@dataclass(frozen=True)
class Naming:
    """The labels of ``res-`` and ``desc-`` in the names of results, and what they mean."""

    res: str
    resolution: str
    desc: str
    description: str

    def of(self, image: Path) -> str:
        """The name of what becomes of a raw image."""
        own, suffix, ending = _entities(image)
        return "_".join([*own, f"res-{self.res}", f"desc-{self.desc}", suffix + ending])


def naming(options: Options, engine: Engine) -> Naming:
    """How the results of these options are called: those of other options are called otherwise."""
    name = options.implied()[0].removesuffix("+")
    label, words = re.sub(r"[^A-Za-z0-9]", "", name), "Sharpened by "  # whatever grid: that is in res-
    words += f"a super-resolution network, {name}" if methods.is_network(name) else SYSTEMS[name].title
    for option, value in _unusual(options, engine):
        label += _label(option, value)
        words += f"; {option} {value}".rstrip()
    return Naming(*resolution(options.target), label, f"{words}. Not for diagnosis.")


def _unusual(options: Options, engine: Engine) -> Iterator[tuple[str, str]]:
    """The options that change a result and differ from the defaults, with their values, but for its grid."""
    if options.implied()[0].endswith("+"):
        yield "ensemble", ""
    if options.weights is not None:
        held = named(options.weights)
        yield "weights", f"{held.name.removesuffix('.onnx')} {files.sha256(held)[:6]}"
    stated, usual = (
        asdict(o) | asdict(o.scanner) | asdict(o.read) | {"precision": e.precision}
        for o, e in ((options, engine), (Options(), Engine()))
    )
    for option, value in stated.items():
        if value != usual[option] and option not in APART:
            yield option, " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _label(*words: str) -> str:
    """Words as a part of a label, in which BIDS allows letters and digits."""
    spelt = re.sub(r"(?<=\d)e-(?=\d)", " e minus", " ".join(words))
    spelt = spelt.replace(".", "p").replace(" -", " minus")
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", spelt))


def _number(value: float) -> str:
    """As few digits as tell it from every other number, without an exponent."""
    return np.format_float_positional(value, trim="-")


def resolution(target: Target) -> tuple[str, str]:
    """The label of ``res-``, and what it means."""
    if target.like is not None:
        label = _label(io.stem(target.like), files.sha256_of(io.resolve(target.like).files)[:6])
        return f"like{label}", f"on the grid of {target.like.name}"
    if target.isotropic is not None:
        mm = _number(target.millimetres) if target.millimetres else ""
        size = f"{mm} mm" if mm else "the finest spacing"
        return (
            f"iso{mm.replace('.', 'p')}{'mm' * bool(mm)}",
            f"thick slices made thin: voxels of about {size} along every axis",
        )
    number = _number(target.spacing or target.scale or 2)
    label = number.replace(".", "p")
    if target.spacing is not None:
        return f"{label}mm", f"{number} mm in the plane of the slices"
    return f"x{label}", f"{number} times the input's matrix in the plane of the slices"


def _entities(path: Path) -> tuple[list[str], str, str]:
    """Entities like ``sub-01`` in their order, suffix and ending of an image's name; none of other names."""
    matched = NAME.fullmatch(path.name)
    return (matched[1].split("_"), matched[2], matched[3]) if matched else ([], "", "")


def images(
    root: Path, wanted: Selection, none: bool = False, left: Counter[str] | None = None
) -> dict[Path, str]:
    """The magnitude images that are wanted, in order; and what may be some but is not, with the reason.

    Args:
        root: the data set.
        wanted: which.
        none: whether there may be none.
        left: takes how many magnitude images there are of each other suffix.
    """
    description = root / "dataset_description.json"
    if not description.is_file():
        raise BadInput(f"{root}: expected a BIDS data set; it has no {description.name}")
    kind = parsed(description).get("DatasetType", "raw")
    if not (isinstance(kind, str) and kind.lower() == "raw"):
        got = "a derivative data set" if "derivative" in str(kind).lower() else f"DatasetType {kind!r:.40}"
        raise BadInput(f"{root}: expected raw data, got {got}; name what it was made from")
    suffixes, filters = wanted.suffix, wanted.filters()
    subjects = {f"sub-{label.removeprefix('sub-')}" for label in wanted.participant_label}
    visits = {f"ses-{label.removeprefix('ses-')}" for label in wanted.session_label}
    tops = {p.name: p for p in root.iterdir() if p.name.lower().startswith("sub-") and not _is_file(p)}
    for name in sorted(subjects - {*tops}):
        raise BadInput(f"--participant-label {name[4:]}: no such participant in {root}")
    found: dict[Path, str] = {}
    for top in tops.values():
        paths, lost = files.below(top)
        lost = dict.fromkeys(files.folders(top), FOLDER) | lost
        for path in (*paths, *lost):
            parts, fault = path.relative_to(root).parts, _fault(path.relative_to(root), suffixes)
            own = {*_entities(path)[0], *parts}  # which may say something else
            asked = (not subjects or subjects & own) and (not visits or visits & own or len(parts) == 1)
            unread = path in lost and not path.suffix and lost[path] != FOLDER  # it may be a folder
            if asked and (fault is not None or unread) and (fault or unread or passes(path, filters)):
                found[path] = lost.get(path, fault or "")
            if asked and left is not None and path not in found and _suffix(path) not in (*suffixes, ""):
                left[_suffix(path)] += 1
    if not found and not none:
        beside = f" and passes {wanted.bids_filter_file}" * (wanted.bids_filter_file is not None)
        ends = f"ends in {', '.join(suffixes)}{beside}"
        raise BadInput(f"{root}: no image of these participants and sessions {ends}")
    return dict(sorted(found.items()))


def _suffix(path: Path) -> str:
    """Of a magnitude image with a name as BIDS has it; empty of anything else."""
    own, suffix, _ = _entities(path)
    return "" if NOT_MAGNITUDE & {*own} else suffix


def passes(image: Path, filters: Filters) -> bool:
    """Whether an image is one of those that the filters of its suffix let through."""
    own, suffix, ending = _entities(image)
    said = dict(entity.split("-", 1) for entity in own)
    said |= {"suffix": suffix, "datatype": image.parent.name, "extension": ending}
    wanted = filters.get(suffix.lower(), {})
    return all(_is_one_of(said.get(ENTITIES[entity]), value) for entity, value in wanted.items())


def _is_one_of(said: str | None, value: Value) -> bool:
    """Whether a label is one of those wanted; numbers are compared as such: 2 is 02."""
    if isinstance(value, list):
        return any(_is_one_of(said, each) for each in value)
    if value is None or said is None:
        return said is value or (said is not None and value in ANY) or (said is None and value == NONE)
    if value in ANY:
        return True
    text = str(value)
    both = text.isdigit() and said.isdigit()
    return int(text) == int(said) if both else text.lstrip(".") == said.lstrip(".")


def _fault(path: Path, suffixes: Sequence[str]) -> str | None:
    """What is not as BIDS has it of a path in a data set; None for what is no image of these suffixes."""
    (own, suffix, _), words = _entities(path), re.split(r"[^a-z0-9]+", path.name.lower())
    meant = {s.lower() for s in suffixes} & ({suffix.lower()} if own else {*words})
    if not meant or NOT_MAGNITUDE & {*own} or not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    derived = ", ".join(entity for entity in own if DERIVED.match(entity))
    if suffix not in suffixes:
        return "expected a name like sub-LABEL_ses-LABEL_T2w.nii.gz, labels of letters and digits; rename it"
    if derived:
        return f"expected a raw image, got {derived} in its name; sharpen what it was made from"
    folders = len(path.parts) - 1
    if not (folders == 2 or (folders == 3 and path.parts[1].startswith("ses-"))):
        return "expected a place like sub-LABEL/ses-LABEL/anat; move it"
    named, place = (e for e in own if e.startswith(("sub-", "ses-"))), path.parts[: folders - 1]
    if (said := tuple(named)) != place:
        return f"its name says {', '.join(said)}, its place {', '.join(place)}; correct one"
    return ""


def is_right(path: Path) -> bool:
    """Whether the name of an image, by its path in a data set, is as BIDS has it, and says its place."""
    return _fault(path, (_entities(path)[1],)) == ""


def _is_file(path: Path) -> bool:
    """Whether it is a file; False for what cannot be reached, which is told."""
    with suppress(OSError):
        return path.is_file()
    return False


def parsed(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or `BadInput`."""
    try:
        found = facts.parsed(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"{path}: expected a JSON object ({error}); mend or remove it") from error
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: expected a JSON object, got {found!r:.40}; mend or remove it")
    return found


def descriptions(root: Path, images: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
    """The JSON files that say something of each image, those nearer to it last (BIDS: inheritance).

    A folder is listed once, however many images look into it: the data set's own is asked for by all.

    Args:
        root: the data set.
        images: in folders of it.
    """
    listed: dict[Path, dict[str, list[tuple[Path, frozenset[str]]]]] = {}

    def inside(folder: Path) -> dict[str, list[tuple[Path, frozenset[str]]]]:
        """The JSON files in a folder by suffix, each with the parts of its name, those with fewer first."""
        if folder not in listed:
            by_suffix: dict[str, list[tuple[Path, frozenset[str]]]] = {}
            for path in folder.glob("*.json"):
                parts = path.stem.split("_")
                by_suffix.setdefault(parts[-1], []).append((path, frozenset(parts)))
            for found in by_suffix.values():
                found.sort(key=lambda one: (len(one[1]), one[0]))
            listed[folder] = by_suffix
        return listed[folder]

    said = {}
    for image in images:
        own, suffix, _ = _entities(image)
        folders = [root, *(p for p in reversed(image.parents) if root in p.parents)]
        near = (one for folder in folders for one in inside(folder).get(suffix, ()))
        said[image] = tuple(path for path, parts in near if parts - {*own} == {suffix})
    return said


def _kept(image: Path, said: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The metadata that are still true: texts, numbers and lists of them; NaN and an empty list say none."""
    for name in (*KEPT, "SkullStripped"):
        value = said.get(name)
        if value is None:
            continue
        expected, kinds = "a text", {str, int, float}  # a number as a name is a text of a kind
        if name in NUMBERS:
            expected, kinds = "a number", {int, float}
        elif name not in KEPT:
            expected, kinds = "true or false", {bool}
        several = isinstance(value, list) and name in KEPT and name not in SINGLE
        values = value if several else [value]
        huge = any(isinstance(each, int) and abs(each) >= facts.HUGE for each in values)
        if huge or not {*map(type, values)} <= kinds:
            said_so = f"its JSON files say {name}: {value!r:.40}"
            raise BadInput(f"{image}: {said_so}; expected {expected}; correct that")
        if values and all(math.isfinite(each) for each in values if isinstance(each, float)):
            yield name, value


def stated(root: Path, image: Path, names: Naming, said: Iterable[Path]) -> dict[str, Any]:
    """What a record states besides: what BIDS requires, and what is still true of the source.

    Args:
        root: the data set.
        image: one of it.
        names: how the results are called.
        said: the JSON files that say something of the image, see `descriptions`.
    """
    found: dict[str, Any] = {}
    for path in said:
        found |= parsed(path)
    kept = dict(_kept(image, found))
    unsaid = {} if "SkullStripped" in kept else {"SkullStripped": False, "SkullStrippedBy": ASSUMED}
    return (
        unsaid
        | kept
        | {
            "Description": names.description,
            "Sources": [f"bids:raw:{image.relative_to(root).as_posix()}"],
            "SpatialReference": "orig",
            "Resolution": names.resolution,
        }
    )
