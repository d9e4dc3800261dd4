"""``seran methods``."""

import json
from dataclasses import asdict

from seran import weights
from seran.classical import CLASSICAL
from seran.systems import SYSTEMS


def _rows() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("method", "system", "year", "parameters x2 / x3 / x4", "weights", "published by")
    ]
    for name, system in SYSTEMS.items():
        if name in CLASSICAL:
            held = "none needed"
        else:
            kept = [key for key in weights.listed() if key.split("-x")[0] == name]
            held = ", ".join(key.removeprefix(f"{name}-") for key in kept) or "train your own"
        rows.append((name, system.title, str(system.year), system.sizes(), held, system.paper))
    return rows


def methods(cards: bool = False, markdown: bool = False) -> str:
    """List the methods, where they come from, and the weights that come with the package.

    Args:
        cards: print the cards of the shipped weights instead: recipe, data with licences, results.
        markdown: the same list as a table for a README.
    """
    if cards:
        shown = {}
        for key, path in weights.at_hand().items():
            held = weights.read(path)
            shown[key] = {
                "sha256": held.digest, **asdict(held.card), "scans": held.card.data, **asdict(held.evidence),
            }  # fmt: skip
        return json.dumps(shown, indent=1)
    rows = _rows()
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("NAME+ is the self-ensemble of NAME: the mean over the eight symmetries of a slice.")
    return "\n".join(lines)
