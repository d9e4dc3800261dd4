"""Writes the Boutiques descriptor of ``seran bids`` from the command's own signature.

python containers/boutiques.py containers/bids.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from seran import __version__
from seran.apps import arguments
from seran.apps.arguments import Argument
from seran.apps.bids import bids

FIRST = ("participant_label", "session_label")
"""Inputs that a BIDS App's command line has before all others."""
LEFT_OUT = {"help", "version"}
FILES = {"bids_filter_file", "weights", "like"}
"""Inputs that are files which are there."""
ERRORS = {
    1: "some scans failed, or the checks of a result say FAIL; each is named, and what was made is whole",
    2: "the input or an option cannot be used",
    3: "a fault of the program",
    130: "interrupted",
}
OUT = {
    "name": "Output directory",
    "type": "String",
    "description": "the derivative data set; made if it is not there",
    "value-key": "[OUTPUT_DIR]",
    "optional": True,
}


def main(path: Path) -> None:
    """Write it."""
    path.write_text(json.dumps(descriptor(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def descriptor() -> dict[str, Any]:
    """The descriptor, as the schema 0.5 has it, with what `bosh validate --bids` asks of a BIDS App."""
    known = [*arguments.of(bids), *arguments.COMMON]
    options = {ident(a): option(a) for a in known if a.flags and ident(a) not in LEFT_OUT}
    order = [*FIRST, *(name for name in options if name not in FIRST)]
    keys = " ".join(options[name]["value-key"] for name in order)
    root, _, level = (a for a in known if not a.flags)
    return {
        "name": "seran",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": "MR image super-resolution as a BIDS App. Research use, not a medical device.",
        "command-line": f"mkdir -p [OUTPUT_DIR]; seran bids [BIDS_DIR] [OUTPUT_DIR] [ANALYSIS_LEVEL] {keys}",
        "inputs": [
            {
                "id": "bids_dir", "name": "BIDS directory", "type": "File", "description": root.text,
                "value-key": "[BIDS_DIR]", "optional": False,
            },
            {"id": "output_dir_name", **OUT},
            {
                "id": "participant_results", **OUT, "type": "File", "name": "Results of participants",
                "description": "the derivative data set that is there, for the level group",
            },
            {
                "id": "analysis_level", "name": "Analysis level", "type": "String", "description": level.text,
                "value-key": "[ANALYSIS_LEVEL]", "value-choices": [*level.choices], "optional": False,
            },
            *(options[name] for name in order),
        ],
        "groups": [
            {
                "id": "output_directory", "name": "Output directory", "mutually-exclusive": True,
                "description": "a name for the level participant, a folder that is there for the level group",
                "members": ["output_dir_name", "participant_results"], "one-is-required": True,
            }
        ],
        "output-files": [
            {"id": "output_dir", "name": "Results", "path-template": "[OUTPUT_DIR]", "optional": False}
        ],
        "error-codes": [{"code": code, "description": text} for code, text in ERRORS.items()],
        "tags": {"domain": ["neuroinformatics", "BIDS-App"]},
    }  # fmt: skip


def flag(a: Argument) -> str:
    """How an option is given that is not the default: of a pair ``--x`` and ``--no-x`` the other one."""
    long = [one for one in a.flags if one.startswith("--")]
    plain = [one for one in long if not one.startswith("--no-")]
    return long[-1] if a.kind is bool and a.default is True else plain[-1]


def ident(a: Argument) -> str:
    """Its name in the descriptor."""
    return flag(a).lstrip("-").replace("-", "_")


def option(a: Argument) -> dict[str, Any]:
    """An option as an input."""
    name, numbers = ident(a), a.kind in (int, float) and not a.words
    made: dict[str, Any] = {
        "id": name,
        "name": name.replace("_", " "),
        "type": "Flag" if not a.count else "Number" if numbers else "File" if name in FILES else "String",
        "description": a.text,
        "value-key": f"[{name.upper()}]",
        "command-line-flag": flag(a),
        "optional": True,
    }
    if numbers and a.kind is int:
        made["integer"] = True
    if a.choices:
        made["value-choices"] = [*a.choices]
    if a.count not in (0, 1):
        made["list"] = True
        if a.count > 1:
            made |= {"min-list-entries": a.count, "max-list-entries": a.count}
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]))
