"""What is shown while scans are sharpened: bars on a terminal, a line a minute elsewhere.

The thread that works writes into a `seran.progress.Work`; another one looks at it now and then, so that time
goes on where nothing else does, and nothing waits for what is shown.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from pathlib import Path

from seran import progress
from seran.progress import Work, plain, say

LOOK = 0.5  # seconds between two looks
LINE = 60.0  # seconds between two lines
BAR = "|{bar:16}| {desc}"
View = Callable[[Work], None]


@contextmanager
def shown(count: int = 1) -> Iterator[Work]:
    """Show what is done within, from its first moment on; nothing with ``--quiet``.

    Args:
        count: of scans.
    """
    now, stop = time.perf_counter(), threading.Event()
    work = Work(count=count, began=now, scan=now)
    token = progress.NOW.set(work)
    with ExitStack() as stack:
        stack.callback(progress.NOW.reset, token)
        views = [] if progress.QUIET.get() else [_bars(work, stack) if sys.stderr.isatty() else _lines()]
        if views:
            looking = threading.Thread(
                target=copy_context().run, args=(_look, work, views, stop), daemon=True
            )
            stack.callback(looking.join, LINE)
            stack.callback(stop.set)
            looking.start()
        yield work


def begin(source: Path) -> None:
    """From here on another scan is worked on."""
    if (work := progress.NOW.get()) is None:  # on a cluster
        return
    work.name, work.detail, work.faster, work.total, work.done = str(source), "", "", 0, 0.0
    work.scan, work.first = time.perf_counter(), 0.0
    progress.enter("read")
    if work.count > 1 and not sys.stderr.isatty():
        say(f"seran: {source}: scan {work.finished + 1} of {work.count}", "stderr")


def _look(work: Work, views: list[View], stop: threading.Event) -> None:
    while True:
        for view in views:
            with suppress(OSError, ValueError):  # nobody reads it, or no longer
                view(work)
        if stop.wait(LOOK):
            return


def clock(seconds: float) -> str:
    """A time as it is read.

    >>> clock(41.2), clock(3725)
    ('0:41', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {clock(seconds)} left"


def _bars(work: Work, stack: ExitStack) -> View:
    """A bar for the scan, below one for all of them if there are several."""
    from tqdm import tqdm

    how = {"bar_format": BAR, "leave": False, "dynamic_ncols": True, "file": sys.stderr}
    every = stack.enter_context(tqdm(total=work.count, position=0, **how)) if work.count > 1 else None
    one = stack.enter_context(tqdm(total=1, position=int(work.count > 1), **how))

    def draw(work: Work) -> None:
        now = time.perf_counter()
        if every is not None:
            spent, scans = now - work.began, work.finished
            left = (work.count - scans) * spent / scans if scans else None
            every.n = scans
            every.set_description_str(f"{scans}/{work.count} scans, {clock(spent)}{_left(left)}")
        counted = work.total > 0 and (work.done > 0 or work.stage == "sharpen")
        part = f" {work.slices}/{work.total} slices" * counted
        part += f" ({work.detail})" * bool(work.detail)
        left = work.left if work.stage == "sharpen" else None
        name = f": {plain(Path(work.name).name)}" * bool(work.name)
        one.total, one.n = work.total or None, work.slices
        one.set_description_str(f"{work.stage}{part}, {clock(now - work.scan)}{_left(left)}{name}")

    draw(work)
    return draw


def _lines() -> View:
    """A line a minute about the scan."""
    told = time.perf_counter()

    def tell(work: Work) -> None:
        nonlocal told
        now = time.perf_counter()
        if now - told < LINE:
            return
        told = now
        if work.stage == "sharpen" and work.total:
            what = f"{work.slices} of {work.total} slices{_left(work.left)}"
        else:
            what = f"{work.stage}, {clock(now - work.scan)} so far"
        say(f"seran: {work.name}: {what}", "stderr")

    return tell
