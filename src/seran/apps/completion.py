"""``seran completion``: what the Tab key knows, as a script for a shell.

The script is complete in itself: it lists commands, options and the values of options that take one of a few
words, so that pressing the key starts no Python. All of it is read from the signatures of the commands.
"""

import dataclasses
import importlib
import pkgutil
import shlex
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

import seran
from seran import apps
from seran.apps import FLAT, Positional
from seran.degrade import DEGRADATIONS
from seran.recipes import RECIPES
from seran.systems import SYSTEMS

Options = dict[str, tuple[str, ...] | None]
"""Option -> the words that it takes one of; empty: anything; None: nothing."""
OTHERS = {"prepare": ("ixi", "benchmark")}
"""Functions of a command's module whose options it has, too, after some first words."""
NAMES = {"method": tuple(SYSTEMS), "methods": tuple(SYSTEMS), "degradation": tuple(DEGRADATIONS)}
"""What options of these names take one of."""
FIRST = {"prepare": ("ixi", "open"), "train": tuple(RECIPES)}
"""First words of a command that its signature does not list."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What may follow the name of a command: words, and options; of one that ``lacks`` modules, not all."""

    words: tuple[str, ...]
    options: Options
    lacks: bool = False


def commands() -> dict[str, Command]:
    """Every command; one that lacks the modules of an extra comes without its options."""
    found = {}
    for name in (module.name for module in pkgutil.iter_modules(apps.__path__)):
        words = list(FIRST.get(name, ()))
        options: Options = {"--help": None}
        try:
            module = importlib.import_module(f"seran.apps.{name}")
        except ModuleNotFoundError:
            found[name] = Command(tuple(words), options, lacks=True)
            continue
        for function in (name, *OTHERS.get(name, ())):
            _read(getattr(module, function), words, options)
        found[name] = Command(tuple(words), options)
    return found


def _read(source: Callable[..., Any] | type, words: list[str], options: Options) -> None:
    """Add what a function's arguments, or a dataclass's fields, are on the command line."""
    hints = get_type_hints(source, include_extras=True)
    hints.pop("return", None)
    for name, hint in hints.items():
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        plain = get_args(hint)[0] if marks else hint
        choices = tuple(map(str, get_args(plain))) if get_origin(plain) is Literal else ()
        flag = name.replace("_", "-")
        if tyro.conf.Fixed in marks:
            continue
        if FLAT in marks:
            _read(plain, words, options)
        elif tyro.conf.Positional in marks:
            words += choices
        elif plain is bool:
            options |= {f"--{flag}": None, f"--no-{flag}": None}
        else:
            options[f"--{flag}"] = NAMES.get(name, choices)


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def bash(known: dict[str, Command]) -> str:
    """A function for bash's ``complete``."""
    values = [
        f"    '{name} {option}') words={_quoted(choices)} ;;"
        for name, command in known.items()
        for option, choices in command.options.items()
        if choices
    ]
    return "\n".join(
        [
            "_seran() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=",
            '  if [ "$cur" = "=" ]; then cur=; fi',
            '  if [ "$prev" = "=" ]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
            '  case "${COMP_WORDS[1]} $prev" in',
            *values,
            "  esac",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f"    words={_quoted([*known, '--help', '--version'])}",
            '  elif [ -z "$words" ]; then',
            '    case "${COMP_WORDS[1]} $cur" in',
            *(f"    '{name} -'*) words={_quoted(command.options)} ;;" for name, command in known.items()),
            *(f"    '{name} '*) words={_quoted(c.words)} ;;" for name, c in known.items() if c.words),
            "    esac",
            "  fi",
            "  # shellcheck disable=SC2207  # no word of ours has a space",
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            "complete -o default -F _seran seran",
        ]
    )


def zsh(known: dict[str, Command]) -> str:
    """The same, through zsh's own emulation of ``complete``."""
    ready = "autoload -Uz compinit bashcompinit\n(( $+functions[compdef] )) || compinit\nbashcompinit\n"
    return ready + bash(known)


def fish(known: dict[str, Command]) -> str:
    """A line for each option."""
    lines = ["complete -c seran -n __fish_use_subcommand -f -a " + _quoted([*known, "--help", "--version"])]
    for name, command in known.items():
        of = f"complete -c seran -n '__fish_seen_subcommand_from {name}'"
        if command.words:
            lines.append(f"{of} -a {_quoted(command.words)}")
        for option, choices in command.options.items():
            takes = "" if choices is None else f" -x -a {_quoted(choices)}" if choices else " -r"
            lines.append(f"{of} -l {option.removeprefix('--')}{takes}")
    return "\n".join(lines)


def tcsh(known: dict[str, Command]) -> str:
    """Commands, and the options of all of them, because tcsh does not look at the second word."""
    every: Options = {}
    for command in known.values():
        for option, choices in command.options.items():
            every[option] = tuple(dict.fromkeys([*(every.get(option) or ()), *(choices or ())]))
    rules = [f"p/1/({' '.join(known)})/"]
    rules += [f"n/{option}/({' '.join(choices)})/" for option, choices in every.items() if choices]
    rules.append(f"c/--/({' '.join(option.removeprefix('--') for option in every)})/")
    return "complete seran " + " ".join(f"'{rule}'" for rule in rules)


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish, "tcsh": tcsh}


def completion(shell: Positional[Literal["bash", "zsh", "fish", "tcsh"]]) -> str:
    """Print a script that completes commands, options and their values.

    Write it to a file once, `seran completion bash > ~/.seran-completion`, and `source` that in ~/.bashrc,
    ~/.zshrc or ~/.tcshrc; for fish, to ~/.config/fish/completions/seran.fish.

    Args:
        shell: which.
    """
    known = commands()
    bare = [name for name, command in known.items() if command.lacks]
    lines = [f"# Made by `seran completion {shell}`, seran {seran.__version__}."]
    if bare:
        lines.append(
            f"# Without the options of {', '.join(bare)}: pip install 'seran[train]', and make it again."
        )
    return "\n".join([*lines, SHELLS[shell](known)])
