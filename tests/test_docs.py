"""The pages of the formats: their commands are run, and print what the page says, but for times."""

import re
import shlex
import shutil
from pathlib import Path

import nibabel
import pytest

from seran import cli

PAGES = Path(__file__).parents[1] / "docs" / "formats"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


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
@pytest.mark.parametrize("name", ["nifti", "freesurfer", "nrrd", "dicom"])
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
    assert len(found) >= 3
    for line, output in found:
        assert shown(run(line, capsys)) == shown(output), line


def test_every_page_is_in_the_index() -> None:
    index = (PAGES.parent / "formats.md").read_text()
    for page in PAGES.glob("*.md"):
        assert f"formats/{page.name}" in index
