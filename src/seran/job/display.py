"""What is shown while scans are sharpened: bars on a terminal, a line a minute elsewhere, events for others.

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
from typing import Any

from seran import progress
from seran.job.record import Record, sidecar
from seran.machine import amount
from seran.progress import Work, plain, say

LOOK = 0.5  # seconds between two looks
LINE = 60.0  # seconds between two lines, and from which a faster way is told
STILL = 10.0  # seconds after which an event tells that nothing has changed
STUCK = 2.0  # seconds that are waited for a stream that takes nothing
BAR = "|{bar:16}| {desc}"
View = Callable[[Work], None]


@contextmanager
def shown(scans: int = 1) -> Iterator[Work]:
    """Show what is done within, from its first moment on; with ``--quiet`` only those that hear of it do.

    Args:
        scans: how many there are.
    """
    now, stop = time.perf_counter(), threading.Event()
    work = Work(scans=scans, began=now, scan=now)
    token = progress.NOW.set(work)
    with ExitStack() as stack:
        stack.callback(progress.NOW.reset, token)
        views: list[View] = [_events(), _advice()]
        if not progress.QUIET.get():
            views.append(_bars(work, stack) if sys.stderr.isatty() else _lines())
        looking = threading.Thread(target=copy_context().run, args=(_look, work, views, stop), daemon=True)
        stack.callback(looking.join, STUCK)
        stack.callback(stop.set)
        looking.start()
        yield work


def begin(source: Path) -> None:
    """From here on another scan is worked on."""
    if (work := progress.NOW.get()) is None:  # a worker of a cluster, or the library
        return
    work.name, work.total, work.counts, work.tried, work.memory = str(source), 0, {}, None, None
    work.scan = time.perf_counter()
    progress.enter("read")
    progress.tell("begin", scan=work.name, number=work.finished + 1, scans=work.scans)


def outcome(kind: str, source: Path, out: Path, made: Record | None, text: str = "") -> dict[str, Any]:
    """What is told of a scan when it is done.

    Args:
        kind: sharpened, there or failed.
        source: the scan.
        out: its result.
        made: the record of the result, if there is one.
        text: what is wrong, if something is.
    """
    facts: dict[str, Any] = {"scan": str(source), "status": kind}
    if made is None:
        return facts | {"result": None, "record": None, "verdict": None, "failed": [], "text": text}
    told = made.summary(out)
    where = {"result": str(out), "record": str(sidecar(out))}
    return facts | where | {"verdict": made.verdict, "failed": list(made.failed), "text": told}


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
    every = stack.enter_context(tqdm(total=work.scans, position=0, **how)) if work.scans > 1 else None
    one = stack.enter_context(tqdm(total=1, position=int(work.scans > 1), **how))

    def draw(work: Work) -> None:
        now = time.perf_counter()
        if every is not None:
            every.n = work.finished
            spent = clock(now - work.began)
            every.set_description_str(f"{work.finished}/{work.scans} scans, {spent}{_left(work.all_left)}")
        if not work.name:
            return
        part = f" {work.slices}/{work.total} slices" * (work.count is not None)
        part += f" ({work.detail})" * bool(work.detail)
        name = plain(Path(work.name).name)
        one.total, one.n = work.total or None, work.slices
        one.set_description_str(f"{work.stage}{part}, {clock(now - work.scan)}{_left(work.left)}: {name}")

    draw(work)
    return draw


def _sentence(work: Work) -> str:
    """Where the work is, in a line."""
    now = time.perf_counter()
    if work.count is not None and work.total:
        what = f"{work.stage}, {work.slices} of {work.total} slices{_left(work.left)}"
    else:
        what = f"{work.stage}, {clock(now - work.scan)} so far"
    number = f"{work.finished + 1} of {work.scans}, " * (work.scans > 1)
    if work.name:
        return f"{number}{work.name}: {what}"
    return f"{work.finished} of {work.scans} scans, {clock(now - work.began)} so far{_left(work.all_left)}"


def _lines() -> View:
    """A line a minute; before a scan that takes longer one with the time that slices which were tried say.

    The first about a scan says how much memory it takes.
    """
    told, begun, needed = time.perf_counter(), "", ""

    def tell(work: Work) -> None:
        nonlocal told, begun, needed
        now, left = time.perf_counter(), work.left
        expected = work.stage == "sharpen" and begun != work.name and left is not None and left > LINE
        if now - told >= LINE or expected:
            told, begun = now, work.name if expected else begun
            text = _sentence(work)
            if work.memory is not None and needed != work.name:
                text, needed = f"{text}; about {amount(work.memory)} of memory", work.name
            progress.write(f"seran: {text}", "stderr")

    return tell


def _events() -> View:
    """An event for each change, and now and then without one."""
    last: tuple[object, ...] = ()
    told = 0.0

    def tell(work: Work) -> None:
        nonlocal last, told
        now, counted = time.perf_counter(), work.count is not None and work.total > 0
        state = (work.finished, work.name, work.stage, work.slices, work.detail)
        begun = bool(work.name) or work.scans > 1
        if not begun or (state == last and now - told < STILL):
            return
        last, told = state, now
        left, every = work.left, work.all_left
        progress.tell(
            "progress",
            scan=work.name or None,
            number=work.finished + 1 if work.name else None,
            scans=work.scans,
            finished=work.finished,
            stage=work.stage if work.name else None,
            slices=work.slices if counted else None,
            of=work.total if counted else None,
            seconds=round(now - work.scan, 1),
            left=None if left is None else round(left, 1),
            all_left=None if every is None else round(every, 1),
            memory=None if work.memory is None else round(work.memory),
            text=_sentence(work),
        )

    return tell


def _advice() -> View:
    """A faster way, once, where a scan takes long."""
    told = False

    def tell(work: Work) -> None:
        nonlocal told
        if work.faster and not told and time.perf_counter() - work.scan + (work.left or 0.0) > LINE:
            told = True
            say(f"seran: {work.faster}", "stderr")

    return tell
