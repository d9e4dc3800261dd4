"""Many scans by one command: one bad scan among good ones, resuming, a killed run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files
from tests.conftest import oblique, phantom
from tests.test_dicom import DATA, series

COMMAND = [sys.executable, "-m", "seran", "upscale"]


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


def records(out: Path) -> list[Path]:
    """All but those that are being written, which are hidden."""
    return [p for p in out.rglob("*.json") if not p.parent.name.startswith(".")]


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
    assert resumed.stdout == f"{9 - len(done)} sharpened, {len(done)} there already, 0 failed\n"
    assert [json.loads(r.read_text())["Method"] for r in records(out)] == 9 * ["seran"]
