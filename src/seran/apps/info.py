"""``seran info``: what a scan, a folder of DICOM series, or this installation is."""

import importlib
import json as notation
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import seran
from seran import grid, io, kspace, machine, weights
from seran.apps import Positional
from seran.engines import openvino
from seran.io import dicom

PACKAGES = (
    "numpy", "scipy", "numba", "nibabel", "isal", "openvino", "mnn", "pydicom", "tyro", "python-gdcm",
    "SimpleITK", "torch", "lightning-fabric", "onnx", "distributed", "dask-jobqueue",
)  # fmt: skip
"""Whose versions a report of a fault needs."""
PLANES = {axis: plane for plane, axis in grid.NORMALS.items()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def installation() -> dict[str, Any]:
    """Versions, extras, engines with their devices, and weights."""
    cpu, precision = openvino.device()
    return {
        "seran": seran.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": machine.cpus(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {
            extra: f"lacks {', '.join(absent)}" if absent else "installed"
            for extra, absent in machine.missing().items()
        },
        "engines": {
            "openvino": {"version": _version("openvino"), "devices": {"cpu": cpu}, "precision": precision},
            "torch": {"version": _version("torch"), "devices": _torch_devices()},
        },
        "weights": {name: _held(name) for name in weights.listed()},
    }


def _held(name: str) -> dict[str, Any]:
    """Where weights are, whether every byte is the registry's, and what their card says."""
    size, digest = weights.listed()[name]
    told: dict[str, Any] = {"state": weights.state(name), "bytes": size, "file_sha256": digest}
    told["verified"] = not told["state"].startswith(("damaged", "not here"))
    if told["verified"]:
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


def scan(path: Path) -> dict[str, Any]:
    """A scan's grid, intensities and measured k-space.

    Raises:
        BadInput: if it cannot be read; voxels that are not finite count as 0.
    """
    series = io.read_series(path, "auto", 0.0)
    volume = next(series.volumes)
    axis = grid.slice_axis(volume.affine, volume.data.shape)
    stack = np.moveaxis(volume.data, axis, 0)
    band = kspace.support(stack)
    return {
        "volumes": series.count,
        "shape": list(volume.data.shape),
        "voxel_mm": grid.spacing(volume.affine).round(4).tolist(),
        "slices_along": axis,
        "plane": PLANES[grid.world_axes(volume.affine)[axis]],
        "intensities": [float(stack.min()), float(stack.max())],
        "kspace_support": [round(b, 3) for b in band],
        "affine": volume.affine.round(6).tolist(),
    }


def info(path: Positional[Path | None] = None, json: bool = False) -> str:
    """Describe a scan, list the series of a DICOM folder or, without a path, describe this installation.

    Args:
        path: a scan, or a folder of DICOM files.
        json: for programs, and for reports of faults.

    Raises:
        BadInput: if the path cannot be read.
    """
    if path is None:
        told: dict[str, Any] = installation()
    elif path.is_dir():
        series = [
            {"number": s.number, "description": s.description, "images": len(s.paths), "uid": s.uid}
            for s in dicom.series_of(path)
        ]
        told = {"series": series}
        if not json:
            return "\n".join(f"{s['number']:>6}  {s['images']:5} images  {s['description']}" for s in series)
    else:
        told = scan(path)
    return notation.dumps(told, indent=1) if json else "\n".join(_lines(told))


def _lines(told: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name:17}{' '.join(map(str, value))}")
        else:
            lines.append(f"{indent}{name:17}{value}")
    return lines
