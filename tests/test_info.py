import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import seran
from seran import cli, files, machine, weights
from seran.apps import info as apps
from tests.conftest import oblique
from tests.test_dicom import DATA, series


def told(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert cli.run(["info", *map(str, args)]) == 0
    return capsys.readouterr().out


def test_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, "--json"))
    assert found["seran"] == seran.__version__
    assert found["cpus"] >= 1
    assert len(found["weights"]["seran-x2-bd"]["sha256"]) == 64
    assert found["packages"]["numpy"] == np.__version__
    assert set(found["extras"]) == {"train", "cluster", "dicom", "winograd"}
    assert found["extras"]["dicom"] == "installed"
    assert found["engines"]["openvino"]["devices"]["cpu"]
    assert found["engines"]["openvino"]["precision"] in ("bf16", "f32")
    assert found["engines"]["torch"]["version"].startswith("2.")
    for name, (size, digest) in weights.listed().items():
        kept = found["weights"][name]
        assert (kept["verified"], kept["state"], kept["bytes"]) == (True, "with the package", size)
        assert kept["file_sha256"] == digest == files.sha256(weights.at_hand()[name])
    assert found["weights"]["seran-x2-bd"]["sha256"] in told(capsys)


def test_a_broken_installation_is_described(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That is what it is for: damaged and absent weights, a PyTorch that does not load, extras that lack."""
    kept = dict(weights.shipped())
    kept["srcnn-x2-bd"] = tmp_path / "srcnn-x2-bd.onnx"
    kept["srcnn-x2-bd"].write_bytes(weights.shipped()["srcnn-x2-bd"].read_bytes()[:-1] + b"!")
    del kept["vdsr-x2-bd"]
    monkeypatch.setattr(weights, "shipped", lambda: kept)
    monkeypatch.setenv("SERAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "EXTRAS", {"dicom": ("gdcm", "no_such_module")})

    def broken(name: str) -> None:
        raise OSError(f"lib{name}.so: cannot open shared object file")

    monkeypatch.setattr(apps, "importlib", SimpleNamespace(import_module=broken))
    found = apps.installation()
    assert found["weights"]["srcnn-x2-bd"]["verified"] is False
    assert found["weights"]["srcnn-x2-bd"]["state"].startswith("damaged: ")
    assert found["weights"]["vdsr-x2-bd"]["state"] == "not here"
    assert found["extras"] == {"dicom": "lacks no_such_module"}
    assert "libtorch.so: cannot open" in found["engines"]["torch"]["devices"]["none"]


def test_a_scan(capsys: pytest.CaptureFixture[str], scan: Path) -> None:
    found = json.loads(told(capsys, scan, "--json"))
    assert found["shape"] == [26, 34, 5]
    assert found["voxel_mm"] == [0.9, 0.8, 3.3]
    assert (found["volumes"], found["slices_along"], found["plane"]) == (1, 2, "axial")
    assert "0.9 0.8 3.3" in told(capsys, scan)


def test_the_filled_k_space_of_a_real_scan(capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    found = json.loads(told(capsys, shared / "val" / "openms_patient04_study1_FLAIR.nii.gz", "--json"))
    assert found["kspace_support"] == pytest.approx([0.76, 1.0], abs=0.05)
    assert found["known"]["k-space"].startswith("k-space is filled with zeros beyond 7")
    assert found["known"]["background"].startswith("a constant background of 0")


def test_the_series_of_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    named = {"Modality": "MR", "SeriesDescription": "t2\x1b[31m tse"}
    series(tmp_path / "a", DATA, oblique(), SeriesNumber=4, **named)
    series(tmp_path / "b", DATA, oblique(), SeriesNumber=11, SeriesInstanceUID="1.2.9", **named)
    lines = told(capsys, tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["4", "11"]
    assert "7 images" in lines[0]
    assert "\x1b" not in lines[0]
    assert json.loads(told(capsys, tmp_path, "--json"))["series"][1]["uid"] == "1.2.9"
