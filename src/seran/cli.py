"""The command ``seran``: every entry of `COMMANDS` is a module of `seran.apps` with a function of its name.

Nothing heavy is imported before a sub-command runs.
"""

import contextlib
import io
import re
import signal
import sys
from collections.abc import Iterator

from seran import __version__
from seran.errors import BadInput, Incomplete
from seran.machine import needed

USAGE = """usage: seran COMMAND [OPTIONS]

MR image super-resolution (SERAN, CVPR 2021). Research use, not a medical device.

use:
  upscale    sharpen a scan: NIfTI, DICOM, MGH, NRRD in and out, on exactly the right grid
  bids       a BIDS App: the scans of a BIDS data set -> a derivative data set
  compare    two volumes -> one page: slices with a divider, difference, spectrum, checks
  info       describe a scan, list the series of a DICOM folder, or describe this installation
  demo       the same on a real slice that ships with matplotlib, compared with the truth
  methods    list the methods and the weights that come with the package

train:
  prepare    scans -> pairs of high- and low-resolution slices
  train      pairs -> a training run (needs seran[train])
  export     a training run -> a weights file (needs seran[train])
  calibrate  make a weights file ready for --precision int8
  evaluate   methods x a prepared set -> PSNR and SSIM, with the protocol stated

maintain:
  weights    list, pull, verify or export the weights of this version
  completion what the Tab key knows, for bash, zsh, fish or tcsh

seran help COMMAND says more; --quiet and --verbose go with every command; --version.
"""
QUIET, VERBOSE = {"-q", "--quiet"}, {"-v", "--verbose"}
COMMANDS = re.findall(r"^  (\w+) ", USAGE, re.MULTILINE)


def _fail(text: str, status: int = 2) -> int:
    sys.stderr.write(f"seran: {' '.join(text.split())}\n")
    return status


@contextlib.contextmanager
def _telling(quiet: bool, verbose: bool) -> Iterator[None]:
    """Leave bars and stdout out, or show what is logged on stderr; both as before afterwards."""
    import logging

    from seran import progress

    token, log, handler = progress.QUIET.set(quiet), progress.log, logging.StreamHandler()
    level = log.level
    handler.setFormatter(logging.Formatter("seran: %(message)s"))
    log.addHandler(handler)
    if verbose:
        log.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
            yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        progress.QUIET.reset(token)


def run(args: list[str]) -> int:
    """Run a command line.

    Returns:
        0 done, 1 done in part, 2 unusable input or options, 3 a fault of the program, 130 interrupted.
    """
    quiet, verbose = (not flags.isdisjoint(args) for flags in (QUIET, VERBOSE))
    args = [word for word in args if word not in QUIET | VERBOSE]
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    if not args or args[0] in ("-h", "--help", "--version"):
        sys.stdout.write(f"seran {__version__}\n" if args[:1] == ["--version"] else USAGE)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from seran.apps import arguments

        name, *words = args
        if name not in COMMANDS:
            kind = "option" if name.startswith("-") else "command"
            meant = arguments.nearest(name, COMMANDS) or "see seran --help"
            raise BadInput(f"unknown {kind} {name}; {meant}")
        with _telling(quiet, verbose):
            text = arguments.run(name, words)
            sys.stdout.write(text.rstrip("\n") + "\n" * bool(text))
        return 0
    except (BadInput, Incomplete) as error:
        return _fail(str(error), 1 if isinstance(error, Incomplete) else 2)
    except ModuleNotFoundError as error:
        return _fail(str(needed(f"seran {args[0]}", error)))
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}; nothing half-written is left")
    except KeyboardInterrupt:
        kept = "downloads and training go on from what they kept, with the same command"
        return _fail(f"interrupted; no half-written result is left; {kept}", 130)
    except Exception as error:
        if verbose:
            sys.excepthook(type(error), error, error.__traceback__)
        return _fail(f"unexpected {type(error).__name__}: {error}; --verbose shows where", 3)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
