"""What is taken for a segmentation, for phase or for a result, and what is not."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import seran
from seran import cli, io
from seran.errors import BadInput
from seran.io.itk import Kept
from seran.job import labels
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_dicom import DATA, series
from tests.test_formats import save

IMAGE = phantom((26, 34, 5)).astype(np.int16)
PARTS = np.round(phantom((26, 34, 5)) / 150).astype(np.uint8)
"""A background and a handful of regions."""
MANY = (PARTS.astype(np.int32) * 1000 + (np.indices((26, 34, 5)) // 9).sum(0)).astype(np.int16)
"""Patches of many regions, as a parcellation has them."""


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
    assert f"{len(np.unique(PARTS))} different values" in said
    assert "seran resample LABELS OUT --like SHARP" in said
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
    labels.refuse_other_kinds(path, io.read(path))


def test_headers_of_segmentations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for intent in ("label", "neuroname"):
        image = nib.Nifti1Image(IMAGE, oblique())
        image.header.set_intent(intent)
        nib.save(image, tmp_path / "a.nii")
        assert f"its intent is {intent}" in refused(tmp_path / "a.nii", capsys).lower()
    with pytest.raises(BadInput, match="its header lists segments"):
        labels.refuse_other_kinds(
            tmp_path / "a.nrrd", Volume(IMAGE.astype(np.float32), oblique(), Kept({"Segment0_ID": "1"}))
        )


def test_what_has_few_values_and_is_an_image() -> None:
    """All alike, one bright voxel, or more than a few values of noise."""
    bright = np.zeros((26, 34, 5), np.float32)
    bright[12, 15, 2] = 1000
    noise = np.random.default_rng(0).normal(0, 3, (26, 34, 5)).round().astype(np.float32)
    for data in (np.full((26, 34, 5), 7, np.float32), bright, noise):
        labels.refuse_other_kinds(Path("a.nii"), Volume(data, oblique()))


@pytest.mark.parametrize("parts", [PARTS, MANY], ids=["few", "many"])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_labels_that_were_scaled_to_fit_their_type(
    parts: np.ndarray, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As nibabel saves numbers of double precision: not one of them is whole any more."""
    image = nib.Nifti1Image(parts.astype(float), oblique())
    image.set_data_dtype(dtype)
    image.to_filename(tmp_path / "in.nii")
    stored = nib.load(tmp_path / "in.nii").get_fdata()
    assert (stored[parts > 0] != np.rint(stored[parts > 0])).any()
    assert "what looks like labels" in refused(tmp_path / "in.nii", capsys)


@pytest.mark.parametrize(
    "data",
    [PARTS.astype(np.float32) - 1, np.sign(PARTS - 2.0), (PARTS > 1) * 0.5, -PARTS / 7.0],
    ids=["background -1", "signs", "halves", "sevenths"],
)
def test_labels_below_zero_or_between_whole_numbers(data: np.ndarray) -> None:
    with pytest.raises(BadInput, match=f"labels .{len(np.unique(data))} different values"):
        labels.refuse_other_kinds(Path("a.nii"), Volume(data.astype(np.float32), oblique()))


def test_a_scan_on_disk_is_judged_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels.scratch, "PART", 4 * 1500)
    with pytest.raises(BadInput, match="different values"):
        labels.refuse_other_kinds(Path("a.nii"), Volume(PARTS.astype(np.float32), oblique()))
    late = np.random.default_rng(0).normal(8, 4, (26, 34, 5)).round().clip(1, 16).astype(np.float32)
    with pytest.raises(BadInput, match="16 different values"):
        labels.refuse_other_kinds(Path("a.nii"), Volume(late, oblique()))
    late[-1, -1, -2:] = 99
    labels.refuse_other_kinds(Path("a.nii"), Volume(late, oblique()))


