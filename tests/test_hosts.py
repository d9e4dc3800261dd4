"""Programs that call seran: Nipype for real where it is installed, and what can be known without them."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from seran.apps import arguments
from seran.apps.upscale import upscale

ROOT = Path(__file__).parents[1]
FLAGS = {flag: option for option in arguments.of(upscale) for flag in option.flags}


class Trait:
    """Stands for a trait of Nipype: what it was made of."""

    def __init__(self, *values: Any, **stated: Any) -> None:
        self.values, self.stated = values, stated


@pytest.fixture
def traits(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Trait]]:
    """The inputs of `seran.hosts.nipype`, by name, whether Nipype is installed or not."""
    base, extension = types.ModuleType("nipype.interfaces.base"), types.ModuleType("extension")
    kinds = {name: type(name, (Trait,), {}) for name in ("Bool", "Enum", "Tuple", "Either", "Int", "Float")}
    names = ("CommandLine", "CommandLineInputSpec", "TraitedSpec")
    vars(base).update({name: type(name, (), {}) for name in names}, File=Trait, Str=Trait, isdefined=bool)
    vars(base).update(traits=types.SimpleNamespace(**kinds))
    vars(extension).update(BasePath=Trait)
    monkeypatch.setitem(sys.modules, "nipype.interfaces.base", base)
    monkeypatch.setitem(sys.modules, "nipype.interfaces.base.traits_extension", extension)
    monkeypatch.delitem(sys.modules, "seran.hosts.nipype", raising=False)
    from seran.hosts import nipype

    yield {name: trait for name, trait in vars(nipype.UpscaleInputSpec).items() if isinstance(trait, Trait)}
    sys.modules.pop("seran.hosts.nipype", None)


def test_every_trait_of_nipype_is_an_option(traits: dict[str, Trait]) -> None:
    words = {name: trait.stated["argstr"].split() for name, trait in traits.items()}
    assert [words.pop("in_file"), words.pop("out_file")] == [["%s"], ["%s"]]
    for name, (flag, *values) in words.items():
        assert len(values) == FLAGS[flag].count, name
        assert traits[name].stated["desc"].endswith(FLAGS[flag].text)
    apart = {"--in", "--out", "--cluster", "--workers", "--tries", "--part"}
    assert {FLAGS[flag].flags[-1] for flag, *_ in words.values()} == {
        option.flags[-1] for option in FLAGS.values()
    } - apart
    assert type(traits["isotropic"]).__name__ == "Either"
    assert traits["acquisition"].values == ("auto", "bicubic", "truncation")


NODE = """
import ast, json, sys, nipype
from seran.hosts.nipype import Upscale

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
