"""Every module imports, and every command has its help, without what Python lacks on Windows.

The modules are refused to this package alone, since the standard library itself is that of this
system.
"""

import os
import subprocess
import sys

PROGRAM = """
import builtins, importlib, os, pkgutil, signal, sys

ABSENT = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
whole = builtins.__import__


def partial(name, globals=None, locals=None, fromlist=(), level=0):
    asking = (globals or {}).get("__name__", "")
    if name.partition(".")[0] in ABSENT and asking.startswith(("keras_inception", "tuning")):
        raise ModuleNotFoundError(f"No module named {name!r}, for {asking}")
    return whole(name, globals, locals, fromlist, level)


builtins.__import__ = partial
for name in ("fork", "forkpty", "getpgid", "getuid", "geteuid", "killpg", "setpgid", "setsid"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE"):
    delattr(signal, name)

import keras_inception, tuning

count = 0
for package in (keras_inception, tuning):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "jax" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            count += 1
assert count > 150, count

from keras_inception.cli.program import _COMMANDS, main

for words in ([], ["--version"], *([command, "--help"] for command in _COMMANDS)):
    sys.argv = ["keras-inception", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
print("all", file=sys.stderr)
"""


def test_without_the_modules_and_calls_of_posix() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.endswith("all\n")
    assert "--budget-macs" in result.stdout
