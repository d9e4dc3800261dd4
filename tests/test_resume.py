"""Doing it again: what is not read because sizes and times stayed, and what is hashed all the same."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from seran import cli, files, weights
from seran.engines import Engine
from seran.job import dataset, resume
from seran.job.options import Options, Target
from tests.conftest import oblique, phantom
from tests.test_dicom import DATA, series

FILES = ["in/a.nii", "in/b.img", "in/c/2.dcm", "out/a.nii", "out/b.img", "out/c"]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed."""
    found: list[Path] = []
    known = files.sha256

    def counted(path: Path) -> str:
        found.append(path)
        return known(path)

    monkeypatch.setattr(files, "sha256", counted)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan in one file, one in two and a series of DICOM, each of them sharpened."""
    root = tmp_path_factory.mktemp("finished")
    (root / "in").mkdir()
    nib.save(nib.Nifti1Image(phantom((26, 22, 5), 1), oblique()), root / "in" / "a.nii")
    nib.Nifti1Pair(phantom((22, 26, 5), 2), oblique()).to_filename(root / "in" / "b.hdr")
    for z, path in enumerate(series(root / "in" / "c", DATA, oblique(), Modality="MR")):
        path.rename(path.with_name(f"{z}.dcm"))
    assert run(root) == 0
    return root


@pytest.fixture
def cohort(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, with its times."""
    return copied(finished, tmp_path / "cohort")


def copied(root: Path, to: Path) -> Path:
    shutil.copytree(root, to, copy_function=shutil.copy2)
    return to


def run(root: Path, *words: str) -> int:
    scans = [str(root / "in" / name) for name in ("a.nii", "b.hdr", "c")]
    return cli.run(["upscale", *scans, str(root / "out"), "--method", "bicubic", "--resume", *words])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1].removesuffix(", 0 failed")


def done_again(root: Path, name: str, capsys: pytest.CaptureFixture[str], *words: str) -> bool:
    """Whether the result of one file is, and no other; a folder is not replaced, and has to be removed."""
    capsys.readouterr()
    if "/c" in name:
        assert run(root, *words) == 1
        said = capsys.readouterr().err
        assert "0 sharpened, 2 there already, 1 failed" in said
        assert "out/c is a folder, which is not replaced; remove it" in said
        shutil.rmtree(root / "out" / "c")
    assert run(root, *words) == 0
    return told(capsys) == "1 sharpened, 2 there already"


def one(path: Path) -> Path:
    """A file, or one in a folder."""
    return files.inside(path)[0]


def overwrite(path: Path, content: bytes) -> None:
    """Other bytes in a file that keeps its size and its time."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_finished_is_not_read(
    cohort: Path, hashed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of scans and results can be: there are zeros in all of them."""
    for path in (*files.inside(cohort / "in"), *files.inside(cohort / "out")):
        if path.suffix != ".json":
            overwrite(path, bytes(path.stat().st_size))
    assert run(cohort) == 0
    assert told(capsys) == "0 sharpened, 3 there already"
    assert not hashed


