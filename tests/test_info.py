import json
from pathlib import Path

import pytest

import seran
from seran import cli
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
    assert "cpu" in found["devices"]
    assert found["weights"]["seran-x2-bd"]["sha256"] in told(capsys)


def test_a_scan(capsys: pytest.CaptureFixture[str], scan: Path) -> None:
    found = json.loads(told(capsys, scan, "--json"))
    assert found["shape"] == [26, 34, 5]
    assert found["voxel_mm"] == [0.9, 0.8, 3.3]
    assert (found["volumes"], found["slices_along"], found["plane"]) == (1, 2, "axial")
    assert "0.9 0.8 3.3" in told(capsys, scan)


def test_the_filled_k_space_of_a_real_scan(capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    found = json.loads(told(capsys, shared / "val" / "openms_patient04_study1_FLAIR.nii.gz", "--json"))
    assert sorted(found["kspace_support"]) == pytest.approx([0.6, 0.9], abs=0.07)


def test_the_series_of_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    named = {"Modality": "MR", "SeriesDescription": "t2\x1b[31m tse"}
    series(tmp_path / "a", DATA, oblique(), SeriesNumber=4, **named)
    series(tmp_path / "b", DATA, oblique(), SeriesNumber=11, SeriesInstanceUID="1.2.9", **named)
    lines = told(capsys, tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["4", "11"]
    assert "7 images" in lines[0]
    assert "\x1b" not in lines[0]
    assert json.loads(told(capsys, tmp_path, "--json"))["series"][1]["uid"] == "1.2.9"
