"""``seran compare``: two volumes on one page."""

from pathlib import Path

from seran import progress
from seran.errors import Incomplete
from seran.job import pages
from seran.job.options import ReadOptions


def compare(before: Path, after: Path, out: Path, /, fill: float | None = None, force: bool = False) -> str:
    """Put two scans on one page that opens anywhere: planes with a divider, difference, spectrum, checks.

    If the record of `seran upscale` lies beside AFTER and is of BEFORE, the checks know how the one was made
    from the other; else what depends on that is "not known". The exit status is 1 if a check fails.

    Args:
        before: a scan, in any format that `seran upscale` reads; the first volume of a series.
        after: what became of it, or any other volume.
        out: the page, a name ending in .html.
        fill: value for voxels that are NaN, infinite or beyond 1e30.
        force: replace an existing page.
    """
    pages.refuse_page(out, force, before, after)
    told, failed = pages.write(before, after, out, ReadOptions(fill=fill))
    if failed:
        progress.say(told, "stderr")
        raise Incomplete(f"FAIL of {', '.join(failed)}; the report says more: {out}")
    return told
