"""Labels from their file to another one, on the grid of a sharpened image."""

from itertools import chain
from pathlib import Path
from typing import Any

from seran import files, io, resample, scratch
from seran.errors import BadInput
from seran.grid import dimensions, spacing
from seran.job import labels as kinds
from seran.job import record
from seran.job.options import Transform
from seran.job.run import refuse_output
from seran.volume import Series


def run(source: Path, out: Path, like: Path, affine: Transform = "auto", force: bool = False) -> str:
    """Write labels on the grid of an image, see `seran.resample.nearest`; what became of them, in words.

    Args:
        source: the labels: a file of whole numbers, 3-D or 4-D.
        out: the same on the grid; the ending of its name decides the format.
        like: the image, of which only the grid is read.
        affine: which transform of both headers is right, when they disagree.
        force: replace an existing file.
    """
    for given in (source, like):
        refuse_output(out, force, given)
    if record.is_ours(out):
        raise BadInput(f"{out}: would replace a result of seran's, by the record beside it; name another")
    allocate = scratch.allocator(out.parent)
    target = next(_read(like, affine, voxels=False).volumes)
    series = _read(source, affine, allocate=allocate, labels=True)
    first = next(series.volumes)
    resample.refuse_apart(first.grid, target.grid, f"--like {like}")
    scan = kinds.look_like_a_scan(first.data)
    with files.together(*io.written(out), force=force) as parts:
        try:
            with io.writer(parts[0], series.count, first.data.dtype.name) as writer:
                for volume in chain([first], series.volumes):
                    labels, outside = resample.nearest(volume, target.grid, allocate)
                    writer.add(io.relabelled(out, labels, target))
        except BadInput as error:  # of the name that the user gave, not of the temporary one
            raise BadInput(str(error).replace(str(parts[0]), str(out))) from error
    size = f"{dimensions(target.grid.shape)} voxels of {dimensions(spacing(target.affine), '.3g')} mm"
    told = f"{outside:,} of them lie" if outside else "none of them lies"
    told = f"{out}: {size} ({first.data.dtype.name}) on the grid of {like.name}; {told} outside {source.name}"
    told += " and are 0" * bool(outside)
    warning = f"; WARN, {source.name} looks like a scan; to interpolate it: seran upscale IN OUT --like SHARP"
    return told + warning * scan


def _read(path: Path, affine: Transform, **how: Any) -> Series:  # noqa: ANN401
    """Read one of the two; a file that lacks the transform that is chosen has nothing to choose from."""
    try:
        return io.read_series(path, affine, **how)
    except BadInput:
        return io.read_series(path, **how)
