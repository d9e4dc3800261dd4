"""What is shown: lines, bars on a terminal while something takes long, seconds per stage with ``--verbose``.

What is done to a scan is written into a `Work`, which is read by whoever shows it (`seran.job.display`).
Networks tell of every slice that they made (`PASSED`), however many they are given at once.

File names, headers and servers decide a part of what is shown, and none of them commands the terminal: see
`plain`.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it takes longer than all else that ``seran --version`` needs
    from tqdm import tqdm

QUIET = ContextVar("QUIET", default=False)
"""Whether bars are left out (``--quiet``)."""
log = logging.getLogger("seran")
Tell = Callable[[float], None]  # called with a number of slices


def unseen(_: float) -> None:
    """A `Tell` that nobody listens to."""


@dataclass
class Work:
    """What is being done: one thread writes it, and others may look at any moment.

    Attributes:
        count: scans to do.
        finished: how many of them are.
        name: of the scan, as it was given.
        stage: read, load, measure, sharpen, adapt, check or write.
        detail: more about the stage, in words.
        total: slices that networks get of the scan, once that is known.
        done: how many of them they got; of several passes over a slice each is a part.
        began: when the first scan was begun, on `time.perf_counter`; those below, too.
        scan: when this one was.
        first: when its slices were, 0 before.
        last: when the last of those that are done was.
        faster: how it may be done in less time, in words.
    """

    count: int = 1
    finished: int = 0
    name: str = ""
    stage: str = "read"
    detail: str = ""
    total: int = 0
    done: float = 0.0
    began: float = 0.0
    scan: float = 0.0
    first: float = 0.0
    last: float = 0.0
    faster: str = ""

    def passed(self, slices: float) -> None:
        """So many more are done."""
        self.done, self.last = self.done + slices, time.perf_counter()

    @property
    def slices(self) -> int:
        """Whole ones that are done."""
        return int(self.done + ROUNDED)

    @property
    def each(self) -> float | None:
        """Seconds for a slice, if one is known to be done."""
        done = self.done  # another thread may begin a scan
        return (self.last - self.first) / done if done else None

    @property
    def left(self) -> float | None:
        """Seconds until the slices of the scan are done, if that can be said."""
        each = self.each
        if each is None:
            return None
        return max(0.0, (self.total - self.done) * each - (time.perf_counter() - self.last))


ROUNDED = 1e-6  # of a slice, that sums of parts may be off
NOW: ContextVar[Work | None] = ContextVar("NOW", default=None)
"""What is shown, if anything is."""
PASSED: ContextVar[Tell] = ContextVar("PASSED", default=unseen)
"""Who is told of slices that a network has made."""


def plain(text: str) -> str:
    r"""A text as it may be shown: characters that no terminal prints as themselves are spelled out.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def say(text: str, where: Literal["stdout", "stderr"] = "stdout", level: int = logging.INFO) -> None:
    """Write a line above the bars; or nothing, where nobody reads it.

    Args:
        text: the line.
        where: it goes; with ``--quiet`` nothing goes to stdout, and only what is wrong to stderr.
        level: how important it is.
    """
    if QUIET.get() and where == "stderr" and level < logging.WARNING:
        return
    stream, loaded = getattr(sys, where), sys.modules.get("tqdm")  # no bars are there before it is
    with suppress(OSError):
        loaded.tqdm.write(plain(text), stream) if loaded else stream.write(f"{plain(text)}\n")


def bar(total: float | None, unit: str, text: str | None = None) -> "tqdm":
    """A progress bar, on a terminal only.

    Args:
        total: how much there is to do, in units; none if that is not known.
        unit: what is counted; ``B`` (bytes) is shown with prefixes.
        text: what is worked on.
    """
    from tqdm import tqdm

    hidden = True if QUIET.get() else None  # None: where stderr is no terminal
    return tqdm(
        total=total, unit=unit, desc=text and plain(text), unit_scale=unit == "B", leave=False, disable=hidden
    )


@contextmanager
def stage(text: str, shown: str = "") -> Iterator[None]:
    """Log how long what is within takes, in seconds.

    Args:
        text: what it is.
        shown: see `Work.stage`; the same as before if there is none.
    """
    began = time.perf_counter()
    if shown:
        enter(shown)
    yield
    log.info("%s: %.2f s", text, time.perf_counter() - began)


def enter(stage: str) -> None:
    """From here on a scan is at this stage, see `Work`."""
    if work := NOW.get():
        work.stage, work.detail = stage, ""
        if stage == "sharpen" and not work.first:
            work.first = work.last = time.perf_counter()


def detail(text: str) -> None:
    """More about the stage that a scan is at."""
    if work := NOW.get():
        work.detail = text


def summing(text: str) -> Tell:
    """Who sums up what is told, and makes a `detail` of it: ``text.format(sum)``."""
    told = 0.0

    def tell(number: float) -> None:
        nonlocal told
        told += number
        detail(text.format(told))

    return tell


def slices(total: int) -> Tell:
    """Who is told of the slices of a scan, of which there are so many."""
    work = NOW.get()
    if work is None:
        return unseen
    work.total = total
    return work.passed


@contextmanager
def passing(tell: Tell) -> Iterator[None]:
    """Within, slices that a network has made are told to this one."""
    token = PASSED.set(tell)
    try:
        yield
    finally:
        PASSED.reset(token)


@contextmanager
def counting(count: float, given: int, tell: Tell) -> Iterator[None]:
    """Tell of ``count`` slices, each part as soon as networks have made it, and what is left at the end.

    Args:
        count: what all that is made within counts.
        given: slices that go through networks within; of a method without one none does.
        tell: who is told.
    """
    left = float(count)

    def passed(slices: float) -> None:
        nonlocal left
        part = min(slices * count / given, left)
        left -= part
        tell(part)

    with passing(passed):
        yield
    if left > 0:
        tell(left)
