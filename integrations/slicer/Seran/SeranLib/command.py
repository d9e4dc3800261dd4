"""How `seran upscale` is called: its words, its environment, its lines, and what its record says.

Nothing of Slicer and nothing of seran is imported, so tests run it anywhere. Python 3.9, which Slicer 5.8
has, is enough; seran itself needs 3.10 and may have a Python of its own.
"""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Generator, Mapping
from pathlib import Path

GRIDS = {
    "twice as fine in the plane": [],
    "three times as fine": ["--scale", "3"],
    "four times as fine": ["--scale", "4"],
    "the same grid, without noise and filter": ["--scale", "1"],
    "thin slices from thick ones": ["--isotropic", "auto"],
}
"""The grids that the module offers, and how the command is asked for them."""
OF_SLICER = {"PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
"""Variables with which another Python than Slicer's would load Slicer's modules and libraries."""


class Problem(Exception):
    """What is wrong, in a line for the user."""


def program(named: str, python: str) -> list[str]:
    """The words that start seran: the program that the user named, or seran in Slicer's own Python.

    Args:
        named: path of the command ``seran``; empty if there is none.
        python: path of Slicer's Python.
    """
    if named and not Path(named).is_file():
        raise Problem(f"{named}: expected the program seran; name another one, or none for Slicer's Python")
    return [named] if named else [python, "-m", "seran"]


def environment(named: str, here: Mapping[str, str]) -> dict[str, str]:
    """The variables for it: those of Slicer, without what only its own Python may have.

    Args:
        named: as for `program`.
        here: Slicer's variables.
    """
    return {name: value for name, value in here.items() if not (named and name in OF_SLICER)}


def words(start: list[str], scan: Path, result: Path, grid: str, more: str = "") -> list[str]:
    """The command line.

    Args:
        start: see `program`.
        scan: the scan.
        result: the file to write.
        grid: one of `GRIDS`.
        more: further options, as one types them.
    """
    try:
        typed = shlex.split(more)
    except ValueError as error:
        raise Problem(f"further options {more}: {error}") from error
    fixed = ["--strict", "off", "--verbose"]  # a FAIL is shown with the result; every stage is a line
    return [*start, "upscale", str(scan), str(result), *GRIDS[grid], *fixed, *typed]


def running(line: list[str], variables: Mapping[str, str]) -> Generator[str, None, None]:
    """Run a command line to its end, or until this is closed.

    What it prints is given line by line, and "" ten times a second while it prints nothing. `Problem`, with
    what it said last, if it cannot be started or its exit status is not 0.
    """
    hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    try:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=both,
            env=dict(variables),
            encoding="utf-8",
            errors="replace",
            creationflags=hidden,
        )
    except OSError as error:
        raise Problem(f"{line[0]} cannot be started: {error.strerror}") from error
    printed: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [printed.put(text) for text in process.stdout], daemon=True)
    reader.start()
    last = ""
    try:
        while reader.is_alive() or not printed.empty():
            try:
                text = printed.get(timeout=0.1).rstrip()
                last = text or last
                yield text
            except queue.Empty:
                yield ""
        if process.wait():
            raise Problem(_explained(last) or f"{line[0]} ended with status {process.returncode}")
    finally:
        if process.poll() is None:
            process.terminate()  # seran leaves nothing half-written
        process.wait()
        process.stdout.close()


def _explained(last: str) -> str:
    """The last line of a command that failed, with what to do where seran is not there."""
    if last.endswith("No module named seran"):
        return "seran is not in Slicer's Python; install it there, or name the program seran below"
    return last


def record_of(result: Path) -> dict[str, object]:
    """The record beside a result in NIfTI."""
    return json.loads(_beside(result, ".json").read_text(encoding="utf-8"))


def images_of(result: Path) -> dict[str, Path]:
    """The result and the maps that its record names, by what the title of a volume ends in."""
    maps = record_of(result).get("Maps", [])
    return {"sharp": result, **{name: _beside(result, f"_{name}.nii.gz") for name in maps}}


def _beside(result: Path, end: str) -> Path:
    return result.with_name(result.name[: -len(".nii.gz")] + end)


def told(record: Mapping[str, object]) -> str:
    """The verdict and every check of a record, one a line."""
    checks = [f"{check['verdict']:9} {check['name']}: {check['text']}" for check in record["Checks"]]
    made = f"{record['Method']} ({record['Weights'] or 'no weights'}), seran {record['Version']}"
    return "\n".join([f"{record['Verdict']}: {made}", *checks])
