"""What the signature of a command says on the command line: arguments, help, and what is wrong with words.

A parameter is an option, `Positional[...]` a word; the fields of a dataclass are options under the first line
of its docstring. ``Annotated[float | None, "MM"]`` says what a value is called. tyro turns words into values.
"""

import contextlib
import difflib
import functools
import inspect
import io
import itertools
import re
import shutil
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from seran.errors import BadInput

Command = Callable[..., str]
ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
"""One of ``Args:`` or ``Attributes:`` in a docstring."""
SECTION = re.compile(r"^(?:Args|Attributes|Returns|Raises):$", re.MULTILINE)
OPTION = re.compile(r"--?[A-Za-z]")
VALUE = {bool: "", int: "N", float: "N", Path: "PATH"}
NEEDS = {int: "a whole number", float: "a number"}
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """An option by its flags, or a word without any; it takes ``count`` values, -1 for any number."""

    flags: tuple[str, ...]
    text: str
    metavar: str = ""
    kind: type = bool
    choices: tuple[str, ...] = ()
    count: int = 0
    default: Any = None
    group: str = "Every command"

    def needs(self, value: str | None = None) -> str:
        """What is expected, in words; nothing if the value is that."""
        with contextlib.suppress(ValueError):
            if value in self.choices or (value and not self.choices and self.kind(value) is not None):
                return ""
        several = f"{self.count} numbers" if self.count > 1 else ""
        return several or any_of(self.choices) or NEEDS.get(self.kind, "a value")

    def shown(self) -> str:
        """It and its values, as the help shows them."""
        flags = self.flags[:1] if self.kind is bool and self.default is False else self.flags
        shown = f"{', '.join(flags)} {self.metavar}".strip()
        return shown if flags or self.default is REQUIRED else f"[{shown}]"


COMMON = (
    Argument(("-h", "--help"), "show this help"),
    Argument(("-q", "--quiet"), "print nothing but errors"),
    Argument(("-v", "--verbose"), "say what is done and how long it takes, and where a fault arose"),
)
"""Options of every command; `seran.cli` acts on them."""


def any_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def nearest(word: str, words: Sequence[str], otherwise: str) -> str:
    """``; did you mean --spacing?``, or where to look if none of the words is like this one."""
    near = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {near[0]}?" if near else f"; see {otherwise}"


def _documentation(command: Any) -> str:  # noqa: ANN401
    return re.sub(r"`+([^`]*)`+", r"\1", inspect.getdoc(getattr(command, "func", command)) or "")


def of(command: Any, group: str = "Options", values: object = None) -> Iterator[Argument]:  # noqa: ANN401
    """The arguments of a command.

    Args:
        command: a function, one with some arguments given (`functools.partial`), or a dataclass.
        group: the heading of its options.
        values: an instance of the dataclass whose values are the defaults.
    """
    hints = get_type_hints(getattr(command, "func", command), include_extras=True)
    texts = {name: " ".join(text.split()) for name, text in ENTRY.findall(_documentation(command))}
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        default = parameter.default if values is None else getattr(values, name)
        if is_dataclass(kind):
            heading = (_documentation(kind) or name).splitlines()[0].rstrip(".")
            yield from of(kind, heading, None if default is REQUIRED else default)
        elif tyro.conf.Fixed not in marks:
            flag = next((m.name for m in marks if getattr(m, "name", None)), name).replace("_", "-")
            aliases = [alias for m in marks for alias in getattr(m, "aliases", None) or ()]
            kind, choices, count = _values(kind)
            placed = tyro.conf.Positional in marks
            word = name.upper() if placed else flag.rpartition("-")[2].upper()
            word = f"{{{','.join(choices)}}}" if choices else word if placed else VALUE.get(kind, word)
            metavar = word + " ..." if count < 0 else " ".join([word] * count)
            metavar = next((m for m in marks if isinstance(m, str)), metavar)
            spelt = [*aliases, f"--{flag}", *[f"--no-{flag}"] * (kind is bool)]
            yield Argument(
                () if placed else tuple(spelt),
                texts.get(name, ""),
                metavar,
                kind,
                choices,
                count,
                default,
                group,
            )


