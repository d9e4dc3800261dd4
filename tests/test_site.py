"""The site of the pages: built without a warning, complete, and read without another address."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import seran

ROOT = Path(__file__).parents[1]
MKDOCS = ROOT / "build" / "docs-venv" / "bin" / "mkdocs"  # of `make docs`
LOADED = re.compile(
    r"<(?!a\b)[^>]*\s(?:src|href|data)=[\"']?((?:https?:)?//[^\"' >]+)"  # but for links
    r"|(?:url\(|@import )[\"']?(http[^\"')]+)"
)
pytestmark = pytest.mark.skipif(not MKDOCS.is_file(), reason="no mkdocs; `make docs` installs it")


def build(tree: Path, out: Path) -> tuple[int, str]:
    """How mkdocs ends over the pages of a tree, and its warnings; with --quiet it would count none."""
    command = [str(MKDOCS), "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, "\n".join(re.findall(r"^(?:WARNING|ERROR) .*", done.stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    out = tmp_path_factory.mktemp("site")
    assert build(ROOT, out) == (0, "")
    return out


def test_every_page_is_there(site: Path) -> None:
    """That each is in `nav`, or named as one that others lead to, is what --strict asks."""
    wanted = [path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    named = [path.with_name("index.html") if path.stem == "README" else path for path in wanted]
    assert not [path for path in named if not (site / path).is_file()]
    assert "Two commands" in (site / "index.html").read_text()


def test_nothing_is_loaded_from_another_address(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 40
    outside = {str(p.relative_to(site)): LOADED.findall(p.read_text()) for p in pages}
    assert not {page: found for page, found in outside.items() if found}


def test_what_would_be_loaded_is_noticed() -> None:
    for text in (
        '<script src="https://a.b/c.js">',
        "<link rel=x href=//a.b>",
        "@import 'http://a'",
        "url(http://a)",
    ):
        assert LOADED.search(text), text
    assert not LOADED.search('<a href="https://a.b/c">')


def test_the_reference_has_every_public_name(site: Path) -> None:
    page = (site / "docs" / "reference.html").read_text()
    assert not [name for name in seran.__all__ if f'id="seran.{name}"' not in page]
    assert "which slices to sharpen" in page


def test_the_notebook_is_a_page_with_its_picture(site: Path) -> None:
    page = (site / "docs" / "quickstart.html").read_text()
    assert "A real MR slice is reduced" in page
    assert "data:image/png;base64," in page
    assert 'href="docs/quickstart.html"' in (site / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[gone](gone.md)", "'gone.md'"),
        ("[gone](trust.md#no-such-place)", "#no-such-place"),
        ("::: seran.no_such_name", "seran.no_such_name"),
    ],
)
def test_what_leads_nowhere_stops_it(line: str, said: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for part in ("docs", "paper", "benchmarks", "containers"):
        shutil.copytree(ROOT / part, tree / part)
    (tree / "src").symlink_to(ROOT / "src")
    for path in [*ROOT.glob("*.md"), ROOT / "mkdocs.yml", ROOT / "CITATION.cff", ROOT / "LICENSE"]:
        shutil.copy(path, tree)
    page = tree / "docs" / "speed.md"
    page.write_text(f"{page.read_text()}\n{line}\n")
    status, text = build(tree, tmp_path / "out")
    assert status == 1
    assert said in text
