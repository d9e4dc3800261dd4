"""The plugin of napari: its manifest, its layers without napari, and napari itself where it is installed."""

import importlib
import json
import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

import seran
from seran import api, grid, io, napari
from seran.errors import BadInput
from seran.volume import Volume
from tests.conftest import oblique, phantom

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "src" / "seran" / "napari.yaml"
TURNS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (2, 0, 1), "reversed": (2, 1, 0)}


def image_of(made: napari.LayerTuple, **other: Any) -> SimpleNamespace:
    """What stands for an image layer of napari: its attributes, and its place in the world."""
    data, told, kind = made
    assert kind == "image"
    plain = {"rgb": False, "multiscale": False, "colormap": "gray", "contrast_limits": (0, 1), "metadata": {}}
    image = SimpleNamespace(data=data, ndim=data.ndim, **plain | told | other)
    image.data_to_world = lambda at: tuple(image.affine[:-1, :-1] @ at + image.affine[:-1, -1])
    return image


def ras(image: Any, index: tuple[int, ...]) -> np.ndarray:
    """Where a voxel of a layer lies, in mm (RAS+)."""
    superior, posterior, left = image.data_to_world(index)[-3:]
    return np.array([-left, -posterior, superior])


def turned(affine: np.ndarray, plane: str) -> np.ndarray:
    """The affine of an array whose axes are those of another in this order, the first of them mirrored."""
    return affine[:, [*TURNS[plane], 3]] @ np.diag([-1.0, 1, 1, 1])


