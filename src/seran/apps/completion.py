"""``seran completion``: what the Tab key knows, as a script for a shell.

The script is complete in itself: it lists commands, options and the values of options that take one of a few
words, so that pressing the key starts no Python. All of it is read from the signatures of the commands.
"""

import importlib
import pkgutil
import shlex
from collections.abc import Iterable
from typing import Literal, NamedTuple

import seran
from seran import apps
from seran.apps import Positional, arguments
from seran.degrade import DEGRADATIONS
from seran.recipes import RECIPES
from seran.systems import SYSTEMS

OTHERS = {"prepare": ("ixi", "benchmark")}
"""Functions of a command's module whose options it has, too, after some first words."""
NAMES = {"method": tuple(SYSTEMS), "methods": tuple(SYSTEMS), "degradation": tuple(DEGRADATIONS)}
"""What options of these names take one of."""
FIRST = {"prepare": ("ixi", "open"), "train": tuple(RECIPES)}
"""First words of a command that its signature does not list."""
VALUES = {"--method": [*SYSTEMS], "--methods": [*SYSTEMS], "--degradation": [*DEGRADATIONS]}
"""Words that an option takes one of though its type does not list them."""


class Command(NamedTuple):
    """What may follow a command: words; options, with the words that each takes one of, none of a flag."""

    words: tuple[str, ...]
    options: dict[str, tuple[str, ...] | None]
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
        options = {f: a.choices or tuple(VALUES.get(f, ())) if a.count else None for f, a in flags}
        found[name] = Command((*FIRST.get(name, ()), *words), options, lacks)
    return {**found, "help": Command(tuple(found), {})}


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def bash(known: dict[str, Command]) -> str:
    """A function for bash's ``complete``."""
    values = "\n".join(
        f"    '{name} {option}') words={_quoted(choices)} ;;"
        for name, command in known.items()
        for option, choices in command.options.items()
        if choices
    )
    options = "\n".join(f"    '{name} -'*) words={_quoted(c.options)} ;;" for name, c in known.items())
    words = "\n".join(f"    '{name} '*) words={_quoted(c.words)} ;;" for name, c in known.items() if c.words)
    return f"""_seran() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words=
  if [ "$cur" = "=" ]; then cur=; fi
  if [ "$prev" = "=" ]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  case "${{COMP_WORDS[1]}} $prev" in
{values}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={_quoted([*known, "--help", "--version"])}
  elif [ -z "$words" ]; then
    case "${{COMP_WORDS[1]}} $cur" in
{options}
{words}
    esac
  fi
  # shellcheck disable=SC2207  # no word of ours has a space
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _seran seran"""


def fish(known: dict[str, Command]) -> str:
    """A line for each option."""
    lines = ["complete -c seran -n __fish_use_subcommand -f -a " + _quoted([*known, "--help", "--version"])]
    for name, command in known.items():
        after = f"complete -c seran -n '__fish_seen_subcommand_from {name}'"
        lines += [f"{after} -a {_quoted(command.words)}"] * bool(command.words)
        for option, choices in command.options.items():
            takes = "" if choices is None else f" -x -a {_quoted(choices)}" if choices else " -r"
            lines.append(f"{after} -{'l' if option[:2] == '--' else 's'} {option.lstrip('-')}{takes}")
    return "\n".join(lines)


def tcsh(known: dict[str, Command]) -> str:
    """Commands, and the options of all of them, because tcsh does not look at the second word."""
    every: dict[str, dict[str, None]] = {}
    for command in known.values():
        for option, choices in command.options.items():
            every.setdefault(option, {}).update(dict.fromkeys(choices or ()))
    rules = [f"p/1/({' '.join(known)})/"]
    rules += [f"n/{option}/({' '.join(choices)})/" for option, choices in every.items() if choices]
    rules.append(f"c/--/({' '.join(option[2:] for option in every if option[:2] == '--')})/")
    return "complete seran " + " ".join(f"'{rule}'" for rule in rules)


ZSH = "autoload -Uz compinit bashcompinit\n(( $+functions[compdef] )) || compinit\nbashcompinit\n"
"""How zsh comes to emulate bash's ``complete``."""
SHELLS = {"bash": bash, "zsh": lambda known: ZSH + bash(known), "fish": fish, "tcsh": tcsh}


def completion(shell: Positional[Literal["bash", "zsh", "fish", "tcsh"]]) -> str:
    """Print a script that completes commands, options and their values.

    Write it to a file once, `seran completion bash > ~/.seran-completion`, and `source` that in ~/.bashrc,
    ~/.zshrc or ~/.tcshrc; for fish, to ~/.config/fish/completions/seran.fish.

    Args:
        shell: which.
    """
    known = commands()
    lines = [f"# Made by `seran completion {shell}`, seran {seran.__version__}."]
    bare = ", ".join(name for name, command in known.items() if command.lacks)
    if bare:
        lines.append(f"# Without the options of {bare}: pip install 'seran[train]', and make it again.")
    return "\n".join([*lines, SHELLS[shell](known)])
