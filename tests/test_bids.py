"""A BIDS data set in, a derivative data set out that the official validator accepts."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files, weights
from seran.apps import bids as bids_app
from seran.engines import Engine
from seran.job import dataset
from seran.job.options import Options, ReadOptions, Scanner, Target
from tests.conftest import oblique, phantom

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def save(path: Path, seed: int, shape: tuple[int, ...] = (26, 22, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(phantom(shape, seed), oblique())
    image.header.set_xyzt_units("mm", "sec")
    if len(shape) == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], 2.0))
    image.set_qform(oblique(), 1)
    image.set_sform(oblique(), 1)
    nib.save(image, path)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two participants, one of them seen twice; metadata at three levels; what is not to be sharpened."""
    root = tmp_path / "raw"
    for i, name in enumerate(
        (
            "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
            "sub-01/ses-a/anat/sub-01_ses-a_acq-ax_run-2_T2w.nii.gz",
            "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii",
            "sub-02/anat/sub-02_FLAIR.nii.gz",
            "sub-02/anat/sub-02_part-phase_T2w.nii.gz",
        )
    ):
        save(root / name, i)
    save(root / "sub-02" / "func" / "sub-02_task-rest_bold.nii.gz", 7, (20, 22, 4, 3))
    told = {
        "dataset_description.json": {
            "Name": "made",
            "BIDSVersion": "1.10.0",
            "License": "CC0",
            "Authors": ["Ada"],
        },
        "T1w.json": {"MagneticFieldStrength": 1.5, "EchoTime": 0.004, "Manufacturer": "none"},
        "sub-01/sub-01_T1w.json": {"EchoTime": 0.005},
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.json": {"MagneticFieldStrength": 3, "AcquisitionMatrixPE": 22},
        "sub-02/anat/sub-02_part-phase_T2w.json": {"Units": "rad"},
        "sub-02/func/sub-02_task-rest_bold.json": {"TaskName": "rest", "RepetitionTime": 2.0},
    }
    for name, content in told.items():
        (root / name).write_text(json.dumps(content))
    (root / "README").write_text("Made for tests; nothing in it was measured.\n")
    return root


def run(*args: object) -> int:
    return cli.run(["bids", *map(str, args), "--method", "bicubic"])


def images(out: Path) -> dict[str, str]:
    return {p.relative_to(out).as_posix(): files.sha256(p) for p in sorted(out.rglob("*.nii*"))}


