"""The wheel and the sdist, built, looked into, installed where nothing else is, and used there."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import seran
from seran.machine import EXTRAS

ROOT = Path(__file__).parents[1]
SHIPPED = {f"seran/weights/shipped/{p.name}" for p in (ROOT / "src/seran/weights/shipped").iterdir()}
LARGEST = 60e6  # bytes of a wheel, with weights and viewer
CITATION = ROOT / "CITATION.cff"
pytestmark = pytest.mark.slow
PIP = (
    "-m",
    "pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--no-compile",
    "-c",
    ROOT / "constraints.txt",
)


def said(*words: object, cwd: Path | None = None, status: int = 0, **variables: str) -> str:
    """What a command of a user says: nothing of this environment reaches it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "SERAN"))}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=kept | variables, capture_output=True, text=True
    )
    assert done.returncode == status, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def venv(folder: Path) -> Path:
    """The interpreter of an empty environment."""
    said(sys.executable, "-m", "venv", folder)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of both, the wheel made from the sdist: unpacked far from git, by hatchling alone."""
    folder = tmp_path_factory.mktemp("built")
    python = venv(folder / "builder")
    try:
        said(python, *PIP, "hatchling")
    except AssertionError as error:
        pytest.skip(f"pip cannot install what builds a package: {str(error)[-200:]}")
    said(python, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    tree = next((folder / "unpacked").iterdir())
    said(python, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=tree, PATH="/nowhere")
    return folder


def test_what_is_in_them(built: Path) -> None:
    assert next(built.glob("*.whl")).stat().st_size <= LARGEST
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(next(n for n in names if n.endswith("/METADATA"))).decode()
        script = "seran/quality/viewer/niivue.umd.js"
        viewer = wheel.read(script) if script in names else b""
    assert {name.split("/")[0] for name in names} == {"seran", f"seran-{seran.__version__}.dist-info"}
    assert names >= SHIPPED
    assert "seran/weights/shipped/registry.csv" in names
    tree = {
        f"seran/{p.relative_to(ROOT / 'src/seran')}" for p in (ROOT / "src/seran").rglob("*") if p.is_file()
    }
    assert {n for n in names if n.startswith("seran/")} == {n for n in tree if "__pycache__" not in n}
    assert not [n for n in names if n.endswith((".nii", ".nii.gz", ".dcm"))]
    assert any(n.endswith("licenses/LICENSE") for n in names)
    if (ROOT / "src/seran/quality/viewer/niivue.umd.js").is_file():  # `make viewer` brings it
        _, digest = (ROOT / "src/seran/quality/viewer/niivue.lock").read_text().split()
        assert hashlib.sha256(viewer).hexdigest() == digest, "a wheel needs no npm for reports"
    assert {"niivue.LICENSE", "report.html", "group.html"} <= {n.split("/")[-1] for n in names}
    assert any(n.endswith("licenses/src/seran/quality/viewer/niivue.LICENSE") for n in names)
    for extra in EXTRAS:
        assert f"Provides-Extra: {extra}" in metadata
    tree_of_sdist = next((built / "unpacked").iterdir())
    held = {str(p.relative_to(tree_of_sdist)) for p in tree_of_sdist.rglob("*") if p.is_file()}
    git = ["git", "ls-files"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    if listed and listed.returncode == 0:
        tracked = {
            n
            for n in listed.stdout.splitlines()
            if not n.startswith((".ci", ".git", ".pre")) and (ROOT / n).exists()
        }
        assert tracked <= held, "what is tracked, and so what the tests need, travels"
    assert not [n for n in held if n.startswith((".venv", "dist/", "pairs")) or "__pycache__" in n]


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {seran.__version__}\n" in CITATION.read_text()


@pytest.mark.parametrize("words", ["pipx run --spec", "uvx --from"])
def test_one_line_runs_the_wheel(built: Path, tmp_path: Path, words: str) -> None:
    if not shutil.which(words.split()[0]):
        pytest.skip(f"{words.split()[0]} is not installed: pip install pipx uv")
    own = {"PIPX_HOME": str(tmp_path / "pipx"), "UV_TOOL_DIR": str(tmp_path / "uv")}
    text = said(*words.split(), next(built.glob("*.whl")), "seran", "--version", cwd=tmp_path, **own)
    assert f"seran {seran.__version__}\n" in text


LACKING = {
    ("train", "seran-x2-bd", "pairs", "run"): "train",
    ("export", "run", "own.onnx"): "train",
    ("upscale", "scan.nii.gz", "x.nii", "--device", "cuda"): "train",
    ("weights", "export", "srcnn-x2-bd", "--safetensors", "--out", "stick"): "train",
    ("upscale", "series", "x.nii"): "dicom",
    ("upscale", "scans", "results", "--cluster", "local"): "cluster",
    ("upscale", "scans", "results", "--cluster", "slurm"): "cluster",
}
"""What an installation without extras cannot do, and the extra that it names."""


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_works_where_nothing_else_is(built: Path, scan: Path, tmp_path: Path, kind: str) -> None:
    import pydicom

    python = venv(tmp_path / "venv")
    package = next(built.glob("*.whl" if kind == "wheel" else "*.tar.gz"))
    said(python, *PIP, package)
    command = tmp_path / "venv" / "bin" / "seran"
    assert said(command, "--version") == f"seran {seran.__version__}\n"
    text = said(command, "upscale", scan, "sharp.nii.gz", cwd=tmp_path)
    assert "seran (seran-native.onnx" in text
    image, before = nib.load(tmp_path / "sharp.nii.gz"), nib.load(scan)
    assert image.shape == (52, 68, 5)
    np.testing.assert_allclose(image.affine[:, 3], before.affine[:, 3], atol=1e-4)  # of voxel 0
    found = json.loads(said(command, "info", "--json"))
    assert found["engines"]["torch"] == {"version": "not installed", "devices": {}}
    extras = {name for name, state in found["extras"].items() if not state.startswith("lacks ")}
    assert extras <= {"winograd"}  # part of what Linux on x86-64 gets
    assert all(kept["verified"] for kept in found["weights"].values())
    said(python, "-c", "import torch", status=1)
    assert "No broken requirements" in said(python, "-m", "pip", "check")
    if (ROOT / "src/seran/quality/viewer/niivue.umd.js").is_file():  # what `make viewer` brought is in both
        said(command, "compare", scan, "sharp.nii.gz", "page.html", cwd=tmp_path, PATH="/nowhere")
        assert "BSD-2-Clause" in (tmp_path / "page.html").read_text()
    if kind == "wheel":
        (tmp_path / "scans").mkdir()
        for i in range(2):
            shutil.copy(scan, tmp_path / "scans" / f"{i}.nii.gz")
        (tmp_path / "series").mkdir()
        own = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small_jpeg_ls_lossless.dcm"
        shutil.copy(own, tmp_path / "series")
        for words, extra in LACKING.items():
            line = said(command, *words, cwd=tmp_path, status=2)
            assert f"pip install 'seran[{extra}]'" in line, words
            assert line.count("\n") == 1, line
        assert "Without the options of export:" in said(command, "completion", "bash")
