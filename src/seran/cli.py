"""The command ``seran``: every entry of `COMMANDS` is a module of `seran.apps` with a function of its name.

Nothing heavy is imported before a sub-command runs.
"""

import importlib
import signal
import sys
from types import FrameType

from seran import __version__
from seran.errors import BadInput, Incomplete
from seran.extras import needed

COMMANDS = {
    "upscale": "sharpen a scan: NIfTI, DICOM, MGH, NRRD in and out, on exactly the right grid",
    "bids": "a BIDS App: the scans of a BIDS data set -> a derivative data set",
    "compare": "two volumes -> one page: slices with a divider, difference, spectrum, checks",
    "info": "describe a scan, list the series of a DICOM folder, or describe this installation",
    "demo": "the same on a real slice that ships with matplotlib, compared with the truth",
    "methods": "list the methods and the weights that come with the package",
    "prepare": "scans -> pairs of high- and low-resolution slices",
    "train": "pairs -> a training run (needs seran[train])",
    "export": "a training run -> a weights file (needs seran[train])",
    "weights": "list, pull, verify or export the weights of this version",
    "calibrate": "make a weights file ready for --precision int8",
    "evaluate": "methods x a prepared set -> PSNR and SSIM, with the protocol stated",
    "completion": "what the Tab key knows, for bash, zsh, fish or tcsh",
}

USAGE = f"""usage: seran COMMAND [OPTIONS]

MR image super-resolution (SERAN, CVPR 2021). Research use, not a medical device.

{chr(10).join(f"  {name:11}{text}" for name, text in COMMANDS.items())}

seran COMMAND --help says more; seran --version prints the version."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(text: str) -> int:
    sys.stderr.write(f"seran: {' '.join(text.split())}\n")
    return 2


def run(args: list[str]) -> int:
    """Run a command line; 0 done, 1 done in part, 2 unusable input or options, 130 interrupted."""
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(USAGE + "\n")
        return 0
    if args[0] == "--version":
        sys.stdout.write(f"seran {__version__}\n")
        return 0
    if args[0] not in COMMANDS:
        return _fail(f"expected a command of {', '.join(COMMANDS)}, got {args[0]!r}")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        import tyro

        module = importlib.import_module(f"seran.apps.{args[0]}")
        command, rest = getattr(module, args[0]), args[1:]
        if hasattr(module, "bind"):  # its first argument decides the defaults of the others
            command, rest = module.bind(rest)
        text = tyro.cli(command, prog=f"seran {args[0]}", args=rest)
        sys.stdout.write(text.rstrip("\n") + "\n" * bool(text))
    except BadInput as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        return _fail(str(needed(f"seran {args[0]}", error)))
    except Incomplete as error:
        _fail(str(error))
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}; nothing half-written is left")
    except KeyboardInterrupt:
        sys.stderr.write(
            "seran: interrupted; no half-written result is left, and a download continues where it was\n"
        )
        return 130
    return 0


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
