"""What a process that is killed outright leaves behind, and who may remove it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import pytest

from seran import files
from tests.conftest import oblique, phantom

COMMAND = [sys.executable, "-m", "seran", "upscale", "--method", "bicubic"]


def killed(folder: Path) -> int:
    """Kill a command while it writes ``out.nii`` there; the number it had."""
    nib.save(nib.Nifti1Image(phantom((200, 180, 60)), oblique()), folder / "in.nii")
    process = subprocess.Popen([*COMMAND, folder / "in.nii", folder / "out.nii"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(p.stat().st_size for p in folder.glob(".part-*out.nii")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it was too fast to be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.pid


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    number = killed(tmp_path)
    left = [p.name for p in tmp_path.glob(".part-*")]
    assert f".part-{files.place()}-{number}-out.nii" in left
    assert not (tmp_path / "out.nii").exists()
    subprocess.run([*COMMAND, tmp_path / "in.nii", tmp_path / "out.nii"], check=True, capture_output=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.nii", "out.json", "out.nii"]
    assert json.loads((tmp_path / "out.json").read_text())["ShapeAfter"] == [400, 360, 60]


@pytest.mark.parametrize("letter", ["x", "Ω", "語"])
def test_the_longest_name_can_be_written(letter: str, tmp_path: Path) -> None:
    end = ".nii.gz"
    name = letter * ((255 - len(end)) // len(letter.encode())) + end
    with files.together(tmp_path / name.replace(end, ".json"), tmp_path / name) as (text, image):
        text.write_text("{}")
        image.write_bytes(b"voxels")
        assert image.name.endswith(end)
        assert image.name != files.part(tmp_path / ("a" + name[1:])).name  # alike but for the beginning
    assert (tmp_path / name).read_bytes() == b"voxels"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".gz", ".json"]


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    """Not what another machine, a living process or a person left; a dead one's folder and link are."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = os.getppid()
    kept = [
        f".part-{files.place()}-{alive}-a.nii",
        f".part-{files.place()}-{os.getpid()}-a.nii",
        f".part-{'0' * 12}-{dead.pid}-a.nii",
        f".part-{files.place()}-notes",
        f".part-{dead.pid}-a.nii",
        f"part-{files.place()}-{dead.pid}-a.nii",
        f".part-{files.place()}-{10**30}-a.nii",
    ]
    for name in kept:
        (tmp_path / name).write_text("x")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    folder = tmp_path / f".part-{files.place()}-{dead.pid}-series"
    folder.mkdir()
    (folder / "1.dcm").write_text("x")
    folder.with_name(f".part-{files.place()}-{dead.pid}-link").symlink_to(elsewhere)
    with files.atomic(tmp_path / "new.txt") as made:
        made.write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "elsewhere", "new.txt"])
    assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("descriptor", [1, 2])
def test_native_output_is_silenced_for_a_block(descriptor: int, capfd: pytest.CaptureFixture[str]) -> None:
    os.write(descriptor, b"before ")
    with files.quiet(descriptor):
        os.write(descriptor, b"within ")
        assert files.ONE_AT_A_TIME.locked()
    os.write(descriptor, b"after")
    assert capfd.readouterr()[descriptor - 1] == "before after"
    assert not files.ONE_AT_A_TIME.locked()


def test_what_lies_below_a_folder(tmp_path: Path) -> None:
    """Through links, once each, and without end; what is hidden is left out, and what is lost is named."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "here"
    (folder / "real").mkdir(parents=True)
    (folder / ".git").mkdir()
    elsewhere.mkdir()
    for path in (elsewhere / "a", folder / "real" / "b", folder / ".git" / "c", folder / ".d"):
        path.touch()
    for name, to in (
        ("linked", elsewhere),
        ("again", folder / "real"),
        ("loop", folder),
        ("self", folder / "self"),
    ):
        (folder / name).symlink_to(to)
    (elsewhere / "up").symlink_to(folder)
    (folder / "gone.dcm").symlink_to(tmp_path / "missing")
    found, lost = files.below(folder)
    assert found == [folder / "linked" / "a", folder / "real" / "b"]
    assert set(lost) == {folder / "gone.dcm", folder / "self"}
    assert files.below(tmp_path / "missing")[1] == {tmp_path / "missing": "No such file or directory"}
