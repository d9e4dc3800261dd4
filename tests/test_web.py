"""The page in `web/`: its code against the package, in Node; what serves it; and all of it in a browser."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import web_golden

ROOT = Path(__file__).parents[1]


def test_the_golden_results_are_those_of_this_version() -> None:
    """`python -m tests.web_golden` writes them anew."""
    made = json.loads(json.dumps(web_golden.golden()))
    known = json.loads(web_golden.GOLDEN.read_text())
    for kind in ("scans", "refused"):
        assert [one["name"] for one in made[kind]] == [one["name"] for one in known[kind]]
    for one, other in zip(made["scans"], known["scans"], strict=True):
        assert one == other, one["name"]


def test_the_page_computes_as_the_package_does() -> None:
    if shutil.which("node") is None:
        pytest.skip("there is no node here")
    done = subprocess.run(
        ["node", "--test", "web/test/"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
