import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

import seran
from seran import cli, files, machine, weights
from seran.acquisition import Acquisition
from seran.apps import info as apps
from seran.io import dicom
from seran.io.dicom import Matrix
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
    assert found["not_measured"].startswith("it is a result of seran's (by the record beside it); ")
    assert not {"kspace_support", "window", "noise", "known"} & set(found)
    taken = json.loads(told(capsys, out, "--json", "--no-label-check"))
    assert taken["made_by_seran"] == found["made_by_seran"]
    assert len(taken["kspace_support"]) == 2
    assert "not_measured" not in taken


def test_how_many_thin_slices_were_made(
    capsys: pytest.CaptureFixture[str], scan: Path, tmp_path: Path
) -> None:
    """A result of --isotropic is told by them, not by the factor in the plane."""
    out = tmp_path / "out.nii"
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic"]) == 0
    made = record.read(out)
    assert made is not None
    facts = {"slice_factor": 5, "slice_profile": "slr:0.8", "slice_thickness_by": "header"}
    grids = {"shape_before": (9, 9, 12), "shape_after": (9, 9, 57), "voxel_size_before": (1.0, 1.0, 4.8)}
    thin = replace(made, scale=1, **facts, **grids)
    thin.write(record.sidecar(out))
    capsys.readouterr()
    found = json.loads(told(capsys, out, "--json"))
    assert found["made_by_seran"] == "bicubic, 4.75 thin slices for each thick one, from scan.nii.gz"
    words = "4.75 thin slices estimated for each thick one, resampled from 5 (3.84 mm thick, by the header; "
    assert thin.thin.startswith(words)


def test_labels_are_described_and_not_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.round(phantom((26, 34, 5)) / 300), oblique()), tmp_path / "a_dseg.nii")
    found = json.loads(told(capsys, tmp_path / "a_dseg.nii", "--json"))
    assert found["shape"] == [26, 34, 5]
    assert found["not_measured"].startswith("it looks like labels (its name ends in dseg); ")


def filled(folder: Path, rows: int, columns: int, **tags: Any) -> None:
    """A DICOM series whose k-space is filled with zeros beyond some samples along rows and along columns."""
    size, rng = (96, 80), np.random.default_rng(3)
    slices = [phantom((96, 80), seed) for seed in range(12)]
    full = np.stack(slices) + rng.normal(0, 6, (12, *size)) + 1j * rng.normal(0, 6, (12, *size))
    made = np.abs(Acquisition((rows, columns), given=size).linear(full))
    series(folder, np.rint(np.moveaxis(made, 0, 2)).astype(np.int16), oblique(), Modality="MR", **tags)


@pytest.mark.parametrize(("rows", "columns"), [(60, 80), (96, 48)])
def test_the_matrix_of_a_dicom_header(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, rows: int, columns: int
) -> None:
    """Beside what is measured, along the same axes as --acquired; with a word where they differ."""
    phase = rows < 96  # along rows, else along columns
    four = [0, columns, rows, 0] if phase else [rows, 0, 0, columns]
    said = {"AcquisitionMatrix": four, "InPlanePhaseEncodingDirection": "ROW" if phase else "COL"}
    filled(tmp_path / "in", rows, columns, **said, PercentSampling=80)
    found = json.loads(told(capsys, tmp_path / "in", "--json"))
    seen = [rows / 96, columns / 80]
    assert found["kspace_support"] == pytest.approx(seen, abs=0.03)
    np.testing.assert_allclose(found["acquired_mm"], [0.9 / seen[0], 0.8 / seen[1]], rtol=0.04)
    assert found["header_matrix"] == [rows, columns]
    words = (
        "60 of 96 along rows (phase encoding) and 80 of 80 along columns were measured",
        "96 of 96 along rows and 48 of 80",
    )
    assert words[not phase] in found["known"]["header"]
    assert "(PercentSampling 80)" in found["known"]["header"]
    assert "not what is seen" not in found["known"]["header"]
    filled(tmp_path / "in", 96, 80, **said)
    found = json.loads(told(capsys, tmp_path / "in", "--json"))
    assert found["known"]["k-space"] == "no end of k-space is seen (taken as all of it measured)"
    assert f"unless --acquired {seen[0]:.3g} {seen[1]:.3g} states it" in found["known"]["header"]


def test_a_matrix_that_cannot_be_is_none(tmp_path: Path) -> None:
    data = phantom((26, 34, 1))
    [path] = series(tmp_path, data, oblique(), AcquisitionMatrix=[26, 0, 0, 17])
    assert dicom.matrix(path) == Matrix((26, 17), (26, 34), 1, None)
    for lie in ([26, 17, 0, 0], [26, 0, 17, 0], [0, 0, 0, 0], [1, 2]):
        [path] = series(tmp_path, data, oblique(), AcquisitionMatrix=lie)
        assert dicom.matrix(path) is None


