"""Rows of results: scored on a test split, kept as JSON between calls, never mixed between protocols."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tyro

from seran import evaluate, files
from seran.data.pairs import PreparedSet
from seran.errors import BadInput
from seran.methods import Method, method

Rows = dict[str, dict[str, Any]]


def load(path: Path, protocol: list[str]) -> Rows:
    """The rows that an earlier call left at ``path``.

    Raises:
        BadInput: if they came about in another way than ``protocol`` says.
    """
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text())
    if kept["protocol"] != protocol:
        old, new = (
            " ".join(line for line in a if line not in b)
            for a, b in ((kept["protocol"], protocol), (protocol, kept["protocol"]))
        )
        raise BadInput(f"{path} came about otherwise ({old!r}, now {new!r}); name another --out")
    return kept["results"]


def write(path: Path, protocol: list[str], rows: Rows, table: Callable[[Rows], list[str]]) -> None:
    """Keep rows, as JSON and as a table.

    Args:
        path: the JSON file; the table lies beside it as markdown.
        protocol: how the rows came about, in words.
        rows: by name.
        table: from rows to the lines of the table.
    """
    lines = [f"# {path.stem}", "", *(f"- {line}" for line in protocol), "", *table(rows)]
    text = json.dumps({"protocol": protocol, "results": rows}, indent=1)
    for end, content in ((".json", text), (".md", "\n".join(lines))):
        with files.atomic(path.with_suffix(end)) as part:
            part.write_text(content + "\n")


def score(chosen: Method, data: PreparedSet, slices: int) -> dict[str, Any]:
    """Means over the test volumes of each contrast, and the volumes; gains are over bicubic.

    Args:
        chosen: the method.
        data: pairs; the split ``test`` is scored.
        slices: central slices of each volume that are scored; 0 for all.
    """
    tested = [method("bicubic", chosen.scale)] + [chosen] * (chosen.name != "bicubic")
    report = evaluate.evaluate(data, tested, "test", slices=slices)
    means = report.means()
    base = {m["contrast"]: m["psnr"] for m in means if m["method"] == "bicubic"}
    return {
        "sha256": chosen.sha256,
        "means": {
            m["contrast"]: {**m, "gain": m["psnr"] - base[m["contrast"]]}
            for m in means
            if m["method"] == chosen.name
        },
        "volumes": [r for r in report.rows if r["method"] == chosen.name],
    }


def ordered(rows: Rows, order: tuple[str, ...]) -> Rows:
    """The rows in an order of their names; others come last."""
    return dict(sorted(rows.items(), key=lambda item: [*order, item[0]].index(item[0])))


def heading(rows: Rows) -> dict[str, str]:
    """Contrast -> its column's title, with the number of test volumes."""
    first = next(iter(rows.values()))["means"]
    return {contrast: f"{contrast} ({mean['volumes']})" for contrast, mean in first.items()}


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a table."""
    head, *body = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return [head, "|---" * (head.count(" | ") + 1) + "|", *body]


def program(*mains: Callable[..., None]) -> None:
    """Run a function as a command, or the one of several that is named; exit status 2 for unusable input."""
    try:
        if len(mains) == 1:
            tyro.cli(mains[0])
        else:
            tyro.extras.subcommand_cli_from_dict({main.__name__: main for main in mains})
    except BadInput as error:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {error}\n")
        sys.exit(2)
