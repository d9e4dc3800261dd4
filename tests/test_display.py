"""What a user sees while a scan is sharpened, on a terminal and in a log: processes with slow networks."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import progress, sharpen
from seran.engines import Lane, predictor
from seran.job import display
from seran.job.options import Options, Scanner
from seran.job.run import run
from seran.methods import method
from seran.native import quieted
from seran.sharpen import Normalisation
from tests.conftest import bare, oblique, phantom, taken

SLOW = """
import sys, time
from dataclasses import replace
from seran.engines import mnn, openvino
from seran.job import display
from seran.quality import checks

def slow(network, request=openvino._request):
    lane = request(network)
    return replace(lane, start=lambda low: time.sleep({seconds}) or lane.start(low))

def late(*all, real=checks.all_of):
    time.sleep(0.3)
    return real(*all)

mnn.suits, openvino._request, checks.all_of = lambda threads: False, slow, late
display.LINE, display.LOOK = {line}, 0.05
from seran.cli import main
main()
"""
"""The command, with networks that take so many seconds for a slice."""


def command(*words: object, seconds: float = 0.2, line: float = 60.0) -> list[str]:
    code = SLOW.format(seconds=seconds, line=line)
    return [sys.executable, "-c", code, *map(str, words), "--threads", "1"]


def watched(words: list[str], columns: int = 100) -> list[tuple[float, str]]:
    """What a process writes on a terminal, and when, in seconds."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    began, seen = time.monotonic(), []
    process = subprocess.Popen(words, stderr=terminal, stdout=subprocess.DEVNULL)
    os.close(terminal)
    while True:
        try:
            text = os.read(screen, 4096).decode()
        except OSError:  # Linux' way to say that it ends
            break
        seen.append((time.monotonic() - began, text))
    os.close(screen)
    assert process.wait() == 0
    return seen


@pytest.fixture
def thick(tmp_path: Path) -> Path:
    """A scan of 9 slices, fewer than a predictor is asked for at a time."""
    path = tmp_path / "thick.nii.gz"
    nib.save(nib.Nifti1Image(phantom((34, 26, 9)), oblique()), path)
    return path


@pytest.mark.slow
def test_a_terminal_shows_every_stage_and_slice(thick: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii"
    words = command("upscale", thick, out, "--noise", "0.02", "--strict", "off", seconds=0.6)
    shown = watched(words)
    text = "".join(part for _, part in shown)
    for stage in ("load", "sharpen", "check"):
        assert f"| {stage}" in text
    numbers = [int(n) for n in re.findall(r"sharpen (\d+)/9 slices", text)]
    assert numbers == sorted(numbers)
    assert {1, 2, 3, 4, 5, 6, 7, 8} <= set(numbers)
    assert re.search(r"sharpen [5-8]/9 slices, \d+:\d\d, \d+:\d\d left: thick.nii.gz", text)
    first, last = (next(at for at, part in shown if mark in part) for mark in ("load", "| check"))
    assert first < last - 9 * 0.6 + 0.5  # before the first slice


@pytest.mark.slow
def test_passes_of_an_ensemble_count(thick: Path, tmp_path: Path) -> None:
    """One chunk holds all slices, and each of the eight passes goes through all of them."""
    words = ("upscale", thick, tmp_path / "out.nii", "--noise", "0.02", "--strict", "off", "--ensemble")
    text = "".join(part for _, part in watched(command(*words, seconds=0.1)))
    assert len(set(re.findall(r"sharpen (\d)/9 slices", text))) > 6


@pytest.mark.slow
def test_a_pipe_gets_plain_lines(thick: Path, tmp_path: Path) -> None:
    words = command("upscale", thick, tmp_path / "out.nii", "--strict", "off", line=1.0)
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if "seran: faster: " not in line]
    assert 2 <= len(lines) <= time.monotonic() - began + 1  # one a second, and one before the first slice
    pattern = r"seran: .*thick.nii.gz: (sharpen, \d of 9 slices(, \d+:\d\d left)?|\w+, \d+:\d\d so far)"
    assert all(re.fullmatch(rf"{pattern}(; about \d+ MB of memory)?", line) for line in lines), lines
    assert sum("of memory" in line for line in lines) == 1
    assert any(re.search(r" of 9 slices, \d+:\d\d left", line) for line in lines), lines
    quiet = subprocess.run([*words, "--force", "--quiet"], capture_output=True, text=True, check=True)
    assert (quiet.stdout, quiet.stderr) == ("", "")


