"""The page about 100,000 volumes says what its program makes of the measurements."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def plan(*args: object) -> str:
    command = [sys.executable, ROOT / "benchmarks" / "plan.py", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_page_is_made_by_the_program() -> None:
    assert plan() in (ROOT / "docs" / "hundred-thousand.md").read_text()


def test_a_sum_that_can_be_done_by_hand() -> None:
    """1000 volumes of 36 s on 2 cores: 20 core-hours, 5 hours on 4 cores, 2 of money at 0.1."""
    said = plan("--seconds", 36, "--on", 2, "--volumes", 1000, "--cores", 4, "--price", 0.1)
    assert "| yours | 36 on 2 cores | 20 | 5.0 | 2.00 |" in said
    rows = [row.split("|") for row in plan().splitlines() if row.startswith("| .nii.gz")]
    assert len(rows) == 2
    for row in rows:
        assert float(row[3]) == pytest.approx(float(row[2]) * 100_000 / 1e6, abs=0.011)
