"""What is shown while something takes long: bars on a terminal, and seconds per stage with ``--verbose``."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

QUIET = ContextVar("QUIET", default=False)
"""Whether bars are left out (``--quiet``)."""
log = logging.getLogger("seran")


def bar(total: float | None, unit: str, text: str | None = None) -> tqdm:
    """A progress bar, on a terminal only.

    Args:
        total: how much there is to do, in units; none if that is not known.
        unit: what is counted; ``B`` (bytes) is shown with prefixes.
        text: what is worked on.
    """
    hidden = True if QUIET.get() else None  # None: where stderr is no terminal
    return tqdm(total=total, unit=unit, desc=text, unit_scale=unit == "B", leave=False, disable=hidden)


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Log how long what is within takes, in seconds."""
    began = time.perf_counter()
    yield
    log.info("%s: %.2f s", text, time.perf_counter() - began)
