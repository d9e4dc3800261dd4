"""What is taken for a segmentation, and what is not."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli, io
from seran.errors import BadInput
from seran.io.itk import Kept
from seran.job import labels
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_formats import save

IMAGE = phantom((26, 34, 5)).astype(np.int16)
PARTS = np.round(phantom((26, 34, 5)) / 150).astype(np.uint8)
"""A background and a handful of regions."""


def refused(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    out = path.parent / "out.nii"
    assert cli.run(["upscale", str(path), str(out), "--method", "bicubic", *more]) == 2
    assert not out.exists()
    return capsys.readouterr().err


@pytest.mark.parametrize("end", [".nii.gz", ".img", ".mgz", ".nrrd", ".mha"])
def test_a_few_whole_numbers_are_labels_unless_the_user_says_otherwise(
    end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(PARTS, oblique(), tmp_path / f"in{end}")
    said = refused(path, capsys)
    assert f"{len(np.unique(PARTS))} different whole numbers" in said
    assert "nearest neighbour" in said
    out = tmp_path / "out.nii"
    assert cli.run(["upscale", str(path), str(out), "--method", "bicubic", "--no-label-check"]) == 0
    assert io.read(out).data.shape == (52, 68, 5)


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_desc-aseg_dseg.nii.gz", "sub-01_label-GM_mask.nii.gz", "mask.nii", "T1w_brain_mask.nii.gz",
        "aseg.mgz", "aparc+aseg.mgz", "case.seg.nrrd", "lesion-Label.mha",
    ],
)  # fmt: skip
def test_names_of_segmentations(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "its name ends in" in refused(save(IMAGE, oblique(), tmp_path / name), capsys)


@pytest.mark.parametrize(
    "name", ["brainmask.mgz", "sub-01_T1w.nii.gz", "masked.nii", "T1.mgz", "segments.mha"]
)
def test_names_of_images(name: str, tmp_path: Path) -> None:
    """FreeSurfer's brainmask is a scan without its skull."""
    path = save(IMAGE, oblique(), tmp_path / name)
    labels.refuse_labels(path, io.read(path))


def test_headers_of_segmentations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = nib.Nifti1Image(IMAGE, oblique())
    image.header.set_intent("label")
    nib.save(image, tmp_path / "a.nii")
    assert "its intent is label" in refused(tmp_path / "a.nii", capsys)
    with pytest.raises(BadInput, match="its header lists segments"):
        labels.refuse_labels(
            tmp_path / "a.nrrd", Volume(IMAGE.astype(np.float32), oblique(), Kept({"Segment0_ID": "1"}))
        )


def test_what_has_few_values_and_is_an_image() -> None:
    """All alike, one bright voxel, numbers that are not whole, or negative, or in more than a few steps."""
    bright = np.zeros((26, 34, 5), np.float32)
    bright[12, 15, 2] = 1000
    steps = (np.arange(26 * 34 * 5) % 17).reshape(26, 34, 5).astype(np.float32)
    halves = PARTS.astype(np.float32) + np.float32(0.5)
    for data in (np.full((26, 34, 5), 7, np.float32), bright, steps, halves, PARTS.astype(np.float32) - 1):
        labels.refuse_labels(Path("a.nii"), Volume(data, oblique()))


def test_a_scan_on_disk_is_judged_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels.scratch, "PART", 4 * 1500)
    with pytest.raises(BadInput, match="different whole numbers"):
        labels.refuse_labels(Path("a.nii"), Volume(PARTS.astype(np.float32), oblique()))
    late = PARTS.astype(np.float32)
    late[-1, -1, -1] = 0.25
    labels.refuse_labels(Path("a.nii"), Volume(late, oblique()))


@pytest.mark.slow
def test_no_real_scan_is_taken_for_one(shared: Path) -> None:
    with (shared / "MANIFEST.csv").open() as file:
        paths = [shared / row["path"] for row in csv.DictReader(file)]
    for path in paths:
        if path.is_file():
            labels.refuse_labels(path, next(io.read_series(path, "either", 0.0).volumes))