@pytest.mark.slow
def test_a_batch_on_a_terminal_has_two_bars(thick: Path, tmp_path: Path) -> None:
    words = ("upscale", thick, shutil.copy(thick, tmp_path / "b.nii.gz"), tmp_path / "results")
    text = "".join(part for _, part in watched(command(*words, "--noise", "0.02", "--strict", "off")))
    for part in ("0/2 scans", "1/2 scans, 0:", "/9 slices", ": thick.nii.gz", ": b.nii.gz"):
        assert part in text


def test_a_network_tells_of_every_slice() -> None:
    """While it is at work, though all are asked for at once; lanes take turns, and the result stays."""
    told: list[tuple[float, int]] = []
    begun: list[int] = []
    lane = Lane(lambda low: begun.append(1) or low, lambda low: low.repeat(2, 2).repeat(2, 3)[:, 0])
    predict = predictor((2, 2), lambda h, w: ([lane] * 2, 1))
    stack = phantom((7, 12, 10))
    plain = predict(stack)
    begun.clear()
    with progress.passing(lambda slices: told.append((slices, len(begun)))):
        made = predict(stack)
    assert told == [(1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (1, 7)]
    np.testing.assert_array_equal(made, plain)


@pytest.mark.parametrize("name", ["seran", "seran+", "bicubic"])
def test_progress_of_a_stack_adds_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of a slice with an ensemble; once for all of a chunk without a network."""
    monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 4 * 4 * 20 * 24)
    told: list[float] = []
    sharpen.sharpen(phantom((7, 20, 24)), method(name, 2), told.append)
    assert sum(told) == 7
    assert told == {"seran": [1] * 7, "seran+": [0.125] * 56, "bicubic": [4, 3]}[name]


def test_slices_for_context_are_no_more_slices() -> None:
    told: list[float] = []

    def predict(low: np.ndarray) -> np.ndarray:
        for _ in low:
            progress.PASSED.get()(1)
        return low.repeat(2, 1).repeat(2, 2)

    sharpen.sharpen(phantom((7, 20, 24)), bare(predict, context=None), told.append)
    assert told == [1] * 7
    with progress.counting(2, 4, told.append):
        predict(np.zeros((9, 2, 2)))
    assert sum(told) == 9


def test_slices_that_are_tried_are_told() -> None:
    stack = np.moveaxis(taken(20.0), 2, 0)
    known, told = Scanner().known(stack, Normalisation.of(stack).gain), []
    quieted(method("seran", 2, "native"), known, stack, told.append)
    assert told[:2] == [1, 1]


def test_half_widths_are_not_counted_twice(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(taken(10.0), oblique()), path)
    with display.shown() as work:
        run(path, tmp_path / "out.nii", Options(uncertainty=True))
    assert (work.total, work.stage, {n: c.done for n, c in work.counts.items()}) == (
        3,
        "write",
        {"sharpen": 3},
    )


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """By slices that were tried before the first is done, then by those that are; each stage for itself."""
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    token = progress.NOW.set(work := progress.Work())
    tried, passed = progress.trying(), progress.slices(10)
    tried(1)  # which waited for the network
    now = 103.0
    tried(1)
    now = 106.0
    tried(1)
    assert (work.tried, work.left) == (3.0, None)
    progress.enter("sharpen")
    assert (work.slices, work.left) == (0, 30.0)
    now = 110.0
    passed(2)
    now = 111.0
    assert (work.slices, work.left) == (2, 15.0)
    now = 900.0
    assert work.left == 0.0
    progress.enter("thin")
    assert (work.slices, work.left) == (0, None)
    now = 905.0
    passed(2.5)
    assert (work.slices, work.left) == (2, 15.0)
    work.scans, work.finished, work.began = 5, 3, 105.0
    assert work.all_left is None
    work.made = 2  # the third was there
    assert work.all_left == 800.0
    progress.NOW.reset(token)
