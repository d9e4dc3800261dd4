"""What is told beside the terminal: a log, and lines of JSON; also of runs that are killed or fail."""

import json
import logging
import os
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

from seran import cli, journal, progress
from seran.engines import Engine
from seran.job import advice, display
from seran.job.options import Options, Scanner, Target
from tests.conftest import phantom
from tests.test_display import command

FIELDS = {
    "message": {"level", "text"},
    "begin": {"scan", "number", "scans"},
    "progress": {
        "scan", "number", "scans", "finished", "stage", "slices", "of", "seconds", "left", "all_left", "text",
        "memory",
    },
    "scan": {"scan", "number", "scans", "status", "result", "record", "verdict", "failed", "text"},
    "end": {"status", "text"},
}  # fmt: skip


def events(text: str) -> list[dict[str, Any]]:
    """What lines of JSON tell, each with the fields that its kind always has."""
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert {*one} == {"event", "time", *FIELDS[one["event"]]}
    return found


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in found if one["event"] == kind]


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_of_one_scan(
    quiet: bool, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.nii"
    words = ["upscale", str(scan), str(out), "--method", "bicubic", "--json", "--strict", "off"]
    assert cli.run([*words, *["-q"] * quiet]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    found = events(shown.out)
    assert [one["scan"] for one in of("begin", found)] == [str(scan)]
    [made], [end] = of("scan", found), of("end", found)
    assert (made["status"], made["result"], made["record"]) == (
        "sharpened",
        str(out),
        str(tmp_path / "out.json"),
    )
    assert made["verdict"] == json.loads((tmp_path / "out.json").read_text())["Verdict"]
    assert found[-1] == end
    assert (end["status"], end["text"]) == (0, made["text"])
    assert {one["stage"] for one in of("progress", found)} <= {
        "read",
        "load",
        "measure",
        "sharpen",
        "check",
        "write",
    }
    assert cli.run([*words, "--resume"]) == 0
    [made] = of("scan", events(capsys.readouterr().out))
    assert made["status"] == "there"
    assert cli.run(words) == 2  # it exists
    shown = capsys.readouterr()
    assert events(shown.out)[-1] | {"time": ""} == {
        "event": "end", "time": "", "status": 2, "text": shown.err.removeprefix("seran: ").strip(),
    }  # fmt: skip


def test_lines_and_log_of_several(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.nii").write_text("no scan")
    log = tmp_path / "run.log"
    words = ["upscale", str(scan), str(tmp_path / "bad.nii"), str(tmp_path / "results")]
    assert cli.run([*words, "--method", "bicubic", "--json", "--log", str(log), "--strict", "off"]) == 1
    shown = capsys.readouterr()
    found = events(shown.out)
    assert [(one["number"], one["scans"], one["status"]) for one in of("scan", found)] == [
        (1, 2, "sharpened"),
        (2, 2, "failed"),
    ]
    assert of("scan", found)[1]["result"] is None
    assert "cannot be read as NIfTI" in of("scan", found)[1]["text"]
    assert of("end", found)[0]["text"] == "1 sharpened, 0 there already, 1 failed"
    assert [line[:5] for line in shown.err.splitlines()] == ["[1/2]", "[2/2]", "seran"]
    lines = log.read_text().splitlines()
    assert all(journal.STAMP.match(line) for line in lines)
    levels = [line.split()[1] for line in lines]
    assert (levels.count("WARNING"), levels[-1]) == (1, "ERROR")
    assert lines[-1].endswith("1 sharpened, 0 there already, 1 failed (exit status 1)")
    assert any("bad.nii: scan 2 of 2" in line for line in lines)
    assert any("sharpen and check bicubic: " in line for line in lines)  # as with --verbose
    assert cli.run([*words, "--resume", "--quiet", "--method", "bicubic", "--log", str(log)]) == 1
    assert log.read_text().splitlines()[: len(lines)] == lines


def test_a_log_replaces_nothing(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, words = tmp_path / "notes.txt", ["upscale", str(scan), str(tmp_path / "out.nii"), "--log"]
    other.write_text("mine\n")
    assert cli.run([*words, str(other)]) == 2
    assert "notes.txt: exists and is no log of seran's; name another file" in capsys.readouterr().err
    assert other.read_text() == "mine\n"
    before = scan.read_bytes()
    assert cli.run([*words, str(scan)]) == 2
    assert scan.read_bytes() == before
    assert cli.run([*words, str(tmp_path / "none" / "log")]) == 2
    assert "none/log: No such file or directory; name a file that can be written" in capsys.readouterr().err
    assert not (tmp_path / "out.nii").exists()


def test_a_log_has_progress_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(journal.time, "monotonic", lambda: now)
    log = journal.Log(tmp_path / "log")
    for now in range(100, 400, 7):
        log.hear("progress", {"text": f"at {now}"})
    log.hear("message", {"level": "WARNING", "text": "two\nlines\x1b[2J"})
    log.close()
    said = [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()[1:]]
    assert said == [
        *(f"INFO at {now}" for now in (163, 226, 289, 352)),
        "WARNING two",
        r"WARNING lines\x1b[2J",
    ]


def test_nobody_needs_to_read_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        lines = journal.Lines()
        lines.hear("end", {"status": 0, "text": "x" * 5000})
        assert json.loads(os.read(reading, 6000))["text"] == "x" * 5000
        os.close(reading)
        lines.hear("end", {"status": 0, "text": ""})
        lines.close()


def test_what_cannot_be_written_is_told(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result is made all the same."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    words = ["upscale", str(scan), str(tmp_path / "out.nii"), "--method", "bicubic", "--strict", "off"]
    assert cli.run([*words, "--log", "/dev/full"]) == 1
    line = "seran: --log /dev/full: No space left on device; other files that the command wrote are whole\n"
    assert capsys.readouterr().err == line
    assert (tmp_path / "out.json").is_file()
    with pytest.MonkeyPatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert cli.run([*words, "--force", "--json"]) == 1
    assert capsys.readouterr().err == line.replace("--log /dev/full", "standard output")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_says_so(number: int, scan: Path, tmp_path: Path) -> None:
    """In its last line, at the level of an error, with a status of its own; nothing half-written is left."""
    (results := tmp_path / "results").mkdir()
    log = tmp_path / "log"
    words = command(
        "upscale", scan, results / "out.nii", "--noise", "0.02", "--json", "--log", log, seconds=5
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = ""
        while '"stage": "sharpen"' not in seen:
            seen = process.stdout.readline()
            assert seen
        process.send_signal(number)
        began = time.monotonic()
        rest, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert time.monotonic() - began < 60  # what a network has begun is awaited
    end = events(rest)[-1]
    assert (end["event"], end["status"]) == ("end", 130)
    assert end["text"].startswith("interrupted; no half-written result is left")
    assert err.splitlines()[-1] == f"seran: {end['text']}"
    assert log.read_text().splitlines()[-1].split(" ", 1)[1] == f"ERROR {end['text']} (exit status 130)"
    assert list(results.iterdir()) == []


@pytest.mark.slow
def test_processes_are_told_of_together(scan: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    for name in "ab":
        shutil.copy(scan, tmp_path / f"{name}.nii.gz")
    words = ("upscale", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", tmp_path / "results", "--json", "-q")
    how = ("--method", "bicubic", "--cluster", "local", "--workers", "2", "--strict", "off")
    done = subprocess.run(
        [sys.executable, "-m", "seran", *map(str, (*words, *how))], capture_output=True, text=True, check=True
    )
    found = events(done.stdout)
    assert [one["number"] for one in of("scan", found)] == [1, 2]
    assert {one["scan"] for one in of("scan", found)} == {str(tmp_path / f"{name}.nii.gz") for name in "ab"}
    assert all(one["stage"] is one["scan"] is one["number"] is None for one in of("progress", found))
    assert of("end", found)[0]["text"] == "2 sharpened, 0 there already, 0 failed"
    assert done.stderr == ""


def test_a_faster_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(words: str, options: Options = Options(), engine: Engine = Engine(), lacks: bool = True) -> str:  # noqa: B008
        known, half = set(words.split()), "bf16" in words
        monkeypatch.setattr(advice, "instructions", lambda: known)
        monkeypatch.setattr(advice, "has_bf16", lambda: half)
        monkeypatch.setattr(advice, "missing", lambda: {"winograd": ["MNN"] * lacks})
        monkeypatch.setattr(advice, "cpus", lambda: 4)
        return advice.faster(options, engine)

    paper = Options(scanner=Scanner(acquisition="bicubic"))
    assert "seran[winograd]" in at("avx2")
    fast = at("avx2", lacks=False)
    assert "with --fast" in fast
    assert at("avx2 avx512f") == at("neon") == at("avx2 avx512f bf16") == fast
    assert at("avx2", Options(fast=True), lacks=False) == ""
    assert "--fast" not in at("avx2", Options(target=Target(isotropic="auto")), lacks=False)
    assert "without --precision f32" in at("avx512f bf16", engine=Engine(precision="f32"))
    assert "--precision int8" in at("avx2 avx512f avx512_vnni bf16", paper)
    assert at("avx512f avx512_vnni amx_int8 bf16", paper) == ""
    assert at("avx512f avx512_vnni bf16") == fast  # native weights have no 8 bits
    assert "without --ensemble" in at("avx2", Options(ensemble=True))
    assert at("avx2", engine=Engine(threads=16)) == fast
    assert at("avx2", engine=Engine(device="cuda")) == ""
    assert at("avx2", Options(method="bicubic")) == ""


def test_a_faster_way_is_told_once_and_only_where_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, tell, now = progress.Work(faster="faster: so", total=10), display._advice(), 10.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    monkeypatch.setattr(display, "LINE", 60.0)
    tell(work)
    assert capsys.readouterr().err == ""
    work.stage, work.tried, work.counts = "sharpen", 6.0, {"sharpen": progress.Count(10.0)}
    tell(work)
    tell(work)
    assert capsys.readouterr().err == "seran: faster: so\n"


def test_logged_warnings_are_told(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = np.array(phantom((12, 14, 5)))
    data[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 1, 3, 1])), tmp_path / "hole.nii")
    words = ["upscale", str(tmp_path / "hole.nii"), str(tmp_path / "out.nii"), "--method", "bicubic"]
    assert cli.run([*words, "--fill", "0", "--json", "--strict", "off"]) == 0
    shown = capsys.readouterr()
    told = [one["text"] for one in of("message", events(shown.out)) if one["level"] == "WARNING"]
    assert [f"seran: {text}" for text in told] == shown.err.splitlines() != []
    assert progress.log.level == logging.NOTSET
