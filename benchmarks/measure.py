"""What the benchmarks share: the machine in words, timing in turn, and a section of results.md."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median

from seran import files
from seran.machine import cpus

RESULTS = Path(__file__).with_name("results.md")
KINDS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx2")
"""Instructions that decide how fast a network runs, the best first."""


def machine() -> str:
    """The CPU, the cores that this process may use, and the instructions that matter."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    name = re.search(r"model name\s*: (.*)", facts)
    family = re.search(r"cpu family\s*: (\d+)", facts)  # virtual machines give whole generations one name
    found = [kind for kind in KINDS if re.search(rf"^flags.*\b{kind}\b", facts, re.MULTILINE)]
    capped = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    words = [name[1] if name else platform.processor(), f"family {family[1]}" if family else ""]
    words += [f"{cpus()} cores", f"capped at {capped}" * bool(capped), " ".join(found)]
    return ", ".join(filter(None, words))


def commit() -> str:
    """What is timed: the commit, and whether files differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, check=True, capture_output=True, text=True).stdout

    changed = [line for line in git("status", "--porcelain", "--", "../src").splitlines() if line]
    return git("rev-parse", "--short", "HEAD").strip() + " with changes" * bool(changed)


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every way, one after the other in each round, after one call each that is not counted."""
    for run in ways.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(values: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{median(values):.3g} ({min(values):.3g} … {max(values):.3g})"


def table(head: str, found: Mapping[str, list[float]]) -> list[str]:
    """What was measured, a line each, under ``head`` ("what | unit")."""
    return [f"| {head} |", "|---|---|", *(f"| {name} | {spread(values)} |" for name, values in found.items())]


def record(title: str, lines: list[str], libraries: tuple[str, ...] = ()) -> None:
    """Print a section, and put it in place of the one of the same title and machine in results.md."""
    program = Path(sys.argv[0]).name
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join([f"python benchmarks/{program}", *words])
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    head = f"`{command}`, commit {commit()}, {machine()}{f', {versions}' * bool(versions)}."
    section = "\n".join([f"## {title}", "", head, "", *lines, ""])
    print(section)  # noqa: T201
    text = (
        RESULTS.read_text() if RESULTS.is_file() else "# Results\n\nMade by the programs beside this file.\n"
    )
    same = rf"^## {re.escape(title)}\n\n[^\n]*{re.escape(machine())}[^\n]*\n.*?(?=^## |\Z)"
    old = re.compile(same, re.MULTILINE | re.DOTALL)
    text = old.sub(lambda _: f"{section}\n", text) if old.search(text) else f"{text.rstrip()}\n\n{section}"
    with files.atomic(RESULTS) as part:
        part.write_text(text.rstrip() + "\n")
