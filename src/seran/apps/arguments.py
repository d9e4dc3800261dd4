"""What the signature of a command says on the command line: arguments, help, and what is wrong with words.

A positional-only parameter is a word, any other an option; the fields of a dataclass are options under the
first line of its docstring. ``Annotated[float | None, "MM"]`` says what a value is called; in brackets, it
may be left out, and is auto then. tyro parses.
"""

import contextlib
import difflib
import functools
import importlib
import inspect
import io
import itertools
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from seran import __version__, machine
from seran.errors import BadInput

ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
"""One of ``Args:`` or ``Attributes:`` in a docstring."""
VALUE = re.compile(r"auto|none|nan|[-+]?inf|[-+.]?\d[\d.,]*(e[-+]?\d+)?[a-z]{0,2}", re.IGNORECASE)
"""What is meant as the value of an option that may stand without one, and not as the next word."""
NEEDS = {int: "a whole number", float: "a number", bool: "no value"}
REQUIRED = inspect.Parameter.empty
wrap = functools.partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Argument:
    """An option by its flags, or a word without any; it takes ``count`` values, -1 for any number."""

    flags: Sequence[str]
    text: str
    group: str = "Every command"
    metavar: str = ""
    kind: type = bool
    choices: Sequence[str] = ()
    count: int = 0
    default: Any = None
    words: Sequence[str] = ()  # that stand for a number

    def needs(self) -> str:
        """What is expected, in words."""
        numbers = f"{self.count} numbers" if self.count > 1 else ""
        words = self.choices or [numbers or NEEDS.get(self.kind, "a value"), *self.words]
        return " or ".join(", ".join(words).rsplit(", ", 1))

    def takes(self, word: str) -> bool:
        """Whether a word can be a value of it."""
        if word in self.words:
            return True
        with contextlib.suppress(ValueError):
            self.kind(word)
            return self.count != 0 and word in (self.choices or [word])
        return False

    def shown(self) -> str:
        """It and its values, as the help shows them."""
        flags = self.flags[:1] if self.kind is bool and self.default is False else self.flags
        shown = f"{', '.join(flags)} {self.metavar}".strip()
        return shown if flags or self.default is REQUIRED else f"[{shown}]"


COMMON = (
    Argument(["-h", "--help"], "show this help"),
    Argument(["--version"], "show the version"),
    Argument(["-q", "--quiet"], "print nothing but errors"),
    Argument(["-v", "--verbose"], "say what is done and how long it takes, and where a fault arose"),
)
"""Options of every command; `seran.cli` acts on them."""


def nearest(word: str, words: Sequence[str]) -> str:
    """``did you mean --spacing?``, or nothing if none of the words is like this one."""
    return "".join(f"did you mean {near}?" for near in difflib.get_close_matches(word, words, 1))


