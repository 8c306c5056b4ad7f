"""What killed processes leave, names that nobody can predict, and signals that end a command."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_inception import files
from keras_inception.files import aside, contents_aside, discard, remove_leftovers, write_text

HELPER = """
import os, sys, time
from pathlib import Path
from keras_inception.files import aside
with aside(Path(sys.argv[1])) as beside:
    beside.mkdir()
    (beside / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def hidden(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir() if item.name.startswith("."))


def started(script: str, *arguments: str) -> subprocess.Popen:
    """A process that runs a script, after it has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def test_the_leftovers_of_a_killed_process_are_removed_by_the_next(tmp_path):
    killed, running = (started(HELPER, str(tmp_path / name)) for name in "ab")
    assert len(hidden(tmp_path)) == 2
    write_text(tmp_path / "c", "both still run")
    assert len(hidden(tmp_path)) == 2
    killed.kill()
    killed.wait()
    write_text(tmp_path / "c", "one was killed")
    (left,) = hidden(tmp_path)
    assert f".{running.pid}." in left
    running.kill()
    running.wait()
    with contents_aside(tmp_path) as beside:
        (beside / "d").write_text("of an export")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["c", "d"]


def test_a_process_of_the_same_number_that_began_later_is_another_one(tmp_path):
    name = f"{files.PARTIAL}{files._machine()}.{os.getpid()}.1-x"  # began at tick 1: not this one
    (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", ["another.1.1-x", "12-model.keras", "abcdefgh"])
def test_what_cannot_be_judged_is_removed_after_a_day(tmp_path, name):
    """Of another machine that shares the disk, and of earlier versions."""
    left = tmp_path / f"{files.PARTIAL}{name}"
    left.mkdir()
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == [left.name]
    os.utime(left, (0, time.time() - 25 * 3600))
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []


def test_a_leftover_that_is_a_link_is_removed_and_not_followed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    link = tmp_path / f"{files.PARTIAL}{files._machine()}.{os.getpid()}.1-x"
    link.symlink_to(kept)
    remove_leftovers(tmp_path)
    assert hidden(tmp_path) == []
    assert (kept / "file").read_text() == "kept"


def test_incomplete_files_lie_in_a_private_folder_of_a_name_that_cannot_be_predicted(tmp_path):
    names = set()
    for _ in range(2):
        with aside(tmp_path / "file") as beside:
            beside.write_text("new")
            folder = beside.parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert folder.stat().st_uid == os.getuid()
            names.add(folder.name)
    assert len(names) == 2
    assert hidden(tmp_path) == []


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_written_through(tmp_path):
    other = tmp_path / "other"
    other.write_text("of somebody else")
    (tmp_path / "file").symlink_to(other)
    write_text(tmp_path / "file", "new")
    assert other.read_text() == "of somebody else"
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "folder").symlink_to(tmp_path)
    discard(tmp_path / "folder")
    assert other.exists()
    assert not (tmp_path / "folder").exists()


def test_a_folder_that_is_half_removed_has_a_hidden_name(tmp_path, monkeypatch):
    """A kill after the first of its files is gone, of which `rmtree` knows nothing."""
    (tmp_path / "saved_model").mkdir()
    for name in ("saved_model.pb", "variables"):
        (tmp_path / "saved_model" / name).touch()

    def killed(path: Path) -> None:
        next(path.rglob("saved_model.pb")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        discard(tmp_path / "saved_model")
    assert [path.name for path in tmp_path.rglob("variables")] == ["variables"]
    assert not (tmp_path / "saved_model").exists()
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".partial-"]


COMMAND = """
import sys, time
from pathlib import Path
from keras_inception.cli import app, {module}
from keras_inception.files import aside

def blocked(path):
    with aside(Path(sys.argv[1], "result")) as beside:
        beside.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

{module}.keras_file = blocked
app({arguments})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("export", ["export", "model.keras"]),
        ("evaluate", ["evaluate", "model.keras"]),
        ("design_options", ["design", "--model", "run"]),
    ],
)
def test_a_signal_ends_a_command_without_leftovers(tmp_path, module, arguments, number):
    """With the status that `train` has, which says that the command can be started again."""
    process = started(COMMAND.format(module=module, arguments=arguments), str(tmp_path))
    assert len(hidden(tmp_path)) == 1
    process.send_signal(number)
    assert process.wait(timeout=30) == 75
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from keras_inception.files import write_text

path, name = Path(sys.argv[1]), sys.argv[2]
with ThreadPoolExecutor(4) as pool:
    texts = [f"{name}{thread}" * 20_000 for thread in range(4)]
    for _ in range(10):
        list(pool.map(lambda text: write_text(path, text), texts))
"""


def test_threads_and_processes_that_write_one_file(tmp_path):
    """The file is always one of the texts as a whole, and nothing else is left."""
    path = tmp_path / "file.txt"
    texts = {f"{name}{thread}" * 20_000 for name in "ab" for thread in range(4)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in "ab"
    ]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert path.read_text() in texts
            seen += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen > 0
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
