"""Each module that an extra brings, taken away: the command says which extra to install, in one line."""

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nibabel as nib
import pydicom
import pytest

from seran.data import prepare
from seran.errors import BadInput
from seran.machine import EXTRAS, missing, needed
from seran.run import CHECKPOINT, Run
from tests.conftest import oblique, phantom
from tests.test_train import TINY

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    absent = set(sys.argv.pop(1).split(","))

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in cls.absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from seran import cli
if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:]))
"""
"""The command, where some modules cannot be found: for Python they are not installed."""


def without(modules: str, tmp_path: Path, *args: object) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "without.py"
    program.write_text(WITHOUT)
    return subprocess.run(
        [sys.executable, program, modules, *map(str, args)], capture_output=True, text=True, cwd=tmp_path
    )


def refused(modules: str, tmp_path: Path, *args: object) -> str:
    done = without(modules, tmp_path, *args)
    assert done.returncode == 2, (done.stdout, done.stderr)
    said = done.stderr.splitlines()
    assert "Traceback" not in done.stderr, done.stderr
    return said[-1]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("extras")
    (root / "raw").mkdir()
    for i in (2, 15):  # by their hashes train, val
        nib.save(nib.Nifti1Image(phantom((62, 75, 4), i), oblique()), root / "raw" / f"sub-{i}_T2w.nii.gz")
    return prepare.prepare(
        root / "raw", root / "set", prepare.PrepareOptions(scales=(2,)), lambda _: None
    ).root


@pytest.mark.slow
@pytest.mark.parametrize("module", EXTRAS["train"])
def test_training(module: str, pairs: Path, tmp_path: Path) -> None:
    """Pairs and a checkpoint are there, only the module is not."""
    if module not in ("onnx", "onnxscript"):
        line = refused(module, tmp_path, "train", "srcnn-x2-bd", pairs, "new", "--precision", "32-true")
        assert line == f"seran: seran train needs {module}; pip install 'seran[train]'"
        assert not list(tmp_path.glob("new/*"))
    Run(TINY).save(tmp_path / CHECKPOINT)
    if module not in ("lightning_fabric", "tensorboard"):
        line = refused(module, tmp_path, "export", tmp_path, "out.onnx")
        assert line == f"seran: seran export needs {module}; pip install 'seran[train]'"
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_upscaling(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(2):
        shutil.copy(scan, tmp_path / "in" / f"{i}.nii.gz")
    cases = {
        ("torch", "upscale", scan, "out.nii", "--device", "cuda"): "device cuda needs torch; *[train]",
        ("distributed", "upscale", "in", "out", "--cluster", "local"): "needs distributed; *[cluster]",
        ("dask", "upscale", "in", "out", "--cluster", "local"): "needs dask; *[cluster]",
        ("cryptography", "upscale", "in", "out", "--cluster", "local"): "needs cryptography; *[cluster]",
        ("dask_jobqueue", "upscale", "in", "out", "--cluster", "slurm"): "needs dask_jobqueue; *[cluster]",
        ("safetensors", "weights", "export", "srcnn-x2-bd", "--safetensors", "--out", "o"): "needs "
        "safetensors; *[train]",
        ("nibabel", "upscale", scan, "out.nii"): "seran upscale needs nibabel, and this installation "
        "lacks it",
    }  # fmt: skip
    for (module, *args), expected in cases.items():
        pattern = re.escape(expected).replace(r"\*\[", r"pip install 'seran\[").replace(r"\]", r"\]'")
        assert re.search(pattern, refused(module, tmp_path, *args)), args
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("out") and p.is_file()]
    everything = ",".join(name for modules in EXTRAS.values() for name in modules)
    assert without(everything, tmp_path, "upscale", scan, "out.nii").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"])
def test_a_compressed_series(name: str, tmp_path: Path) -> None:
    """Files that come with pydicom; without gdcm and whatever else could unpack them."""
    (tmp_path / "in").mkdir()
    shutil.copy(Path(pydicom.__file__).parent / "data" / "test_files" / name, tmp_path / "in")
    line = refused(
        "gdcm,jpeg_ls,pylibjpeg,openjpeg,PIL", tmp_path, "upscale", "in", "out.nii", "--method", "bicubic"
    )
    assert "needs a decoder; pip install 'seran[dicom]'" in line
    assert without("none", tmp_path, "upscale", "in", "out.nii", "--method", "bicubic").returncode == 0


def test_extras_are_those_of_the_package() -> None:
    """What pyproject.toml says is what the modules come from; nothing is missing where developers work."""
    assert missing() == {extra: [] for extra in EXTRAS}
    said = metadata.requires("seran") or []
    for extra, modules in EXTRAS.items():
        wanted = {re.split(r"[^\w.-]", s)[0].lower() for s in said if s.endswith(f"extra == '{extra}'")}
        sources = metadata.packages_distributions()
        brought = {source.lower() for name in modules for source in sources[name]}
        assert wanted <= brought
        assert brought - wanted <= {"dask"}  # which distributed requires


def test_a_module_that_no_extra_brings() -> None:
    error = needed("this", ModuleNotFoundError("No module named 'x.y'", name="x.y"))
    assert isinstance(error, BadInput)
    assert str(error) == "this needs x, and this installation lacks it; `pip check` says what is wrong"
