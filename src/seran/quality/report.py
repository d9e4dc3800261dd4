"""A page to send to a colleague: a scan before and after, how they differ, and whether promises were kept.

One HTML file with everything inside it, the viewer (NiiVue) and the voxels included. It asks for nothing from
anywhere: its Content-Security-Policy forbids every request, and runs no script but the two it was made with,
known by their SHA-256. Every text in it that came from a file is escaped.

The page shows voxels in 256 steps, and every n-th slice of a large volume, and says so; checks and spectrum
are computed from all voxels as they are.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import nibabel as nib
import numpy as np
from numpy import ndarray

import seran
from seran import grid, kspace, resample
from seran.errors import BadInput
from seran.io import describe
from seran.quality.checks import Check, Provenance, apart, limits
from seran.sharpen import Normalisation
from seran.volume import Volume

VIEWER = Path(__file__).parent / "viewer"
SHOWN = 32 << 20
"""Voxels of the finer volume that a page holds at most, about 35 MB; beyond, it holds every n-th slice."""
HEADROOM = 1.25
"""Greatest intensity that is shown, as a multiple of the 99.9th percentile: above lie few vessels."""
STEPS = 200
"""Steps of the difference in the range of the first scan: half a percent each, so that noise packs well."""
SAME = 1e-3
"""Voxels by which corners may differ for two grids to be drawn as they are, one over the other."""
UNKNOWN = """<p>No record of seran lies beside the second file, or it is of another input: how the one came
from the other is not known.</p>"""


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
    difference: Volume
    notes: list[str]


def viewer() -> str:
    """The source of NiiVue.

    Raises:
        BadInput: if it is not here, or not the one that is known.
    """
    version, digest = (VIEWER / "niivue.lock").read_text().split()
    path = VIEWER / "niivue.umd.js"
    if not path.is_file():
        raise BadInput(
            f"reports need the viewer NiiVue {version}, which is not in this installation; `make viewer` in "
            f"the source tree brings it from npm (or: npm pack @niivue/niivue@{version}, and copy its "
            f"dist/{path.name} to {VIEWER})"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadInput(f"{path}: not NiiVue {version} byte for byte; remove it, and `make viewer` again")
    return data.decode()


def every(volume: Volume, axis: int, step: int) -> Volume:
    """Every ``step``-th slice along ``axis``, from the middle of the first ``step``, where it lies."""
    first = (min(step, volume.data.shape[axis]) - 1) // 2
    at = tuple(slice(first, None, step) if i == axis else slice(None) for i in range(3))
    change = np.eye(4)
    change[axis, axis], change[axis, 3] = step, first
    return volume.on(volume.data[at], volume.affine @ change)


def shown(before: Volume, after: Volume) -> Shown:
    """What is drawn of two volumes: both on one field of view, and what the second adds, on its grid."""
    notes = []
    axis = grid.slice_axis(after.affine, after.data.shape)
    step = -(-after.data.size // SHOWN)
    old, new = (grid.corners(v.data.shape, v.affine) for v in (before, after))
    off = float(np.linalg.norm(old - new, axis=1).max())
    together = off <= SAME * grid.spacing(after.affine).min()
    if together and before.data.shape[axis] == after.data.shape[axis]:
        first, second = every(before, axis, step), every(after, axis, step)
        low = first.on(first.data.astype(np.float32), first.affine)
    else:
        whole = resample.onto(before, after.grid)
        first = second = every(after, axis, step)
        low = first = every(whole, axis, step)
        if off > SAME * grid.spacing(after.affine).min():
            notes.append(
                "The two grids differ in their field of view: before is drawn on the grid of after (cubic "
                f"interpolation; corners up to {apart(old, new):.2g} mm apart). What lies outside of it is 0."
            )
        else:
            notes.append("Before is drawn on the grid of after (cubic interpolation).")
    if step > 1:
        notes.append(
            f"The page holds every {_th(step)} slice, {second.data.shape[axis]} of {after.data.shape[axis]}: "
            f"all {after.data.size / 1e6:.3g} million voxels would be too many for a browser. "
            "Checks and spectrum are of all."
        )
    enlarged = resample.onto(low, second.grid)
    return Shown(first, second, second.on(second.data - enlarged.data, second.affine), notes)


def _th(n: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(n, f"{n}th")


def packed(volume: Volume, low: float, step: float, dtype: type) -> str:
    """A NIfTI file in base64 of gzip: ``low`` and so many steps above it; nothing of the old header."""
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


def _cell(text: object, tag: str = "td", mark: str = "") -> str:
    marked = f' class="{mark}"' if mark else ""
    return f"<{tag}{marked}>{html.escape(str(text))}</{tag}>"


def rows(table: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table; the first cell of a row is its head."""
    top = f"<thead><tr>{''.join(_cell(h, 'th') for h in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{_cell(r[0], 'th')}{''.join(map(_cell, r[1:]))}</tr>" for r in table)
    return f"<table>{top}<tbody>{body}</tbody></table>"


