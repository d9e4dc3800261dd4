"""A page to send to a colleague: a scan before and after, how they differ, and whether promises were kept.

One HTML file with the viewer (NiiVue) and the voxels, in 256 steps and, if many, every n-th slice. Its policy
forbids every request, and every script but the two it was made with. Every text from a file is escaped.
"""

import base64
import hashlib
import html
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from seran import __version__, facts, files, grid, scratch
from seran.errors import BadInput
from seran.io import describe
from seran.quality import crops, drawn
from seran.quality.checks import Check, worst
from seran.quality.drawn import Shown, packed
from seran.quality.provenance import Provenance
from seran.quality.spectrum import spectra
from seran.quality.thumbnail import thumbnail
from seran.quality.window import Window, window
from seran.quality.words import sentence
from seran.sharpen import Normalisation
from seran.volume import Volume

VIEWER = Path(__file__).parent / "viewer"
HEADROOM = 1.25  # greatest intensity shown, in 99.9th percentiles: above lie few vessels
TISSUE = 0.15  # of the window: what is brighter counts where parts are chosen
STEPS = 200  # of the difference in the range of the first scan: half a percent each, so that noise packs well
OVER = {
    "difference": "difference",
    "estimated": "added detail, not measured",
    "uncertainty": "how far it may be off",
}
"""What is drawn over after, in the words of the page."""
SEEN, UNSURE = 1 << 20, 0.05  # voxels that are looked at, about; steps in which the end of colours is chosen


@dataclass(frozen=True)
class Side:
    """One of the two scans: what it is called, its first volume, and how many there are."""

    name: str
    volume: Volume
    count: int = 1
    chosen: int | None = None  # it is not the first of several, but this one, counted from 0


def viewer() -> tuple[str, str]:
    """Version and source of NiiVue, or `BadInput` if it is not here, or not the one that is known."""
    version, digest = (VIEWER / "niivue.lock").read_text().split()
    path = VIEWER / "niivue.umd.js"
    if not path.is_file():
        why = f"reports need the viewer NiiVue {version}, which is not in this installation"
        by_hand = f"npm pack @niivue/niivue@{version}, and copy its dist/{path.name} to {VIEWER}"
        raise BadInput(f"{why}; `make viewer` in the source tree brings it from npm (or: {by_hand})")
    if files.sha256(path) != digest:
        raise BadInput(f"{path}: not NiiVue {version} byte for byte; remove it, and `make viewer` again")
    return version, path.read_text(encoding="utf-8")