def test_names_and_metadata(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(raw, out, "participant") == 0
    assert "4 sharpened, 0 there already, 0 failed" in capsys.readouterr().out
    assert list(images(out)) == [
        "sub-01/ses-a/anat/sub-01_ses-a_acq-ax_run-2_res-x2_desc-bicubic_T2w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_res-x2_desc-bicubic_T1w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_res-x2_desc-bicubic_T1w.nii",
        "sub-02/anat/sub-02_res-x2_desc-bicubic_FLAIR.nii.gz",
    ]
    told = json.loads((out / "sub-01/ses-b/anat/sub-01_ses-b_res-x2_desc-bicubic_T1w.json").read_text())
    assert told["Sources"] == ["bids:raw:sub-01/ses-b/anat/sub-01_ses-b_T1w.nii"]
    assert (told["MagneticFieldStrength"], told["EchoTime"], told["Manufacturer"]) == (3, 0.005, "none")
    assert told["SkullStripped"] is False
    assert told["SpatialReference"] == "orig"
    assert told["Resolution"] == "2 times the input's matrix in the plane of the slices"
    assert "AcquisitionMatrixPE" not in told  # no longer true
    assert told["Description"] == "Sharpened by Bicubic [2D]. Not for diagnosis."
    assert "network" not in (out / "README.md").read_text() + (out / "descriptions.tsv").read_text()
    described = json.loads((out / "dataset_description.json").read_text())
    link = out / described["DatasetLinks"]["raw"]
    assert (link / told["Sources"][0].removeprefix("bids:raw:")).is_file()
    assert described["License"] == "CC0"
    assert described["Authors"] == ["Ada"]


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["beside", "in derivatives"])
def test_the_official_validator_accepts_it(raw: Path, stub: Path, tmp_path: Path, inside: bool) -> None:
    out = raw / "derivatives" / "seran" if inside else tmp_path / "out"
    assert run(raw, out, "participant") == 0
    finer = ("--suffix", "bold", "--spacing", "0.5", "--strict", "off")  # bicubic leaves too much of it
    assert run(raw, out, "participant", *finer) == 0
    assert run(raw, out, "participant", "--plane", "axial", "--dtype", "uint16") == 0
    (out / ".bidsignore").write_text("group.*\n")  # of an earlier version
    assert run(raw, out, "participant", "--report") == 0
    (out / "logs").mkdir(exist_ok=True)
    (out / "logs" / "a.txt").write_text("of a scan that failed")
    assert run(raw, out, "group") == 0
    for root in (raw, out):
        done = subprocess.run([VALIDATOR, "--json", root], capture_output=True, text=True, timeout=300)
        found = json.loads(done.stdout)["issues"]["issues"]
        assert [i for i in found if i["severity"] == "error"] == [], root
        assert done.returncode == 0
    # That it would have found a fault: without what is required of `res-`.
    path = next(out.rglob("*_FLAIR.json"))
    told = json.loads(path.read_text())
    del told["Resolution"], told["SkullStripped"]
    path.write_text(json.dumps(told))
    done = subprocess.run([VALIDATOR, "--json", out], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "SkullStripped" in done.stdout


@pytest.mark.slow
def test_slices_made_thin_join_results_of_another_grid(raw: Path, tmp_path: Path) -> None:
    """One label, one description, whatever the grid: also for the official validator."""
    out = tmp_path / "out"
    words = ["bids", str(raw), str(out), "participant", "--participant-label", "02", "--strict", "off"]
    assert cli.run(words) == 0
    described = (out / "descriptions.tsv").read_text()
    assert cli.run([*words, "--isotropic"]) == 0
    assert [Path(name).name for name in images(out)] == [
        "sub-02_res-iso_desc-seran_FLAIR.nii.gz",
        "sub-02_res-x2_desc-seran_FLAIR.nii.gz",
    ]
    assert (out / "descriptions.tsv").read_text() == described
    thin, finer = (json.loads(path.read_text()) for path in sorted(out.rglob("*_FLAIR.json")))
    assert thin["Description"] == finer["Description"] == described.splitlines()[1].split("\t")[1]
    assert thin["Resolution"].startswith("thick slices made thin: voxels of about the finest spacing")
    done = subprocess.run([VALIDATOR, "--json", out], capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)["issues"]["issues"]
    assert [i["code"] for i in found if i["severity"] == "error"] == []


def test_labels_are_described_once_and_only_with_a_result(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(b"nothing")
    words = (raw, out, "participant", "--participant-label", "02")
    assert run(*words) == 1
    assert not (out / "descriptions.tsv").exists()
    (out / "descriptions.tsv").write_text("desc_id\tdescription\ndesc-bicubic\tof 0.1\ndesc-mine\tmine\n")
    image.write_bytes(whole)
    assert run(*words) == 0
    assert (out / "descriptions.tsv").read_text().splitlines() == [
        "desc_id\tdescription",
        "desc-bicubic\tSharpened by Bicubic [2D]. Not for diagnosis.",
        "desc-mine\tmine",
    ]


def test_descriptions_have_one_line_each(tmp_path: Path) -> None:
    """Whatever the file of the weights is called."""
    for i, name in enumerate(("a\tb.onnx", "new\nline.onnx", "next\u2028.onnx", "\udcff.onnx")):
        bids_app._list(
            tmp_path, dataset.Naming("x2", "2", f"seran{i}", f"weights {name}. Not for diagnosis."), ()
        )
    lines = (tmp_path / "descriptions.tsv").read_text("utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["desc_id", *(f"desc-seran{i}" for i in range(4))]
    assert all(len(line.split("\t")) == 2 for line in lines)


def test_participants_sessions_and_suffixes(raw: Path, tmp_path: Path) -> None:
    def chosen(*args: str) -> list[str]:
        out = tmp_path / "-".join(args)
        assert run(raw, out, "participant", *args) == 0
        return [Path(name).name.split("_res-")[0] for name in images(out)]

    assert chosen("--participant-label", "02") == ["sub-02"]
    assert chosen("--participant_label", "sub-01", "02", "--suffix", "FLAIR") == ["sub-02"]
    assert chosen("--session-label", "a") == ["sub-01_ses-a_acq-ax_run-2", "sub-01_ses-a"]
    assert chosen("--suffix", "bold") == ["sub-02_task-rest"]


def test_what_is_done_is_told_scan_by_scan_in_the_log(
    raw: Path, stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there already, pages that are made later, the matrix and the engine; no Python."""
    out, log = tmp_path / "out", tmp_path / "log"
    save(raw / "sub-02" / "anat" / "sub-02_inplaneT2.nii.gz", 8)
    words = [raw, out, "participant", "--participant-label", "02"]
    assert cli.run(["bids", *map(str, words), "--fast", "--strict", "off", "--log", str(log)]) == 0
    assert (
        "seran: 2 images of other suffixes were not asked for (bold, inplaneT2)\n" in capsys.readouterr().err
    )
    told = log.read_text()
    assert "fast (fast-native.onnx): slices along axis 2, matrix 26x22x5 -> 52x44x5\n" in told
    assert "array" not in told
    assert "numpy" not in told
    assert run(*words, "--suffix", "FLAIR", "inplaneT2", "bold") == 0
    assert "not asked for" not in capsys.readouterr().err
    log.unlink()
    assert run(*words, "--report", "--log", log) == 0
    name = "sub-02_res-x2_desc-bicubic_FLAIR"
    told = log.read_text()
    assert f" INFO [1/1] there already: {out / 'sub-02' / 'anat' / name}.nii.gz\n" in told
    assert f" INFO page: {out / name}.html\n" in told


def test_labels_of_the_resolution(raw: Path) -> None:
    def label(**target: float | Path) -> str:
        return dataset.resolution(Target(**target))[0]

    assert [label(), label(scale=3), label(scale=2.6), label(spacing=0.45)] == ["x2", "x3", "x2p6", "0p45mm"]
    assert [label(spacing=0.7000001), label(scale=2.5000001)] == ["0p7000001mm", "x2p5000001"]
    assert [label(isotropic=i) for i in ("auto", 0.8, 0.8000001)] == ["iso", "iso0p8mm", "iso0p8000001mm"]
    fills = [dataset.naming(Options(read=ReadOptions(fill=v)), Engine()).desc for v in (1e16, 1e-16)]
    assert fills == ["seranFill1e16", "seranFill1EMinus16"]
    one, other = (
        raw / f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii{e}" for s, e in (("a", ".gz"), ("b", ""))
    )
    same = other.rename(other.parent / "sub-01_ses-a_T1w.nii")  # by its name
    assert label(like=one).startswith("likeSub01SesAT1w")
    assert label(like=one) != label(like=same)


def test_other_options_have_other_names(tmp_path: Path) -> None:
    def label(options: Options = Options(), precision: str = "auto") -> str:  # noqa: B008
        return dataset.naming(options, Engine(precision=precision)).desc

    own = shutil.copy(weights.at_hand()["seran-x2-td"], tmp_path / "my own.onnx")
    digest = files.sha256(own)[:6]
    assert [
        label(), label(Options("seran")), label(Options("nlm")), label(Options(ensemble=True)),
        label(Options("seran+")), label(Options(scanner=Scanner(noise="0.02", window="hamming:0.46"))),
        label(Options(scanner=Scanner("bicubic"))), label(Options(scanner=Scanner(acquired=(0.5, 0.8)))),
        label(Options(weights=own)), label(Options(read=ReadOptions(fill=-1.0, label_check=False))),
        label(precision="int8"), label(Options(dtype="int16")),
    ] == [
        "seran", "seran", "nlm", "seranEnsemble", "seranEnsemble", "seranWindowHamming0p46Noise0p02",
        "seranAcquisitionBicubic", "seranAcquired0p50p8", f"seranWeightsMyOwn{digest[0].upper()}{digest[1:]}",
        "seranFillMinus1p0", "seranPrecisionInt8", "seranDtypeInt16",
    ]  # fmt: skip
    assert dataset.naming(Options(fast=True), Engine()) == dataset.naming(Options("fast"), Engine())
    words = dataset.naming(Options(scanner=Scanner(noise="0.02")), Engine()).description
    network = "Sharpened by a super-resolution network, seran"
    assert words == f"{network}; noise 0.02. Not for diagnosis."


def test_other_options_replace_nothing(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(raw, out, "participant") == 0
    before = images(out)
    assert run(raw, out, "participant", "--dtype", "uint16") == 0
    assert len(images(out)) == 2 * len(before)
    assert images(out) | before == images(out)
    with (out / "descriptions.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["desc_id"] for row in rows] == ["desc-bicubic", "desc-bicubicDtypeUint16"]


def test_maps_stay_where_a_later_run_asks_for_none(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["bids", str(raw), str(out), "participant", "--participant-label", "02", "--strict", "off"]
    assert cli.run([*words, "--maps"]) == 0
    before, described = images(out), (out / "descriptions.tsv").read_text()
    assert any("desc-seranestimated" in name for name in before)
    assert cli.run(words) == 0
    assert "0 sharpened, 1 there already, 0 failed" in capsys.readouterr().out
    assert images(out) == before
    assert (out / "descriptions.tsv").read_text() == described


def test_done_scans_are_passed_over_by_content(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(raw, out, "participant") == 0
    save(raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz", 99)
    before = images(out)
    assert run(raw, out, "participant") == 0
    assert "1 sharpened, 3 there already, 0 failed" in capsys.readouterr().out
    assert [k for k, v in images(out).items() if before[k] != v] == [
        "sub-02/anat/sub-02_res-x2_desc-bicubic_FLAIR.nii.gz"
    ]


def test_bad_scans_are_named_counted_and_missing_from_the_group(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").write_bytes(b"nothing")
    (raw / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_acq-ax_run-2_T2w.json").write_text("[")
    assert run(raw, out, "participant") == 1
    told = capsys.readouterr().err
    assert "2 sharpened, 0 there already, 2 failed" in told
    assert "sub-02_FLAIR.nii.gz: cannot be read as NIfTI" in told
    assert "T2w.json: expected a JSON object" in told
    (raw / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_acq-ax_run-2_T2w.json").write_text('{"a":' * 100_000)
    assert run(raw, out, "participant") == 1
    assert "T2w.json: expected a JSON object (nested too deep)" in capsys.readouterr().err
    assert run(raw, out, "group") == 1
    assert "2 of 4 scans are sharpened, 2 failed, 0 not tried" in capsys.readouterr().err
    with (out / "group.tsv").open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [(r["participant_id"], r["session_id"], r["status"]) for r in table] == [
        ("sub-01", "ses-a", "done"), ("sub-01", "ses-a", "failed"),
        ("sub-01", "ses-b", "done"), ("sub-02", "n/a", "failed"),
    ]  # fmt: skip
    why = [row["reason"] for row in table]
    assert why[0] == why[2] == "n/a"
    assert why[1].startswith("sub-01/ses-a/anat/sub-01_ses-a_acq-ax_run-2_T2w.json: expected a JSON object (")
    assert why[3].startswith("cannot be read as NIfTI")
    page = (out / "group.html").read_text()
    assert "<title>seran: 2 of 4 scans are sharpened" in page
    assert page.count('data-state="failed"') == 2
    assert page.count("cannot be read as NIfTI") == 1
    machine = json.loads((out / "group.json").read_text())["Scans"]
    assert [scan["result"] for scan in machine][2:] == [
        "sub-01/ses-b/anat/sub-01_ses-b_res-x2_desc-bicubic_T1w.nii",
        None,
    ]
    assert {check["name"] for check in machine[0]["checks"]} > {"geometry", "residual", "noise"}
    save(raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz", 3)
    (raw / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_acq-ax_run-2_T2w.json").unlink()
    assert run(raw, out, "participant") == 0
    assert not list((out / "logs").iterdir())
    assert run(raw, out, "group") == 0
    (raw / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").write_bytes(b"nothing")  # what is there is of another
    assert run(raw, out, "participant") == 1
    capsys.readouterr()
    assert run(raw, out, "group") == 1
    told = capsys.readouterr().err
    assert "3 of 4 scans are sharpened, 1 failed (a result of an earlier run is there for 1), 0 not" in told


def test_what_is_nearly_a_scan_is_named(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that are not quite those of BIDS, content that is not there, a folder that is shut."""
    wrong = {
        "sub-03/ses-2021-01-02/anat/sub-03_ses-2021-01-02_T1w.nii.gz": "expected a name like",
        "sub-03/anat/sub-03_acq-iso0.8_T1w.nii.gz": "expected a name like",
        "sub-03/anat/sub-03_T2w.NII.GZ": "expected a name like",
        "sub-03/anat/sub-03_t1w.nii.gz": "expected a name like",
        "SUB-08/anat/SUB-08_T1w.nii.gz": "expected a name like",
        "sub-03/sub-03_T1w.nii.gz": "expected a place like",
        "sub-03/ses-1/anat/sub-03_T1w.nii.gz": "its name says sub-03, its place sub-03, ses-1; correct one",
        "sub-03/ses-1/anat/sub-01_ses-1_T1w.nii.gz": "its name says sub-01, ses-1, its place sub-03, ses-1",
        "sub-03/anat/sub-03_ses-2_T1w.nii.gz": "its name says sub-03, ses-2, its place sub-03; correct one",
        "sub-03/anat/sub-03_space-MNI_desc-brain_T1w.nii.gz": "expected a raw image, got space-MNI,",
    }
    for name in wrong:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / "sub-02/anat/sub-02_FLAIR.nii.gz", raw / name)
    for name in ("sub-03_bold.json", "sub-03_notes.nii.gz", "README", "sub-03_acq-T1w_mask.nii.gz"):
        (raw / "sub-03/anat" / name).write_text("{}")
    (raw / "sub-03/anat/sub-03_FLAIR.nii.gz").symlink_to("../../.git/annex/none")
    (raw / "sub-03/anat/sub-03_PDw.nii.gz").mkdir()
    (raw / "sub-04/anat").mkdir(parents=True)
    listed = Path.iterdir

    def refused(self: Path) -> object:
        if self == raw / "sub-04/anat":  # whoever runs the tests may enter it
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert run(raw, tmp_path / "out", "participant") == 1
    told = capsys.readouterr().err
    assert "4 sharpened, 0 there already, 13 failed" in told
    assert "sub-03_PDw.nii.gz: expected an image, got a folder of this name; rename it" in told
    for name, why in wrong.items():
        assert f"failed: {raw / name}: {why}" in told
    assert "sub-03_FLAIR.nii.gz: a link to what is not there; get it first" in told
    note = tmp_path / "out" / "logs" / "sub-03_res-x2_desc-bicubic_FLAIR.txt"
    assert note.read_text().startswith("a link to what is not there; get it first")
    assert f"{raw}/sub-04/anat: Permission denied" in told
    assert run(raw, tmp_path / "out", "group") == 1
    assert "4 of 17 scans are sharpened" in capsys.readouterr().err
    table = (tmp_path / "out" / "group.tsv").read_text()
    assert "sub-03\tn/a\tsub-03/anat/sub-03_FLAIR.nii.gz\tx2\tbicubic\tfailed" in table
    assert "sub-04\tn/a\tsub-04/anat\tn/a\tn/a\tfailed" in table
    assert "sub-03\tses-2021-01-02\t" in table
    for words, count in ((("--session-label", "1"), 2), (("--participant-label", "01"), 1)):
        assert run(raw, tmp_path / "out", "participant", *words) == 1  # found by its name or by its place
        told = capsys.readouterr().err
        assert told.count("failed: ") == count
        assert "sub-01_ses-1_T1w.nii.gz: its name says" in told
    one = tmp_path / "one"
    assert run(raw, one, "participant", "--participant-label", "01", "--session-label", "a") == 0
    assert len(images(one)) == 2


def test_a_participant_without_permission_stops_no_other(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link into a folder that may not be entered, of which not even the kind is known."""
    (raw / "sub-03").symlink_to("gone")
    known = Path.stat

    def refused(self: Path, **options: bool) -> object:
        if self.name == "sub-03":
            raise PermissionError(13, "Permission denied", str(self))
        return known(self, **options)

    monkeypatch.setattr(Path, "stat", refused)
    assert run(raw, tmp_path / "out", "participant") == 1
    told = capsys.readouterr().err
    assert "4 sharpened, 0 there already, 1 failed" in told
    assert f"failed: {raw / 'sub-03'}: Permission denied" in told
    assert run(raw, tmp_path / "out", "participant", "--participant-label", "03") == 1
    assert f"failed: {raw / 'sub-03'}: Permission denied" in capsys.readouterr().err


def test_what_is_wrong_with_one_stops_no_other(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that leaves no room for entities; metadata without content."""
    anat = raw / "sub-02" / "anat"
    shutil.copy(anat / "sub-02_FLAIR.nii.gz", anat / f"sub-02_acq-{'x' * 220}_FLAIR.nii.gz")
    (raw / "sub-01/ses-a/anat/sub-01_ses-a_T1w.json").symlink_to("gone")
    assert run(raw, tmp_path / "out", "participant") == 1
    told = capsys.readouterr().err
    assert "3 sharpened, 0 there already, 2 failed" in told
    assert "File name too long" in told
    assert "sub-01_ses-a_T1w.json: No such file or directory" in told


def test_two_of_one_name(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(raw / "sub-02" / "anat" / "sub-02_FLAIR.nii", 3)
    assert run(raw, tmp_path / "out", "participant") == 2
    assert "would both become" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xef\xbb\xbf" + json.dumps({"EchoTime": 0.007}).encode(), ""),
        (b'{"EchoTime": NaN, "FlipAngle": null}', ""),
        (b'{"EchoTime": [], "ScanOptions": []}', ""),
        (b'{"SliceThickness": []}', "its JSON files say SliceThickness: []; expected a number"),
        (b'{"FlipAngle": 9' + b"0" * 400 + b"}", "its JSON files say FlipAngle: 90000"),
        (b"[" * 100_000, "expected a JSON object (nested too deep)"),
        (b"[1]", "expected a JSON object, got [1]"),
        (b'{"EchoTime": {"a": 1}}', "its JSON files say EchoTime: {'a': 1}"),
        (b'{"EchoTime": "fast"}', "its JSON files say EchoTime: 'fast'; expected a number; correct that"),
        (b'{"FlipAngle": [9, "x"]}', "its JSON files say FlipAngle: [9, 'x']; expected a number"),
        (b'{"SliceThickness": [1, 2]}', "its JSON files say SliceThickness: [1, 2]; expected a number"),
        (b'{"RepetitionTime": true}', "its JSON files say RepetitionTime: True; expected a number"),
        (b'{"EchoTime": [0.007], "DeviceSerialNumber": 35008, "ScanOptions": ["FS", "PFP"]}', ""),
        (b'{"SkullStripped": "no"}', "its JSON files say SkullStripped: 'no'; expected true or false"),
        (b"\xff{}", "expected a JSON object ("),
    ],
)
def test_metadata_of_any_kind(
    text: bytes, said: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / "sub-02" / "anat" / "sub-02_FLAIR.json").write_bytes(text)
    assert run(raw, tmp_path / "out", "participant", "--participant-label", "02") == bool(said)
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    if not said:
        made = json.loads(next((tmp_path / "out").rglob("*_FLAIR.json")).read_text())
        assert made.get("EchoTime") == (
            [0.007] if b"[0.007]" in text else 0.007 if b"0.007" in text else None
        )


def test_what_is_assumed_of_the_skull_is_said(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan whose background is constant may be stripped; nobody says so until its JSON does."""
    out, anat = tmp_path / "out", raw / "sub-02" / "anat"
    words = ["bids", str(raw), str(out), "participant", "--participant-label", "02"]
    words += ["--strict", "off", "--fast"]
    save(anat / "sub-02_FLAIR.nii.gz", 3, (100, 92, 3))

    def said() -> tuple[object, object, bool]:
        told = json.loads(next(out.rglob("*_FLAIR.json")).read_text())
        line = (
            "1 result with a constant background: SkullStripped is not stated in the raw data, and false is"
        )
        return told["SkullStripped"], told.get("SkullStrippedBy"), line in capsys.readouterr().err

    assert cli.run(words) == 0
    assert said() == (False, "assumed", True)
    (anat / "sub-02_FLAIR.json").write_text('{"SkullStripped": true}')
    assert cli.run([*words, "--force"]) == 0
    assert said() == (True, None, False)
    (anat / "sub-02_FLAIR.json").unlink()
    image = nib.load(anat / "sub-02_FLAIR.nii.gz")
    noise = np.abs(np.random.default_rng(0).normal(0, 5, image.shape))
    nib.save(
        nib.Nifti1Image(image.get_fdata() + noise, image.affine, image.header), anat / "sub-02_FLAIR.nii.gz"
    )
    assert cli.run(words) == 0
    assert said() == (False, "assumed", False)


def test_what_is_no_data_set_is_refused(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*args: object) -> str:
        assert run(*args) == 2
        return capsys.readouterr().err

    assert "no dataset_description.json" in said(tmp_path, tmp_path / "out", "participant")
    assert "--participant-label 09: no such participant" in said(
        raw, tmp_path / "o", "participant", "--participant-label", "09"
    )
    assert "ends in PDw" in said(raw, tmp_path / "out", "participant", "--suffix", "PDw")
    wrong = said(raw, tmp_path / "out", "participant", "--suffix", "FLAIR", "t1w")
    assert wrong == "seran: --suffix t1w: did you mean T1w?\n"
    for inside in (raw, raw / "sub-01", raw / "sourcedata" / "seran", raw / "derivatives"):
        line = said(raw, inside, "participant")
        assert "would lie among the raw data; name another folder, or" in line
        assert f"{raw}/derivatives/seran" in line
    assert not (raw / "sub-01" / "dataset_description.json").exists()
    assert "first" in said(raw, tmp_path / "out", "group")
    derived = tmp_path / "derived"
    assert run(raw, derived, "participant", "--participant-label", "02") == 0
    assert "got a derivative data set" in said(derived, tmp_path / "twice", "participant")
    for kind, told in (
        ('"Derivative"', "a derivative data set"),
        ('["derivative"]', "a derivative data set"),
        ('"study"', "DatasetType 'study'"),
        ("7", "DatasetType 7"),
    ):
        (derived / "dataset_description.json").write_text(f'{{"DatasetType": {kind}}}')
        assert f"expected raw data, got {told}; name" in said(derived, tmp_path / "twice", "participant")
    (derived / "dataset_description.json").write_text('{"Name": "said to be raw", "DatasetType": "RAW"}')
    assert run(derived, tmp_path / "twice", "participant") == 1  # by the record beside, and by its name
    assert "got res-x2, desc-bicubic in its name" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fmriprep"}]}')
    assert "seran has not made" in said(raw, other, "participant")
    assert not list(other.glob("*.md"))


def test_what_a_user_wrote_is_kept(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Notes beside the results, an image under the name of a result, the summary of another program."""
    out = tmp_path / "out"
    own = out / "sub-02/anat/sub-02_res-x2_desc-bicubic_FLAIR.nii.gz"
    own.parent.mkdir(parents=True)
    for path in (own, out / "README.md"):
        path.write_text("mine")
    assert run(raw, out, "participant", "--participant-label", "02") == 1
    assert f"{own} exists, and no record beside it" in capsys.readouterr().err
    assert {path.read_text() for path in (own, out / "README.md")} == {"mine"}
    beside = own.with_name("sub-02_res-x2_desc-bicubic_FLAIR.json")
    beside.write_text("{")
    assert run(raw, out, "participant", "--participant-label", "02", "--resume") == 1
    said = (
        f"{own} exists, and the record beside it, {beside.name}, cannot be read; remove both, or give --force"
    )
    assert said in capsys.readouterr().err
    assert run(raw, out, "participant", "--participant-label", "02", "--force") == 0
    assert own.read_bytes() != b"mine"
    for words, line in (
        ([], "0 sharpened, 1"),
        (["--force"], "1 sharpened, 0"),
        (["--force", "--resume"], "0 sharpened, 1"),
    ):
        capsys.readouterr()
        assert run(raw, out, "participant", "--participant-label", "02", *words) == 0
        assert f"{line} there already" in capsys.readouterr().out
    (out / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "mriqc"}]}')
    (out / "group.tsv").write_text("mine")
    assert run(raw, out, "group") == 2
    assert "seran has not made" in capsys.readouterr().err
    assert (out / "group.tsv").read_text() == "mine"


def test_a_real_scan(shared: Path, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "sub-1" / "anat").mkdir(parents=True)
    (raw / "dataset_description.json").write_text('{"Name": "one", "BIDSVersion": "1.10.0"}')
    shutil.copy(shared / "test" / "tcga-fg-6692_T2.nii.gz", raw / "sub-1" / "anat" / "sub-1_T2w.nii.gz")
    assert run(raw, out, "participant", "--scale", "3") == 0
    image = nib.load(out / "sub-1" / "anat" / "sub-1_res-x3_desc-bicubic_T2w.nii.gz")
    source = nib.load(raw / "sub-1" / "anat" / "sub-1_T2w.nii.gz")
    assert np.prod(image.shape) == 9 * np.prod(source.shape)