def verdicts(checks: Sequence[Check]) -> str:
    """The checks as a table."""
    body = "".join(
        f"<tr>{_cell(c.verdict, 'td', 'verdict ' + c.verdict.split()[0].lower())}{_cell(c.name, 'th')}"
        f"{_cell(c.text)}</tr>"
        for c in checks
    )
    return f'<table class="checks"><tbody>{body}</tbody></table>'


def summary(checks: Sequence[Check]) -> str:
    """How many of each verdict, in words."""
    counts = [(v, sum(c.verdict == v for c in checks)) for v in ("FAIL", "WARN", "PASS", "not known")]
    return ", ".join(f"{n} {v}" for v, n in counts if n)


def described(side: Side) -> dict[str, str]:
    """What the header and the voxels of a scan are, in words."""
    v = side.volume
    low, high = limits(v)
    return {
        "file": side.name,
        "volumes": f"{side.count}, the first is shown" if side.count > 1 else "1",
        "matrix": " × ".join(map(str, v.data.shape)),
        "voxel, mm": " × ".join(f"{s:.4g}" for s in grid.spacing(v.affine)),
        "axes point to": " ".join(nib.aff2axcodes(v.affine)),
        "first voxel, mm": " ".join(f"{x:.2f}" for x in v.affine[:3, 3]),
        "intensities": f"{low:.5g} to {high:.5g}",
        **describe.said(v.header),
    }


def spectra(before: Volume, after: Volume, axis: int) -> list[tuple[ndarray, ndarray]]:
    """`kspace.radial` of both, in the plane across ``axis`` of the first."""
    plane = next(name for name, i in grid.NORMALS.items() if i == grid.world_axes(before.affine)[axis])
    found = []
    for v, at in (before, axis), (after, grid.slice_axis(after.affine, after.data.shape, plane)):  # type: ignore[arg-type]
        a, b = np.delete(grid.spacing(v.affine), at)
        found.append(kspace.radial(np.moveaxis(v.data, at, 0), (float(a), float(b))))
    return found