def _values(kind: Any) -> tuple[type, tuple[str, ...], int]:  # noqa: ANN401
    """Of a type: that of one value, the only values that there are, and how many are taken."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    count = 1 if kind is not bool else 0
    if get_origin(kind) is tuple:
        kind, *others = get_args(kind)
        count = -1 if others == [...] else 1 + len(others)
    if get_origin(kind) is Literal:
        return type(get_args(kind)[0]), tuple(map(str, get_args(kind))), count
    return kind, (), count


_wrapped = functools.partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)


def page(name: str, command: Command) -> str:
    """The help of a command, in plain text as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    known = sorted([*of(command), *COMMON], key=lambda a: bool(a.flags))
    lines = [" ".join(["usage: seran", name, *(a.shown() for a in known if not a.flags), "[OPTIONS]"])]
    for paragraph in SECTION.split(_documentation(command))[0].strip().split("\n\n"):
        lines += ["", *_wrapped(paragraph, width)]
    for heading, members in itertools.groupby(known, lambda a: f"{a.group}:" if a.flags else ""):
        lines += ["", heading] if heading else [""]
        for a in members:
            text, left = a.text.rstrip("."), f"  {a.shown()}"
            if a.default not in (None, False, "", (), REQUIRED):
                default = " ".join(map(str, a.default)) if isinstance(a.default, tuple) else a.default
                text += f" (default: {'yes' if default is True else default})"
            if len(left) > 24:
                lines.append(left)
                left = ""
            lines += _wrapped(text, width, initial_indent=f"{left:26}", subsequent_indent=" " * 26)
    return "\n".join(lines)


def mistake(name: str, command: Command, words: Sequence[str]) -> str:
    """What is wrong with these words after the name of a command, in a line; empty if nothing is."""
    known, rest, places, given = [*of(command), *COMMON], list(words), [], []
    flags, more = {flag: a for a in known for flag in a.flags}, f"seran {name} --help"
    while rest:
        word, attached, value = rest.pop(0).partition("=")
        if not OPTION.match(word):
            places.append(word + attached + value)
            continue
        option = flags.get(word.replace("_", "-"))
        if option is None:
            return f"unknown option {word}{nearest(word, list(flags), more)}"
        if attached and not option.count:
            return f"{word} takes no value"
        found = [value] if attached else list(itertools.takewhile(lambda one: not OPTION.match(one), rest))
        found = found[: option.count] if option.count >= 0 else found
        given.append(option)
        rest = rest[len(found) * (not attached) :]
        wrong = [one for one in found if option.needs(one)]
        if wrong or len(found) < option.count:
            return f"{' '.join([word, *wrong[:1]])}: expected {option.needs()}"
    fixed = [a for a in known if not a.flags]
    for a, word in zip(fixed, places, strict=False):
        if a.needs(word):
            return f"{name} {word}: expected {a.needs()}"
    absent = [a.metavar for a in fixed[len(places) :] if a.default is REQUIRED and a.count > 0]
    absent += [a.flags[-1] for a in known if a.flags and a.default is REQUIRED and a not in given]
    if absent:
        return f"{name} needs {' and '.join(absent)}; see {more}"
    extra = places[len(fixed) :] if all(a.count > 0 for a in fixed) else []
    return f"unexpected {extra[0]}; see {more}" if extra else ""


def bound(name: str, command: Command, words: Sequence[str]) -> Callable[[], str]:
    """The command with its arguments.

    Args:
        name: of the command.
        command: its function.
        words: what was typed after the name.

    Raises:
        BadInput: if these words cannot be its arguments.
    """
    collect = functools.update_wrapper(lambda **values: functools.partial(command, **values), command)
    collect.__annotations__ = get_type_hints(getattr(command, "func", command), include_extras=True)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(collect, args=list(words), config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        plain = re.sub(r"[^ -~]+", " ", said.getvalue())  # without the box around it
        raise BadInput(mistake(name, command, words) or plain) from stop
