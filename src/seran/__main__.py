"""``python -m seran``, for launchers such as torchrun."""

from seran.cli import main

main()
