"""What is told beside the terminal: a log for people, and lines of JSON for programs.

Both hear the same events (`seran.progress.tell`): messages, progress, what became of a scan, the end.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from seran import __version__, progress
from seran.errors import BadInput
from seran.facts import dumps

LINE = 60.0  # seconds between two lines about progress in a log
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR) ")
"""What a line of a log begins with."""


@dataclass(frozen=True)
class Telling:
    """What is told.

    Attributes:
        strict: on: a result whose checks say FAIL is kept, and the exit status is 1; off: it is 0.
        log: a file to which every message goes, with time and level, and progress once a minute; what is in
            it stays.
        json: progress, messages and results on standard output as lines of JSON, for programs.
    """

    strict: Literal["on", "off"] = "on"
    log: Annotated[Path | None, "FILE"] = None
    json: bool = False

    def begin(self) -> None:
        """From here on these hear what is told, until the command ends; `BadInput` if a log cannot be one."""
        hearing = progress.HEARING.get()
        if self.log is not None:
            hearing.append(Log(self.log))
        if self.json:
            hearing.append(Lines())


class Log:
    """A file with a line for each message, and one a minute about progress."""

    machine = False

    def __init__(self, path: Path) -> None:
        """Open it, or say why it cannot be a log."""
        try:
            if path.is_file() and path.stat().st_size:
                with path.open("rb") as there:
                    first = there.readline(64).decode("utf-8", "replace")
                if not STAMP.match(first):
                    raise BadInput(f"--log {path}: exists and is no log of seran's; name another file")
            self.file = path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise BadInput(f"--log {path}: {error.strerror}; name a file that can be written") from error
        self.told, self.lock, self.path, self.fault = time.monotonic(), threading.RLock(), path, ""
        self.hear("message", {"level": "INFO", "text": f"seran {__version__}, process {os.getpid()}"})

    def hear(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write what an event says, if a log has it."""
        if event == "message":
            self._write(facts["level"], facts["text"])
        elif event == "begin":
            self._write("INFO", f"{facts['scan']}: scan {facts['number']} of {facts['scans']}")
        elif event == "progress" and time.monotonic() - self.told >= LINE:
            self._write("INFO", facts["text"])
            self.told = time.monotonic()
        elif event == "end":
            ended = f"exit status {facts['status']}"
            self._write("ERROR" if facts["status"] else "INFO", f"{facts['text']} ({ended})".lstrip())

    def _write(self, level: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            with self.lock:
                for line in progress.plain(text).splitlines():
                    self.file.write(f"{stamp} {level} {line}\n")
                self.file.flush()
        except OSError as error:
            self.fault = f"--log {self.path}: {error.strerror}"

    def close(self) -> None:
        """Nothing more comes."""
        with suppress(OSError):
            self.file.close()


class Lines:
    """An object of JSON on a line of its own for each event; nothing else goes to standard output."""

    machine = True

    def __init__(self) -> None:
        """A descriptor of its own is written to: native libraries are kept from the other now and then."""
        self.own: int | None = None
        self.fault = ""
        with suppress(OSError, ValueError):  # of a stream without one
            sys.stdout.flush()
            self.own = os.dup(sys.stdout.fileno())
        self.lock = threading.RLock()

    def hear(self, event: str, facts: Mapping[str, Any]) -> None:
        """Write an event."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = dumps({"event": event, "time": now, **facts}) + "\n"
        try:
            with self.lock:
                if self.own is None:
                    sys.stdout.write(line)
                    return
                left = line.encode()
                while left:
                    left = left[os.write(self.own, left) :]
        except BrokenPipeError:  # nobody reads it, or no longer
            pass
        except OSError as error:
            self.fault = f"standard output: {error.strerror}"

    def close(self) -> None:
        """Nothing more comes."""
        if self.own is not None:
            os.close(self.own)
