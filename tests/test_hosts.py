"""Programs that call seran: Nipype for real where it is installed, and what can be known without them."""

import ast
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import nibabel as nib
import pytest

from seran.apps import arguments
from seran.apps.upscale import upscale

ROOT = Path(__file__).parents[1]
FLAGS = {flag: option for option in (*arguments.of(upscale), *arguments.COMMON) for flag in option.flags}


class Trait:
    """Stands for a trait of Nipype: what it was made of."""

    def __init__(self, *values: Any, **stated: Any) -> None:
        self.values, self.stated = values, stated


@pytest.fixture
def traits(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Trait]]:
    """The inputs of `seran.nipype`, by name, whether Nipype is installed or not."""
    base, extension = types.ModuleType("nipype.interfaces.base"), types.ModuleType("extension")
    kinds = {name: type(name, (Trait,), {}) for name in ("Bool", "Enum", "Tuple", "Either", "Int", "Float")}
    names = ("CommandLine", "CommandLineInputSpec", "TraitedSpec")
    vars(base).update({name: type(name, (), {}) for name in names}, File=Trait, Str=Trait, isdefined=bool)
    vars(base).update(traits=types.SimpleNamespace(**kinds))
    vars(extension).update(BasePath=Trait)
    monkeypatch.setitem(sys.modules, "nipype.interfaces.base", base)
    monkeypatch.setitem(sys.modules, "nipype.interfaces.base.traits_extension", extension)
    monkeypatch.delitem(sys.modules, "seran.nipype", raising=False)
    from seran import nipype

    yield {name: trait for name, trait in vars(nipype.UpscaleInputSpec).items() if isinstance(trait, Trait)}
    sys.modules.pop("seran.nipype", None)


def test_every_trait_of_nipype_is_an_option(traits: dict[str, Trait]) -> None:
    words = {name: trait.stated["argstr"].split() for name, trait in traits.items()}
    assert [words.pop("in_file"), words.pop("out_file")] == [["%s"], ["%s"]]
    for name, (flag, *values) in words.items():
        assert len(values) == FLAGS[flag].count, name
        assert traits[name].stated["desc"].endswith(FLAGS[flag].text)
    apart = {
        "--in",
        "--out",
        "--cluster",
        "--workers",
        "--tries",
        "--part",
        "--help",
        "--quiet",
        "--verbose",
        "--version",
        "--no-dry-run",  # of several scans
    }
    assert {FLAGS[flag].flags[-1] for flag, *_ in words.values()} == {
        option.flags[-1] for option in FLAGS.values()
    } - apart
    assert type(traits["isotropic"]).__name__ == "Either"
    assert traits["acquisition"].values == ("auto", "bicubic", "truncation")


NODE = """
import ast, json, sys, nipype
from seran.nipype import Upscale

node = nipype.Node(Upscale(**ast.literal_eval(sys.argv[2])), "sharpen", base_dir=".")
node.inputs.in_file = sys.argv[1]
found = node.run().outputs.trait_get()
print(json.dumps({name: value for name, value in found.items() if nipype.interfaces.base.isdefined(value)}))
"""


