"""What a process that is killed outright leaves behind, and who may remove it."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files
from seran.errors import BadInput
from seran.job import record
from tests.conftest import oblique, phantom
from tests.test_dicom import series

COMMAND = [sys.executable, "-m", "seran", "upscale", "--method", "bicubic"]


def killed(folder: Path) -> int:
    """Kill a command while it writes ``out.nii`` there; the number it had."""
    nib.save(nib.Nifti1Image(phantom((200, 180, 60)), oblique()), folder / "in.nii")
    process = subprocess.Popen([*COMMAND, folder / "in.nii", folder / "out.nii"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(p.stat().st_size for p in folder.glob(".part-*/out.nii")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it was too fast to be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.pid


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    number = killed(tmp_path)
    [left] = tmp_path.glob(".part-*")
    assert left.name.startswith(f".part-{files.place()}-{number}-")
    assert left.stat().st_mode & 0o777 == 0o700
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
    assert (tmp_path / name).read_bytes() == b"voxels"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".gz", ".json"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a name is a text")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, in the names of a pair and of a DICOM folder's slices."""
    data, name = phantom((26, 34, 5)), os.fsdecode(b"p\xff")
    nib.Nifti1Pair(data, oblique()).to_filename(tmp_path / "p.hdr")
    for end in (".hdr", ".img"):
        (tmp_path / "p").with_suffix(end).rename(tmp_path / f"{name}{end}")
    printed = subprocess.run("sha256sum * | LC_ALL=C sort", cwd=tmp_path, shell=True, capture_output=True)
    pair = sorted(tmp_path.iterdir())
    assert files.sha256_of(pair) == hashlib.sha256(printed.stdout).hexdigest()
    for path in series(tmp_path / "in", data.astype(np.int16), oblique(), Modality="MR"):
        path.rename(path.with_name(f"{name}{path.name}"))
    for i, source in enumerate((pair[0], tmp_path / "in")):
        words = ["upscale", str(source), str(tmp_path / f"{i}.nii"), "--method", "bicubic", "--threads", "1"]
        assert cli.run(words) == cli.run([*words, "--resume"]) == 0


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


def test_a_run_that_finds_all_done_sweeps_too(scan: Path, tmp_path: Path) -> None:
    words = ["upscale", str(scan), str(tmp_path / "out.nii"), "--method", "bicubic", "--resume"]
    assert cli.run(words) == 0
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".part-{files.place()}-{dead.pid}-a").mkdir()
    files.sweep.cache_clear()
    assert cli.run(words) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.nii", "scan.nii.gz"]


KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))

