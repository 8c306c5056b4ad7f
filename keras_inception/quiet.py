"""TensorFlow without its log lines: those of its C++ code, and those of its Python logger.

The first lines come before TensorFlow reads `TF_CPP_MIN_LOG_LEVEL`, and its converters write some
past every setting. Whoever sets that variable, to any level, sees what the C++ code writes; whoever
sets a level of `tf.get_logger()` sees its records. Standard library only.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LOGGER = "tensorflow"

_LINE = re.compile(
    rb"([IWE]\d{4} \d\d:\d\d"  # absl's format: level, date, time
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions:"
    rb"|fully_quantize: "
    rb"|INFO: Created TensorFlow Lite )"
)
# The descriptor belongs to the process.
_LOCK = threading.RLock()


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Leave out TensorFlow's log lines that are written in the block, unless it fails.

    TensorFlow reads the level once, so that of the first block, in which it is imported, holds for
    the process; the variable itself is as before afterwards. Whatever else is written to file
    descriptor 2 in the block appears at its end.
    """
    with _LOCK:
        if LEVEL in os.environ:
            yield
            return
        os.environ[LEVEL] = "3"
        try:
            with _without_log_lines():
                yield
        finally:
            os.environ.pop(LEVEL, None)


def quiet_logger(level: int) -> None:
    """Leave out warnings and information of TensorFlow's Python logger, such as of retracing.

    Args:
        level: of the logger before TensorFlow's import. Where the user had set one, or sets one
            later, it decides.
    """
    logger = logging.getLogger(LOGGER)
    if level == logging.NOTSET:
        logger.addFilter(_ErrorsAlone(logger.level))


class _ErrorsAlone(logging.Filter):
    """Passes errors, and everything once the logger has another level than at first."""

    def __init__(self, first_level: int) -> None:
        super().__init__()
        self._first_level = first_level

    def filter(self, record: logging.LogRecord) -> bool:
        is_set = logging.getLogger(LOGGER).level != self._first_level
        return is_set or record.levelno >= logging.ERROR


@contextmanager
def level_kept() -> Iterator[None]:
    """Undo what the block does to the variable: tf2onnx's and OpenVINO's converters set it."""
    before = os.environ.get(LEVEL)
    try:
        yield
    finally:
        os.environ.pop(LEVEL, None)
        if before is not None:
            os.environ[LEVEL] = before


@contextmanager
def _without_log_lines() -> Iterator[None]:
    try:
        screen = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        fails = True
        try:
            yield
            fails = False
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            for line in held:
                if fails or not _LINE.match(line):
                    os.write(2, line)