def _described(command: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
    """The docstring of a function, also of one with some arguments given, or of a class; its type hints."""
    command = getattr(command, "func", command)
    text = re.sub(r"`+([^`]*)`+", r"\1", inspect.getdoc(command) or "")
    return text, get_type_hints(command, include_extras=True)


def of(command: Any, group: str = "Options", values: object = None) -> Iterator[Argument]:  # noqa: ANN401
    """The arguments of a command.

    Args:
        command: a function, one with some arguments given (`functools.partial`), or a dataclass.
        group: the heading of its options.
        values: an instance of the dataclass whose values are the defaults.
    """
    text, hints = _described(command)
    texts = {name: " ".join(entry.split()).rstrip(".") for name, entry in ENTRY.findall(text)}
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *marks = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        default = getattr(values, name, parameter.default)
        if is_dataclass(kind):
            yield from of(kind, _described(kind)[0].splitlines()[0].rstrip("."), default)
        elif tyro.conf.Fixed not in marks:
            kind, choices, count, words = _values(kind)
            count = 1 if tyro.conf.UseAppendAction in marks else count  # each time that it is named
            named: Any = tyro.conf.arg(name=name.replace("_", "-"))
            named = next((mark for mark in marks if getattr(mark, "name", None)), named)
            flags = [*(named.aliases or ()), f"--{named.name}", *[f"--no-{named.name}"] * (kind is bool)]
            word = "N" if kind in (int, float) else name.rpartition("_")[2].upper()
            if parameter.kind is parameter.POSITIONAL_ONLY:
                flags, word = [], name.upper()
            word = f"{{{','.join(choices)}}}" if choices else word
            metavar = f"{word} ..." if count < 0 else " ".join([word] * count)
            metavar = next((mark for mark in marks if isinstance(mark, str)), metavar)
            yield Argument(flags, texts.get(name, ""), group, metavar, kind, choices, count, default, words)


def _values(kind: Any) -> tuple[type, Sequence[str], int, Sequence[str]]:  # noqa: ANN401
    """Of a type: that of one value, the only values that there are, how many are taken, words besides."""
    words = [word for other in get_args(kind)[1:] if get_origin(other) is Literal for word in get_args(other)]
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
    count = int(kind is not bool)
    if get_origin(kind) is tuple:
        kind, *others = get_args(kind)
        count = -1 if others == [...] else 1 + len(others)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return kind if kind in NEEDS else str, [str(choice) for choice in choices], count, words


def _help(name: str, command: Callable[..., str]) -> str:
    """The help of a command, in plain text as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, 100)
    known, order = [*of(command), *COMMON], dict[str, int]()
    for a in known:  # a group that others interrupt is shown once
        order.setdefault(a.group, len(order))
    known.sort(key=lambda a: (bool(a.flags), order[a.group] * bool(a.flags)))
    lines = [" ".join(["usage: seran", name, *(a.shown() for a in known if not a.flags), "[OPTIONS]"])]
    for paragraph in re.split(r"\n\w+:\n", _described(command)[0])[0].strip().split("\n\n"):
        lines += ["", *wrap(paragraph, width)]
    for heading, members in itertools.groupby(known, lambda a: [f"{a.group}:"] * bool(a.flags)):
        lines += ["", *heading]
        for a in members:
            text, left = a.text, f"  {a.shown()}"
            if a.default not in (None, "", (), REQUIRED) and a.default is not False:
                default = " ".join(map(str, a.default)) if isinstance(a.default, tuple) else a.default
                text += f" (default: {'yes' if default is True else default})"
            if len(left) > 24:
                lines.append(left)
                left = ""
            lines += wrap(text, width, initial_indent=f"{left:26}", subsequent_indent=" " * 26)
    return "\n".join(lines)


def _mistake(name: str, command: Callable[..., str], words: Sequence[str]) -> str:
    """What is wrong with these words after the name of a command, in a line; empty if nothing is found."""
    known, more = [*of(command), *COMMON], f"see seran {name} --help"
    places, flags = [a for a in known if not a.flags], {flag: a for a in known for flag in a.flags}
    given: list[tuple[str, Argument, list[str]]] = []  # what was named, and the words behind it
    for word in words:
        flag, attached, value = word.partition("=")
        if re.match(r"--?[A-Za-z]", word):
            option = flags.get(flag.replace("_", "-"))
            if option is None:
                return f"unknown option {flag}; {nearest(flag, [*flags]) or more}"
            given.append((flag, option, [value] * bool(attached)))
        elif given and len(given[-1][2]) != given[-1][1].count:
            given[-1][2].append(word)
        elif places:
            given.append((name, places.pop(0), [word]))
        else:
            return f"unexpected {word}; {more}"
    for named, a, values in given:
        wrong = [value for value in values if not a.takes(value)]
        if wrong or len(values) < a.count:
            return f"{' '.join([named, *wrong[:1]])}: expected {a.needs()}"
    needed = [a for a in known if a.default is REQUIRED and a.count > 0 and a not in [a for _, a, _ in given]]
    absent = " and ".join(a.flags[-1] if a.flags else a.metavar for a in needed)
    return f"{name} needs {absent}; {more}" if absent else ""


def _refuse_nothing(name: str, command: Callable[..., str], words: Sequence[str]) -> None:
    """Raise `BadInput` for an empty word, or None as the value of an option: what a script left unset.

    The parser would take them for the default, or an empty path for this folder.
    """
    flags = {flag: a for a in [*of(command), *COMMON] for flag in a.flags}
    for before, word in itertools.pairwise([name, *words]):
        named, attached, value = word.partition("=")
        if not (attached and named.replace("_", "-") in flags):
            named, value = before, word
        option = flags.get(named.replace("_", "-"))
        if value == "" or (value == "None" and option and option.count):
            wanted = f"{named}: expected {option.needs()}" if option else f"{name}: expected a name"
            raise BadInput(f"{wanted}, got {value or 'an empty word'}")


def _with_values(words: Sequence[str], loose: set[str]) -> Iterator[str]:
    """The words, with the value auto behind options that may stand without one, where none follows."""
    for word, following in itertools.pairwise([*words, ""]):
        yield word
        if word in loose and not VALUE.fullmatch(following):
            yield "auto"
        elif word in loose and Path(following).exists():
            raise BadInput(
                f"{word} {following}: is this its value, or the file or folder of that name? Say "
                f"{word}={following}, or {word}=auto ./{following}"
            )


def run(name: str, words: Sequence[str]) -> str:
    """What a command of `seran.apps` returns for these words, or its help if they ask for it.

    Raises:
        BadInput: if these words cannot be its arguments.
    """
    with machine.without("requests"):  # pydicom would import it, and with it urllib3, which opens a socket
        module = importlib.import_module(f"seran.apps.{name}")
    command, rest = getattr(module, name), words
    if hasattr(module, "bind"):  # its first argument decides the defaults of the others
        command, rest = module.bind(words)
        name = " ".join([name, *words[: len(words) - len(rest)]])
    if {"-h", "--help"} & set(rest):
        return _help(name, command)
    if "--version" in rest:
        return f"seran {__version__}"
    _refuse_nothing(name, command, rest)
    many = {flag: a for a in of(command) for flag in a.flags if a.count < 0}
    named = [many[flag].flags[-1] for word in rest if (flag := word.partition("=")[0]) in many]
    if twice := [flag for flag in named if named.count(flag) > 1]:  # the parser would keep the last values
        raise BadInput(f"{twice[0]}: expected once, with all its values behind it, got {len(twice)} of it")
    rest = [*_with_values(rest, {flag for a in of(command) if a.metavar.startswith("[") for flag in a.flags})]
    collect = functools.update_wrapper(lambda *a, **k: functools.partial(command, *a, **k), command)
    collect.__annotations__ = _described(command)[1]
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            ready = tyro.cli(collect, args=list(rest), config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        plain = " ".join(re.sub(r"[^ -~]+", " ", said.getvalue()).split())  # without the box around it
        plain = re.sub(r"^.*?Error parsing | Argument helptext: .*$", "", plain)
        raise BadInput(_mistake(name, command, rest) or plain) from stop
    return ready()
