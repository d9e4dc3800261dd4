"""Many scans by one command: one bad scan among good ones, resuming, a killed run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files
from seran.job import batch
from tests.conftest import oblique, phantom
from tests.test_dicom import DATA, series

COMMAND = [sys.executable, "-m", "seran", "upscale", "--strict", "off"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good scans, in folders; a note."""
    for i, name in enumerate(("a/one.nii.gz", "a/two.nii", "b/three.nii.gz")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(phantom((26, 22, 5), i), oblique()), path)
    (tmp_path / "in" / "note.txt").write_text("not a scan")
    return tmp_path / "in"


def run(*args: object) -> int:
    return cli.run(["upscale", *map(str, args), "--method", "bicubic"])


def results(out: Path) -> dict[str, str]:
    return {p.relative_to(out).as_posix(): files.sha256(p) for p in sorted(out.rglob("*.nii*"))}


def test_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path / "out") == 0
    assert capsys.readouterr().out == "3 sharpened, 0 there already, 0 failed\n"
    assert list(results(tmp_path / "out")) == ["a/one.nii.gz", "a/two.nii", "b/three.nii.gz"]
    assert run(folder / "a" / "two.nii", tmp_path / "single.nii") == 0
    assert (tmp_path / "single.nii").read_bytes() == (tmp_path / "out" / "a" / "two.nii").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fast", "--isotropic"], "--method fast: only seran estimates what lies between slices"),
        (["--adapt", "60"], "--adapt: only --isotropic uses it"),
        (["--method", "bicubic", "--maps"], "--maps: bicubic estimates nothing"),
        (["--method", "bicubic", "--uncertainty"], "--uncertainty: half-widths are of native weights"),
        (["--acquisition", "bicubic", "--noise", "0.02"], "--noise: only native weights use it"),
        (["--method", "nlm", "--scale", "1"], "--scale 1: keeps the grid"),
        (["--method", "vdsr", "--scale", "3"], "no weights are shipped for vdsr-x3-bd"),
        (["--method", "sran"], "--method sran: expected"),
    ],
)
def test_options_that_suit_no_scan_are_refused_before_the_first(
    words: list[str], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    (raw / "sub-1" / "anat").mkdir(parents=True)
    (raw / "dataset_description.json").write_text('{"Name": "one", "BIDSVersion": "1.10.0"}')
    shutil.copy(folder / "a" / "one.nii.gz", raw / "sub-1" / "anat" / "sub-1_T2w.nii.gz")
    for command in (["upscale", str(folder)], ["bids", str(raw)]):
        level = ["participant"] * (command[0] == "bids")
        assert cli.run([*command, str(tmp_path / "out"), *level, *words]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"seran: {said}")
        assert not (tmp_path / "out").exists()


def test_an_interrupted_run_says_how_far_it_came(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, seen = batch.job.run, []

    def stopped(source: Path, *how: Any) -> Any:
        seen.append(source)
        if len(seen) % 2 == 0:
            raise KeyboardInterrupt
        return known(source, *how)

    monkeypatch.setattr(batch.job, "run", stopped)
    assert run(folder, tmp_path / "out") == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "seran: interrupted: 1 of 3 scans is done; the same command with --resume continues"
    assert run(folder, tmp_path / "out", "--resume") == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "seran: interrupted: 2 of 3 scans are done; the same command continues"


def test_two_runs_share_the_scans(folder: Path, tmp_path: Path) -> None:
    """Each scan is sharpened by one of them, and the other counts it as there."""
    base = nib.load(folder / "a" / "two.nii")
    for i in range(6):
        nib.save(nib.Nifti1Image(base.get_fdata() + i, base.affine), folder / "a" / f"more{i}.nii")
    words = [*COMMAND, folder, tmp_path / "out", "--resume", "--method", "fast", "--threads", "1"]
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*map(str, words)], **how) for _ in range(2)]
    said = [one.communicate(timeout=300) for one in runs]
    numbers = [[int(word) for word in re.findall(r"(\d+) ", out)] for out, _ in said]
    assert [sum(found) for found in numbers] == [9, 9], said
    assert numbers[0][0] + numbers[1][0] == 9, said
    assert not list(tmp_path.rglob(".part*"))


