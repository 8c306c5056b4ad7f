"""Snapshots: retention, durability, kills in the middle of a write, detection of damage."""

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_inception.files import aside, write_text
from keras_inception.locks import only_run_in
from keras_inception.training.snapshot import KEPT, Snapshot, Snapshots


def some_snapshot(step: int) -> Snapshot:
    """A snapshot in which every array and the document contain the step."""
    return Snapshot({"step": step}, {"a/0": np.full(1000, step), "b": np.float32(step)})


def test_a_snapshot_round_trips(tmp_path):
    snapshots = Snapshots(tmp_path / "snapshots")
    assert snapshots.newest() is None
    state = {"model/0": np.float32([[1.5, -2]]), "optimizer/0": np.int32(7)}
    snapshots.save(7, Snapshot({"history": {"loss": [0.1, 1 / 3]}}, state))
    document, arrays = snapshots.newest()
    assert document == {"history": {"loss": [0.1, 1 / 3]}}
    assert arrays.keys() == state.keys()
    for name, values in state.items():
        np.testing.assert_array_equal(arrays[name], values)
        assert arrays[name].dtype == values.dtype


def test_two_are_kept_and_the_newest_is_used(tmp_path):
    snapshots = Snapshots(tmp_path)
    for step in (9, 10, 1000):
        snapshots.save(step, some_snapshot(step))
    assert len(list(tmp_path.iterdir())) == KEPT == 2
    assert snapshots.newest().document == {"step": 1000}


def test_when_a_snapshot_is_due(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    snapshots = Snapshots(tmp_path, every_steps=4, every_minutes=2)
    assert [step for step in range(1, 10) if snapshots.is_due(step)] == [4, 8]
    now = 119.0
    assert not snapshots.is_due(1)
    now = 120.0
    assert snapshots.is_due(1)
    snapshots.save(1, some_snapshot(1))
    assert not snapshots.is_due(2)
    assert not Snapshots(tmp_path, every_minutes=None).is_due(4)


@pytest.mark.parametrize("where", [0.0, 0.01, 0.3, 0.6, 0.95, 0.999])
def test_one_flipped_byte_is_detected(tmp_path, where):
    snapshots = Snapshots(tmp_path)
    for step in (1, 2):
        snapshots.save(step, some_snapshot(step))
    damaged = tmp_path / "step-000000002.npz"
    content = bytearray(damaged.read_bytes())
    content[int(where * len(content))] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.warns(UserWarning, match=r"step-000000002\.npz cannot be read"):
        assert snapshots.newest().document == {"step": 1}
    # It is set aside; the next one saved is the newest again, and step 1 is kept.
    snapshots.save(2, some_snapshot(2))
    assert snapshots.newest().document == {"step": 2}
    assert (tmp_path / "step-000000001.npz").exists()


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_truncated_snapshot_is_detected(tmp_path, length):
    snapshots = Snapshots(tmp_path)
    for step in (1, 2):
        snapshots.save(step, some_snapshot(step))
    damaged = tmp_path / "step-000000002.npz"
    damaged.write_bytes(damaged.read_bytes()[:length])
    with pytest.warns(UserWarning, match="cannot be read"):
        assert snapshots.newest().document == {"step": 1}


def test_no_readable_snapshot_is_an_error_every_time(tmp_path):
    for step in (1, 2):
        (tmp_path / f"step-00000000{step}.npz").write_bytes(b"rubbish")
    for _ in range(2):
        with pytest.raises(ValueError, match="Expected a readable snapshot"):
            Snapshots(tmp_path).newest()


def write_on(folder: Path, ready: Any) -> None:
    """Check that the newest snapshot is intact, and write the next ones until killed."""
    snapshots = Snapshots(folder)
    found = snapshots.newest()
    step = found.document["step"] if found else 0
    assert found is None or all(np.all(values == step) for values in found.arrays.values())
    ready.set()
    while True:
        step += 1
        arrays = {f"array/{index}": np.full(100_000, step) for index in range(4)}
        snapshots.save(step, Snapshot({"step": step}, arrays))


@pytest.mark.slow
def test_twenty_kills_in_a_loop_of_writes(tmp_path):
    """Each new process finds an intact snapshot of the killed one and continues."""
    moments = random.Random(0)
    in_the_middle, last = 0, 0
    processes = multiprocessing.get_context("forkserver")  # import once, not twenty times
    processes.set_forkserver_preload(["keras_inception.training.snapshot"])
    for _ in range(20):
        ready = processes.Event()
        writer = processes.Process(target=write_on, args=(tmp_path, ready))
        writer.start()
        assert ready.wait(60)
        time.sleep(moments.uniform(0.02, 0.2))
        assert writer.is_alive()
        writer.kill()
        writer.join()
        in_the_middle += any(path.name.startswith(".partial") for path in tmp_path.iterdir())
        step = Snapshots(tmp_path).newest().document["step"]
        assert step >= last
        last = step
    assert last >= 20
    assert in_the_middle >= 5, "the kills came between the writes, not within them"


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "text"
    write_text(path, "old")

    def fail_half_way() -> None:
        with aside(path) as beside:
            beside.write_text("new, half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_second_run_in_a_folder_is_refused(tmp_path):
    """flock is held by an open file, so within one process a second one is refused too."""
    with (
        only_run_in(tmp_path),
        pytest.raises(ValueError, match="no other run is going on"),
        only_run_in(tmp_path),
    ):
        pass
    with only_run_in(tmp_path):
        pass