def test_many_labels_are_known_by_their_patches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than 16, under the names that tools give; a coarser one needs a name that hints at it."""
    assert len(np.unique(MANY)) > labels.FEW
    for name in ("T1w_synthseg.nii.gz", "aparc.DKTatlas+aseg.deep.mgz", "AAL116.nii", "scan.nrrd"):
        said = refused(save(MANY, oblique(), tmp_path / name), capsys)
        assert "got what looks like labels (8" in said
    coarse = Volume(MANY[::3, ::3].astype(np.float32), oblique())
    labels.refuse_other_kinds(Path("scan.nii"), coarse)
    with pytest.raises(BadInput, match="like their neighbour"):
        labels.refuse_other_kinds(Path("scan_parc.nii"), coarse)


def phase(low: float, high: float, air: float | None = None) -> np.ndarray:
    """A slope that wraps in every direction, with noise in air, or one value (a part of the range)."""
    x, y, z = np.indices(IMAGE.shape)
    noise = np.random.default_rng(0).uniform(0, 1, IMAGE.shape)
    turns = np.where(IMAGE > 0, x * 0.1431 + y * 0.0317 + z * 0.0203, noise if air is None else air) % 1
    return (low + turns * (high - low)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.nii", phase(-np.pi, np.pi), "its values fill -3.1"),
        ("a.mgz", phase(-4096, 4096).round(), "its values fill -409"),
        ("a.nii", phase(-np.pi, np.pi, 0.5), "its values fill -3.1"),
        ("a.nii", phase(-180, 180), "its values fill -179"),
        *(
            ("a.nii", phase(0, high, air), "of its neighbours lie more than half the range apart")
            for high in (4095.0, 2 * np.pi, 360.0, 1.0)
            for air in (None, 0.0)
        ),
        *(("a.nii", phase(-1, 1, air), "of its neighbours lie more") for air in (None, 0.0)),
        ("a_e1_ph.nii", phase(-700, 700), "its name, and values below 0"),
        ("sub-1_part-phase_T2w.nii", IMAGE, "its name says part-phase"),
        ("sub-1_part-real_bold.nii", IMAGE, "its name says part-real"),
        ("sub-1_phasediff.nii.gz", IMAGE, "its name says phasediff"),
    ],
)
def test_phase(
    name: str, data: np.ndarray, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(data, oblique(), tmp_path / name)
    said = refused(path, capsys)
    assert why in said
    assert "--volume chooses one), or give --no-label-check" in said
    for magnitude in ("acr_ph.nii", "arterial_phase.nii"):
        labels.refuse_other_kinds(Path(magnitude), Volume(IMAGE.astype(np.float32), oblique()))


@pytest.mark.parametrize(("kind", "name"), [(["DERIVED"], "M"), (["ORIGINAL", "PRIMARY", "P"], "P")])
def test_phase_in_dicom(
    kind: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series(tmp_path / "in", DATA, oblique(), Modality="MR", ImageType=kind)
    status = cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "out.nii"), "--method", "bicubic"])
    assert (status == 2) == (name == "P")
    assert ("its DICOM header says P" in capsys.readouterr().err) == (name == "P")


def test_results_of_seran_are_no_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their record, by the name that BIDS results have, and by what DICOM says."""
    scan, first = save(IMAGE, oblique(), tmp_path / "scan.nii"), tmp_path / "first.nii"
    assert cli.run(["upscale", str(scan), str(first), "--method", "bicubic"]) == 0
    assert "a result of seran's (by the record beside it)" in refused(first, capsys)
    named = save(IMAGE, oblique(), tmp_path / "sub-1_res-x2_desc-seran_T1w.nii")
    assert "a result of seran's (its name says desc-seran); sharpen the scan" in refused(named, capsys)
    series(tmp_path / "in", DATA, oblique(), Modality="MR")
    assert cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "sharp"), "--method", "bicubic"]) == 0
    (tmp_path / "sharp").rename(tmp_path / "moved")
    assert "a result of seran's (its DICOM header says so)" in refused(tmp_path / "moved", capsys)
    assert cli.run(["upscale", str(first), str(tmp_path / "again.nii"), "--no-label-check"]) == 0
    sharp = seran.upscale(scan, method="bicubic")
    for again in (sharp, first):
        with pytest.raises(BadInput, match="by the record"):
            seran.upscale(again, method="bicubic")
    assert seran.upscale(sharp, method="bicubic", label_check=False).record.sharpened


@pytest.mark.slow
def test_no_real_scan_is_taken_for_one(shared: Path) -> None:
    """As it is stored, and rounded to 8 bits, also of what is cut off where few voxels are brighter."""
    rows = []
    for name in ("MANIFEST.csv", "NATIVE.csv"):
        with (shared / name).open() as file:
            rows += csv.DictReader(file)
    for path in filter(Path.is_file, (shared / row["path"] for row in rows)):
        volume = next(io.read_series(path, "either", 0.0).volumes)
        labels.refuse_other_kinds(path, volume)
        low, few = volume.data.min(), np.percentile(volume.data[::3, ::3, ::3], 98)
        for high in (volume.data.max(), few):
            rounded = np.rint((volume.data.clip(max=high) - low) / (high - low) * 255)
            labels.refuse_other_kinds(path, volume.on(rounded, volume.affine))
