"""``seran completion``: what the Tab key knows, as a script for a shell.

The script is complete in itself: it lists commands, options and the values of options that take one of a few
words, so that pressing the key starts no Python. All of it is read from the signatures of the commands.
"""

import importlib
import pkgutil
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import seran
from seran import apps
from seran.apps import arguments
from seran.degrade import DEGRADATIONS
from seran.recipes import RECIPES
from seran.systems import SYSTEMS

OTHERS = {"prepare": ("ixi", "benchmark", "to_nifti")}
"""Functions of a command's module whose options it has, too, after some first words."""
FIRST = {"prepare": ("ixi", "open", "to-nifti"), "train": tuple(RECIPES)}
"""First words of a command that its signature does not list."""
VALUES = {"--method": tuple(SYSTEMS), "--methods": tuple(SYSTEMS), "--degradation": tuple(DEGRADATIONS)}
"""Words that an option takes one of though its type does not list them."""
ZSH = "autoload -Uz compinit bashcompinit\n(( $+functions[compdef] )) || compinit\nbashcompinit\n"
"""How zsh comes to emulate bash's ``complete``."""


class Command(NamedTuple):
    """What may follow a command: words; options, with the words that each takes one of, none of a flag."""

    words: Sequence[str]
    options: dict[str, Sequence[str] | None]
    lacks: bool = False


def commands() -> dict[str, Command]:
    """Every command; one that lacks the modules of an extra comes without its options."""
    found = {}
    for name in sorted({m.name for m in pkgutil.iter_modules(apps.__path__)} - {"arguments"}):
        known, lacks = list(arguments.COMMON), False
        try:
            module = importlib.import_module(f"seran.apps.{name}")
            for function in (name, *OTHERS.get(name, ())):
                known += arguments.of(getattr(module, function))
        except ModuleNotFoundError:
            lacks = True
        words = [choice for a in known if not a.flags for choice in a.choices]
        flags = [(flag, a) for a in known for flag in a.flags]
        options = {f: a.choices or VALUES.get(f, ()) if a.count else None for f, a in flags}
        found[name] = Command((*FIRST.get(name, ()), *words), options, lacks)
    return {**found, "help": Command(tuple(found), {})}


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _bash(known: dict[str, Command]) -> str:
    """A function for bash's ``complete``: rules in the order in which they are looked at."""
    rules: dict[str, dict[str, Sequence[str] | None]] = {
        "@VALUES@": {f"'{name} {o}'": v for name, c in known.items() for o, v in c.options.items()},
        "@OPTIONS@": {f"'{name} -'*": tuple(c.options) for name, c in known.items()},
        "@WORDS@": {f"'{name} '*": c.words for name, c in known.items()},
    }
    script = Path(__file__).with_suffix(".bash").read_text().rstrip()
    for mark, cases in rules.items():
        lines = [f"    {case}) words={_quoted(words)} ;;" for case, words in cases.items() if words]
        script = script.replace(mark, "\n".join(lines))
    return script.replace("@COMMANDS@", _quoted([*known, "--help", "--version"]))


def _fish(known: dict[str, Command]) -> str:
    """A line for each option."""
    lines = ["complete -c seran -n __fish_use_subcommand -f -a " + _quoted([*known, "--help", "--version"])]
    for name, command in known.items():
        after = f"complete -c seran -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{after} -a {_quoted(command.words)}"] * bool(command.words)
        for option, choices in command.options.items():
            takes = "" if choices is None else f" -x -a {_quoted(choices)}" if choices else " -r"
            lines.append(f"{after} -{'l' if option[:2] == '--' else 's'} {option.lstrip('-')}{takes}")
    return "\n".join(lines)


def _tcsh(known: dict[str, Command]) -> str:
    """Commands, and the options of all of them, because tcsh does not look at the second word."""
    every: dict[str, dict[str, None]] = {}
    for option, choices in (item for command in known.values() for item in command.options.items()):
        every.setdefault(option, {}).update(dict.fromkeys(choices or ()))
    rules = [f"p/1/({' '.join(known)})/"]
    rules += [f"n/{option}/({' '.join(choices)})/" for option, choices in every.items() if choices]
    rules.append(f"c/--/({' '.join(option[2:] for option in every if option[:2] == '--')})/")
    return "complete seran " + " ".join(f"'{rule}'" for rule in rules)


SHELLS = {"bash": _bash, "zsh": lambda known: ZSH + _bash(known), "fish": _fish, "tcsh": _tcsh}


def completion(shell: Literal["bash", "zsh", "fish", "tcsh"], /) -> str:
    """Print a script that completes commands, options and their values.

    Write it to a file once, `seran completion bash > ~/.seran-completion`, and `source` that in ~/.bashrc,
    ~/.zshrc or ~/.tcshrc; for fish, to ~/.config/fish/completions/seran.fish.

    Args:
        shell: which.
    """
    known, lines = commands(), [f"# Made by `seran completion {shell}`, seran {seran.__version__}."]
    bare = ", ".join(name for name, command in known.items() if command.lacks)
    if bare:
        lines.append(f"# Without the options of {bare}: pip install 'seran[train]', and make it again.")
    return "\n".join([*lines, SHELLS[shell](known)])
