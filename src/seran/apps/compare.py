"""``seran compare``: two volumes on one page."""

import logging
from pathlib import Path

from seran import facts, progress
from seran.errors import Incomplete
from seran.job import pages
from seran.job.options import ReadOptions


def compare(
    before: Path,
    after: Path,
    out: Path,
    /,
    fill: float | None = None,
    force: bool = False,
    json: bool = False,
) -> str:
    """Put two scans on one page that opens anywhere: planes with a divider, difference, spectrum, checks.

    If the record of `seran upscale` lies beside AFTER and is of BEFORE, the checks know how the one was made
    from the other; else what depends on that is "not known". The exit status is 1 if a check fails.

    Args:
        before: a scan, in any format that `seran upscale` reads; of a series the volume that, by the
            record of AFTER, this was made of, or the first.
        after: what became of it, or any other volume.
        out: the page, a name ending in .html.
        fill: value for voxels that are NaN, infinite or beyond 1e30.
        force: replace an existing page.
        json: say what the checks found as JSON, for programs: verdict, text and number of each.
    """
    pages.refuse_page(out, force, before, after)
    found = pages.write(before, after, out, ReadOptions(fill=fill))
    told = facts.dumps(found.stated(), indent=1) if json else found.words()
    if found.failed:
        progress.say(told, "stdout" if json else "stderr", logging.WARNING)
        raise Incomplete(f"FAIL: {', '.join(found.failed)}; the report says more: {out}")
    return told
