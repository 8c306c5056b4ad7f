"""A process that decodes images for the server, each in a child of its own, within limits.

    python -m keras_inception.inference.decode_worker '{"height": 224, ...}'

The argument is a `Job`. Requests on standard input are image files; answers on standard output are
an `Outcome` and its payload; a length of 8 bytes precedes both. The process ends with its input. It
imports Pillow and NumPy alone, so that it starts in a fraction of a second. Where a system has no
fork, images are decoded in the process itself, without a limit of memory.
"""

from __future__ import annotations

import enum
import io
import json
import os
import signal
import struct
import sys
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from keras_inception.images.decode import read_image
from keras_inception.isolated import limit

LENGTH = struct.Struct("<Q")


class Outcome(bytes, enum.Enum):
    """The first byte of an answer; what follows it."""

    PIXELS = b"P"  # uint8, height x width x channels
    REFUSED = b"R"  # why the file is no image, as text
    OUT_OF_TIME = b"T"  # nothing
    OUT_OF_MEMORY = b"M"  # nothing
    DIED = b"D"  # the number of the signal, as text


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is made of an image, and within which limits.

    Attributes:
        height, width, channels: of the result.
        pixels: the most that an image may have.
        seconds: of processor time for an image.
        memory: bytes that the process may add to those that it starts with.
        niceness: added to the server's; above 0 other processes go first.
    """

    height: int
    width: int
    channels: int
    pixels: int
    seconds: float
    memory: int
    niceness: int


def main() -> None:
    """Answer requests until the input ends."""
    job = Job(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    if hasattr(os, "nice"):
        os.nice(job.niceness)
    _answer(_smallest_png(), job)  # loads Pillow's formats once, not in every child
    while (contents := _request(sys.stdin.buffer)) is not None:
        answer = _answer_of_child(contents, job) if hasattr(os, "fork") else _answer(contents, job)
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _smallest_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


def _request(file: BinaryIO) -> bytes | None:
    header = file.read(LENGTH.size)
    return file.read(*LENGTH.unpack(header)) if len(header) == LENGTH.size else None


def _answer(contents: bytes, job: Job) -> bytes:
    try:
        pixels = read_image(
            contents, height=job.height, width=job.width, channels=job.channels, limit=job.pixels
        )
    except ValueError as error:
        if _is_out_of_memory(error):
            return Outcome.OUT_OF_MEMORY
        return Outcome.REFUSED + str(error).encode()
    return Outcome.PIXELS + pixels.tobytes()


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes from a MemoryError; `read_image` has one kind of error for all."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _answer_of_child(contents: bytes, job: Job) -> bytes:
    """The answer of a process that ends after this image, or is ended by its limits."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(contents, job, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGPROF:
            return Outcome.OUT_OF_TIME
        return Outcome.DIED + str(number).encode()
    return answer if status == 0 else Outcome.OUT_OF_MEMORY


def _be_child(contents: bytes, job: Job, writer: int) -> None:
    """Decode, write the answer, and end."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries describe damaged files here
        limit(job.seconds, job.memory)
        with open(writer, "wb") as pipe:
            pipe.write(_answer(contents, job))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
