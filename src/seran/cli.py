"""The command ``seran``: every entry of `COMMANDS` is a module of `seran.apps` with a function of its name.

Nothing heavy is imported before a sub-command runs.
"""

import contextlib
import importlib
import io
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from seran import __version__
from seran.errors import BadInput, Incomplete
from seran.machine import needed

GROUPS = {
    "use": {
        "upscale": "sharpen a scan: NIfTI, DICOM, MGH, NRRD in and out, on exactly the right grid",
        "bids": "a BIDS App: the scans of a BIDS data set -> a derivative data set",
        "compare": "two volumes -> one page: slices with a divider, difference, spectrum, checks",
        "info": "describe a scan, list the series of a DICOM folder, or describe this installation",
        "demo": "the same on a real slice that ships with matplotlib, compared with the truth",
        "methods": "list the methods and the weights that come with the package",
    },
    "train": {
        "prepare": "scans -> pairs of high- and low-resolution slices",
        "train": "pairs -> a training run (needs seran[train])",
        "export": "a training run -> a weights file (needs seran[train])",
        "calibrate": "make a weights file ready for --precision int8",
        "evaluate": "methods x a prepared set -> PSNR and SSIM, with the protocol stated",
    },
    "maintain": {
        "weights": "list, pull, verify or export the weights of this version",
        "completion": "what the Tab key knows, for bash, zsh, fish or tcsh",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}


def _usage() -> str:
    lines = ["usage: seran COMMAND [OPTIONS]", ""]
    lines += ["MR image super-resolution (SERAN, CVPR 2021). Research use, not a medical device."]
    for heading, group in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {name:11}{text}" for name, text in group.items())]
    return "\n".join(
        [*lines, "", "seran help COMMAND says more; --quiet and --verbose go with every command; --version."]
    )


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(text: str, status: int = 2) -> int:
    sys.stderr.write(f"seran: {' '.join(text.split())}\n")
    return status


def _without(args: list[str], *flags: str) -> tuple[list[str], bool]:
    return [word for word in args if word not in flags], not set(flags).isdisjoint(args)


@contextlib.contextmanager
def _telling(quiet: bool, verbose: bool) -> Iterator[None]:
    """Leave bars and stdout out, or show what is logged on stderr; both as before afterwards."""
    import logging

    from seran.progress import QUIET, log

    token, level, handler = QUIET.set(quiet), log.level, logging.StreamHandler()
    handler.setFormatter(logging.Formatter("seran: %(message)s"))
    with contextlib.ExitStack() as stack:
        stack.callback(QUIET.reset, token)
        if quiet:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if verbose:
            stack.callback(log.setLevel, level)
            stack.callback(log.removeHandler, handler)
            log.addHandler(handler)
            log.setLevel(logging.INFO)
        yield


def _run(name: str, words: list[str]) -> None:
    """Run one command and print what it returns, or its help."""
    from seran.apps import arguments

    module = importlib.import_module(f"seran.apps.{name}")
    command, rest = getattr(module, name), words
    if hasattr(module, "bind"):  # its first argument decides the defaults of the others
        command, rest = module.bind(words)
        name = " ".join([name, *words[: len(words) - len(rest)]])
    if {"-h", "--help"} & set(rest):
        text = arguments.page(name, command)
    else:
        text = arguments.bound(name, command, rest)()
    sys.stdout.write(text.rstrip("\n") + "\n" * bool(text))


def run(args: list[str]) -> int:
    """Run a command line.

    Returns:
        0 done, 1 done in part, 2 unusable input or options, 3 a fault of the program, 130 interrupted.
    """
    args, quiet = _without(args, "-q", "--quiet")
    args, verbose = _without(args, "-v", "--verbose")
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(_usage() + "\n")
        return 0
    if args[0] == "--version":
        sys.stdout.write(f"seran {__version__}\n")
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if args[0] not in COMMANDS:
            from seran.apps.arguments import nearest

            kind = "option" if args[0].startswith("-") else "command"
            return _fail(f"unknown {kind} {args[0]}{nearest(args[0], list(COMMANDS), 'seran --help')}")
        with _telling(quiet, verbose):
            _run(args[0], args[1:])
    except BadInput as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(str(needed(f"seran {args[0]}", error)))
    except Incomplete as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}; nothing half-written is left")
    except KeyboardInterrupt:
        return _fail("interrupted; no half-written result is left; a download continues where it was", 130)
    except Exception as error:
        if verbose:
            sys.excepthook(type(error), error, error.__traceback__)
        return _fail(f"unexpected {type(error).__name__}: {error}; --verbose shows where", 3)
    return 0


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
