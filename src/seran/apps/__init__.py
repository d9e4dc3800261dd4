"""Programs: one module per sub-command of ``seran``, with a function of its name.

The function's signature is the command line, its docstring the help; what it returns is printed.
"""