def assert_placed(image: Any, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel of a scan lies in the layer where it lies in the world."""
    shape = image.data.shape[-3:]
    for at in np.ndindex(*shape) if np.prod(shape) < 9000 else [(0, 0, 0), tuple(n - 1 for n in shape)]:
        mm = ras(image, (0,) * (image.ndim - 3) + at)
        there = np.linalg.inv(affine) @ [*mm, 1]
        index = np.rint(there[:3]).astype(int)
        assert np.abs(affine[:3] @ [*index, 1] - mm).max() < 1e-4
        assert image.data[(0,) * (image.ndim - 3) + at] == voxels[tuple(index)]


def test_the_manifest_names_what_is_there() -> None:
    found = yaml.safe_load(MANIFEST.read_text())
    parts = found["contributions"]
    for command in parts["commands"]:
        module, name = command["python_name"].split(":")
        assert callable(getattr(importlib.import_module(module), name))
    used = [part["command"] for kind in ("readers", "writers", "widgets") for part in parts[kind]]
    assert sorted(used) == sorted(command["id"] for command in parts["commands"])
    assert {pattern[1:] for pattern in parts["readers"][0]["filename_patterns"]} == set(io.FORMATS)
    written = set(parts["writers"][0]["filename_extensions"])
    assert written == set(io.FORMATS) - {".hdr", ".img"} - set(io.ONE_FILE)
    assert re.search(
        r'^\[project.entry-points."napari.manifest"]\nseran = "seran:napari.yaml"$',
        (ROOT / "pyproject.toml").read_text(),
        re.M,
    )


def test_the_manifest_is_one_of_npe2() -> None:
    if util.find_spec("npe2") is None:
        pytest.skip("npe2 is not installed: pip install npe2")
    code = "import sys, npe2; npe2.PluginManifest.from_file(sys.argv[1]).validate_imports()"
    done = subprocess.run([sys.executable, "-c", code, MANIFEST], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", [".nii.gz", ".mgz", ".nrrd", ".mha"])
@pytest.mark.parametrize("plane", TURNS)
def test_every_voxel_of_a_layer_lies_where_the_file_says(plane: str, end: str, tmp_path: Path) -> None:
    shape = tuple(np.array((26, 34, 5))[[*TURNS[plane]]].tolist())
    volume = Volume(phantom(shape), turned(oblique(), plane))
    io.write(volume, tmp_path / f"a.scan{end}")
    read = napari.reader(str(tmp_path / f"a.scan{end}"))
    assert read is not None
    (made,) = read(str(tmp_path / f"a.scan{end}"))
    image = image_of(made)
    assert_placed(image, volume.data, volume.affine)
    steps = np.abs(image.affine[:3, :3] / grid.spacing(image.affine))
    assert steps.argmax(0).tolist() == [0, 1, 2]  # napari cuts slices along the axes of its world
    assert image.name == "a.scan"
    assert 0 <= image.contrast_limits[0] < image.contrast_limits[1] <= volume.data.max()
    assert np.shares_memory(image.metadata["seran"][0].data, image.data)


def test_a_series_is_one_layer(tmp_path: Path) -> None:
    volumes = np.stack([phantom((26, 34, 5), seed) for seed in (0, 1)], -1)
    nib.save(nib.Nifti1Image(volumes, oblique()), tmp_path / "series.nii")
    image = image_of(napari.read(str(tmp_path / "series.nii"))[0])
    assert image.data.shape == (2, 5, 34, 26)
    assert image.affine[0].tolist() == image.affine[:, 0].tolist() == [1, 0, 0, 0, 0]
    assert_placed(image, volumes[..., 0], oblique())
    for volume, scan in enumerate(image.metadata["seran"]):
        assert np.array_equal(scan.data, volumes[..., volume])
        assert napari._scan(image, volume) is scan
    with pytest.raises(BadInput, match="volume 2: must be from 0 to 1"):
        napari.sharpened(image, next(iter(napari.GRIDS)), True, 2)


def test_folders_without_dicom_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "page.tif").write_bytes(b"II*")
    assert napari.reader(str(tmp_path)) is None
    assert napari.reader([str(tmp_path), str(tmp_path)]) is None
    (tmp_path / "below" / "slice").write_bytes(bytes(128) + b"DICM")
    assert napari.reader(str(tmp_path)) is napari.read


def test_a_layer_becomes_what_the_library_makes_of_the_file(scan: Path) -> None:
    image = image_of(napari.read(str(scan))[0], contrast_limits=(3, 7))
    made = image_of(napari.sharpened(image, "twice as fine in the plane", True, 0))
    expected = seran.upscale(scan, scale=2, method="fast")
    (result,) = made.metadata["seran"]
    assert np.array_equal(result.data, expected.data)
    assert np.array_equal(result.affine, expected.affine)
    assert made.data.shape == (5, 68, 52)
    assert_placed(made, expected.data, expected.affine)
    assert made.metadata["record"]["Verdict"] == expected.record.verdict
    assert len(made.metadata["record"]["Checks"]) == len(expected.record.checks)
    assert (made.name, made.contrast_limits) == ("scan sharp", (3, 7))
    with pytest.raises(BadInput, match="a result of seran's"):
        napari.sharpened(made, "twice as fine in the plane", True, 0)


def test_a_layer_of_another_reader_stays_where_it_is(volume: Volume) -> None:
    """Also one of seran's that was moved since."""
    place = np.diag([3.3, 0.9, 0.8, 1.0])
    place[:3, 3] = 5, -7, 11
    other = {"name": "other", "axis_labels": ("z", "y", "x"), "units": ("mm",) * 3}
    image = image_of((np.ascontiguousarray(volume.data.T), {"affine": place, **other}, "image"))
    voxels, affine = napari._scan(image, 0)
    assert np.allclose(grid.spacing(affine), (3.3, 0.9, 0.8))
    made = image_of(napari.sharpened(image, "twice as fine in the plane", True, 0))
    expected = seran.upscale((voxels, affine), scale=2, method="fast")
    assert np.array_equal(made.data, expected.data)
    assert np.allclose(np.diag(made.affine)[:3], (3.3, 0.45, 0.4), atol=1e-9)
    assert_placed(made, expected.data, expected.affine)
    assert made.axis_labels == ("z", "y", "x")
    (moved,) = [image_of(napari._layer([api.Scan(volume)], name="moved"))]
    assert isinstance(napari._scan(moved, 0), api.Scan)
    moved.affine[0, 3] += 0.01
    assert isinstance(napari._scan(moved, 0), tuple)


@pytest.mark.parametrize(
    ("shape", "more", "said"),
    [
        ((8, 9), {}, "got 2-D"),
        ((8, 9, 10, 3), {"rgb": True, "ndim": 3}, "got 3-D, in colours"),
        ((8, 9, 10), {"multiscale": True}, "got 3-D, multiscale"),
    ],
)
def test_layers_that_are_no_scan_are_refused(shape: tuple[int, ...], more: dict[str, Any], said: str) -> None:
    image = SimpleNamespace(
        name="it", data=np.ones(shape), **{"ndim": len(shape), "rgb": False, "multiscale": False} | more
    )
    with pytest.raises(BadInput, match=f"^it: expected one 3-D image, or a series of them .4-D., {said}$"):
        napari.sharpened(image, next(iter(napari.GRIDS)), False, 0)


VIEWER = """
import json, sys, numpy
from napari.qt import get_qapp
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from qtpy.QtCore import QEventLoop

app = get_qapp()
PluginManager.instance().discover()
viewer = ViewerModel()
(image,) = viewer.open(sys.argv[1], plugin="seran")
corner = image.data_to_world([n - 1 for n in image.data.shape])
(offered,) = [one for one in PluginManager.instance().iter_widgets() if one.command == "seran.sharpen"]
widget = offered.get_callable()()
names = [part.name for part in widget]
widget.image.choices = [image]
waiting, got, notes = QEventLoop(), [], []
shown = notification_manager.notification_ready
shown.connect(lambda note: notes.append([note.severity.value, note.message]))
worker = widget(image=image, fast=True)
worker.returned.connect(got.append)
worker.finished.connect(waiting.quit)
waiting.exec()
(sharp,) = [viewer.add_image(got[0][0], **got[0][1])]
sharp.save(sys.argv[2], plugin="seran")
widget.image.choices = [sharp]
worker = widget(image=sharp, fast=True)
worker.finished.connect(waiting.quit)
waiting.exec()
sharp.translate = [0, 1, 0]
try:
    sharp.save(sys.argv[2], plugin="seran")
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
print(json.dumps([corner, names, sharp.name, notes, refused]))
"""


@pytest.mark.slow
def test_napari_opens_sharpens_and_saves(scan: Path, tmp_path: Path) -> None:
    """In a process of its own, because of its event loop, and without a window, which would need OpenGL."""
    if not (util.find_spec("napari") and util.find_spec("qtpy")):
        pytest.skip("napari is not installed: pip install napari PyQt6")
    out = tmp_path / "out.nii.gz"
    variables = os.environ | {
        "QT_QPA_PLATFORM": "offscreen",
        "NAPARI_CONFIG": str(tmp_path / "settings.yaml"),
    }
    words = [sys.executable, "-c", VIEWER, scan, out]
    done = subprocess.run(words, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stderr
    corner, names, name, notes, refused = json.loads(done.stdout.splitlines()[-1])
    last = oblique()[:3] @ [25, 33, 4, 1]
    assert np.abs(np.array(corner) - [last[2], -last[1], -last[0]]).max() < 1e-4
    assert names == ["image", "make", "fast", "volume", "call_button"]
    expected, held = seran.upscale(scan, scale=2, method="fast"), nib.load(out)
    assert np.array_equal(held.get_fdata(dtype=np.float32), expected.data)
    assert np.abs(held.affine - expected.affine).max() < 1e-4
    record = json.loads((tmp_path / "out.json").read_text())
    lines = [f"{c['name']}: {c['verdict']}, {c['text']}" for c in record["Checks"] if c["verdict"] != "PASS"]
    kind = {"PASS": "info", "FAIL": "error"}.get(record["Verdict"], "warning")
    assert name == "scan sharp"
    assert notes[0] == [kind, "\n".join([f"scan sharp: {record['Verdict']}", *lines])]
    assert len(notes) == 2
    assert notes[1][0] == "error"
    assert "a result of seran's" in notes[1][1]
    assert "expected one volume as seran read or made it" in refused
