"""What the pages say: commands exist and print what is shown, examples run, links lead somewhere."""

import contextlib
import csv
import doctest
import functools
import importlib
import inspect
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import pytest

from seran import cli, io
from seran.models import adopt
from seran.systems import SYSTEMS
from tests.conftest import phantom
from tests.test_prepare import save

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "formats"
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
EXAMPLES = [p for p in (ROOT / "src").rglob("*.py") if re.search(r"^\s*>>> ", p.read_text(), re.MULTILINE)]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
SHELL = {">", ">>", "|", "&&", "||", ";"}


def shown(text: str) -> str:
    """Without what differs between machines: seconds, precision, the last digits of intensities."""
    text = re.sub(r"\d+\.\d s,", "# s,", text)
    text = re.sub(r"-?\d+\.\d{5,}", lambda found: f"{float(found[0]):.3f}", text)
    return re.sub(r"\b(bf16|f32)\b", "#", text).strip()


def commands(page: str) -> list[tuple[str, str]]:
    """Commands of a page and what it says that they print."""
    found = []
    for block in BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            found.append((line, output))
    return found


def prepared(folder: Path, shared: Path | None) -> None:
    """What the pages start from, in ``folder``."""
    assert cli.run(["demo", "--out", str(folder / "demo")]) == 0
    shutil.copy(Path(nibabel.__file__).parent / "tests/data/functional.nii", folder / "bold.nii")
    io.write(next(io.read_series(folder / "bold.nii", only=0).volumes), folder / "scan.nrrd")
    if shared:
        source = shared / "dicom" / "dcm_qa_decubitus_HFS_T1w"
        (folder / "STUDY").symlink_to(source)
        (folder / "STUDY-WITHOUT-ONE").mkdir()
        for i, path in enumerate(sorted(source.iterdir())):
            if i != 5:
                (folder / "STUDY-WITHOUT-ONE" / f"{i + 1:04}.dcm").symlink_to(path)


