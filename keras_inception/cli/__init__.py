"""The command line: the only code that prints. `keras-inception --help` lists the commands.

Exit codes: 0; 2 for a usage error (one line, no traceback); 1 for anything else.
One module a command, imported when it is called; each imports TensorFlow inside the command, so
that usage errors are reported before.
"""

from keras_inception.cli.program import app, main

__all__ = ["app", "main"]
