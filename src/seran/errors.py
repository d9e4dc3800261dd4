"""The one exception a user may cause: the command prints it as one line and exits with 2."""

from collections.abc import Sequence


class BadInput(Exception):
    """A file, option or value that cannot be used; the text says what was expected and what to do."""


class Incomplete(Exception):
    """Some of several things failed, or a check of what was made says FAIL; the command exits with 1.

    What was made is whole and kept. Each was told, and the text names or counts them.
    """


def refuse_unlisted(option: str, got: object, known: Sequence[object]) -> None:
    """Raise `BadInput` for a value of an option that is not one of those there are.

    Args:
        option: its name, without dashes.
        got: the value.
        known: those there are.
    """
    if got not in known:
        raise BadInput(f"--{option} {got}: expected {', '.join(map(str, known))}")


def counted(number: int, thing: str) -> str:
    """A number of things.

    >>> counted(1, "voxel"), counted(2, "voxel")
    ('1 voxel', '2 voxels')
    """
    return f"{number} {thing}{'s' * (number != 1)}"