def run(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    program, *args = shlex.split(line)
    assert program == "seran"
    capsys.readouterr()
    cli.run(args)
    said = capsys.readouterr()
    return said.out + said.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nifti", "freesurfer", "nrrd", "dicom", "../tutorials/first-scan"])
def test_a_page_prints_what_it_says(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepared(tmp_path, request.getfixturevalue("shared") if name == "dicom" else None)
    monkeypatch.chdir(tmp_path)
    found = commands((PAGES / f"{name}.md").read_text())
    assert len(found) >= 2
    for line, output in found:
        assert shown(run(line, capsys)) == shown(output), line


def test_every_page_is_in_the_index() -> None:
    index = (PAGES.parent / "formats.md").read_text()
    for page in PAGES.glob("*.md"):
        assert f"formats/{page.name}" in index


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 900
    assert len(text.splitlines()) <= 120


def test_the_table_of_systems_is_made_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out in (ROOT / "docs" / "systems.md").read_text()


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    targets = [target for target in LINK.findall(prose) if "://" not in target]
    assert not [target for target in targets if not (page.parent / target).exists()]


def typed(page: Path) -> Iterator[list[str]]:
    """The words of every command of seran in a page's plain blocks, up to what is the shell's."""
    for block in [text for language, text in FENCED.findall(page.read_text()) if not language]:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.strip().startswith("seran ") else []
            end = next((i for i, word in enumerate(words) if word in SHELL), len(words))
            yield from [words[1:end]] * bool(words)


@pytest.fixture
def unrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take their arguments, and do nothing."""
    for name in cli.COMMANDS:
        module = importlib.import_module(f"seran.apps.{name}")
        own = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
        for function in own:
            if function.__name__ in (name, "ixi", "benchmark", "to_nifti"):
                nothing = functools.update_wrapper(lambda *args, **options: "", function)
                monkeypatch.setattr(module, function.__name__, nothing)


@pytest.mark.usefixtures("unrun")
@pytest.mark.parametrize("page", [p for p in TEXTS if [*typed(p)]], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all their options; nothing is run."""
    for words in typed(page):
        with contextlib.suppress(SystemExit):  # the help of a command that has one of its own
            assert cli.run(words) == 0, (shlex.join(words), capsys.readouterr().err)


@pytest.mark.usefixtures("unrun")
def test_a_command_that_does_not_exist_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["upscale", "a", "b", "--scale", "2"]) == 0
    assert cli.run(["upscale", "a", "b", "--scal", "2"]) == 2
    assert "did you mean --scale?" in capsys.readouterr().err


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_of_a_module(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    done = doctest.testmod(importlib.import_module(name))
    assert (done.failed, done.attempted > 0) == (0, True)


def test_examples_of_the_library() -> None:
    done = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert (done.failed, done.attempted > 0) == (0, True)


def test_the_readme_in_five_lines(
    scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(scan.parent)
    for code in PYTHON.findall((ROOT / "README.md").read_text()):
        exec(code, {})
    record = json.loads((scan.parent / "sharp.json").read_text())
    assert capsys.readouterr().out.startswith(record["Verdict"])
    assert nibabel.load("sharp.nii.gz").shape == (52, 68, 5)


def test_the_network_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = PYTHON.findall((ROOT / "docs" / "own-network.md").read_text())
    (tmp_path / "my.py").write_text(code)
    monkeypatch.setattr("seran.models.SYSTEMS", dict(SYSTEMS))
    monkeypatch.setattr("seran.models.networks", lambda: ["net"])
    assert adopt(f"{tmp_path / 'my.py'}:Net", 3, {"width": 32}) == "net"


@pytest.mark.slow
def test_training_of_ones_own_is_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tutorial, on small scans, but for what comes after its long run."""
    page = ROOT / "docs" / "tutorials" / "train-your-own.md"
    (listed,) = [text for kind, text in FENCED.findall(page.read_text()) if kind == "csv"]
    (network,) = PYTHON.findall((ROOT / "docs" / "own-network.md").read_text())
    monkeypatch.chdir(tmp_path)
    Path("scans.csv").write_text(listed)
    Path("my.py").write_text(network)
    for i, row in enumerate(csv.DictReader(listed.splitlines())):
        save(tmp_path / row["path"], phantom((100, 108, 5), i))
    rehearsal, long = [*typed(page)][:5], [*typed(page)][5:7]
    for words in rehearsal:
        status = cli.run(words)
        SYSTEMS.pop("net", None)  # as in another process
        assert status == 0, shlex.join(words)
    assert [words[:1] + words[-2:] for words in long] == [
        [name, "--model", "my.py:Net"] for name in ("train", "export")
    ]
    capsys.readouterr()
    for code in PYTHON.findall(page.read_text()):
        exec(code, {})
    ten, twenty, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in (ten, twenty, last)] == ["10", "20", "net"]


@pytest.mark.slow
def test_the_notebook_runs_and_ends_with_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is stored and when it is run again; both print the same, but for the last digits of numbers."""
    nbformat, nbclient = importlib.import_module("nbformat"), importlib.import_module("nbclient")
    monkeypatch.chdir(tmp_path)
    stored = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.from_dict(json.loads(json.dumps(stored)))
    nbclient.NotebookClient(again, timeout=300, kernel_name="python3").execute()
    assert NOTEBOOK.stat().st_size < 300_000

    def outputs(notebook: Any) -> list[str]:
        made = [out for cell in notebook.cells for out in cell.get("outputs", [])]
        texts = [out.get("text") or out["data"]["text/plain"] for out in made]
        return [re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.0f}", text) for text in texts]

    assert outputs(again) == outputs(stored)
    for notebook in (stored, again):
        last = notebook.cells[-2]["outputs"][-1]
        assert len(last["data"]["image/png"]) > 50_000
