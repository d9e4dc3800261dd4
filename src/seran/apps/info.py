"""``seran info``: what a scan, a folder of DICOM series, or this installation is."""

import importlib
import json as notation
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
from seran import acquisition, grid, io, kspace, machine, weights
from seran.engines import openvino
from seran.errors import BadInput, counted
from seran.io import dicom
from seran.job import labels, record, run
from seran.job.options import ReadOptions, Scanner
from seran.sharpen import Normalisation


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
    held, first = run.ahead(series.volumes), read.volume or 0
    able = [i for i, volume in enumerate(held) if run.varies(volume)] or [0]
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
    if made:
        told["made_by_seran"] = f"{made.method}, x{made.scale}, from {made.input}"
    try:
        if read.label_check:
            labels.refuse_other_kinds(path, volume, made is not None)
        if len(able) > 1:
            told["band_of_volumes"] = able
        told |= _measured([np.moveaxis(held[i].data, axis, 0) for i in able])
    except BadInput as error:
        told["not_measured"] = str(error).removeprefix(f"{path}: ")
    return told | {"affine": volume.affine.round(6).tolist()}


def _measured(stacks: Sequence[Float[ndarray, "n h w"]]) -> dict[str, Any]:
    """What the scanner did: the band of all volumes, and the noise and background of the first."""
    gain = Normalisation.of(stacks[0]).gain
    scanner = Scanner()
    known = scanner.known(stacks[0], gain, run.band(stacks, scanner) if len(stacks) > 1 else None)
    noise = round(known.sigma / gain, 5) if gain and known.by != "unknown" else None
    level, constant = [] if noise is None else [noise], known.background
    spikes = kspace.despiked(stacks[0])[1]
    return {
        **({"damaged_voxels": spikes} if spikes else {}),
        "kspace_support": [round(f, 3) for f in known.fraction],
        "window": str(known.window),
        "noise": noise,
        "noise_by": known.by,
        "background": constant,
        "known": acquisition.words(
            known.fraction, known.window, level, known.by, "" if constant is None else f"{constant:g}"
        ),
    }


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
        for s in listed
    ]
    told: dict[str, Any] = ({"series": series} if listed else {}) | ({"not_read": lost} if lost else {})
    whole = len(listed) < 2 and not lost
    if whole:
        told |= installation() if path is None else _scan(path, read)
    if json:
        return notation.dumps(told, indent=1)
    lines = [f"{s['number']:>6}  {counted(s['images'], 'image'):>12}  {s['description']}" for s in series]
    lines += [f"not read: {file}: {why}" for file, why in lost.items()]
    if not whole:
        return "\n".join([*lines, "name one with --series to have it measured"])
    return "\n".join([*lines, *_lines({name: fact for name, fact in told.items() if name != "series"})])


def _lines(told: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name:16} {shown}")
    return lines
