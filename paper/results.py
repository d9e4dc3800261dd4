"""Rows of results: scored on a test split, kept as JSON between calls, never mixed between protocols."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import tyro

from seran import evaluate, files
from seran.data.pairs import PreparedSet, load_prepared
from seran.errors import BadInput
from seran.grid import dimensions
from seran.methods import Method, method

Rows = dict[str, dict[str, Any]]
PAPER = Path(__file__).parent
ORDER = (
    "bicubic", "nlm", "srcnn", "vdsr", "idn", "fscwrn", "rdn", "csn", "edsr", "seab", "seran", "seran+",
    "fast",
)  # fmt: skip
"""Rows of the tables of systems: the paper's, those of Table 1 that it leaves out, this project's."""
TIMED = (96, 240, 240)
"""Slices, rows and columns of a validation scan that methods are timed on."""


def needed(data: Path, scale: int, splits: Sequence[str], timed: bool = False) -> PreparedSet:
    """The pairs of a table, looked at before any work.

    Args:
        data: a folder made by `seran prepare`.
        scale: of its low slices.
        splits: which must have volumes.
        timed: whether a validation scan must be as large as `TIMED`.

    Raises:
        BadInput: in one line, what the table needs and what is lacking.
    """
    need = f"a set made by `seran prepare` (bicubic, x{scale}) with scans of the splits {', '.join(splits)}"
    size = dimensions(TIMED[::-1])
    need += f", one of val with {size} voxels to time methods on" * timed
    how = f"seran prepare open {data}, or seran prepare SCANS {data}"

    def lacks(what: str) -> BadInput:
        return BadInput(f"--data {data}: expected {need}; {what}; make one: {how}")

    if not (data / "manifest.json").is_file():
        raise lacks("it is not there" if not data.exists() else "it has no manifest.json")
    pairs = load_prepared(data)
    if pairs.degradation != "bd":
        raise lacks(f"its degradation is {pairs.degradation}")
    for split in splits:
        if not pairs.pick(split):
            raise lacks(f"it has no scan of the split {split}")
    if any(str(scale) not in volume.unit for volume in pairs.volumes):
        raise lacks(f"it was prepared without x{scale}")
    if timed and not any(all(n >= m for n, m in zip(v.shape, TIMED, strict=True)) for v in pairs.pick("val")):
        raise lacks("no scan of val is that large (--stages train score does without)")
    return pairs


def shown(pictures: Path | None, out: Path, usual: Path) -> Path:
    """Where pictures go: into the folder that is named for them, else into that of the tables.

    Args:
        pictures: the folder, if it is named.
        out: the folder of the tables.
        usual: where pictures beside the paper's own tables lie.
    """
    return pictures or (usual if out == PAPER else out)


def placed(path: Path) -> Path:
    """The path of a file that is to be written, whose folder is made: before the work, not after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def load(path: Path, protocol: list[str]) -> Rows:
    """The rows that an earlier call left at ``path``, whose folder is made if it is not there.

    Raises:
        BadInput: if they came about in another way than ``protocol`` says.
    """
    if not placed(path).is_file():
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
        with files.atomic(placed(path.with_suffix(end))) as part:
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