def trust(text: str) -> str:
    """The word of a Content-Security-Policy for a script or a style of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def in_script(value: Any) -> str:  # noqa: ANN401
    """JSON that cannot end the element it stands in, nor be anything but JSON there."""
    text = facts.dumps(value)  # ASCII: U+2028 and its like are escaped by it
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = (), marks: Sequence[str] = ()) -> str:
    """A table of HTML; everything in it is escaped.

    Args:
        rows: the first cell of each is its head.
        head: of the columns.
        marks: a class for each row.
    """
    top, body = "".join(f"<th>{html.escape(text)}</th>" for text in head), ""
    for i, (first, *others) in enumerate(rows):
        cells = "".join(f"<td>{html.escape(str(other))}</td>" for other in others)
        body += f'<tr class="{marks[i] if marks else ""}"><th>{html.escape(str(first))}</th>{cells}</tr>'
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _verdict(checks: Sequence[Check]) -> str:
    """The worst verdict, how many there are of each, and what those that say FAIL or WARN found."""
    found = worst(checks).verdict
    told = "".join(
        f'<li class="{c.verdict}"><b>{c.verdict}</b> {html.escape(f"{c.name}: {sentence(c)}; {c.text}")}</li>'
        for verdict in ("FAIL", "WARN")
        for c in checks
        if c.verdict == verdict
    )
    return f'<p><b class="{found[:4]}">{found}</b> {summary(checks)}</p><ul>{told}</ul>'


def _crops(drew: Shown, before: Volume, made: Provenance | None, shown: Window, gain: float) -> str:
    """Parts that changed most, and, where half-widths are known, those that are least certain."""
    after, known = drew.after, made is not None and made.across is not None
    axis = grid.slice_axis(after.affine, after.data.shape, named=after.slices)
    if known and drew.voxels != "none":  # thin slices show in a plane across them
        axis = (axis + 1) % 3
    least, told = shown.low + TISSUE * (shown.high - shown.low), ""
    for why, name in (("changed", "difference"), ("unsure", "uncertainty")):
        if name in drew.over:
            found = crops.crops(why, drew.over[name], after, least, gain, axis)
            told += crops.figures(found, before, after, shown, gain)
    return told or f"<p>Nothing changed by more than {crops.LEAST:.1%} of the range.</p>"


def _unsure(off: Volume | None, gain: float) -> float:
    """The half-width, as a part of the range, at which colours end: a hundredth of the image is beyond."""
    if off is None:
        return 0.0
    most = float(np.quantile(off.data.ravel()[:: max(1, off.data.size // SEEN)], 0.99)) / gain
    return float(np.ceil(most / UNSURE) * UNSURE)


def summary(checks: Sequence[Check]) -> str:
    """How many of each verdict, in words."""
    counts = [(v, sum(c.verdict == v for c in checks)) for v in ("FAIL", "WARN", "PASS", "not known")]
    return ", ".join(f"{n} {v}" for v, n in counts if n)


def _described(side: Side) -> dict[str, str]:
    v, (low, high) = side.volume, scratch.limits(side.volume.data)
    return {
        "file": side.name,
        "volumes": f"{side.count}, the first is shown" if side.count > 1 else _which(side),
        "matrix": grid.dimensions(v.data.shape, by=" × "),
        "voxel, mm": grid.dimensions(grid.spacing(v.affine), ".4g", " × "),
        "axes point to": " ".join(grid.orientation(v.affine)),
        "first voxel, mm": grid.dimensions(v.affine[:3, 3], ".2f", " "),
        "intensities": f"{low:.5g} to {high:.5g}",
        **describe.said(v.header),
    }


def _which(side: Side) -> str:
    return "1" if side.chosen is None else f"number {side.chosen}, counted from 0"


def _draws(niivue: str, shared: str) -> tuple[str, str, str]:
    """What the policy trusts, the element of the viewer, and what the page says of it."""
    if not shared:
        said = "The page is complete in itself and asks for nothing from the network."
        return trust(niivue), f"<script>{niivue}</script>", said
    word = secrets.token_urlsafe(16)  # known to nobody before; browsers compare no hash with a file on disk
    said = "The page asks for nothing but its viewer, which it shares with others: keep its folder with it."
    return f"'nonce-{word}'", f'<script nonce="{word}" src="{html.escape(shared)}"></script>', said


def page(
    before: Side,
    after: Side,
    checks: Sequence[Check],
    made: Provenance | None,
    record: Mapping[str, Any],
    notes: Sequence[str] = (),
    off: Volume | None = None,
    shared: str = "",
    above: str = "",
) -> str:
    """The report, or `BadInput` if the viewer is not here.

    Args:
        before: the scan.
        after: what became of it.
        checks: of the one against the other.
        made: how the one came from the other, if that is known.
        record: what is stated of it; shown as it is.
        notes: what must be said besides.
        off: half-widths of ``after``, if there are any.
        shared: address of the viewer that it shares with other pages; if empty, it lies in the page.
        above: address of the page of all scans; if empty, there is none.
    """
    version, niivue = viewer()
    names = ("report.html", "report.css", "view.js", "report.js", "niivue.LICENSE")
    template, style, draw, script, licence = ((VIEWER / name).read_text() for name in names)
    script = draw + script
    trusted, element, whole = _draws(niivue, shared)
    drew = drawn.shown(before.volume, after.volume, made, off, bool(shared))
    scan = before.volume
    axis = made.axis if made else grid.slice_axis(scan.affine, scan.data.shape, named=scan.slices)
    normal = grid.world_axes(scan.affine)[axis]
    norm = Normalisation.of(before.volume.data)
    offset, gain = norm.offset, norm.gain or 1.0
    step, line, shown = HEADROOM * gain / 255, grid.spacing(after.volume.affine).min(), window(scan, norm)
    drawing = {**shown._asdict(), "least": offset, "top": offset + HEADROOM * gain, "range": gain}
    drawing |= {"line": float(line), "voxels": drew.voxels}
    drawing |= {"unsure": _unsure(off, gain)}
    one, two = _described(before), _described(after)
    texts = {"title": f"{before.name} → {after.name}", "licence": licence}
    texts |= {
        "whole": whole,
        "version": __version__,
        "niivue_version": version,
        "key": str(record.get("Key", "")),
    }
    unknown = [("not known", "no record of seran lies beside the second file, or it is of another input")]
    nested = {k: facts.dumps(v, ensure_ascii=False) for k, v in record.items() if isinstance(v, list | dict)}
    return Template(template).substitute(
        trusted_scripts=f"{trusted} {trust(script)}",
        trusted_style=trust(style),
        **{name: html.escape(text) for name, text in texts.items()},
        thumbnail=thumbnail(before.volume, after.volume, norm, shown),
        above=f'<p><a href="{html.escape(above)}">All scans</a></p>' if above else "",
        verdict=_verdict(checks),
        crops=_crops(drew, before.volume, made, shown, gain),
        notes="".join(f"<li>{html.escape(note)}</li>" for note in (*notes, *drew.notes)),
        checks=table(
            [(c.name, c.verdict, f"{sentence(c)}\n{c.text}") for c in checks],
            marks=[c.verdict[:4] for c in checks],
        ),
        spectrum=spectra(before.volume, after.volume, made, normal),
        headers=table([(n, one.get(n, ""), two.get(n, "")) for n in one | two], ("", "before", "after")),
        provenance=table(({**record} | nested).items() or unknown),
        facts=in_script(drawing),
        style=style,
        niivue=element,
        script=script,
        before=packed(drew.before, offset, step, np.uint8),
        after=packed(drew.after, offset, step, np.uint8),
        over="".join(f'<option value="{name}">{OVER[name]}</option>' for name in drew.over),
        packed="\n".join(
            f'<script type="text/plain" id="{name}-data">{packed(one, 0.0, gain / STEPS, np.int8)}</script>'
            for name, one in drew.over.items()
        ),
    )
