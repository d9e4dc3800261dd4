"""The one exception a user may cause: the command prints it as one line and exits with 2."""


class BadInput(ValueError):
    """A file, option or value that cannot be used; the text says what was expected and what to do."""
