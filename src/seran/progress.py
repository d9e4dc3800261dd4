"""What is shown: lines, bars on a terminal while something takes long, seconds per stage with ``--verbose``.

File names, headers and servers decide a part of it, and none of them commands the terminal: see `plain`.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it takes longer than all else that ``seran --version`` needs
    from tqdm import tqdm

QUIET = ContextVar("QUIET", default=False)
"""Whether bars are left out (``--quiet``)."""
log = logging.getLogger("seran")


def plain(text: str) -> str:
    r"""A text as it may be shown: characters that no terminal prints as themselves are spelled out.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def say(text: str, where: Literal["stdout", "stderr"] = "stdout") -> None:
    """Write a line above the bars; or nothing, where nobody reads it."""
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
def stage(text: str) -> Iterator[None]:
    """Log how long what is within takes, in seconds."""
    began = time.perf_counter()
    yield
    log.info("%s: %.2f s", text, time.perf_counter() - began)
