"""A page to send to a colleague: a scan before and after, how they differ, and whether promises were kept.

One HTML file with the viewer (NiiVue) and the voxels, in 256 steps and, if many, every n-th slice. Its policy
forbids every request, and every script but the two it was made with. Every text from a file is escaped.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

import nibabel as nib
import numpy as np

from seran import __version__, files, grid, kspace, resample, scratch
from seran.errors import BadInput
from seran.io import describe
from seran.quality.checks import Check, apart
from seran.quality.provenance import Provenance, estimated
from seran.sharpen import Normalisation
from seran.volume import Volume

VIEWER = Path(__file__).parent / "viewer"
SHOWN = 32 << 20  # voxels that a page holds at most, about 35 MB; beyond, it holds every n-th slice
HEADROOM = 1.25  # greatest intensity shown, in 99.9th percentiles: above lie few vessels
STEPS = 200  # of the difference in the range of the first scan: half a percent each, so that noise packs well
GRAY, BLUE = "#7d8791", "#2f8be6"
OVER = {
    "difference": "difference",
    "estimated": "estimated, not measured",
    "uncertainty": "how far it may be off",
}
"""What is drawn over after, in the words of the page."""
SAME = 1e-3  # voxels by which corners may differ for two grids to be drawn as they are, one over the other


@dataclass(frozen=True)
class Side:
    """One of the two scans: what it is called, its first volume, and how many there are."""

    name: str
    volume: Volume
    count: int = 1


@dataclass(frozen=True)
class Shown:
    """What the page draws, and what must be said of it."""

    before: Volume
    after: Volume
    over: dict[str, Volume]  # what may be drawn over after, see `OVER`
    notes: list[str]


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


def _every(volume: Volume, axis: int, step: int) -> Volume:
    """Every ``step``-th slice along ``axis``, from the middle of the first ``step``, where it lies."""
    first = (min(step, volume.data.shape[axis]) - 1) // 2
    at = tuple(slice(first, None, step) if i == axis else slice(None) for i in range(3))
    change = np.eye(4)
    change[axis, axis], change[axis, 3] = step, first
    return volume.on(volume.data[at], volume.affine @ change)


def shown(before: Volume, after: Volume, made: Provenance | None = None, off: Volume | None = None) -> Shown:
    """What is drawn of two volumes: both on one field of view, and what the second adds, on its grid.

    Args:
        before: the scan.
        after: what became of it.
        made: how, if that is known.
        off: half-widths of ``after``, if there are any (`seran.uncertainty`).
    """
    notes = []
    axis = grid.slice_axis(after.affine, after.data.shape, named=after.slices)
    step = -(-after.data.size // SHOWN)
    old, new = (grid.corners(v.data.shape, v.affine) for v in (before, after))
    together = np.linalg.norm(old - new, axis=1).max() <= SAME * grid.spacing(after.affine).min()
    second = _every(after, axis, step)
    if together and before.data.shape[axis] == after.data.shape[axis]:
        first = _every(before, axis, step)
    else:
        first = _every(resample.onto(before, after.grid), axis, step)
        far = f", whose field of view is up to {apart(old, new):.2g} mm off; what lies outside is 0"
        notes.append(f"Before is drawn, interpolated, on the grid of after{'' if together else far}.")
    if step > 1:
        nth, count = {2: "2nd", 3: "3rd"}.get(step, f"{step}th"), second.data.shape[axis]
        held = f"The page holds every {nth} slice, {count} of {after.data.shape[axis]}"
        notes.append(f"{held}: all would be too many for a browser. Checks and spectrum are of all.")
    added = second.data - resample.onto(first, second.grid).data
    known = made is not None and made.weights and not resample.turned(before.grid, after.grid)
    over = {"difference": second.on(added, second.affine)}
    if made is not None and known:
        over["estimated"] = _every(estimated(before, after, made), axis, step)
    if off is not None and off.data.shape == after.data.shape:
        over["uncertainty"] = _every(off, axis, step)
    return Shown(first, second, over, notes)


def _packed(volume: Volume, low: float, step: float, dtype: type) -> str:
    """A NIfTI file in base64 of gzip, numbers from ``low`` on by ``step``; nothing of the old header."""
    limit = np.iinfo(dtype)
    steps = np.clip(np.rint((volume.data - np.float32(low)) / np.float32(step)), limit.min, limit.max)
    image = nib.Nifti1Image(steps.astype(dtype), volume.affine)
    image.header.set_slope_inter(step, low)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()


def in_script(value: Any) -> str:  # noqa: ANN401
    """JSON that cannot end the element it stands in, nor be anything but JSON there."""
    text = json.dumps(value)  # ASCII: U+2028 and its like are escaped by it
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


def summary(checks: Sequence[Check]) -> str:
    """How many of each verdict, in words."""
    counts = [(v, sum(c.verdict == v for c in checks)) for v in ("FAIL", "WARN", "PASS", "not known")]
    return ", ".join(f"{n} {v}" for v, n in counts if n)


def _described(side: Side) -> dict[str, str]:
    v, (low, high) = side.volume, scratch.limits(side.volume.data)
    return {
        "file": side.name,
        "volumes": f"{side.count}, the first is shown" if side.count > 1 else "1",
        "matrix": grid.dimensions(v.data.shape, by=" × "),
        "voxel, mm": grid.dimensions(grid.spacing(v.affine), ".4g", " × "),
        "axes point to": " ".join(grid.orientation(v.affine)),
        "first voxel, mm": grid.dimensions(v.affine[:3, 3], ".2f", " "),
        "intensities": f"{low:.5g} to {high:.5g}",
        **describe.said(v.header),
    }


def _chart(normal: int, *volumes: Volume) -> str:
    """Power in the slices across a world axis, before and after, in colours for a light and a dark page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    curves = []
    for volume in volumes:
        at = grid.world_axes(volume.affine).index(normal)
        a, b = np.delete(grid.spacing(volume.affine), at).tolist()
        curves.append(kspace.radial(np.moveaxis(volume.data, at, 0), (a, b)))
    parts = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    with rc_context({**dict.fromkeys(parts, GRAY), "font.size": 9}):
        figure = Figure((6, 3.2), layout="constrained")
        axes = figure.add_subplot(xlabel="cycles per mm", ylabel="dB")
        peak = max(float(p.max(initial=-np.inf)) for _, p in curves)
        for (f, p), name, colour in zip(curves, ("before", "after"), (GRAY, BLUE), strict=True):
            axes.plot(f, np.maximum(p - peak, -100), color=colour, label=name)
        for end in curves[0][0][-1:]:
            axes.axvline(end, color=GRAY, linestyle=":")
            axes.text(end, 0, "Nyquist, before ", ha="right", va="bottom")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower left")
        picture = BytesIO()
        figure.savefig(picture, dpi=200, transparent=True)
    label = "Mean in-plane power over spatial frequency, before and after"
    return f'<img alt="{label}" src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">'


