"""The same crop by every method, named; and once more in random order, with the key in another file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from acquisitions import SCALE, central
from figures import busiest, save
from matplotlib.figure import Figure
from numpy import ndarray
from scans import Made, made_of, say, stack_of
from scipy import ndimage

from seran import files
from seran.data.sources import Source
from seran.engines import Engine


def crops(source: Source, engine: Engine) -> tuple[Made, float]:
    """The busiest part in the middle of the central slice by every method, and what is shown white."""
    stack, _ = stack_of(source.path)
    chosen = central(stack, 1)
    made, _ = made_of(stack, chosen, engine)
    side = max(24, min(chosen.shape[1:]) // 5)
    around = [n // 5 for n in chosen.shape[1:]]  # the scalp has more edges than what is looked for
    middle = chosen[0, around[0] : -around[0], around[1] : -around[1]]
    found = busiest(ndimage.gaussian_filter(middle, 1), min(side, *middle.shape))
    top, left = (SCALE * (n + a) for n, a in zip(found, around, strict=True))
    box = (slice(top, top + SCALE * side), slice(left, left + SCALE * side))
    given = chosen[0].repeat(SCALE, 0).repeat(SCALE, 1)[box]
    shown = {"scan": given, **{name: image[0][box] for name, image in made.items()}}
    return shown, float(np.percentile(given, 99.5))


def order(names: Sequence[str], seed: int, rows: int) -> list[list[str]]:
    """The methods of each row of the blind sheet, from left to right."""
    rng = np.random.default_rng(seed)
    return [list(rng.permutation(names)) for _ in range(rows)]


def blind(rows: dict[str, tuple[Made, float]], seed: int, path: Path) -> None:
    """A sheet whose rows show methods in random order; ``-key.json`` beside it says which.

    Args:
        rows: by scan, crops by method and what is shown white.
        seed: of the order.
        path: of the picture.
    """
    names = [n for n in next(iter(rows.values()))[0] if n != "scan"]
    key = dict(zip(rows, order(names, seed, len(rows)), strict=True))
    figure = Figure(figsize=(2.4 * len(names), 2.5 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for i, (line, (scan, (shown, white))) in enumerate(zip(axes, rows.items(), strict=True), 1):
        for j, (ax, name) in enumerate(zip(line, key[scan], strict=True)):
            _show(ax, shown[name], white, f"{i}{chr(65 + j)}")
    save(figure, path)
    with files.atomic(path.with_name(f"{path.stem}-key.json")) as part:
        part.write_text(json.dumps({"seed": seed, "rows": key}, indent=1) + "\n")


def _show(ax: Any, image: ndarray, white: float, title: str, black: float = 0.0) -> None:  # noqa: ANN401
    ax.imshow(image.T, cmap="gray", vmin=black, vmax=white, origin="lower", interpolation="nearest")
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()


def draw(shown: Made, white: float, path: Path) -> None:
    """Crops side by side, and what native adds to bicubic."""
    difference = shown["native"] - shown["bicubic"]
    most = float(np.abs(difference).max()) or 1.0
    rows, columns = difference.shape
    figure = Figure(figsize=(2.8 * (len(shown) + 1), 2.8 * columns / rows + 0.4), layout="constrained")
    axes = figure.subplots(1, len(shown) + 1)
    for ax, (name, image) in zip(axes, shown.items(), strict=False):
        _show(ax, image, white, name)
    _show(axes[-1], difference, most, f"native - bicubic, ±{most / white:.0%}", -most)
    save(figure, path)


def png(source: Source) -> str:
    """The name of a scan's picture."""
    return f"{source.path.name.split('.nii')[0]}.png"


def compute(given: Sequence[Source], seed: int, out: Path, engine: Engine) -> dict[str, Any]:
    """A picture of every scan, and the blind sheet of all."""
    rows = {}
    for source in given:
        shown, white = rows[source.path.name] = crops(source, engine)
        draw(shown, white, out / png(source))
        say(f"{source.path.name}: drawn")
    blind(rows, seed, out / "blind.png")
    return {"scans": list(rows), "seed": seed, "blind": "blind.png", "key": "blind-key.json"}


def table(rows: dict[str, Any]) -> list[str]:
    """Where the blind sheet and its key are."""
    said = f"{rows['blind']} shows {len(rows['scans'])} scans in an order drawn with seed {rows['seed']}"
    return [f"{said}; {rows['key']} has it"]
