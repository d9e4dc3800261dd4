"""``seran methods``."""

import json
from dataclasses import asdict

from seran import methods as library
from seran import weights


def methods(cards: bool = False) -> str:
    """List the methods and the weights that come with the package.

    Args:
        cards: print the cards of the shipped weights instead: recipe, data with licences, results.
    """
    if cards:
        found = {key: weights.read(path) for key, path in weights.shipped().items()}
        shown = {key: {"sha256": digest, **asdict(card)} for key, (_, card, digest) in found.items()}
        return json.dumps(shown, indent=1)
    lines = []
    for name in library.names():
        files = [path for key, path in weights.shipped().items() if key.split("-x")[0] == name]
        kept = [weights.read(path)[1] for path in files]
        what = ", ".join(f"x{c.scale} {c.degradation}" for c in kept) or "x2 x3 x4, no weights needed"
        lines.append(f"{name:10} {what}")
    lines.append("NAME+ is the self-ensemble of NAME: the mean over the eight symmetries of a slice.")
    return "\n".join(lines)
