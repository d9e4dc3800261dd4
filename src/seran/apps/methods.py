"""``seran methods``."""

from seran import methods as library
from seran import weights


def methods() -> str:
    """List the methods and the weights that come with the package."""
    lines = []
    for name in library.names():
        files = [path for key, path in weights.shipped().items() if key.split("-x")[0] == name]
        cards = [weights.read(path)[1] for path in files]
        what = ", ".join(f"x{c.scale} {c.degradation}" for c in cards) or "x2 x3 x4, no weights needed"
        lines.append(f"{name:10} {what}")
    lines.append("NAME+ is the self-ensemble of NAME: the mean over the eight symmetries of a slice.")
    return "\n".join(lines)
