"""Small parts of a scan, enlarged: those that changed most, and those that are least certain."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage

from seran import grid, resample
from seran.grid import Grid
from seran.quality.thumbnail import turned, upright
from seran.quality.window import Window
from seran.volume import Volume

COUNT = 3  # of each kind
SIDE = 40  # voxels of after along the longer side of a part, at most
FINER = 4  # times as fine as after, on which voxels of before are drawn as they are
LEAST = 1e-3  # of the scan's range: a mean below that is none
SHOWN = 214  # pixels of the page along the longer side
ENDS = 2, 98  # percentiles of a part that its window holds
STEPS = 9  # of `SIDE`, by which a mean over a part is smoother than single voxels: size of the box
WORDS = {"changed": "changed most", "unsure": "least certain"}
"""What a part was chosen for."""


@dataclass(frozen=True)
class Crop:
    """A part of one slice."""

    why: str  # one of `WORDS`
    score: float  # mean over its middle, in the scan's units
    at: tuple[slice, ...]  # in the array of after, one voxel along the axis across it
    axis: int  # across it
    mm: tuple[float, ...]  # its middle


def crops(why: str, score: Volume, scan: Volume, low: float, gain: float, axis: int) -> list[Crop]:
    """The parts with the greatest mean of a map, in tissue and apart from each other, the greatest first.

    Args:
        why: one of `WORDS`.
        score: what is great where the parts shall be; its sign does not count.
        scan: on the grid of the map.
        low: of its intensities, what is tissue at least.
        gain: its range.
        axis: across the parts.
    """
    shape, spacing = np.array(score.data.shape), grid.spacing(score.affine)
    plane = np.delete(np.arange(3), axis)
    longest = SIDE * spacing[plane].min()
    size = np.ones(3, int)
    size[plane] = np.clip(np.rint(longest / spacing[plane]), 4, shape[plane])
    box = tuple(np.delete(np.maximum(3, size * STEPS // SIDE), axis).tolist())
    inner = tuple(
        slice(s // 2, max(s // 2 + 1, n - s // 2)) for s, n in zip(size[plane], shape[plane], strict=True)
    )
    best: list[tuple[float, tuple[int, ...]]] = []
    for k in range(shape[axis]):
        one, other = score.data.take(k, axis), scan.data.take(k, axis)
        mean = ndimage.uniform_filter(np.abs(one) * (other > low), box)[inner]
        for _ in range(COUNT):
            peak = np.unravel_index(int(mean.argmax()), mean.shape)
            best.append(
                (
                    float(mean[peak]),
                    tuple(np.insert([p + i.start for p, i in zip(peak, inner, strict=True)], axis, k)),
                )
            )
            mean[
                tuple(
                    slice(max(0, p - s // 2), p + s // 2 + 1) for p, s in zip(peak, size[plane], strict=True)
                )
            ] = 0
    found: list[Crop] = []
    apart = np.where(np.arange(3) == axis, longest / spacing[axis] / 2, size)  # along the axis, half as far
    taken: list[ndarray] = []
    for value, middle in sorted(best, key=lambda each: -each[0]):
        at = np.array(middle)
        if (
            value > LEAST * gain
            and len(found) < COUNT
            and all((np.abs(at - o) >= apart).any() for o in taken)
        ):
            taken.append(at)
            start = np.clip(at - size // 2, 0, shape - size)
            part = tuple(slice(int(a), int(a + s)) for a, s in zip(start, size, strict=True))
            mm = tuple((score.affine @ [*at, 1])[:3].tolist())
            found.append(Crop(why, value, part, axis, mm))
    return found


def _png(image: Float[ndarray, "h w"], shown: Window) -> str:
    from matplotlib.image import imsave

    stream = BytesIO()
    imsave(stream, image, vmin=shown.low, vmax=shown.high, cmap="gray", format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _nearest(scan: Volume, target: Grid) -> Float[ndarray, "x y z"]:
    """The voxels of a scan as they are, on a finer grid."""
    to = np.linalg.inv(scan.affine) @ target.affine
    at = np.indices(target.shape).reshape(3, -1)
    where = np.rint(to[:3, :3] @ at + to[:3, 3:]).astype(int)
    inside = ((where >= 0) & (where < np.array(scan.data.shape)[:, None])).all(0)
    held = np.zeros(at.shape[1], np.float32)
    held[inside] = scan.data[tuple(where[:, inside])]
    return held.reshape(target.shape)


def figure(crop: Crop, before: Volume, after: Volume, shown: Window, gain: float) -> str:
    """HTML of one: voxels of before, its cubic enlargement, and after; a button leads to it.

    Args:
        crop: which part.
        before: the scan, on its own grid.
        after: what became of it.
        shown: what is black and what is white; more, where much of the part is beyond.
        gain: the scan's range, in parts of which the score is told.
    """
    affine = after.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [each.start for each in crop.at]
    held = after.data[crop.at]
    low, high = np.percentile(held, ENDS).tolist()
    shown = Window(min(low, shown.low), max(high, shown.high))
    finer = np.where(np.arange(3) == crop.axis, 1, FINER)
    fine = affine @ np.diag([*(1 / finer), 1])
    fine[:3, 3] = (affine @ [*((1 / finer - 1) / 2), 1])[:3]
    images = {
        "before, voxels": (_nearest(before, Grid(tuple((finer * held.shape).tolist()), fine)), fine),
        "before, cubic": (resample.onto(before, Grid(held.shape, affine)).data, affine),
        "after": (held, affine),
    }
    mm = np.delete(grid.spacing(affine) * held.shape, crop.axis).tolist()
    sides = mm[::-1] if turned(affine, crop.axis) else mm
    told = ", ".join(f"{x:.0f}" for x in crop.mm)
    cells = []
    for name, (data, lies) in images.items():
        flat = upright(data.squeeze(crop.axis), lies, crop.axis)
        high, wide = sides
        scale = SHOWN / max(sides)
        size = f'width="{round(wide * scale)}" height="{round(high * scale)}"'
        as_is = ' class="voxels"' * ("voxels" in name)
        cells.append(
            f'<div><img alt="{name}"{as_is} {size} src="{_png(flat, shown)}"><span>{name}</span></div>'
        )
    lead = " ".join(f"{x:.3f}" for x in crop.mm)
    said = html.escape(f"{WORDS[crop.why]}: {crop.score / gain:.1%} of the range on average, at {told} mm")
    button = f'<button type="button" class="lead" data-mm="{lead}">show above</button>'
    return f'<figure class="crop">{"".join(cells)}<figcaption>{said} {button}</figcaption></figure>'


def figures(parts: Sequence[Crop], before: Volume, after: Volume, shown: Window, gain: float) -> str:
    """The same of several."""
    return "".join(figure(part, before, after, shown, gain) for part in parts)
