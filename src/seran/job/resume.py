"""Whether a result is there already, of the same scan and made in the same way: what ``--resume`` asks.

A record holds a key, a digest of all that decides a result, and a stamp, one of the sizes and modification
times of scan and result. Where the stamp still fits, both are taken to be what they were, unread; else, and
where it is asked for, every byte of them is hashed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from seran import __version__, files, io, methods, weights
from seran.contrast import contrast_of
from seran.engines import Engine
from seran.job import record
from seran.job.options import Options
from seran.job.record import Record
from seran.weights import Weights


class Seen(NamedTuple):
    """A file as a folder lists it."""

    name: str
    size: int  # bytes
    modified: int  # ns


def seen(paths: Iterable[Path]) -> tuple[Seen, ...]:
    """Files as they are now."""
    return tuple(Seen(path.name, (now := path.stat()).st_size, now.st_mtime_ns) for path in paths)


def listed(path: Path) -> tuple[Seen, ...]:
    """The files of a scan; of a folder all, for any may be of its series; none if some are out of reach."""
    if not path.is_dir():
        return seen(io.resolve(path).files)
    found, lost = files.below(path)
    return () if lost else seen(found)


def stamp(scan: Sequence[Seen], images: Sequence[Path]) -> str:
    """Hex digest of names, sizes and times of a scan and its result, which tells none of them.

    Args:
        scan: its files as they were before it was read; the stamp of none is empty, and fits nothing.
        images: the result and its maps, as written; a file that is renamed keeps its time.
    """
    made = seen(file for image in images for file in record.files_of(image))
    return hashlib.sha256(json.dumps([scan, made]).encode()).hexdigest() if scan else ""


@lru_cache(maxsize=8)
def _digest(path: Path, _: tuple[Seen, ...]) -> str:
    """Of the files of an image that is as it was seen."""
    return files.sha256_of(io.resolve(path).files)


def _weights(options: Options, name: str) -> list[Weights]:
    """Those that may make a result; of a method all of the degradation that is undone, whatever the scale.

    Args:
        options: how a scan is sharpened.
        name: of the method.
    """
    if options.weights:
        return [weights.known(weights.named(options.weights))]
    kinds = (methods.NATIVE, methods.ISOTROPIC) if options.thin else (options.degradation,)
    return [weights.known(path) for path in methods.files_of(name) if path.stem.rsplit("-", 1)[1] in kinds]


def thickness_for(source: Path, options: Options, said: Mapping[str, Any]) -> float | None:
    """The thickness of slices in mm that is said beside a scan, where a result depends on it.

    Args:
        source: the scan.
        options: how it is sharpened.
        said: what its data set says of it.
    """
    return said.get("SliceThickness") or record.slice_thickness(source) if options.thin else None


def key(scan: str, options: Options, engine: Engine, name: str = "", thickness: float | None = None) -> str:
    """Hex digest of all that decides a result: scan, weights, options, engine as asked for, version.

    Args:
        scan: digest of the scan's files.
        options: how it is sharpened.
        engine: how the network is run; threads change when a result is there, not what it is.
        name: of the scan, which says what half-widths are calibrated for, as far as its header does not.
        thickness: see `thickness_for`.
    """
    contrast = contrast_of(name) if options.uncertainty else ""
    name, _ = options.implied()
    like, eight = options.target.like, engine.precision == "int8"
    used = _weights(options, name.removesuffix("+"))
    stated = asdict(options) | {
        "method": name,
        "weights": [(held.digest, held.evidence.ranges if eight else None) for held in used],
        "engine": [engine.device, engine.precision],
        "source": scan,
        "version": __version__,
        "contrast": contrast,
        "thickness": thickness,
    }
    del stated["fast"]  # the method says so
    if like is not None:
        now = listed(like)
        stated["target"]["like"] = _digest(like, now) if now else files.sha256_of(io.resolve(like).files)
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _with_maps(options: Options, maps: Iterable[str]) -> Options:
    """The same with these images beside the result, and no others."""
    return replace(options, maps="estimated" in maps, uncertainty="uncertainty" in maps)


def keeping(
    found: Record | None, scan: str, options: Options, engine: Engine, name: str, thickness: float | None
) -> Options:
    """With the maps of a former result, if it is to be made again in the same way: none of them shall go.

    Args:
        found: the record of the former result.
        scan: digest of the scan's files.
        options: how it is sharpened now.
        engine: how the network is run.
        name: of the scan.
        thickness: see `thickness_for`.
    """
    if found is None or not found.maps:
        return options
    if found.key != key(scan, _with_maps(options, found.maps), engine, name, thickness):
        return options
    return _with_maps(options, {*found.maps, *options.beside})


def fits(
    found: Record,
    source: Path,
    options: Options,
    engine: Engine,
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> bool:
    """Whether a run would make of the same scan what a record is of; one with more maps than it asks for is.

    Args:
        found: the record.
        source: the scan.
        options: how it is sharpened.
        engine: how the network is run.
        facts: gives what its data set says of the scan; asked where a result depends on it.
    """
    if not {*options.beside} <= {*found.maps}:
        return False
    thickness = thickness_for(source, options, facts() if options.thin else {})
    made = _with_maps(options, found.maps)
    return found.key == key(found.input_sha256, made, engine, source.name, thickness)


def is_unchanged(found: Record, source: Path, out: Path) -> bool:
    """Whether scan and result have the sizes and times that their record states."""
    return bool(found.stamp) and found.stamp == stamp(listed(source), record.outputs(out, found.maps))


def done(
    source: Path,
    out: Path,
    options: Options,
    engine: Engine,
    verify: bool = False,
    facts: Callable[[], Mapping[str, Any]] = dict,
) -> Record | None:
    """The record of the result at ``out``, if all of it is there, and it `fits`.

    `BadInput` if that is not known. Where it is done nothing is written, so what a killed run left goes here.

    Args:
        source: the scan.
        out: the result.
        options: how the scan is sharpened.
        engine: how the network is run.
        verify: hash scan and result even if their sizes and times are those of the record.
        facts: see `fits`.
    """
    found = record.read(out)
    if found is None or not fits(found, source, options, engine, facts):
        return None
    if verify or not is_unchanged(found, source, out):
        if found.input_sha256 != files.sha256_of(io.resolve(source, options.read.series).files):
            return None
        if found.result_sha256 != record.digests(record.outputs(out, found.maps)):
            return None
    files.sweep(out.parent.absolute())
    return found
