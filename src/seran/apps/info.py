"""``seran info``: what a scan, a folder of DICOM series, or this installation is."""

import importlib
import json as notation
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import seran
from seran import acquisition, grid, io, machine, measure, weights
from seran.engines import openvino
from seran.io import dicom
from seran.job import record
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


def _scan(path: Path) -> dict[str, Any]:
    """A scan's grid, intensities and measured k-space; voxels that are not finite count as 0."""
    series = io.read_series(path, "auto", 0.0)
    volume = next(series.volumes)
    axis = grid.slice_axis(volume.affine, volume.data.shape)
    stack = np.moveaxis(volume.data, axis, 0)
    known, gain = measure.measured(stack), Normalisation.of(stack).gain
    noise = round(known.sigma / gain, 5) if gain and known.by != "unknown" else None
    normal = grid.world_axes(volume.affine)[axis]
    return {
        "volumes": series.count,
        "shape": list(volume.data.shape),
        "voxel_mm": grid.spacing(volume.affine).round(4).tolist(),
        "slices_along": axis,
        "plane": next(plane for plane, i in grid.NORMALS.items() if i == normal),
        "intensities": [float(stack.min()), float(stack.max())],
        "kspace_support": [round(f, 3) for f in known.fraction],
        "window": str(known.window),
        "noise": noise,
        "sharpened": record.read(path) is not None,
        "known": acquisition.words(known.fraction, known.window, noise, known.by, known.background),
        "affine": volume.affine.round(6).tolist(),
    }


def info(path: Path | None = None, /, json: bool = False) -> str:
    """Describe a scan, list the series of a DICOM folder or, without a path, describe this installation.

    Args:
        path: a scan, or a folder of DICOM files.
        json: for programs, and for reports of faults.
    """
    if path is not None and path.is_dir():
        series = [
            {"number": s.number, "description": s.description, "images": len(s.paths), "uid": s.uid}
            for s in dicom.series_of(path)
        ]
        if not json:
            return "\n".join(f"{s['number']:>6}  {s['images']:5} images  {s['description']}" for s in series)
        told: dict[str, Any] = {"series": series}
    else:
        told = installation() if path is None else _scan(path)
    return notation.dumps(told, indent=1) if json else "\n".join(_lines(told))


def _lines(told: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name:17}{shown}")
    return lines
