"""``seran info``: what a scan, a folder of DICOM series, or this installation is."""

import importlib
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

import seran
from seran import acquisition, facts, grid, io, kspace, machine, measure, weights
from seran.engines import openvino
from seran.errors import BadInput, counted
from seran.io import dicom
from seran.job import labels, record, steps
from seran.job.options import LEAST, ReadOptions, Scanner
from seran.sharpen import Normalisation

APART = 0.03  # part of k-space by which what a header says is another than what is seen
THIRD = 4  # slices that a third of a scan must have to be measured alone
STEADY = 1.5  # times the least noise of the thirds of a scan, that the greatest may be


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def installation() -> dict[str, Any]:
    """Versions, extras, engines with their devices, and weights."""
    cpu, precision = openvino.device()
    wanted = [re.split(r"[^\w-]", line)[0] for line in metadata.requires("seran") or []]
    lacking = {extra: ", ".join(absent) for extra, absent in machine.missing().items()}
    return {
        "seran": seran.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": machine.cpus(),
        "packages": {name: _version(name) for name in dict.fromkeys(wanted) if name != "seran"},
        "extras": {extra: f"lacks {names}" if names else "installed" for extra, names in lacking.items()},
        "engines": {
            "openvino": {"version": _version("openvino"), "devices": {"cpu": cpu}, "precision": precision},
            "torch": {"version": _version("torch"), "devices": _torch_devices()},
        },
        "weights": {name: _held(name) for name in weights.listed()},
    }


def _held(name: str) -> dict[str, Any]:
    """Where weights are, whether every byte is the registry's, and what their card says."""
    (size, digest), state = weights.listed()[name], weights.state(name)
    verified = not state.startswith(("damaged", "not here"))
    told = {"state": state, "bytes": size, "file_sha256": digest, "verified": verified}
    if verified:
        held = weights.read(weights.at_hand()[name])
        told |= {"sha256": held.digest, "patches": held.card.patches, "version": held.card.version}
    return told


def _torch_devices() -> dict[str, str]:
    """GPUs; a PyTorch that cannot be used says why, since that is what a report of a fault is about."""
    if _version("torch") == "not installed":
        return {}
    try:
        torch = importlib.import_module("torch")
        found = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return found | ({"mps": "Apple GPU"} if torch.backends.mps.is_available() else {})
    except (ImportError, OSError, RuntimeError) as error:
        return {"none": f"{type(error).__name__}: {error}"}


def _scan(path: Path, read: ReadOptions) -> dict[str, Any]:
    """A scan's grid and intensities, and what is measured on it; voxels that are not finite count as 0."""
    source = io.resolve(path, read.series)
    series = io.read_series(source, read.affine, read.fill or 0.0, only=read.volume)
    held, first = steps.ahead(series.volumes), read.volume or 0
    able = [i for i, volume in enumerate(held) if steps.varies(volume)] or [0]
    volume, made = held[able[0]], record.read(path)
    axis = grid.slice_axis(volume.affine, volume.data.shape, read.plane, volume.slices)
    normal = grid.world_axes(volume.affine)[axis]
    thickness = volume.thickness or record.slice_thickness(path)
    told: dict[str, Any] = {"volumes": series.count} if read.volume is None else {}
    if series.count > 1 or read.volume is not None:
        told["described_volume"] = first + able[0]
    told |= {
        "shape": list(volume.data.shape),
        "voxel_mm": grid.spacing(volume.affine).round(4).tolist(),
        "slices_along": axis,
        "plane": next(plane for plane, i in grid.NORMALS.items() if i == normal),
        **({} if thickness is None else {"slice_thickness_mm": thickness}),
        "intensities": [float(volume.data.min()), float(volume.data.max())],
    }
    if isinstance(volume.header, dicom.Slices):
        told["off_even_mm"] = round(volume.header.off, 4)
    if made:
        told["made_by_seran"] = _made(made)
    elif why := record.fault(path):
        told["made_by_seran"] = f"not known: {why}"
    kind, why = labels.other_kind(path, volume, made is not None) if read.label_check else ("", "")
    if kind:
        looks = "is" if made else "looks like"
        told["not_measured"] = f"it {looks} {kind} ({why}); --no-label-check has it measured as it is"
    else:
        if len(able) > 1:
            told["band_of_volumes"] = able
        size = np.delete(grid.spacing(volume.affine), axis)
        source = volume.header
        said = dicom.matrix(source.paths[0]) if isinstance(source, dicom.Slices) else None
        told |= {} if said is None else {"header_matrix": list(said.acquired)}
        told |= _measured([np.moveaxis(held[i].data, axis, 0) for i in able], size)
        if said is not None:
            told["known"]["header"] = _compared(said, told["kspace_support"], axis)
    return told | {"affine": volume.affine.round(6).tolist()}


def _made(made: record.Record) -> str:
    """How a result was made."""
    finer = f"x{made.scale}" * (made.scale > 1 or not made.slice_profile)
    thinner = f"{made.more_slices:.3g} thin slices for each thick one" * bool(made.slice_profile)
    return ", ".join(filter(None, (made.method, finer, thinner, f"from {made.input}")))


def _compared(said: dicom.Matrix, seen: Sequence[float], axis: int) -> str:
    """What a DICOM header says of the measured matrix, and whether that is what is seen.

    Args:
        said: by the header.
        seen: measured part of k-space along the axes of a slice.
        axis: that slices are stacked along; of the slices of the files it is the last.
    """
    told = f"its header says that {said}"
    if axis != 2 or np.abs(np.subtract(said.fraction, seen)).max() <= APART:
        return told
    state = " ".join(f"{part:.3g}" for part in said.fraction)
    told += ", which is not what is seen; seran takes what is seen"
    return told + f", unless --acquired {state} states it" * (min(said.fraction) >= LEAST)