def node(scan: Path, **inputs: Any) -> subprocess.CompletedProcess[str]:
    """A node of Nipype, which changes the logging of its process and so has one of its own."""
    if util.find_spec("nipype") is None:
        pytest.skip("Nipype is not installed: pip install nipype")
    words = [sys.executable, "-c", NODE, scan, repr({"num_threads": 1} | inputs)]
    variables = os.environ | {"NO_ET": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(words, capture_output=True, text=True, cwd=scan.parent, env=variables)


@pytest.mark.slow
def test_a_node_of_nipype_sharpens(scan: Path) -> None:
    scan = scan.rename(scan.with_name("of two words.nii.gz"))
    done = node(scan, maps=True, scale=2, strict="off", acquired=(0.9, 1.0))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    out, record = Path(found["out_file"]), json.loads(Path(found["record"]).read_text())
    assert out == scan.parent / "sharpen" / "of two words_sharp.nii.gz"
    assert nib.load(out).shape == nib.load(found["estimated_file"]).shape == (52, 68, 5)
    assert found["verdict"] == record["Verdict"]
    assert record["KspaceSupport"] == [0.9, 1.0]
    assert "uncertainty_file" not in found


@pytest.mark.slow
def test_a_node_of_nipype_says_what_is_wrong(scan: Path) -> None:
    done = node(scan, scale=2, spacing=0.5)
    assert done.returncode != 0
    assert "seran: --scale and --spacing: give only one of them" in done.stderr


SLICER = ROOT / "integrations" / "slicer" / "Seran"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the module of Slicer does without Slicer."""
    monkeypatch.syspath_prepend(str(SLICER))
    return importlib.import_module("SeranLib.command")


def test_slicers_python_can_read_the_module() -> None:
    """Slicer 5.8 has Python 3.9."""
    for path in SLICER.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))


def test_every_grid_of_slicers_panel_is_one_of_the_command(command: Any) -> None:
    for grid in command.GRIDS:
        line = command.words(["seran"], Path("scan.nii.gz"), Path("sharp.nii.gz"), grid, "--threads 2")
        assert line[:4] == ["seran", "upscale", "scan.nii.gz", "sharp.nii.gz"]
        for word, following in itertools.pairwise([*line[4:], ""]):
            assert not word.startswith("--") or FLAGS[word].count == 0 or FLAGS[word].takes(following)
        assert line[-2:] == ["--threads", "2"]


def test_slicers_variables_stay_with_its_python(command: Any, tmp_path: Path) -> None:
    here = {"PATH": "/bin", "PYTHONHOME": "/slicer", "LD_LIBRARY_PATH": "/slicer/lib", "HOME": "/home"}
    (tmp_path / "seran").touch()
    named = str(tmp_path / "seran")
    assert command.environment(named, here) == {"PATH": "/bin", "HOME": "/home"}
    assert command.environment("", here) == here
    assert command.program(named, "python") == [named]
    assert command.program("", "python") == ["python", "-m", "seran"]


def test_what_is_wrong_is_told_in_slicer(command: Any, tmp_path: Path) -> None:
    def ran(*line: str) -> None:
        for _ in command.running([sys.executable, *line], os.environ):
            pass

    with pytest.raises(command.Problem, match="expected the program seran"):
        command.program(str(tmp_path / "none"), "python")
    with pytest.raises(command.Problem, match="cannot be started"):
        next(command.running([str(tmp_path / "none")], os.environ))
    with pytest.raises(command.Problem, match="further options"):
        command.words(["seran"], tmp_path, tmp_path, next(iter(command.GRIDS)), "--like 'a")
    with pytest.raises(command.Problem, match="needs IN and OUT"):
        ran("-m", "seran", "upscale", "one")
    with pytest.raises(command.Problem, match="not in Slicer's Python"):
        ran("-c", "import sys; sys.exit('/slicer/python: No module named seran')")
    with pytest.raises(command.Problem, match="ended with status 7"):
        ran("-c", "raise SystemExit(7)")


def test_a_run_that_is_cancelled_ends(command: Any) -> None:
    waiting = [sys.executable, "-uc", "import os, time; print(os.getpid()); time.sleep(60)"]
    run = command.running(waiting, os.environ)
    process = int(next(text for text in run if text))
    run.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


class Node:
    """Stands for a volume of Slicer's scene: its file, its title, and what was set of it."""

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title, self.image = path, title, nib.load(path).get_fdata()
        self.attributes: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return {
            "GetName": lambda: self.title,
            "GetTransformNodeID": lambda: "transform",
            "GetStorageNode": lambda: "storage",
            "SetAttribute": self.attributes.__setitem__,
            "SetAndObserveTransformNodeID": lambda to: self.attributes.update(transform=to),
        }[name]


@pytest.fixture
def panel(command: Any, scan: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The panel of the module with a scan chosen, in what stands for Slicer.

    Slicer is an application with a Python of its own, and no package index has its modules. So this shows
    that the module does what it means to, not that Slicer's classes are as they are taken to be.
    """
    slicer, added = MagicMock(), []

    def loaded(path: str, properties: dict[str, str]) -> Node:
        added.append(Node(Path(path), properties["name"]))
        return added[-1]

    slicer.util.exportNode = lambda node, path: shutil.copy(node.path, path)
    slicer.util.loadVolume = loaded
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    parts = {"ScriptedLoadableModule": {}, "ScriptedLoadableModuleWidget": {"setup": lambda self: None}}
    vars(base).update(
        {name: type(name, (), {"__init__": lambda self, parent: None, **own}) for name, own in parts.items()}
    )
    qt, ctk = MagicMock(), MagicMock()
    for name in ("QComboBox", "QLineEdit", "QPushButton", "QPlainTextEdit", "QFormLayout", "QWidget"):
        setattr(qt, name, lambda *words: MagicMock())
    qt.QSettings().value.return_value = None
    names = {"slicer": slicer, "slicer.ScriptedLoadableModule": base, "qt": qt, "ctk": ctk}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.delitem(sys.modules, "Seran", raising=False)
    module = importlib.import_module("Seran")
    module.Seran(MagicMock())
    panel = module.SeranWidget(None)
    panel.layout, panel.added, panel.errors = MagicMock(), added, slicer.util.errorDisplay
    panel.setup()
    panel.volume.currentNode.return_value = Node(scan, "T1")
    panel.grid.currentText, panel.more.text = next(iter(command.GRIDS)), "--maps --threads 1"
    yield panel
    sys.modules.pop("Seran", None)


@pytest.mark.slow
def test_the_panel_of_slicer_shows_result_and_record(panel: Any) -> None:
    (connected,) = panel.start.clicked.connect.call_args.args
    connected()
    panel.errors.assert_not_called()
    assert [node.title for node in panel.added] == ["T1 sharp", "T1 estimated"]
    for node in panel.added:
        assert node.image.shape == (52, 68, 5)
        assert node.attributes["transform"] == "transform"
        assert not node.path.exists()
    record = json.loads(panel.added[0].attributes["seran.record"])
    (text,) = panel.text.setPlainText.call_args.args
    assert text.startswith(f"{record['Verdict']}: seran (seran-native.onnx), seran {record['Version']}\n")
    assert text.count("\n") == len(record["Checks"])
    assert any("sharpen and check" in call.args[0] for call in panel.text.appendPlainText.call_args_list)
    assert (panel.start.enabled, panel.stop.enabled) == (True, False)


def test_the_panel_of_slicer_says_what_is_wrong(panel: Any) -> None:
    panel.more.text = "--scale 9"
    panel.onStart()
    panel.errors.assert_called_once_with("seran: --scale 9: must be 1 or more and at most 4")
    assert (panel.added, panel.start.enabled) == ([], True)
    panel.volume.currentNode.return_value = None
    panel.onStart()
    assert panel.errors.call_args.args == ("Choose a volume first.",)


def test_the_panel_of_slicer_is_cancelled(panel: Any) -> None:
    panel.text.appendPlainText.side_effect = lambda text: panel.onStop()
    panel.onStart()
    panel.errors.assert_not_called()
    assert panel.text.setPlainText.call_args.args == ("Cancelled.",)
