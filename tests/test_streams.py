"""What a command prints, and where nobody reads it: the result and the exit status stay honest."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seran import cli, progress

SERAN = f"{sys.executable} -m seran"
HOSTILE = "\x1b[2J\x07\u202e\x9b"


def shell(line: str, **options: str) -> "subprocess.CompletedProcess[str]":
    told = {
        "capture_output": True,
        "encoding": "utf-8",
        "errors": "backslashreplace",
        "env": {**os.environ, **options},
    }
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], **told)  # type: ignore[call-overload]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        ("| true", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 1, "standard output: No space left on device; files that the command wrote are whole"),
    ],
)
def test_a_result_is_written_though_nobody_reads(
    scan: Path, tmp_path: Path, where: str, status: int, said: str
) -> None:
    out = tmp_path / "out.nii"
    done = shell(f"{SERAN} upscale {scan} {out} --method bicubic --verbose {where}")
    assert done.returncode == status
    assert out.is_file()
    assert out.with_suffix(".json").is_file()
    assert [line for line in done.stderr.splitlines() if "standard output" in line] == [
        f"seran: {said}"
    ] * bool(said)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["2>&-", ">&- 2>&-", "2>/dev/full", "2>&1 | true"])
def test_a_mistake_keeps_its_status(where: str) -> None:
    assert shell(f"{SERAN} upscala {where}").returncode == 2


def test_what_starts_with_closed_streams_writes_into_no_file(tmp_path: Path) -> None:
    """The first file that is opened would get the number of standard output."""
    code = "import sys; from seran import cli; sys.argv[1:] = ['--version']; cli.main()"
    done = shell(f'{sys.executable} -c "{code}" >&- 2>&- <&-; echo $?')
    assert done.stdout == "0\n"


def test_letters_that_a_terminal_lacks() -> None:
    done = shell(f"{SERAN} methods", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u2013" in done.stdout


def test_no_name_commands_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """In an error, a log and a line; nor one that is not UTF-8."""
    for name in (f"{HOSTILE}.nii", os.fsdecode(b"\xe9.nii")):
        path = tmp_path / name
        path.write_bytes(b"no scan")
        assert cli.run(["info", str(path), "--verbose"]) == 2
        with caplog.at_level(logging.INFO), cli._telling(quiet=False, verbose=True):
            progress.log.info("read %s", path)
        progress.say(str(path))
        cli._write(str(path))
        said = capsys.readouterr()
        for text in (said.err, said.out):
            assert text.replace("\n", "").isprintable()
            assert text.count(r"\udce9" if "\udce9" in name else r"\x1b[2J\x07\u202e\x9b") == 2
