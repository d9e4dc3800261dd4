"""seran: MR image super-resolution that states its grid, its protocol and its limits."""

__version__ = "0.1.0"
