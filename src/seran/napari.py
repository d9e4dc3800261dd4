"""napari: scans as layers in millimetres, a widget that sharpens them, and a writer that keeps the record.

napari's world is that of DICOM and ITK (LPS+) in the order of arrays: superior, posterior, left. So its first
view is an axial slice with the nose up and the patient's left on the right. `napari.yaml` names what is here;
nothing else of seran imports it, and only what needs a viewer imports napari.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import api, files, grid, io
from seran.api import Scan
from seran.errors import BadInput
from seran.io import dicom
from seran.job.record import is_result
from seran.sharpen import Normalisation

if TYPE_CHECKING:
    import napari

WORLD = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])  # mm (RAS+) to napari's
AXES, UNITS = ("volume", "superior", "posterior", "left"), ("pixel", "mm", "mm", "mm")
GRIDS: dict[str, dict[str, Any]] = {
    "twice as fine in the plane": {"scale": 2},
    "three times as fine": {"scale": 3},
    "four times as fine": {"scale": 4},
    "the same grid, without noise and filter": {"scale": 1},
    "thin slices from thick ones": {"isotropic": True},
}
"""The grids that the widget offers, as `seran.upscale` is asked for them."""
LOOKED = 100  # files of a folder, of which one must be DICOM
SAME = 1e-6  # mm, by which napari may have rounded an affine
LayerTuple = tuple[ndarray, dict[str, Any], str]  # voxels, attributes, and that it is an image


def reader(path: str | list[str]) -> Callable[[str], list[LayerTuple]] | None:
    """What reads a file or folder; None for a folder without DICOM files, and for files to be stacked."""
    if isinstance(path, list):
        return None
    some = islice(files.below(Path(path))[0], LOOKED) if Path(path).is_dir() else None
    return read if some is None or any(map(dicom.is_dicom, some)) else None


def read(path: str) -> list[LayerTuple]:
    """A scan, or a series, as one layer; its ``metadata["seran"]`` has each volume as a `seran.Scan`."""
    file = Path(path)
    found, made = io.read_series(file), is_result(file)
    scans = [Scan(v, name=file.name, sharpened=made, path=file.absolute()) for v in found.volumes]
    return [_layer(scans, name=io.stem(file))]


def _placed(affine: Float[ndarray, "4 4"]) -> tuple[list[int], Float[ndarray, "4 4"]]:
    """The order of array axes that follows napari's world most closely, and what takes their voxels there."""
    axes = grid.world_axes(affine)
    order = [axes.index(world) for world in (2, 1, 0)]
    return order, (WORLD @ affine)[:, [*order, 3]]


def _layer(scans: Sequence[Scan], **more: Any) -> LayerTuple:  # noqa: ANN401
    """Scans on one grid as a layer, of which they become views; of several, its first axis counts them."""
    order, matrix = _placed(scans[0].affine)
    data = np.stack([scan.data for scan in scans]) if len(scans) > 1 else scans[0].data[None]
    scans = [replace(s, volume=s.volume.on(x, s.affine)) for s, x in zip(scans, data, strict=True)]
    norm = Normalisation.of(data.reshape(-1, *data.shape[2:]))
    shown = data.transpose(0, *(axis + 1 for axis in order))
    start, to = int(len(scans) == 1), np.eye(5)
    to[1:, 1:] = matrix
    told = {"affine": to[start:, start:], "axis_labels": AXES[start:], "units": UNITS[start:]}
    told["metadata"] = {"seran": scans, "record": scans[0].record.stated() if scans[0].record else None}
    if norm.gain:
        told["contrast_limits"] = norm.offset, norm.offset + norm.gain
    return shown[0] if start else shown, told | more, "image"


def _scan(image: Any, volume: int) -> api.Readable:  # noqa: ANN401
    """The scan of a layer; of one that is another's, or was changed or moved since, voxels and affine."""
    if image.rgb or image.multiscale or image.ndim not in (3, 4):
        got = f"got {image.ndim}-D{', in colours' * image.rgb}{', multiscale' * image.multiscale}"
        raise BadInput(f"{image.name}: expected one 3-D image, or a series of them (4-D), {got}")
    series = image.data if image.ndim == 4 else image.data[None]
    if not 0 <= volume < len(series):
        raise BadInput(f"{image.name}: volume {volume}: must be from 0 to {len(series) - 1}")
    voxels, to = np.asarray(series[volume]), np.eye(4)
    points = np.eye(image.ndim + 1, image.ndim)[-4:]  # a step along each of the last axes, and none
    *steps, origin = (np.array(image.data_to_world(point))[-3:] for point in points)
    to[:3] = np.stack([*(step - origin for step in steps), origin], 1)
    for scan in image.metadata.get("seran", [])[volume : volume + 1]:
        order, matrix = _placed(scan.affine)
        if np.allclose(matrix, to, 0, SAME) and np.array_equal(scan.data.transpose(order), voxels):
            return scan
    return voxels, WORLD.T @ to


def sharpened(image: Any, make: str, fast: bool, volume: int) -> LayerTuple:  # noqa: ANN401
    """What `sharpen` adds: shown like the layer; ``metadata["record"]`` has the verdict and the checks."""
    made = api.upscale(_scan(image, volume), method="fast" if fast else None, **GRIDS[make])
    like = {what: getattr(image, what) for what in ("contrast_limits", "colormap")}
    like |= {what: getattr(image, what)[-3:] for what in ("axis_labels", "units")}
    return _layer([made], name=f"{image.name} sharp", **like)


def _tell(made: LayerTuple) -> None:
    """Show the verdict, and the checks that do not say PASS."""
    from napari.utils import notifications

    record, name = made[1]["metadata"]["record"], made[1]["name"]
    said = [f"{c['name']}: {c['verdict']}, {c['text']}" for c in record["Checks"] if c["verdict"] != "PASS"]
    kinds = {"PASS": notifications.show_info, "FAIL": notifications.show_error}
    show = kinds.get(record["Verdict"], notifications.show_warning)
    show("\n".join([f"{name}: {record['Verdict']}", *said]))


def sharpen(
    image: "napari.layers.Image",
    make: Annotated[str, {"choices": list(GRIDS)}] = next(iter(GRIDS)),
    fast: bool = False,
    volume: Annotated[int, {"max": 1 << 20}] = 0,
) -> "napari.qt.threading.FunctionWorker[napari.types.LayerDataTuple]":
    """Sharpen a layer in a thread; napari makes a widget of this signature, and adds the result.

    Args:
        image: the layer, 3-D or 4-D.
        make: the grid of the result, one of `GRIDS`.
        fast: by the small network, six to seven times as fast.
        volume: which one of a 4-D layer, counted from 0.
    """
    from napari.qt.threading import create_worker
    from napari.utils.notifications import notification_manager

    told = {"returned": _tell, "errored": lambda e: notification_manager.receive_error(type(e), e, None)}
    shown = {"desc": f"Sharpening {image.name}"}
    return create_worker(sharpened, image, make, fast, volume, _progress=shown, _connect=told)


def write(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:  # noqa: ANN401
    """Write a layer that seran read or made, with its header and record; napari has asked to replace."""
    from napari.layers import Image

    image = Image(data, **attributes)
    scan = _scan(image, 0) if image.ndim == 3 else None
    if not isinstance(scan, Scan):
        raise BadInput(f"{path}: expected one volume as seran read or made it; save it with another writer")
    api.write(scan, path, force=True)
    return [path]