def counted(call):
    def made(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return made

for name in ("replace", "rename", "link", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
"""
"""A program that dies before the N-th time that it changes a name; what follows is run."""

WRITES = """
import hashlib, json
from pathlib import Path
from seran import files
out, text, force = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "force"
paths = [out.with_suffix(".hdr"), out.with_suffix(".img")]
with files.together(*paths, out.with_suffix(".json"), force=force) as (*images, told):
    for image in images:
        image.write_text(text)
    told.write_text(json.dumps([hashlib.sha256(i.read_bytes()).hexdigest() for i in images]))
"""


def honest(out: Path, *texts: str) -> bool:
    """Whether there is a record; if there is, it is of the files beside it, and those are of one run."""
    images = [out.with_suffix(".hdr"), out.with_suffix(".img")]
    there = {path.read_text() for path in images if path.exists()}
    assert len(there) <= 1
    assert there <= set(texts)
    told = out.with_suffix(".json")
    if told.exists():
        assert json.loads(told.read_text()) == [hashlib.sha256(i.read_bytes()).hexdigest() for i in images]
    return told.exists()


@pytest.mark.parametrize("former", [False, True])
def test_killed_between_any_two_renames_no_record_lies(tmp_path: Path, former: bool) -> None:
    for n in range(20):
        out = tmp_path / f"{n}" / "out"
        out.parent.mkdir()
        if former:
            subprocess.run([sys.executable, "-c", KILLED + WRITES, "999", out, "old", ""], check=True)
        command = [sys.executable, "-c", KILLED + WRITES]
        died = subprocess.run([*command, str(n), out, "new", "force" * former]).returncode
        whole = honest(out, "old", "new")
        if not died:
            assert n > 5 if former else n > 2
            assert whole
            break
        assert died == -signal.SIGKILL
        subprocess.run([*command, "999", out, "new", "force"], check=True)
        assert honest(out, "new")
        assert sorted(p.name for p in out.parent.iterdir()) == ["out.hdr", "out.img", "out.json"]
    else:
        pytest.fail("it never came to an end")


@pytest.mark.slow
def test_a_killed_command_leaves_no_record_that_lies(tmp_path: Path) -> None:
    """The same for scans: of the result before, of the new one, or of none.

    With --resume it is finished, but for an image without a record, which might be the user's own.
    """
    nib.save(nib.Nifti1Image(phantom((26, 34, 5)), oblique()), tmp_path / "in.nii")
    code = KILLED + "from seran import cli; sys.exit(cli.run(sys.argv[1:]))"
    out, records = tmp_path / "out.nii", set()
    for n in range(9):
        words = ["upscale", tmp_path / "in.nii", out, "--method", "bicubic", "--resume"]
        command = [sys.executable, "-c", code]
        subprocess.run([*command, "999", *words], check=True, stdout=subprocess.DEVNULL)
        died = subprocess.run(
            [*command, str(n), *words, "--scale", "3"], stdout=subprocess.DEVNULL
        ).returncode
        made = record.read(out)
        records.add(made and made.scale)
        if made:
            assert json.loads((tmp_path / "out.json").read_text())["ResultSHA256"] == [files.sha256(out)]
            assert nib.load(out).shape[0] == 26 * made.scale
        elif out.exists():
            assert subprocess.run([*command, "999", *words], stderr=subprocess.DEVNULL).returncode == 2
            out.unlink()
        if not died:
            break
    assert records == {2, None, 3}


@pytest.mark.slow
def test_of_two_processes_one_wins(tmp_path: Path) -> None:
    """Without links on the file system, too."""
    waits = "import time\nwhile not os.path.exists('go'): pass\n"
    no_links = "def no(*a): raise PermissionError(1, 'no links here')\nos.link = no\n"
    for i, before in enumerate([waits] * 20 + [no_links + waits] * 5):
        folder = tmp_path / str(i)
        folder.mkdir()
        code = [sys.executable, "-c", KILLED + WRITES.replace("with files", before + "with files", 1), "999"]
        pair = [
            subprocess.Popen([*code, folder / "out", text, ""], cwd=folder, stderr=subprocess.PIPE)
            for text in ("a", "b")
        ]
        time.sleep(0.3)
        (folder / "go").touch()
        said = [process.communicate()[1].decode() for process in pair]
        assert sorted(process.returncode for process in pair) == [0, 1]
        [lost] = filter(None, said)
        assert "BadInput" in lost
        assert lost.rstrip().endswith("written by another process meanwhile; give --force to replace it")
        assert honest(folder / "out", "ab"[[p.returncode for p in pair].index(0)])
        assert sorted(p.name for p in folder.iterdir()) == ["go", "out.hdr", "out.img", "out.json"]


@pytest.mark.slow
def test_of_two_commands_one_wins(tmp_path: Path) -> None:
    """Both would write the same result from the same scan; the second loses in one line."""
    nib.save(nib.Nifti1Image(phantom((26, 34, 5)), oblique()), tmp_path / "in.nii.gz")
    code = """
import os, sys
from seran import cli
import seran.job.run
while not os.path.exists(sys.argv[1]): pass
sys.exit(cli.run(sys.argv[2:]))
"""
    for i in range(20):
        out, go = tmp_path / f"{i}.nii.gz", tmp_path / f"go{i}"
        words = ["upscale", tmp_path / "in.nii.gz", out, "--method", "bicubic", "--scale"]
        command = [sys.executable, "-c", code, go]
        pair = [
            subprocess.Popen([*command, *words, scale], stdout=-3, stderr=subprocess.PIPE) for scale in "23"
        ]
        time.sleep(1.5)
        go.touch()
        said = [process.communicate()[1].decode() for process in pair]
        assert sorted(process.returncode for process in pair) == [0, 2]
        assert sum(text.count("\n") for text in said) == 1
        assert "exists" in "".join(said)
        made = record.read(out)
        assert made is not None
        assert made.result_sha256 == (files.sha256(out),)
        assert nib.load(out).shape[0] == 26 * made.scale == 26 * (2, 3)[[p.returncode for p in pair].index(0)]


def write(path: Path, told: Path, force: bool = True) -> None:
    """Write a file beside ``told``, or in a folder that is, and ``told``."""
    inside = path.relative_to(told.parent)
    with files.together(told.parent / inside.parts[0], told, force=force) as (made, beside):
        new = made.parent / inside
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_text("new")
        beside.write_text("new")


def test_what_cannot_be_replaced_keeps_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, told, rename = tmp_path / "a.nii", tmp_path / "a.json", os.replace
    image.write_text("old")
    told.write_text("of the old one")

    def replace(made: Path, path: Path) -> None:
        if path == image:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(made))
        rename(made, path)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError) as caught:
        write(image, told)
    assert caught.value.filename == str(image)
    assert (image.read_text(), told.read_text()) == ("old", "of the old one")
    assert sorted(tmp_path.iterdir()) == [told, image]


def test_a_folder_does_not_replace_another(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").touch()
    with pytest.raises(BadInput, match=r"out exists, written by another"):
        write(tmp_path / "out" / "deep" / "1.dcm", tmp_path / "out.json", force=False)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "other"]


def test_nothing_is_written_through_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".part-{files.place()}-{os.getpid()}-new.txt").symlink_to(victim)
    (tmp_path / "new.txt").symlink_to(victim)
    with files.atomic(tmp_path / "new.txt") as made:
        assert made.parent.stat().st_mode & 0o777 == 0o700
        made.write_text("x")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new.txt").is_symlink()


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
