"""``seran methods``."""

from dataclasses import asdict

from seran import facts, weights
from seran import methods as library
from seran.systems import SYSTEMS

HEAD = ("method", "system", "year", "parameters x2 / x3 / x4", "weights", "published by")


def _row(name: str) -> tuple[str, ...]:
    system, held = SYSTEMS[name], "none needed"
    if system.network:
        kept = [key.removeprefix(f"{name}-") for key in weights.listed() if library.belongs(key, name)]
        held = ", ".join(kept) or "train your own"
    return name, system.title, str(system.year), system.sizes(), held, system.paper


def methods(cards: bool = False, markdown: bool = False) -> str:
    """List the methods, where they come from, and the weights that come with the package.

    Args:
        cards: print the cards of the shipped weights instead: recipe, data with licences, results.
        markdown: the same list as the table of docs/systems.md.
    """
    if cards:
        held = {name: weights.read(path) for name, path in weights.at_hand().items()}
        shown = {
            name: {"sha256": w.digest, **asdict(w.card), "scans": w.card.data, **asdict(w.evidence)}
            for name, w in held.items()
        }
        return facts.dumps(shown, indent=1)
    rows = [HEAD, *map(_row, SYSTEMS)]
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---" * len(HEAD) + "|", *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("NAME+ is the self-ensemble of NAME: the mean over the eight symmetries of a slice.")
    lines.append("Weights: native for scans as stored, bd for bicubic reductions, td for truncated k-space.")
    return "\n".join(lines)
