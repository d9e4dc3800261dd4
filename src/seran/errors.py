"""The one exception a user may cause: the command prints it as one line and exits with 2."""


class BadInput(Exception):
    """A file, option or value that cannot be used; the text says what was expected and what to do."""


class Incomplete(Exception):
    """Some of several things failed, and each was told; the text counts them. The command exits with 1."""