@pytest.mark.parametrize(("asked", "also"), [("maps", "uncertainty"), ("uncertainty", "maps")])
def test_no_map_goes_where_its_result_stays(
    asked: str, also: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than is asked for is there; where something is added, all that was there is made with it."""
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(phantom((26, 34, 5)), oblique()), tmp_path / "in" / "a.nii")
    words = ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--resume", "--strict", "off"]
    names = {"maps": "a_estimated.nii", "uncertainty": "a_uncertainty.nii"}

    def made() -> dict[str, str]:
        return {path.name: files.sha256(path) for path in (tmp_path / "out").iterdir()}

    assert cli.run([*words, f"--{asked}"]) == 0
    before = made()
    assert sorted(before) == sorted(["a.json", "a.nii", names[asked]])
    for more in ([], [f"--{asked}"], ["--verify"]):
        capsys.readouterr()
        assert cli.run([*words, *more]) == 0
        assert told(capsys) == "0 sharpened, 1 there already"
        assert made() == before
    assert cli.run([*words, f"--{also}"]) == 0
    assert told(capsys) == "1 sharpened, 0 there already"
    now = made()
    assert sorted(now) == sorted(["a.json", "a.nii", *names.values()])
    assert [now[name] for name in ("a.nii", names[asked])] == [before[n] for n in ("a.nii", names[asked])]
    assert cli.run(words) == 0
    assert told(capsys) == "0 sharpened, 1 there already"
    nib.save(nib.Nifti1Image(phantom((26, 34, 5), 1), oblique()), tmp_path / "in" / "a.nii")
    assert cli.run([*words, "--maps"]) == 0  # of another scan: the other image goes, and is named
    gone = tmp_path / "out" / names["uncertainty"]
    assert f"{gone}: removed: the result that it was made with is replaced" in capsys.readouterr().err
    assert sorted(made()) == ["a.json", "a.nii", names["maps"]]


@pytest.mark.parametrize("name", FILES)
def test_a_bit_that_changes_in_silence_is_found_by_verify(
    name: str, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one(cohort / name)
    before = path.read_bytes()
    overwrite(path, before[:-1] + bytes([before[-1] ^ 1]))
    assert run(cohort) == 0
    assert told(capsys) == "0 sharpened, 3 there already"
    assert done_again(cohort, name, capsys, "--verify")
    if name in ("out/a.nii", "out/b.img"):  # a series has new UIDs
        assert path.read_bytes() == before


@pytest.mark.parametrize("when", [1_234_567_890_123_456_789, 4_234_567_890_123_456_789])
@pytest.mark.parametrize("name", FILES)
def test_what_is_touched_is_hashed_and_not_done_again(
    name: str, when: int, cohort: Path, hashed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Older or newer: only the bytes decide."""
    os.utime(one(cohort / name), ns=(0, when))
    assert run(cohort) == 0
    assert told(capsys) == "0 sharpened, 3 there already"
    scan = Path(name).parts[1][0]
    assert {path.relative_to(cohort).parts[1][0] for path in hashed} == {scan}


@pytest.mark.parametrize("name", FILES)
def test_what_changes_is_done_again(name: str, cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With another time, in as many bytes."""
    path = one(cohort / name)
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    os.utime(path, ns=(0, 1_234_567_890_123_456_789))
    assert done_again(cohort, name, capsys)


@pytest.mark.parametrize("name", FILES)
def test_what_is_cut_off_is_no_result_and_no_scan(
    name: str, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even if its time stays: a result is made again, and a scan is told to be damaged."""
    path = one(cohort / name)
    before = path.stat()
    os.truncate(path, before.st_size - 9)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if name.startswith("out"):
        assert done_again(cohort, name, capsys)
    else:
        assert run(cohort) == 1
        assert "0 sharpened, 2 there already, 1 failed" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--verify",)])
def test_a_record_that_is_damaged_vouches_for_nothing(
    more: tuple[str, ...], cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be read fails its scan, as it may be anybody's; one without the right key is seran's."""
    path = cohort / "out" / "a.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert run(cohort, *more) == 1
    said = capsys.readouterr().err
    assert "0 sharpened, 2 there already, 1 failed" in said
    assert "a.nii exists, and the record beside it, a.json, cannot be read; remove both" in said
    for name, value in (("Key", "0" * 64), ("InputSHA256", "0" * 64), ("Stamp", 7), ("Stamp", "0" * 64)):
        path.write_text(json.dumps(json.loads(whole) | {name: value}))
        assert run(cohort, *more) == 0
        known = (name, value) == ("Stamp", "0" * 64)  # then digests decide
        assert told(capsys) == ("0 sharpened, 3 there already" if known else "1 sharpened, 2 there already")
    stated = json.loads(whole)
    stated["ResultSHA256"] = ["0" * 64]
    path.write_text(json.dumps(stated))
    assert run(cohort, "--verify") == 0
    assert told(capsys) == "1 sharpened, 2 there already"


@pytest.mark.parametrize(
    "words", [("--scale", "3"), ("--fill", "0"), ("--consistent", "off"), ("--precision", "f32")]
)
def test_other_settings_are_done_again(
    words: tuple[str, str], cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever sizes and times say; a folder is not replaced."""
    assert run(cohort, *words) == 1
    assert "2 sharpened, 0 there already, 1 failed" in capsys.readouterr().err
    shutil.rmtree(cohort / "out" / "c")
    assert run(cohort, *words) == 0
    assert told(capsys) == "1 sharpened, 2 there already"


@pytest.mark.slow
def test_a_cohort_that_is_killed_goes_on(tmp_path: Path) -> None:
    """What was finished by then passes by its size and time, and by its digest."""
    root, out, count = tmp_path / "in", tmp_path / "out", 30
    root.mkdir()
    for i in range(count):
        nib.save(nib.Nifti1Image(phantom((26, 22, 5), i), oblique()), root / f"{i}.nii")
    command = [sys.executable, "-m", "seran", "upscale", root, out, "--method", "bicubic", "--resume"]
    command += ["--strict", "off"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while len([*out.glob("*.json")]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    done = len([*out.glob("*.json")])
    assert 3 <= done < count
    for more, counted in (
        ((), f"{count - done} sharpened, {done} there already, 0 failed"),
        ((), f"0 sharpened, {count} there already, 0 failed"),
        (("--verify",), f"0 sharpened, {count} there already, 0 failed"),
    ):
        ended = subprocess.run([*command, *more], capture_output=True, text=True)
        assert ended.stdout.startswith(counted), ended.stderr
    assert not [*out.glob(".*")]


def test_a_copy_elsewhere_is_hashed(
    cohort: Path, hashed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another machine, unless the times came along."""
    moved = copied(cohort, cohort / "moved")
    assert run(moved) == 0
    assert not hashed
    for path in files.inside(moved):
        os.utime(path)
    assert run(moved) == 0
    assert told(capsys) == "0 sharpened, 3 there already"
    assert {*hashed} == {path for path in files.inside(moved) if path.suffix != ".json"}


def test_a_record_without_a_stamp_is_of_what_has_its_digests(
    cohort: Path, hashed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of earlier versions have none. No stamp tells when a scan was written, nor does the record."""
    for path in (cohort / "out").glob("*.json"):
        stated = json.loads(path.read_text())
        assert len(stated.pop("Stamp")) == 64
        modified = (cohort / "in" / "a.nii").stat().st_mtime_ns
        assert str(modified // 10**9) not in path.read_text()
        path.write_text(json.dumps(stated))
    assert run(cohort) == 0
    assert told(capsys) == "0 sharpened, 3 there already"
    assert len(hashed) == len([p for p in files.inside(cohort) if p.suffix != ".json"])


def test_whatever_comes_into_the_folder_of_a_series_may_be_a_part_of_it(
    cohort: Path, hashed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (cohort / "in" / "c" / "notes.txt").write_text("nothing of it")
    assert run(cohort) == 0
    assert told(capsys) == "0 sharpened, 3 there already"
    assert hashed
    slice_ = cohort / "in" / "c" / "2.dcm"
    slice_.rename(cohort / "kept.dcm")
    assert run(cohort) == 1  # a slice is missing: it is asked what the series is now
    assert "2 there already, 1 failed" in capsys.readouterr().err


def test_the_series_whose_grid_is_wanted_is_hashed_anew_where_not_all_of_it_is_seen(tmp_path: Path) -> None:
    """Beside a link to nothing sizes and times of the rest are not believed."""
    like = tmp_path / "like"
    [*_, last] = series(like, DATA, oblique(), Modality="MR")
    options = Options(target=Target(like=like))
    for link in (False, True):
        if link:
            (like / "lost").symlink_to(tmp_path / "nothing")
        first = resume.key("1", options, Engine())
        assert resume.key("1", options, Engine()) == first
        content = last.read_bytes()
        overwrite(last, content[:-1] + bytes([content[-1] ^ 1]))
        assert (resume.key("1", options, Engine()) != first) == link


def test_verify_is_of_resume(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["upscale", str(cohort / "in" / "a.nii"), str(cohort / "b.nii"), "--method", "bicubic"]
    assert cli.run([*words, "--verify"]) == 2
    assert "--verify: only --resume uses it; give both, or leave it out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "where", [(), pytest.param(("--cluster", "local", "--workers", "1"), marks=pytest.mark.slow)]
)
def test_bids_verifies_too(
    where: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if where:
        pytest.importorskip("distributed")
    scan = tmp_path / "raw" / "sub-01" / "anat" / "sub-01_T2w.nii"
    scan.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(phantom((26, 22, 5)), oblique()), scan)
    (tmp_path / "raw" / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    words = ["bids", str(tmp_path / "raw"), str(tmp_path / "out"), "participant", "--method", "bicubic"]
    assert cli.run(words) == 0
    [made] = (tmp_path / "out").rglob("*.nii")
    before = made.read_bytes()
    overwrite(made, before[:-1] + b"?")
    for more, counted in ((), (0, 1)), (("--verify",), (1, 0)):
        assert cli.run([*words, *more, *where]) == 0
        assert told(capsys) == "{} sharpened, {} there already".format(*counted)
    assert made.read_bytes() == before


def test_weights_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as they stay as they are; so is the image whose grid is wanted."""
    own, like, count = tmp_path / "own.onnx", tmp_path / "like.nii", 0
    shutil.copy(weights.shipped()["srcnn-x2-bd"], own)
    nib.save(nib.Nifti1Image(phantom((26, 22, 5)), oblique()), like)

    def counted(what: Callable[[Any], Any], of: Any) -> Any:
        nonlocal count
        count += 1
        return what(of)

    monkeypatch.setattr(weights.sealed, "read", partial(counted, weights.sealed.read))
    monkeypatch.setattr(files, "sha256_of", partial(counted, files.sha256_of))
    options = Options(weights=own, target=Target(like=like))
    keys = {resume.key(str(i), options, Engine()) for i in range(5)}
    assert (len(keys), count) == (5, 2)
    first = resume.key("1", options, Engine())
    shutil.copy(weights.shipped()["vdsr-x2-bd"], own)
    assert resume.key("1", options, Engine()) != first
    shutil.copy(weights.shipped()["srcnn-x2-bd"], own)
    assert resume.key("1", options, Engine()) == first
    overwrite(like, bytes(like.stat().st_size))
    os.utime(like)
    assert resume.key("1", options, Engine()) != first


def test_a_folder_that_many_images_look_into_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set's own would be, for each of its subjects, as long as there are subjects."""
    images = [tmp_path / f"sub-{i}" / "anat" / f"sub-{i}_acq-ax_T2w.nii" for i in range(20)]
    for image in images:
        image.parent.mkdir(parents=True)
    for name in ("T2w", "T1w", "acq-ax_T2w", "acq-sag_T2w", "sub-7/sub-7_T2w", "sub-7/anat/sub-7_acq-ax_T2w"):
        (tmp_path / f"{name}.json").write_text("{}")
    listed: list[Path] = []
    glob = Path.glob

    def counted(folder: Path, pattern: str) -> Any:
        listed.append(folder)
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", counted)
    said = dataset.descriptions(tmp_path, images)
    assert sorted(listed) == sorted({tmp_path, *(p for i in images for p in (i.parent, i.parent.parent))})
    everyone = (tmp_path / "T2w.json", tmp_path / "acq-ax_T2w.json")
    assert said[images[3]] == everyone
    assert [p.relative_to(tmp_path).as_posix() for p in said[images[7]][2:]] == [
        "sub-7/sub-7_T2w.json", "sub-7/anat/sub-7_acq-ax_T2w.json"
    ]  # fmt: skip


def test_the_thickness_that_is_said_beside_a_scan_decides(tmp_path: Path) -> None:
    """Where thick slices become thin, and nowhere else; what the data set says comes first."""
    scan, thin, plain = tmp_path / "a.nii", Options(target=Target(isotropic="auto")), Options()
    scan.write_bytes(b"")
    (tmp_path / "a.json").write_text('{"SliceThickness": 3.0}')
    assert resume.thickness_for(scan, thin, {}) == 3.0
    assert resume.thickness_for(scan, thin, {"SliceThickness": 2.5}) == 2.5
    assert resume.thickness_for(scan, plain, {}) is None
    keys = {resume.key("1", thin, Engine(), thickness=mm) for mm in (None, 3.0, 2.5)}
    assert len(keys) == 3