def chart(curves: Sequence[tuple[ndarray, ndarray]], names: Sequence[str]) -> str:
    """Power over frequency as SVG; the frequency where the first curve ends is marked."""
    w, h, left, bottom, top = 560, 300, 52, 42, 12
    right = max(float(f[-1]) for f, _ in curves if f.size) * 1.02
    peak = max(float(p.max()) for _, p in curves if p.size)
    floor = max(peak - 100, min(float(p.min()) for _, p in curves if p.size)) - 2

    def x(f: float) -> float:
        return left + (w - left - 10) * f / right

    def y(p: float) -> float:
        return top + (h - top - bottom) * (peak - max(p, floor)) / (peak - floor)

    parts = []
    for p in np.arange(0, floor - peak, -20):
        at = y(peak + p)
        parts.append(f'<line class="rule" x1="{left}" x2="{w - 10}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{p:.0f}</text>')
    unit = next(u for u in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 1e9) if right / u <= 8)
    for f in np.arange(0, right, unit):
        parts.append(f'<text x="{x(f):.1f}" y="{h - bottom + 18}" text-anchor="middle">{f:.3g}</text>')
    end = x(float(curves[0][0][-1])) if curves[0][0].size else left
    parts.append(f'<line class="end" x1="{end:.1f}" x2="{end:.1f}" y1="{top}" y2="{h - bottom}"/>')
    parts.append(f'<text x="{end - 5:.1f}" y="{top + 12}" text-anchor="end">Nyquist, before</text>')
    for i, ((f, p), name) in enumerate(zip(curves, names, strict=True)):
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(f, p, strict=True))
        parts.append(f'<polyline class="curve{i}" points="{points}"/>')
        row = h - bottom - 30 + 18 * i
        parts.append(f'<line class="curve{i}" x1="{left + 12}" x2="{left + 36}" y1="{row}" y2="{row}"/>')
        parts.append(f'<text x="{left + 42}" y="{row + 4}">{html.escape(name)}</text>')
    parts.append(f'<text x="{w / 2}" y="{h - 5}" text-anchor="middle">cycles per mm</text>')
    parts.append(f'<text x="12" y="{h / 2}" text-anchor="middle" class="upright">dB</text>')
    label = "Mean in-plane power over spatial frequency, before and after"
    return f'<svg viewBox="0 0 {w} {h}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page(
    before: Side,
    after: Side,
    checks: Sequence[Check],
    made: Provenance | None,
    record: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> str:
    """The report.

    Args:
        before: the scan.
        after: what became of it, or what it is compared with.
        checks: see `seran.quality.checks`.
        made: how the one came from the other, if that is known.
        record: what is stated of it; shown as it is.
        notes: what must be said besides.

    Raises:
        BadInput: if the viewer is not here.
    """
    niivue, script = viewer(), (VIEWER / "report.js").read_text()
    style = (VIEWER / "report.css").read_text()
    drawn = shown(before.volume, after.volume)
    axis = made.axis if made else grid.slice_axis(before.volume.affine, before.volume.data.shape)
    norm = Normalisation.of(before.volume.data)
    offset, gain = norm.offset, norm.gain or 1.0
    about = [described(before), described(after)]
    names = list(dict.fromkeys([*about[0], *about[1]]))
    line = float(grid.spacing(after.volume.affine).min())
    facts = {
        "low": offset,
        "high": offset + gain,
        "top": offset + HEADROOM * gain,
        "range": gain,
        "line": line,
    }
    said = [*notes, *drawn.notes]
    title = f"{before.name} → {after.name}"
    version, _ = (VIEWER / "niivue.lock").read_text().split()
    step = HEADROOM * gain / 255
    return Template((VIEWER / "report.html").read_text()).substitute(
        policy=html.escape(
            f"default-src 'none'; script-src {_hashed(niivue)} {_hashed(script)}; "
            f"style-src {_hashed(style)}; img-src data: blob:; base-uri 'none'; form-action 'none'"
        ),
        title=html.escape(title),
        before_name=html.escape(before.name),
        after_name=html.escape(after.name),
        summary=html.escape(summary(checks)),
        notes="".join(f"<li>{html.escape(note)}</li>" for note in said),
        checks=verdicts(checks),
        spectrum=chart(spectra(before.volume, after.volume, axis), ("before", "after")),
        headers=rows([[n, *(a.get(n, "") for a in about)] for n in names], ("", "before", "after")),
        provenance=rows([(k, _told(v)) for k, v in record.items()]) if record else UNKNOWN,
        version=html.escape(seran.__version__),
        niivue_version=html.escape(version),
        licence=html.escape((VIEWER / "niivue.LICENSE").read_text()),
        facts=in_script(facts),
        style=style,
        niivue=niivue,
        script=script,
        before=packed(drawn.before, offset, step, np.uint8),
        after=packed(drawn.after, offset, step, np.uint8),
        difference=packed(drawn.difference, 0.0, gain / STEPS, np.int8),
    )


def _told(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
