"""What is shown: lines, bars on a terminal while something takes long, seconds per stage with ``--verbose``.

What is done to a scan is written into a `Work`, which is read by whoever shows it (`seran.job.display`).
Networks tell of every slice that they made (`PASSED`), however many they are given at once. What happens is
told as events to whoever hears them (`seran.journal`).

File names, headers and servers decide a part of what is shown, and none of them commands the terminal: see
`plain`.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # it takes longer than all else that ``seran --version`` needs
    from tqdm import tqdm

QUIET = ContextVar("QUIET", default=False)
"""Whether bars are left out (``--quiet``)."""
log = logging.getLogger("seran")
Tell = Callable[[float], None]  # called with a number of slices


def unseen(_: float) -> None:
    """A `Tell` that nobody listens to."""


class Hearer(Protocol):
    """Who hears of events."""

    machine: bool  # it has standard output for itself
    fault: str  # why some of them could not be written, if so

    def hear(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take note of an event."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass
class Count:
    """Slices of a scan at one stage, and when the first was begun and the last done (`time.perf_counter`)."""

    first: float
    done: float = 0.0  # of several passes over a slice each is a part
    last: float = 0.0

    def add(self, slices: float) -> None:
        """So many more are done."""
        self.done, self.last = self.done + slices, time.perf_counter()

    @property
    def each(self) -> float | None:
        """Seconds for a slice, if one is known to be done."""
        return (self.last - self.first) / self.done if self.done else None


@dataclass
class Work:
    """What is being done: one thread writes it, and others may look at any moment.

    Attributes:
        scans: to do.
        finished: how many of them are.
        made: how many of these were not there before.
        name: of the scan that is worked on, as it was given; empty where others work on several.
        stage: read, load, measure, sharpen (in the plane), thin (across slices), adapt, check or write.
        detail: more about the stage, in words.
        total: slices of the scan, of all its volumes; 0 until that is known.
        counts: of them, by stage.
        tried: seconds for a slice, by some that were tried before; None where none were.
        began: when the first scan was begun, on `time.perf_counter`.
        scan: when this one was.
        faster: how it may be done in less time, in words.
        memory: about how many bytes the process takes at most; None until that is known.
    """

    scans: int = 1
    finished: int = 0
    made: int = 0
    name: str = ""
    stage: str = "read"
    detail: str = ""
    total: int = 0
    counts: dict[str, Count] = field(default_factory=dict)
    tried: float | None = None
    began: float = 0.0
    scan: float = 0.0
    faster: str = ""
    memory: float | None = None

    @property
    def count(self) -> Count | None:
        """Of the stage that the scan is at, if slices are counted there."""
        return self.counts.get(self.stage)

    @property
    def slices(self) -> int:
        """Whole ones that are done."""
        count = self.count
        return int(count.done + ROUNDED) if count else 0

    @property
    def left(self) -> float | None:
        """Seconds until the slices are through this stage, if that can be said."""
        count = self.count
        if count is None:
            return None
        each = count.each or (self.tried if self.stage == "sharpen" else None)
        if each is None:
            return None
        since = time.perf_counter() - (count.last or count.first)
        return max(0.0, (self.total - count.done) * each - since)

    @property
    def all_left(self) -> float | None:
        """Seconds until all scans are done if none of the others is there, by those that were done."""
        if not self.made:
            return None
        return (time.perf_counter() - self.began) / self.made * (self.scans - self.finished)


COUNTED = ("sharpen", "thin")  # stages at which slices are
ROUNDED = 1e-6  # of a slice, that sums of parts may be off
NOW: ContextVar[Work | None] = ContextVar("NOW", default=None)
"""What is shown, if anything is."""
PASSED: ContextVar[Tell] = ContextVar("PASSED", default=unseen)
"""Who is told of slices that a network has made."""
HEARING: ContextVar[list[Hearer]] = ContextVar("HEARING")
"""Who hears of events while a command runs; set by `seran.cli`."""


def tell(event: str, **facts: Any) -> None:  # noqa: ANN401
    """Tell an event to whoever hears it.

    Args:
        event: message, begin, progress, scan or end.
        facts: about it; what JSON can hold.
    """
    for hearer in [*HEARING.get([])]:
        hearer.hear(event, facts)


def machine() -> bool:
    """Whether standard output is for a program that reads events."""
    return any(hearer.machine for hearer in HEARING.get([]))


class Forward(logging.Handler):
    """Tells what is logged, and where a fault arose."""

    def emit(self, entry: logging.LogRecord) -> None:
        """Tell an entry."""
        tell("message", level=entry.levelname, text=plain(self.format(entry)))


def plain(text: str) -> str:
    r"""A text as it may be shown: characters that no terminal prints as themselves are spelled out.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def say(text: str, where: Literal["stdout", "stderr"] = "stdout", level: int = logging.INFO) -> None:
    """Tell a line, and write it above the bars; or nothing, where nobody reads it.

    Args:
        text: the line.
        where: it goes; with ``--quiet`` nothing goes to stdout, and only what is wrong to stderr.
        level: how important it is.
    """
    tell("message", level=logging.getLevelName(level), text=plain(text).removeprefix("seran: "))
    if where == "stdout" and machine():
        return
    if not QUIET.get() or (where == "stderr" and level >= logging.WARNING):
        write(text, where)


def write(text: str, where: Literal["stdout", "stderr"]) -> None:
    """Write a line above the bars, and tell it to nobody else."""
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
        if stage in COUNTED and stage not in work.counts:
            work.counts[stage] = Count(time.perf_counter())
        work.stage, work.detail = stage, ""


def detail(text: str) -> None:
    """More about the stage that a scan is at."""
    if work := NOW.get():
        work.detail = text


def advise(faster: str) -> None:
    """How the scan may be done in less time, told if it takes long."""
    if work := NOW.get():
        work.faster = faster


def needing(memory: float) -> None:
    """About how many bytes the process takes at most while it works on a scan."""
    if work := NOW.get():
        work.memory = memory


def summing(text: str) -> Tell:
    """Who sums up what is told, and makes a `detail` of it: ``text.format(sum)``."""
    told = 0.0

    def tell(number: float) -> None:
        nonlocal told
        told += number
        detail(text.format(told))

    return tell


def trying() -> Tell:
    """Who is told of slices that are tried, and knows by them how long one takes.

    Not by the first, before which a network is made ready.
    """
    work, count = NOW.get(), Count(0.0)
    if work is None:
        return unseen
    shown = summing("{:.0f} slices tried")

    def tell(slices: float) -> None:
        shown(slices)
        if not count.first:
            count.first = time.perf_counter()
            return
        count.add(slices)
        work.tried = count.each

    return tell


def slices(total: int) -> Tell:
    """Who is told of the slices of a scan, of which there are so many, at each stage at which they count."""
    work = NOW.get()
    if work is None:
        return unseen
    work.total = total

    def tell(slices: float) -> None:
        if work.count is not None:
            work.count.add(slices)

    return tell


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
