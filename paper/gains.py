"""Gains over zero-filling, from the rows of `native_matrix.py`: tables, the bars, and a heat map."""

from pathlib import Path

import numpy as np
from acquisitions import CASES
from figures import save
from matplotlib.figure import Figure
from results import Rows, markdown
from ways import BASE, WAYS

from seran.quality.paired import FEWEST, interval

LOSS = 0.05
"""dB that a volume may lose against zero-filling."""
BARS = {
    "truncation": {"T2": 3.6, "PD": 3.2, "T1": 2.4},
    "noise-1": {"T2": 3.0, "PD": 2.8, "T1": 2.2},
    "noise-3": {"T2": 2.8, "PD": 2.6, "T1": 2.2},
    "noise-5": {"T2": 3.2, "PD": 3.0, "T1": 2.6},
    "hamming-1": {"T2": 5.5, "PD": 5.0, "T1": 3.8},
    "filled-tukey-2": {"T2": 3.0, "PD": 2.8, "T1": 2.2},
}
"""Gains that the native network is to reach on the test split, dB."""


def gains(rows: Rows, contrast: str, column: str, name: str) -> tuple[list[float], list[str], list[str]]:
    """Over zero-filling, of the volumes of a contrast that are done; their subjects and names."""
    cells = [
        (row["psnr"][column][name] - row["psnr"][column][BASE], row["subject"], volume)
        for volume, row in rows.items()
        if row["contrast"] == contrast and {name, BASE} <= row["psnr"].get(column, {}).keys()
    ]
    values, subjects, names = (list(side) for side in zip(*cells, strict=True)) if cells else ([], [], [])
    return values, subjects, names


def contrasts(rows: Rows) -> list[str]:
    """Those of the volumes."""
    return sorted({row["contrast"] for row in rows.values()})


def in_words(values: list[float], subjects: list[str]) -> str:
    """Mean, interval, and the worst volume."""
    if not values:
        return "–"
    text = f"{np.mean(values):+.2f}"
    if len(set(subjects)) >= FEWEST:
        low, high = interval(values, subjects)
        text += f" [{low:+.2f}, {high:+.2f}]"
    return f"{text}; {min(values):+.2f}"


def table(rows: Rows) -> list[str]:
    """The weights, a table for each contrast, what was measured, and the bars."""
    lines = _weights(rows)
    for contrast in contrasts(rows):
        count = sum(row["contrast"] == contrast for row in rows.values())
        lines += [f"## {contrast} ({count} volumes)", ""]
        body = [
            [way.title, *(in_words(*gains(rows, contrast, column, name)[:2]) for column in CASES)]
            for name, way in WAYS.items()
        ]
        lines += [*markdown(["method", *(case.title for case in CASES.values())], body), ""]
    return [*lines, *_measurements(rows), "", *bars(rows)]


def _weights(rows: Rows) -> list[str]:
    """Which weights made the rows of each network, by the beginning of their digests."""
    held = {
        name: {row["weights"][name][:12] for row in rows.values() if name in row["weights"]} for name in WAYS
    }
    said = [f"{WAYS[name].title} {' and '.join(sorted(made))}" for name, made in held.items() if made]
    return [f"Weights: {', '.join(said)}", ""] if said else []


def _measurements(rows: Rows) -> list[str]:
    """What the library found out about the acquisitions, volume by volume."""
    body = [
        [
            volume,
            row["contrast"],
            *(
                f"{'×'.join(f'{f:.2f}' for f in m['fraction'])} {m['window']} {m['noise']:.1%} ({m['by']})"
                if (m := row["measured"].get(column))
                else "–"
                for column in CASES
            ),
        ]
        for volume, row in rows.items()
    ]
    head = ["volume", "contrast", *(case.title for case in CASES.values())]
    return ["## Acquired part, filter and noise as the library had them", "", *markdown(head, body)]


def bars(rows: Rows) -> list[str]:
    """What is to be reached, and whether it is."""
    lines = ["## Bars", ""]
    body = []
    for column, bar in BARS.items():
        for contrast, least in bar.items():
            values = gains(rows, contrast, column, "native")[0]
            mean = float(np.mean(values)) if values else None
            verdict = "no such volume" if mean is None else "reached" if mean >= least else "MISSED"
            body.append([CASES[column].title, contrast, f"{least:+.2f}", _number(mean), verdict])
    lines += markdown(["acquisition", "contrast", "bar", "native", ""], body)
    below = [
        f"{WAYS[name].title}, {CASES[column].title}, {volume}: {value:+.2f} dB"
        for name in ("native", "native+")
        for column in CASES
        for contrast in contrasts(rows)
        for value, volume in zip(*gains(rows, contrast, column, name)[::2], strict=True)
        if value < -LOSS
    ]
    rule = f"Never more than {LOSS} dB below zero-filling on any volume: {'MISSED' if below else 'held'}"
    return [*lines, "", rule, *(["", *(f"- {one}" for one in below)] if below else [])]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def picture(rows: Rows, path: Path) -> None:
    """A heat map of mean gains, a panel for each contrast; a dot: some volume lost more than `LOSS`."""
    kinds = contrasts(rows)
    figure = Figure(figsize=(11, 0.8 + 2.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)[:, 0]
    for ax, contrast in zip(axes, kinds, strict=True):
        grid = np.full((len(WAYS), len(CASES)), np.nan)
        for i, name in enumerate(WAYS):
            for j, column in enumerate(CASES):
                values = gains(rows, contrast, column, name)[0]
                if values:
                    grid[i, j] = np.mean(values)
                    mark = " •" if min(values) < -LOSS else ""
                    ax.text(
                        j,
                        i,
                        f"{grid[i, j]:+.1f}{mark}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="w" if abs(grid[i, j]) > 4 else "k",
                    )
        shown = ax.imshow(grid, cmap="RdBu", vmin=-6, vmax=6, aspect="auto")
        ax.set_yticks(range(len(WAYS)), [way.title for way in WAYS.values()], fontsize=8)
        count = sum(row["contrast"] == contrast for row in rows.values())
        ax.set_title(f"{contrast}, {count} volumes", fontsize=9)
    axes[-1].set_xticks(
        range(len(CASES)), [c.title for c in CASES.values()], fontsize=8, rotation=25, ha="right"
    )
    figure.colorbar(shown, ax=axes, label="gain over zero-filling, dB", shrink=0.6)
    save(figure, path)
