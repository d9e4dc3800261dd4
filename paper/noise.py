"""What becomes of a scan's noise, and how far results leave the scan, see `seran.quality.measures`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from acquisitions import central
from results import markdown
from scans import NAMES, known, result, say, stack_of

from seran.data.sources import Source, read_source
from seran.engines import Engine
from seran.measure import measured
from seran.quality.measures import LARGE, SMALL, measures


def compute(
    given: Sequence[Source], slices: int, engine: Engine, names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """`seran.quality.measures` of every scan as it is stored."""
    rows = {}
    for source in given:
        read_source(source)  # refuses what is damaged or no scan
        stack, _ = stack_of(source.path)
        chosen = central(stack, slices)
        row: dict[str, Any] = {"contrast": source.contrast, "methods": {}}
        background = measured(stack).background
        for name in names:
            image, steps = result(stack, chosen, name, engine)
            found = measures(chosen, image, steps.gain, steps.method.anchor, background)
            row["methods"][name] = asdict(found)
        rows[source.path.name] = row | known(steps)
        say(f"{source.path.name}: {steps.known}")
    return rows


def table(rows: dict[str, Any]) -> list[str]:
    """Each scan by every method, and their means."""

    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else f"{value:{form}}"

    body = []
    for scan, row in rows.items():
        said = f"{'×'.join(f'{f:.2f}' for f in row['fraction'])}, {row['window']}, {row['noise']:.1%}"
        for name, one in row["methods"].items():
            cells = [shown(one[k], ".2f") for k in ("tissue", "air")]
            cells += [shown(one[k], ".2%") for k in ("overshoot", "most", "rim")]
            body.append([scan, row["contrast"], said, name, *cells])
    for name in dict.fromkeys(name for row in rows.values() for name in row["methods"]):
        one = [row["methods"][name] for row in rows.values()]
        cells = []
        for key, form in (
            ("tissue", ".2f"),
            ("air", ".2f"),
            *((k, ".2%") for k in ("overshoot", "most", "rim")),
        ):
            values = [m[key] for m in one if m[key] is not None]
            cells.append(shown(float(np.mean(values)) if values else None, form))
        body.append(["mean", "", "", name, *cells])
    head = ["scan", "contrast", "measured", "method", "noise, tissue", "noise, air"]
    head += [f"overshoot > {SMALL:.0%}", "most", f"rim > {LARGE:.0%}"]
    return ["Noise is after ÷ before", "", *markdown(head, body)]
