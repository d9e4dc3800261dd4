import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

import seran
from seran import cli, files, machine, weights
from seran.apps import info as apps
from seran.job import record
from tests.conftest import oblique, phantom
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
    assert "sharpened" not in found
    assert "made_by_seran" not in found
    assert "described_volume" not in found
    assert "0.9 0.8 3.3" in told(capsys, scan)


def test_how_a_scan_is_read(capsys: pytest.CaptureFixture[str], scan: Path) -> None:
    """As upscale reads it; without a scan there is nothing to read."""
    found = json.loads(told(capsys, scan, "--json", "--plane", "coronal"))
    assert (found["plane"], found["slices_along"]) == ("coronal", 1)
    assert cli.run(["info", str(scan), "--volume", "2"]) == 2
    assert "--volume 2: " in capsys.readouterr().err
    assert cli.run(["info", "--volume", "2"]) == 2
    assert "seran info: expected a scan" in capsys.readouterr().err


def test_a_series_says_which_volume_is_described(
    capsys: pytest.CaptureFixture[str], unlike: Path, tmp_path: Path
) -> None:
    """The first that is not of one value, or the one that is named; what upscale finds of it is the same."""
    found = json.loads(told(capsys, unlike, "--json"))
    assert (found["volumes"], found["described_volume"], found["band_of_volumes"]) == (4, 1, [1, 2, 3])
    assert found["background"] == 0
    assert "described_volume 1\n" in told(capsys, unlike)
    noisy = json.loads(told(capsys, unlike, "--json", "--volume", "3"))
    assert "volumes" not in noisy
    assert (noisy["described_volume"], noisy["background"], noisy["noise_by"]) == (3, None, "air")
    assert "(measured in air)" in noisy["known"]["noise"]
    out = tmp_path / "out.nii"
    words = ["upscale", str(unlike), str(out), "--weights", "vdsr-x2-bd", "--strict", "off"]
    assert cli.run(words) == 0
    made = record.read(out)
    assert made is not None
    assert list(made.kspace_support) == found["kspace_support"]
    assert made.noise_range[1] == pytest.approx(noisy["noise"], rel=0.05)


def test_a_result_is_said_to_be_one(capsys: pytest.CaptureFixture[str], scan: Path, tmp_path: Path) -> None:
    """What would be measured on it is no scanner's doing; asked for, it is measured all the same."""
    out = tmp_path / "out.nii"
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic"]) == 0
    capsys.readouterr()
    found = json.loads(told(capsys, out, "--json"))
    assert found["made_by_seran"] == "bicubic, x2, from scan.nii.gz"
    assert "a result of seran's (by the record beside it)" in found["not_measured"]
    assert not {"kspace_support", "window", "noise", "known"} & set(found)
    taken = json.loads(told(capsys, out, "--json", "--no-label-check"))
    assert taken["made_by_seran"] == found["made_by_seran"]
    assert len(taken["kspace_support"]) == 2
    assert "not_measured" not in taken


def test_labels_are_described_and_not_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.round(phantom((26, 34, 5)) / 300), oblique()), tmp_path / "a_dseg.nii")
    found = json.loads(told(capsys, tmp_path / "a_dseg.nii", "--json"))
    assert found["shape"] == [26, 34, 5]
    assert found["not_measured"].startswith("expected an image, got what looks like labels")


def test_damaged_voxels_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = phantom((60, 54, 3))
    data[30, 30, 1] = 1e20
    nib.save(nib.Nifti1Image(data, oblique()), tmp_path / "a.nii")
    assert json.loads(told(capsys, tmp_path / "a.nii", "--json"))["damaged_voxels"] == 1


def test_the_filled_k_space_of_a_real_scan(capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    found = json.loads(told(capsys, shared / "val" / "openms_patient04_study1_FLAIR.nii.gz", "--json"))
    assert found["kspace_support"] == pytest.approx([0.76, 1.0], abs=0.05)
    assert found["known"]["k-space"].startswith("k-space is filled with zeros beyond 7")
    assert found["known"]["background"].startswith("a constant background of 0")


def test_the_series_of_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    named = {"Modality": "MR", "SeriesDescription": "t2\x1b[31m tse"}
    series(tmp_path / "a", DATA, oblique(), SeriesNumber=4, **named)
    series(tmp_path / "b", DATA, oblique(), SeriesNumber=11, SeriesInstanceUID="1.2.9", **named)
    *lines, hint = told(capsys, tmp_path).splitlines()
    assert hint == "name one with --series to have it measured"
    assert [line.split()[0] for line in lines] == ["4", "11"]
    assert "7 images" in lines[0]
    assert "\x1b" not in lines[0]
    assert json.loads(told(capsys, tmp_path, "--json"))["series"][1]["uid"] == "1.2.9"
    measured = json.loads(told(capsys, tmp_path, "--json", "--series", "11"))
    assert measured["shape"] == list(DATA.shape)
    assert len(measured["kspace_support"]) == 2
    first = json.loads(told(capsys, tmp_path / "a", "--json", "--volume", "0"))
    assert first["described_volume"] == 0
    assert cli.run(["info", str(tmp_path), "--volume", "0"]) == 2
    assert "choose one with --series NUMBER" in capsys.readouterr().err
    assert "7 images" in lines[1]