def _measured(stacks: Sequence[Float[ndarray, "n h w"]], size: Float[ndarray, "2"]) -> dict[str, Any]:
    """What the scanner did: the band of all volumes, and the noise and background of the first.

    Args:
        stacks: the volumes, slices first.
        size: of a pixel, in mm.
    """
    gain = Normalisation.of(stacks[0]).gain
    scanner = Scanner()
    known = scanner.known(stacks[0], gain, steps.band(stacks, scanner) if len(stacks) > 1 else None)
    noise = round(known.sigma / gain, 5) if gain and known.by != "unknown" else None
    level, constant = [] if noise is None else [noise], known.background
    spikes = kspace.despiked(stacks[0])[1]
    used = len(kspace.strong(stacks[0]))
    parts, alike = _thirds(stacks[0], gain) if known.by != "unknown" else ([], "")
    return {
        **({"damaged_voxels": spikes} if spikes else {}),
        "measured_slices": f"{used} of {len(stacks[0])}",
        "kspace_support": [round(f, 3) for f in known.fraction],
        "acquired_mm": [round(float(mm / f), 4) for mm, f in zip(size, known.fraction, strict=True)],
        "window": str(known.window),
        "noise": noise,
        "image_noise": _in_image(known, gain),
        "noise_by": known.by,
        "background": constant,
        **({"thirds": parts} if parts else {}),
        "known": acquisition.words(
            known.fraction, known.window, level, known.by, "" if constant is None else f"{constant:g}"
        )
        | ({"thirds": alike} if alike else {}),
    }


def _thirds(stack: Float[ndarray, "n h w"], gain: float) -> tuple[list[dict[str, Any]], str]:
    """What each third of the slices says alone, and in words whether they agree; nothing of few slices.

    Noise is compared as it is in the image: what it was before a filter depends on which one is seen.
    """
    if len(stack) < 3 * THIRD:
        return [], ""
    found = [measure.measured(part) for part in np.array_split(stack, 3)]
    noise = [_in_image(one, gain) for one in found]
    windows = [str(one.window) for one in found]
    told = [{"image_noise": part, "window": window} for part, window in zip(noise, windows, strict=True)]
    levels = [part for part in noise if part]
    steady = len(levels) == 3 and max(levels) <= STEADY * min(levels)
    shown = ", ".join("unknown" if part is None else f"{part:.2%}" for part in noise)
    said = [
        f"noise in the image {shown}: "
        + ("they agree" if steady else "they differ, so it is uncertain; state it if you know it (--noise)"),
        f"filter {', '.join(windows)}: "
        + (
            "they agree"
            if len(set(windows)) == 1
            else "they differ, so it is uncertain; state it if you know it (--window)"
        ),
    ]
    return told, f"each third of the slices alone: {'; '.join(said)}"


def _in_image(known: measure.Measured, gain: float) -> float | None:
    """Noise behind the filter, as a part of the range; None where it is not known."""
    if not gain or known.by == "unknown":
        return None
    return round(known.sigma * float(np.sqrt(known.window.passed)) / gain, 5)


def info(path: Path | None = None, /, json: bool = False, read: ReadOptions = ReadOptions()) -> str:  # noqa: B008
    """Describe a scan, list the series of a DICOM folder or, without a path, describe this installation.

    A folder of one series is described, one of several listed.

    Of a series of volumes the first that is not of one value is described, or that of --volume; of a folder
    the series of --series.

    Args:
        path: a scan, or a folder of DICOM files.
        json: for programs, and for reports of faults.
        read: how the scan is read.
    """
    if path is None and read != ReadOptions():
        raise BadInput("seran info: expected a scan with options of how it is read; name it")
    folder = path is not None and path.is_dir() and read.series is None and read.volume is None
    listed = dicom.series_of(path) if path is not None and folder else []
    lost = {str(file): why for s in listed for file, why in s.lost.items()}
    series: list[dict[str, Any]] = [
        {"number": s.number, "description": s.description, "images": len(s.paths), "uid": s.uid}
        | dicom.laid(s)
        for s in listed
    ]
    told: dict[str, Any] = ({"series": series} if listed else {}) | ({"not_read": lost} if lost else {})
    whole = len(listed) < 2 and not lost
    if whole:
        told |= installation() if path is None else _scan(path, read)
    if json:
        return facts.dumps(told, indent=1)
    lines = _table(series)
    lines += [f"not read: {file}: {why}" for file, why in lost.items()]
    if not whole:
        return "\n".join([*lines, "name one with --series to have it measured"])
    return "\n".join([*lines, *_lines({name: fact for name, fact in told.items() if name != "series"})])


def _table(series: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each series: number, images, plane, matrix, pixels, slices, description, what is wrong."""
    rows = [
        (
            f"{s['number']:>6}",
            counted(s["images"], "image"),
            s.get("plane", ""),
            grid.dimensions(s["matrix"]) if "matrix" in s else "",
            grid.dimensions(s["pixel_mm"], ".3g") + " mm" if "pixel_mm" in s else "",
            f"{s['thickness_mm']:.3g} mm thick" if "thickness_mm" in s else "",
            f"{s['distance_mm']:.3g} mm apart" if "distance_mm" in s else "",
            s["description"],
            s.get("fault", ""),
        )
        for s in series
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _lines(told: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            if value and isinstance(value, list) and isinstance(value[0], dict):
                continue  # for programs; words tell it, too
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name:16} {shown}")
    return lines
