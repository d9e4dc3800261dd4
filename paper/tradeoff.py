"""PSNR against seconds per volume, of the shipped weights and of all systems after one equal budget.

    python paper/tradeoff.py          # from tables 3 and 4 and the model cards; writes docs/tradeoff.png

Both PSNR are means over the T2 test volumes, as gains over bicubic: of the shipped weights over every slice
(the cards), of the equal budget over the slices that Table 3 scores. Seconds are those of one machine in each
panel: of the shipped weights those of a Table 4, of the equal budget those of Table 3.
"""

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import placed, program

from seran import files
from seran.systems import title

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
CONTRAST = "T2"
BESIDE = {
    **dict.fromkeys(("edsr", "fscwrn", "idn"), "left"),
    **dict.fromkeys(("seran", "seran+"), "above"),
    **dict.fromkeys(("rdn", "seab", "vdsr"), "right"),
}
"""Where a name stands, if not below its point: the 40-block networks take the same time."""
PLACES = {
    "above": ((0, 7), "center", "bottom"),
    "below": ((0, -7), "center", "top"),
    "left": ((-7, 0), "right", "center"),
    "right": ((7, 0), "left", "center"),
}


def gains(card: dict[str, Any]) -> dict[str, float]:
    """Mean gain over the baseline of each method of a card, in dB."""
    base = {r["name"]: r["psnr"] for r in card["rows"] if r["method"] == card["baseline"]}
    methods = dict.fromkeys(r["method"] for r in card["rows"])
    return {
        method: fmean(
            r["psnr"] - base[r["name"]]
            for r in card["rows"]
            if r["method"] == method and r["contrast"] == CONTRAST
        )
        for method in methods
    }


def draw(ax: Axes, found: dict[str, float], seconds: dict[str, float], heading: str) -> None:
    """One panel: a point and a name for every method.

    Args:
        ax: the panel.
        found: method -> gain in dB.
        seconds: method -> seconds for a volume.
        heading: of the panel.
    """
    for name, gain in sorted(found.items()):
        ax.plot(seconds[name], gain, "o", color="C3" if name.startswith("seran") else "C0")
        off, ha, va = PLACES[BESIDE.get(name, "below")]
        point = (seconds[name], gain)
        ax.annotate(title(name), point, off, textcoords="offset points", ha=ha, va=va, fontsize=8)
    ax.set(xscale="log", xlabel="seconds for 240x240x96 voxels", ylabel=f"dB over bicubic, {CONTRAST}")
    ax.set_title(heading, fontsize=9)
    ax.margins(0.2)
    ax.grid(alpha=0.3)


def main(
    table: Path = HERE / "table3-x2-minutes.json",
    timed: Path = HERE / "table4-zen4.json",
    cards: Path = DOCS / "weights",
    out: Path = DOCS / "tradeoff.png",
) -> None:
    """Draw both panels.

    Args:
        table: Table 3 at x2 by equal minutes, with its seconds.
        timed: a Table 4, with the seconds of the shipped weights.
        cards: folder of the model cards.
        out: the picture.
    """
    rows = json.loads(table.read_text())["results"]
    seconds = {name: row["seconds"] for name, row in rows.items()}
    shipped: dict[str, float] = {}
    for path in sorted(cards.glob("*-x2-bd.json")):
        shipped |= gains(json.loads(path.read_text()))
    equal = {name: row["means"][CONTRAST]["gain"] for name, row in rows.items()}
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    quick = {name: median(row["x2"]) for name, row in json.loads(timed.read_text())["results"].items()}
    draw(left, shipped, quick, "x2, the shipped weights on two Zen 4 cores (training: their cards)")
    draw(right, equal, seconds, "x2, all trained alike for 12 minutes or a little more")
    with files.atomic(placed(out)) as part:
        figure.savefig(part, format="png", dpi=110)


if __name__ == "__main__":
    program(main)
