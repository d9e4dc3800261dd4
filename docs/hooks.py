"""What mkdocs lacks for `make docs`: pages outside `docs`, and the notebook as a page.

Sources are named by their paths in the repository, so that the links between them stay what they are.
Whatever a page links to comes along.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")


class Notebook(File):
    """A notebook, which becomes a page."""

    def is_documentation_page(self) -> bool:
        """Yes, though its name ends otherwise."""
        return True

    @property
    def content_string(self) -> str:
        """Its cells as Markdown."""
        return "\n\n".join(part for cell in json.loads(self.content_bytes)["cells"] for part in parts(cell))


def parts(cell: dict[str, Any]) -> Iterator[str]:
    """A cell of a notebook and what it printed, as Markdown."""
    source = "".join(cell["source"])
    yield f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![](data:image/png;base64,{''.join(data['image/png'].split())})"
        else:
            yield f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```"


def linked(page: Path) -> list[Path]:
    """Files of the repository to which a page has links."""
    targets = LINK.findall(CODE.sub("", page.read_text()))
    found = [(page.parent / target).resolve() for target in targets if "://" not in target]
    return [path for path in found if path.is_file() and path.is_relative_to(ROOT)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages of `docs`, the README, and whatever they link to, by their paths in the repository."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    wanted = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for path in wanted:  # which grows on the way
        more = linked(path) if path.suffix == ".md" else []
        wanted += [other for other in dict.fromkeys(more) if other not in wanted]
        kind = Notebook if path.suffix == ".ipynb" else File
        files.append(kind(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, False))
    return files
