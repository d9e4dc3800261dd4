"""The command ``seran``: every entry of `COMMANDS` is a module of `seran.apps` with a function of its name.

Nothing heavy is imported before a sub-command runs.
"""

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

from seran import __version__
from seran.errors import BadInput, Incomplete
from seran.machine import needed, short_of_memory

USAGE = """usage: seran COMMAND [OPTIONS]

MR image super-resolution (SERAN, CVPR 2021). Research use, not a medical device.

use:
  upscale    sharpen a scan: NIfTI, DICOM, MGH, NRRD in and out, on exactly the right grid
  resample   masks and segmentations onto the grid of a sharpened image, label by label
  bids       a BIDS App: the scans of a BIDS data set -> a derivative data set
  compare    two volumes -> one page: slices with a divider, difference, spectrum, checks
  info       describe a scan, list the series of a DICOM folder, or describe this installation
  app        a page on this machine that sharpens a scan in the browser, uploading nothing
  demo       the same on a real slice that ships with matplotlib, compared with the truth
  methods    list the methods and the weights that come with the package

train:
  prepare    scans -> pairs of high- and low-resolution slices
  train      pairs -> a training run (needs seran[train])
  export     a training run -> a weights file (needs seran[train])
  calibrate  make a weights file ready for --precision int8
  evaluate   methods x a prepared set -> scores and paired differences, with the protocol stated

maintain:
  weights    list, pull, verify or export the weights of this version
  completion what the Tab key knows, for bash, zsh, fish or tcsh

seran help COMMAND says more; --quiet and --verbose go with every command; --version.
"""
QUIET, VERBOSE = {"-q", "--quiet"}, {"-v", "--verbose"}
KEEPING = ("train", "prepare", "weights")
"""Commands that go on from what an interrupted one kept: downloads and training."""
COMMANDS = re.findall(r"^  (\w+) ", USAGE, re.MULTILINE)


def _fail(text: str, status: int = 2) -> int:
    """Write what is wrong in a line, and return the exit status."""
    from seran import progress

    text = " ".join(text.split())
    progress.write(f"seran: {text}", "stderr")
    progress.tell("end", status=status, text=progress.plain(text))
    return status


def _write(text: str) -> int:
    """Write to standard output, and return the exit status: what the command did is done, whoever reads."""
    from seran import progress

    text = progress.plain(text.rstrip("\n"))
    if not (progress.QUIET.get() or progress.machine()):
        try:
            sys.stdout.write(text + "\n" * bool(text))
            sys.stdout.flush()
        except BrokenPipeError:  # ``| head`` has seen enough
            pass
        except OSError as error:
            return _fail(f"standard output: {error.strerror}; files that the command wrote are whole", 1)
    progress.tell("end", status=0, text=text)
    return 0


@contextlib.contextmanager
def _telling(quiet: bool, verbose: bool) -> Iterator[list[Any]]:
    """Leave bars and stdout out, or show what is logged on stderr; as before afterwards.

    Yields:
        who hears of events: a command adds to it.
    """
    import logging

    from seran import progress

    def plainly(entry: logging.LogRecord) -> bool:
        entry.msg, entry.args = progress.plain(entry.getMessage()), ()
        return True

    hearing: list[progress.Hearer] = []
    tokens = progress.QUIET.set(quiet), progress.HEARING.set(hearing)
    log, handlers = progress.log, (progress.Forward(), logging.StreamHandler())
    level = log.level
    handlers[1].setFormatter(logging.Formatter("seran: %(message)s"))
    handlers[1].addFilter(plainly)
    handlers[1].setLevel(logging.INFO if verbose else logging.WARNING)
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield hearing
    finally:
        log.setLevel(level)
        for handler in handlers:
            log.removeHandler(handler)
        for hearer in hearing:
            hearer.close()
        progress.QUIET.reset(tokens[0])
        progress.HEARING.reset(tokens[1])


def run(args: list[str]) -> int:
    """Run a command line.

    Returns:
        0 done, 1 done in part or with a FAIL, 2 unusable input or options, 3 a fault of the program,
        130 interrupted.
    """
    quiet, verbose = (not flags.isdisjoint(args) for flags in (QUIET, VERBOSE))
    args = [word for word in args if word not in QUIET | VERBOSE]
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    if not args or args[0] in ("-h", "--help", "--version"):
        return _write(f"seran {__version__}" if args[:1] == ["--version"] else USAGE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _telling(quiet, verbose) as hearing:
        status = _command(args, verbose)
        for fault in [hearer.fault for hearer in hearing if hearer.fault]:
            status = max(status, _fail(f"{fault}; other files that the command wrote are whole", 1))
        return status


def _command(args: list[str], verbose: bool) -> int:
    """Run one, and say in a line what is wrong."""
    try:
        from seran.apps import arguments

        name, *words = args
        if name not in COMMANDS:
            kind = "option" if name.startswith("-") else "command"
            meant = arguments.nearest(name, COMMANDS) or "see seran --help"
            raise BadInput(f"unknown {kind} {name}; {meant}")
        return _write(arguments.run(name, words))
    except (BadInput, Incomplete) as error:
        return _fail(str(error), 1 if isinstance(error, Incomplete) else 2)
    except ModuleNotFoundError as error:
        return _fail(str(needed(f"seran {args[0]}", error)))
    except KeyboardInterrupt as stop:
        if str(stop):  # whoever was stopped says how far it came
            return _fail(str(stop), 130)
        kept = "; the same command goes on from what it kept" * (args[0] in KEEPING)
        return _fail(f"interrupted; no half-written result is left{kept}", 130)
    except Exception as error:
        left = "nothing half-written is left"
        if short := short_of_memory(error):
            return _fail(f"seran {args[0]} {short}; {left}")
        if isinstance(error, OSError):
            return _fail(f"{error.filename or 'system'}: {error.strerror or error}; {left}")
        if verbose:
            import traceback

            from seran.progress import write

            write("".join(traceback.format_exception(error)).rstrip(), "stderr")
        return _fail(f"unexpected {type(error).__name__}: {error}; --verbose shows where", 3)


def main() -> None:
    """Run the command line and exit."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if (
            getattr(sys, name) is None
        ):  # closed (``>&-``): otherwise the next file that is opened takes its place
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # terminals that do not know every letter
            stream.reconfigure(errors="backslashreplace")
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # told already; at the exit Python would try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


if __name__ == "__main__":
    main()