def page(
    before: Side,
    after: Side,
    checks: Sequence[Check],
    made: Provenance | None,
    record: Mapping[str, Any],
    notes: Sequence[str] = (),
    off: Volume | None = None,
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
    """
    version, niivue = viewer()
    names = ("report.html", "report.css", "view.js", "report.js", "niivue.LICENSE")
    template, style, draw, script, licence = ((VIEWER / name).read_text() for name in names)
    script = draw + script
    hashes = [hashlib.sha256(text.encode()).digest() for text in (niivue, script, style)]
    trusted = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
    drawn = shown(before.volume, after.volume, made, off)
    scan = before.volume
    axis = made.axis if made else grid.slice_axis(scan.affine, scan.data.shape, named=scan.slices)
    normal = grid.world_axes(scan.affine)[axis]
    norm = Normalisation.of(before.volume.data)
    offset, gain = norm.offset, norm.gain or 1.0
    step, top, line = HEADROOM * gain / 255, offset + HEADROOM * gain, grid.spacing(after.volume.affine).min()
    facts = {"low": offset, "high": offset + gain, "top": top, "range": gain, "line": float(line)}
    one, two = _described(before), _described(after)
    texts = {"title": f"{before.name} → {after.name}", "summary": summary(checks), "licence": licence}
    texts |= {"version": __version__, "niivue_version": version}
    unknown = [("not known", "no record of seran lies beside the second file, or it is of another input")]
    nested = {k: json.dumps(v, ensure_ascii=False) for k, v in record.items() if isinstance(v, list | dict)}
    return Template(template).substitute(
        trusted_scripts=" ".join(trusted[:2]),
        trusted_style=trusted[2],
        **{name: html.escape(text) for name, text in texts.items()},
        notes="".join(f"<li>{html.escape(note)}</li>" for note in (*notes, *drawn.notes)),
        checks=table([(c.name, c.verdict, c.text) for c in checks], marks=[c.verdict[:4] for c in checks]),
        spectrum=_chart(normal, before.volume, after.volume),
        headers=table([(n, one.get(n, ""), two.get(n, "")) for n in one | two], ("", "before", "after")),
        provenance=table(({**record} | nested).items() or unknown),
        facts=in_script(facts),
        style=style,
        niivue=niivue,
        script=script,
        before=_packed(drawn.before, offset, step, np.uint8),
        after=_packed(drawn.after, offset, step, np.uint8),
        over="".join(f'<option value="{name}">{OVER[name]}</option>' for name in drawn.over),
        packed="\n".join(
            f'<script type="text/plain" id="{name}-data">{_packed(one, 0.0, gain / STEPS, np.int8)}</script>'
            for name, one in drawn.over.items()
        ),
    )