def test_thirds_of_a_scan_say_how_sure_its_noise_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Noise of one level everywhere, and of another in the last third."""
    stack = np.stack([phantom((96, 80), seed) for seed in range(12)], 2)
    rng = np.random.default_rng(0)
    for last, words in ((6.0, "%: they agree"), (30.0, "%: they differ, so it is uncertain")):
        sd = np.where(np.arange(12) < 8, 6.0, last)
        data = np.hypot(stack + rng.normal(0, sd, stack.shape), rng.normal(0, sd, stack.shape))
        nib.save(nib.Nifti1Image(data.astype(np.float32), oblique()), tmp_path / "a.nii")
        found = json.loads(told(capsys, tmp_path / "a.nii", "--json"))
        assert found["measured_slices"] == "12 of 12"
        assert words in found["known"]["thirds"]
        for one, expected in zip(found["thirds"], (6, 6, last), strict=True):
            assert one["image_noise"] == pytest.approx(expected / np.percentile(data, 99.9), rel=0.25)
    assert "thirds           each third" in told(capsys, tmp_path / "a.nii")


def test_how_far_slices_are_off_an_even_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = series(tmp_path, phantom((26, 34, 5)).astype(np.int16), oblique(), Modality="MR")
    header = pydicom.dcmread(paths[2])
    header.ImagePositionPatient[0] += 0.05
    header.save_as(paths[2])
    assert json.loads(told(capsys, tmp_path, "--json"))["off_even_mm"] == pytest.approx(0.05, abs=1e-4)


def test_how_the_series_of_a_study_lie(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Plane, matrix, pixels, thickness and distance of each; a header that does not say it is no error."""
    data, affine = phantom((26, 34, 5)).astype(np.int16), np.diag([0.9, 0.8, 3.3, 1])
    series(tmp_path / "a", data, affine, Modality="MR", SeriesNumber=2, SliceThickness=3)
    turned = affine[:, [1, 2, 0, 3]] @ np.diag([1, 1, 3, 1])
    more = {"Modality": "MR", "SeriesNumber": 10, "SeriesInstanceUID": "1.2.9", "SliceThickness": None}
    series(tmp_path / "b", data, turned, **more, SeriesDescription="t2 tse")
    first, second = json.loads(told(capsys, tmp_path, "--json"))["series"]
    assert (first["plane"], first["matrix"], first["pixel_mm"]) == ("axial", [26, 34], [0.9, 0.8])
    assert (first["thickness_mm"], first["distance_mm"]) == (3, 3.3)
    assert (second["plane"], second["pixel_mm"], second["distance_mm"]) == ("sagittal", [0.8, 3.3], 2.7)
    assert "thickness_mm" not in second
    shown = told(capsys, tmp_path).splitlines()
    told_of = "2 5 images axial 26x34 0.9x0.8 mm 3 mm thick 3.3 mm apart"
    assert " ".join(shown[0].split()) == told_of
    assert shown[1].index("t2 tse") > len(shown[0])


@pytest.mark.parametrize(("text", "shown"), [("1e308", "1e+308"), ("0", "0"), ("-2", "-2")])
def test_pixels_of_no_size_are_told_of_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, shown: str
) -> None:
    """In the list of a study's series, and where the series is described or sharpened."""
    data = phantom((26, 34, 5)).astype(np.int16)
    series(tmp_path / "in" / "a", data, oblique(), Modality="MR", SeriesNumber=2, PixelSpacing=[text, text])
    why = f"expected PixelSpacing of 0.0001 to 10000 mm, got {shown} x {shown}; correct its header"
    for words in (["info"], ["upscale", str(tmp_path / "out.nii")]):
        assert cli.run([words[0], str(tmp_path / "in"), *words[1:]]) == 2
        assert capsys.readouterr().err == f"seran: {tmp_path / 'in' / 'a' / '0000.dcm'}: {why}\n"
    more = {"Modality": "MR", "SeriesNumber": 10, "SeriesInstanceUID": "1.2.9"}
    series(tmp_path / "in" / "b", data, oblique(), **more)
    first, second = json.loads(told(capsys, tmp_path / "in", "--json"))["series"]
    assert (first["fault"], "pixel_mm" in first) == (why, False)
    assert "fault" not in second
    assert told(capsys, tmp_path / "in").splitlines()[0].endswith(why)


def test_the_folder_that_one_is_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no name as it is given: described, and sharpened."""
    data = phantom((26, 34, 5)).astype(np.int16)
    series(tmp_path / "in" / "a", data, oblique(), Modality="MR", SeriesNumber=2)
    for here, path in (("in", "."), ("in/a", "..")):
        monkeypatch.chdir(tmp_path / here)
        capsys.readouterr()
        assert json.loads(told(capsys, path, "--json"))["shape"] == [26, 34, 5]
        out = str(tmp_path / "out.nii")
        assert cli.run(["upscale", path, out, "--method", "bicubic", "--strict", "off", "--force"]) == 0
    monkeypatch.chdir(tmp_path / "in")
    assert cli.run(["upscale", ".", out, "--method", "bicubic", "--strict", "off", "--force"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["Input"] == "in"


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