def claim_of(result: Path, process: int) -> Path:
    """What another process has put where claims lie."""
    with files.claim(result):
        [own] = files._claims(result.parent).iterdir()
        return own.rename(own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{process}-")))


CLAIMING = """
import os, sys
from pathlib import Path
from seran import files
made, won = Path(sys.argv[1]), 0
for _ in range(int(sys.argv[2])):
    with files.claim(made) as ours:
        if ours:
            os.close(os.open(sys.argv[3], os.O_CREAT | os.O_EXCL))  # fails if another one is here
            won += 1
            os.unlink(sys.argv[3])
print(won)
"""


def test_a_claim_is_of_one_process_at_a_time(tmp_path: Path) -> None:
    """Also where all of them claim at once, and each removes the folder of claims if it is the last."""
    words = [sys.executable, "-c", CLAIMING, tmp_path / "a.nii", "400", tmp_path / "held"]
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*map(str, words)], **how) for _ in range(3)]
    said = [one.communicate(timeout=300) for one in runs]
    assert [one.returncode for one in runs] == [0, 0, 0], said
    assert sum(int(out) for out, _ in said), said
    assert not list(tmp_path.iterdir())


def test_what_is_claimed_is_asked_for_once_and_without_listing_results(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan that changed is hashed when it is compared and when it is read, and no third time."""
    out = tmp_path / "out"
    assert run(folder / "a", out) == 0
    for path in (folder / "a").iterdir():
        nib.save(nib.Nifti1Image(nib.load(path).get_fdata() + 1, oblique()), path)
    hashed, listed, digest, listing = [], [], files.sha256, Path.glob
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path) or digest(path))
    monkeypatch.setattr(Path, "glob", lambda path, what: listed.append(path) or listing(path, what))
    files.sweep.cache_clear()
    assert run(folder / "a", out, "--resume") == 0
    assert "2 sharpened" in capsys.readouterr().out
    for path in (folder / "a").iterdir():
        assert hashed.count(path) == 2
    assert listed.count(out) == 1  # what dead processes left is looked for once


@pytest.mark.skipif(os.name != "posix", reason="groups and modes of POSIX")
def test_who_may_write_results_may_claim_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    with files.claim(tmp_path / "a.nii") as ours:
        assert ours
        assert files._claims(tmp_path).stat().st_mode & 0o7777 == 0o2775


def test_what_another_run_is_at_work_on_is_waited_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(folder, out) == 0
    made = out / "a" / "one.nii.gz"
    whole, told = made.read_bytes(), (out / "a" / "one.json").read_bytes()
    times = made.stat()
    made.unlink()
    (out / "a" / "one.json").unlink()
    hidden = claim_of(made, os.getppid())

    def waited(_: float) -> None:  # meanwhile the other run ends
        made.write_bytes(whole)
        os.utime(made, ns=(times.st_atime_ns, times.st_mtime_ns))
        (out / "a" / "one.json").write_bytes(told)
        hidden.unlink()

    monkeypatch.setattr(batch.time, "sleep", waited)
    capsys.readouterr()
    assert run(folder, out, "--resume") == 0
    assert capsys.readouterr().out == "0 sharpened, 3 there already, 0 failed\n"


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc when a process began")
def test_nobody_waits_for_a_dead_run_whose_number_is_in_use_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        hidden = claim_of(tmp_path / "out" / "a" / "one.nii.gz", other.pid)
        with files.claim(tmp_path / "out" / "a" / "one.nii.gz") as ours:
            assert not ours
        os.utime(hidden, (time.time() - 60,) * 2)  # before that process began
        with files.claim(tmp_path / "out" / "a" / "one.nii.gz") as ours:
            assert ours
        assert run(folder, tmp_path / "out", "--resume") == 0
        other.kill()


def test_a_page_is_renewed_with_its_result(folder: Path, tmp_path: Path, stub: Path) -> None:
    words = [folder, tmp_path / "out", "--report", tmp_path / "all.html"]
    assert run(*words) == 0
    page = tmp_path / "out" / "a" / "one.html"
    os.truncate(page, page.stat().st_size // 2)
    assert run(*words, "--force") == 0
    assert page.read_text().endswith("</html>\n")


def test_a_scan_that_fails_leaves_no_empty_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "b" / "three.nii.gz").write_bytes(b"nothing")
    assert run(folder, tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_results_among_the_scans_are_not_scans(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert run(".", "results") == 0
    kept = folder / "results" / "b" / "three.nii.gz"
    shutil.move(kept, tmp_path / "annexed")  # as git-annex keeps files
    kept.symlink_to(tmp_path / "annexed")
    before = results(folder)
    assert run(folder, "results", "--resume") == 0
    assert "0 sharpened, 3 there already, 0 failed" in capsys.readouterr().out
    assert results(folder) == before
    assert run(folder, folder) == 1
    assert capsys.readouterr().err.count("would replace the input") == 6


def test_a_bad_scan_is_named_and_does_not_stop_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a" / "zero.nii").write_bytes(b"nothing")
    assert run(folder, tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert "3 sharpened, 0 there already, 1 failed" in shown.err
    assert "zero.nii: cannot be read as NIfTI" in shown.err
    assert len(results(tmp_path / "out")) == 3


def test_several_files_and_a_series(folder: Path, tmp_path: Path) -> None:
    series(tmp_path / "study", DATA, oblique(), Modality="MR", SeriesNumber=3)
    assert run(folder / "a" / "one.nii.gz", folder / "b", tmp_path / "study", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".json") == [
        "one.nii.gz", "study", "three.nii.gz",
    ]  # fmt: skip


def test_two_of_one_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "a" / "one.nii.gz", folder / "one.nii.gz")
    assert run(folder / "a" / "one.nii.gz", folder / "one.nii.gz", tmp_path / "out") == 2
    assert "would both become" in capsys.readouterr().err
    assert run(folder, tmp_path / "out.nii") == 2
    assert "out.nii: must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["one.nii", "one.mgz", "one"])
def test_two_that_would_share_a_record(
    other: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each would take the other's record for none of its own, and be done again for ever."""
    second = tmp_path / "second" / other
    if other == "one":
        series(second, DATA, oblique(), Modality="MR")
    else:
        second.parent.mkdir()
        image = nib.Nifti1Image(phantom((26, 22, 5)), oblique())
        nib.save(nib.MGHImage(image.dataobj, image.affine) if other == "one.mgz" else image, second)
    assert run(folder / "a" / "one.nii.gz", second, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "would both become" in told
    assert "or share its record one.json" in told
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_reached_is_named_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan in an annex without its content, and a folder without permission; not a note that is gone."""
    (folder / "a" / "annexed.nii.gz").symlink_to(".git/annex/objects/none")
    (folder / "readme.txt").symlink_to("gone")
    (folder / "shut").mkdir()
    listed = Path.iterdir

    def refused(self: Path) -> Any:
        if self.name == "shut":  # whoever runs the tests may enter it
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert run(folder, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "3 sharpened, 0 there already, 2 failed" in told
    assert "annexed.nii.gz: a link to what is not there; get it first (git annex, DataLad)" in told
    assert f"{folder / 'shut'}: Permission denied" in told
    assert "readme" not in told
    assert run(folder / "a" / "annexed.nii.gz", tmp_path / "one.nii") == 2
    assert "annexed.nii.gz: a link to what is not there" in capsys.readouterr().err


def test_what_is_passed_over_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DICOM beside other scans, what is packed, a pipe, a folder; a pair in capitals is one scan, not two."""
    series(folder / "c" / "study", DATA, oblique(), Modality="MR")
    series(folder / "a", DATA, oblique(), Modality="MR", SeriesNumber=3)
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    for name in ("b/pair.hdr.gz", "b/pair.img.gz", "b/S.HDR", "b/S.IMG"):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "b" / "pipe.nii")
    (folder / "b" / "empty.nii").mkdir()
    (folder / "b" / "full.nii").mkdir()
    (folder / "b" / "three.nii.gz").rename(folder / "b" / "full.nii" / "three.nii.gz")
    assert run(folder, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "3 sharpened, 0 there already, 6 failed" in told
    for name, why in {
        "c/study": f"DICOM files are sharpened apart: seran upscale {folder / 'c' / 'study'} OUT\n",
        "a": f"DICOM files are sharpened apart: seran upscale {folder / 'a'} OUT --series NUMBER\n",
        "b/pair.hdr.gz": "of packed scans .nii.gz and .mgz are read; unpack it",
        "b/S.HDR": "",
        "b/pipe.nii": "a pipe or a device, which is not read",
        "b/empty.nii": "a folder with the name of a scan, and no scan in it",
    }.items():
        assert f"failed: {folder / name}: {why}" in told
    assert run(folder / "a", tmp_path / "apart", "--series", "3") == 0


def test_a_folder_that_cannot_be_entered_stops_no_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Path.is_dir

    def refused(self: Path) -> bool:
        if self.name == "shut":
            raise PermissionError(13, "Permission denied", str(self))
        return known(self)

    monkeypatch.setattr(Path, "is_dir", refused)
    assert run(folder / "a" / "two.nii", tmp_path / "shut", tmp_path / "out") == 1
    assert "1 sharpened, 0 there already, 1 failed" in capsys.readouterr().err


def test_links_are_followed_once_and_hidden_folders_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder / "b" / "three.nii.gz", tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "again").symlink_to(folder)  # a loop
    for hidden in (".git/annex", ".snapshot"):
        (folder / hidden).mkdir(parents=True)
        shutil.copy(folder / "a" / "two.nii", folder / hidden)
    assert run(folder, tmp_path / "out") == 0
    assert list(results(tmp_path / "out")) == ["a/one.nii.gz", "a/two.nii", "linked/three.nii.gz"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(13, "Permission denied", "one.json"), "one.json: Permission denied"),
        (OSError(36, "File name too long", "x" * 300), "x: File name too long"),
        (MemoryError(), "it needs more memory"),
        (ZeroDivisionError("by nought"), "unexpected ZeroDivisionError: by nought; please report it"),
    ],
)
def test_whatever_is_wrong_with_one_stops_no_other(
    error: Exception,
    why: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = batch.job.run

    def broken(source: Path, *args: Any) -> Any:
        if source.name == "one.nii.gz":
            raise error
        return done(source, *args)

    monkeypatch.setattr(batch.job, "run", broken)
    assert run(folder, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "2 sharpened, 0 there already, 1 failed" in told
    assert f"failed: {folder / 'a' / 'one.nii.gz'}: " in told
    assert why in told


@pytest.mark.skipif(not os.geteuid(), reason="nothing is unreadable to root")
def test_an_unreadable_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a" / "one.nii.gz").chmod(0)
    assert run(folder, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "2 sharpened, 0 there already, 1 failed" in told
    assert "one.nii.gz: " in told
    assert "Permission denied" in told


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_names_that_are_no_text(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.nii.gz")
    (folder / "b" / "three.nii.gz").rename(folder / "b" / name)
    assert run(folder, tmp_path / "out") == 0
    assert run(folder, tmp_path / "out", "--resume") == 0
    assert capsys.readouterr().out.endswith("0 sharpened, 3 there already, 0 failed\n")
    assert json.loads((tmp_path / "out" / "b" / name.replace("nii.gz", "json")).read_text())["Input"] == name
    (folder / "b" / name).write_bytes(b"nothing")
    assert run(folder, tmp_path / "out", "--resume") == 1
    assert r"caf\udce9.nii.gz: cannot be read as NIfTI" in capsys.readouterr().err


def test_resume_knows_scans_by_their_content(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(folder, out) == 0
    before = results(out)
    assert run(folder, out) == 1  # nothing is replaced unasked
    assert capsys.readouterr().err.count("give --force") == 3
    (out / "a" / "two.nii").unlink()
    nib.save(nib.Nifti1Image(phantom((26, 22, 5), 9), oblique()), folder / "b" / "three.nii.gz")
    assert run(folder, out, "--resume") == 0
    assert "2 sharpened, 1 there already, 0 failed" in capsys.readouterr().out
    after = results(out)
    assert after["a/two.nii"] == before["a/two.nii"]
    assert after["b/three.nii.gz"] != before["b/three.nii.gz"]
    assert run(folder, out, "--resume", "--scale", "3") == 0
    assert "3 sharpened, 0 there already" in capsys.readouterr().out


@pytest.mark.parametrize("where", [(), ("--cluster", "local", "--workers", "1")], ids=["alone", "cluster"])
def test_resume_replaces_nothing_but_results(
    where: tuple[str, ...], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan of the user's own under the name of a result, notes under that of a record: others go on."""
    out = tmp_path / "out"
    own = {
        out / "a" / "one.nii.gz": (folder / "b" / "three.nii.gz").read_bytes(),
        out / "a" / "two.json": b"my notes",
        out / "a" / "two.nii.gz": b"of another format",
    }
    if where:
        pytest.importorskip("distributed")
    (out / "a").mkdir(parents=True)
    for path, content in own.items():
        path.write_bytes(content)
    for words in ((*where, "--resume"), where):
        assert run(folder, out, *words) == 1
        told = capsys.readouterr().err
        for path in (out / "a" / "one.nii.gz", out / "a" / "two.json"):
            assert f"{path} exists" in told
        assert {path: path.read_bytes() for path in own} == own
    assert (out / "b" / "three.json").is_file()


def test_resume_of_one_scan_replaces_nothing_but_a_result(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records of other versions and options are known; that of another image of the same name is not."""
    scan, out = folder / "a" / "two.nii", tmp_path / "out.nii"
    own = (folder / "b" / "three.nii.gz").read_bytes()
    out.write_bytes(own)
    assert run(scan, out, "--resume") == 2
    assert (
        "out.nii exists, and no record beside it says that seran made it; remove" in capsys.readouterr().err
    )
    assert run(scan, tmp_path / "out.nii.gz") == 0
    assert run(scan, out, "--resume") == 2  # the record is that of the other
    assert out.read_bytes() == own
    out.unlink()
    (tmp_path / "out.nii.gz").rename(tmp_path / "kept.nii.gz")
    (tmp_path / "out.json").rename(tmp_path / "kept.json")
    stated = json.loads((tmp_path / "kept.json").read_text())
    (tmp_path / "kept.json").write_text(json.dumps({"Software": "seran", "Version": stated["Version"]}))
    assert run(scan, tmp_path / "kept.nii.gz", "--resume", "--scale", "3") == 0
    assert nib.load(tmp_path / "kept.nii.gz").shape == (78, 66, 5)
    (tmp_path / "kept.json").unlink()  # as a run leaves them that is killed between the two
    assert run(scan, tmp_path / "kept.nii.gz", "--resume") == 2
    assert run(scan, tmp_path / "kept.nii.gz", "--resume", "--force") == 0


def records(out: Path) -> list[Path]:
    """All but those that are being written, in hidden folders, which may go while others are looked for."""
    found = (Path(folder, name) for folder, _, names in os.walk(out) for name in names)
    return [p for p in found if p.suffix == ".json" and not p.parent.name.startswith(".")]


@pytest.mark.slow
def test_a_killed_run_leaves_whole_results_and_resumes(folder: Path, tmp_path: Path) -> None:
    big = np.stack([phantom((96, 80), i) for i in range(24)], -1)
    for i in range(6):
        nib.save(nib.Nifti1Image(big + i, oblique()), folder / f"more{i}.nii.gz")
    out = tmp_path / "out"
    with subprocess.Popen([*COMMAND, folder, out], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while len(records(out)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = records(out)
    assert 2 <= len(done) < 9
    for record in done:
        found = next(p for p in record.parent.glob(f"{record.stem}.nii*"))
        assert nib.load(found).get_fdata().any()
    resumed = subprocess.run([*COMMAND, folder, out, "--resume"], capture_output=True, text=True)
    assert resumed.stdout.startswith(f"{9 - len(done)} sharpened, {len(done)} there already, 0 failed")
    assert [json.loads(r.read_text())["Method"] for r in records(out)] == 9 * ["seran"]
