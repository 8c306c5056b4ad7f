"""The launcher: restarts of processes and their names; no process outlives it."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial
from processes import ENVIRONMENT

from tuning.engine import tuner
from tuning.engine.access import access_for
from tuning.engine.launcher import LaunchError, _oom_kills, launch


def command(folder: Path, orders: dict[str, list[str]], tail: str = "") -> list[str]:
    """A command whose processes follow `orders` by role and number of starts.

    "wait 3" waits for the third start of the worker, "pause" for a second; "kill", "abort",
    "terminate", "exit 0".
    """
    source = f"""
    import os, signal, sys, time
    name = os.environ["KERASTUNER_TUNER_ID"]
    role = "chief" if name == "chief" else "worker" + name.rpartition("-")[2]
    log = {str(folder / "starts")!r}
    with open(log, "a") as file:
        file.write(role + "\\n")
    count = open(log).read().split().count(role)
    orders = {orders!r}[role]
    order = orders[min(count, len(orders)) - 1]
    if order.startswith("wait"):
        while open(log).read().split().count("worker0") < int(order.split()[1]):
            time.sleep(0.05)
        order = " ".join(order.split()[2:])
    if order.startswith("pause"):
        time.sleep(1)
        order = order.removeprefix("pause ")
    numbers = {{"kill": signal.SIGKILL, "abort": signal.SIGABRT, "terminate": signal.SIGTERM}}
    if order in numbers:
        os.kill(os.getpid(), numbers[order])
    with open(log + ".causes", "a") as file:
        file.write(role + " " + os.environ["KERAS_INCEPTION_CAUSE"] + "\\n")
    {tail}
    print("order", order)
    sys.exit(int(order.split()[1]))
    """
    return [sys.executable, "-c", textwrap.dedent(source)]


def starts(folder: Path) -> list[str]:
    return sorted((folder / "starts").read_text().split())


def run(folder: Path, orders: dict[str, list[str]], workers: int = 1) -> None:
    launch(command(folder, orders), folder=folder, workers=workers, address="127.0.0.1:1")


def test_killed_and_recycled_processes_are_restarted(tmp_path: Path) -> None:
    """A worker is killed, then asks to be restarted, then finishes; the chief waits for that."""
    run(tmp_path, {"chief": ["wait 3 exit 0"], "worker0": ["kill", "exit 75", "exit 0"]})
    assert starts(tmp_path) == ["chief"] + 3 * ["worker0"]
    assert (tmp_path / "logs" / "chief.log").read_text() == "order exit 0\n"


@pytest.mark.parametrize(
    ("cores", "workers", "given", "expected"),
    [(8, 2, None, "4"), (2, 3, None, "1"), (8, 1, None, "None"), (8, 2, "3", "3")],
)
def test_workers_share_the_cores(
    cores: int,
    workers: int,
    given: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One worker has TensorFlow's default; what the user sets is kept."""
    variable = "TF_NUM_INTRAOP_THREADS"
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.delenv(variable, raising=False)
    if given is not None:
        monkeypatch.setenv(variable, given)
    orders = {"chief": ["exit 0"]} | {f"worker{index}": ["exit 0"] for index in range(workers)}
    tail = f'print("threads", os.environ.get({variable!r}))'
    program = command(tmp_path, orders, tail)
    launch(program, folder=tmp_path, workers=workers, address="127.0.0.1:1")
    text = (tmp_path / "logs" / "chief.log").read_text()
    assert text == f"threads {expected}\norder exit 0\n"


def test_a_killed_chief_is_restarted(tmp_path: Path) -> None:
    run(tmp_path, {"chief": ["kill", "kill", "exit 0"], "worker0": ["exit 0"]})
    assert starts(tmp_path).count("chief") == 3


def test_workers_are_restarted_for_a_chief_killed_after_their_end(tmp_path: Path) -> None:
    """It waits for them to report the end of the search."""
    run(tmp_path, {"chief": ["wait 1 pause kill", "wait 2 exit 0"], "worker0": ["exit 0"]})
    assert starts(tmp_path) == ["chief", "chief", "worker0", "worker0"]


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ({"chief": ["exit 1"], "worker0": ["exit 0"]}, "chief ended with code 1: order exit 1"),
        ({"chief": ["wait 3 exit 0"], "worker0": ["exit 2"]}, "-0 ended with code 2: order exit 2"),
    ],
)
def test_usage_errors_end_all_processes(
    tmp_path: Path, orders: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(LaunchError, match=message):
        run(tmp_path, orders)


def test_a_process_that_always_dies_ends_the_search(tmp_path: Path) -> None:
    endless = "import time; time.sleep(60)"
    endless_worker = command(
        tmp_path, {"chief": ["stay"], "worker0": ["abort"]}, f"if order == 'stay': {endless}"
    )
    with pytest.raises(LaunchError, match="died 5 times in a row"):
        launch(endless_worker, folder=tmp_path, workers=1, address="127.0.0.1:1")
    assert starts(tmp_path).count("worker0") == 5


@pytest.mark.parametrize(
    ("order", "oom_kills", "cause"),
    [
        ("abort", [0, 0], "own"),
        ("exit 1", [0, 0], "own"),
        ("kill", [0, 0], "unknown"),
        ("kill", [0, 1], "own"),  # out of memory
        ("terminate", [0, 0], "outside"),
        ("exit 75", [0, 0], "outside"),
    ],
)
def test_a_restarted_worker_knows_why_the_process_before_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, oom_kills: list[int], cause: str
) -> None:
    counts = iter([oom_kills[0], oom_kills[0], *[oom_kills[1]] * 9])  # chief, worker, later
    monkeypatch.setattr("tuning.engine.launcher._oom_kills", lambda: next(counts))
    run(tmp_path, {"chief": ["wait 2 pause exit 0"], "worker0": [order, "exit 0"]})
    causes = (tmp_path / "starts.causes").read_text().splitlines()
    assert causes[-1 if causes[-1].startswith("worker0") else -2] == f"worker0 {cause}"


def test_the_kernels_count_of_processes_killed_for_memory_is_read() -> None:
    if not Path("/proc/vmstat").exists():
        pytest.skip("needs Linux")
    lines = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    assert _oom_kills() == int(lines["oom_kill"])


@pytest.mark.parametrize("with_chief", [True, False])
def test_workers_of_the_chiefs_launcher_keep_their_names(tmp_path: Path, with_chief: bool) -> None:
    """So that they get their trials back at once; other launchers' have other names."""
    show = "import os; print(os.environ['KERASTUNER_TUNER_ID'])"
    for _ in range(2):
        launch(
            [sys.executable, "-c", show],
            folder=tmp_path,
            workers=1,
            address="127.0.0.1:1",
            with_chief=with_chief,
        )
    names = {log.stem for log in (tmp_path / "logs").iterdir()} - {"chief"}
    assert (names == {"worker-0"}) is with_chief
    assert len(names) == (1 if with_chief else 2)


def test_a_database_has_an_access_of_its_own() -> None:
    """HOST:PORT that others reach needs a secret's file; a database's address does not."""
    with pytest.raises(ValueError, match="Expected --secret-file with --join"):
        access_for(None, None, None, address=None, join="10.0.0.1:5000")
    assert access_for(None, None, None, address=None, join="sqlite:///a.db").secret
    assert access_for(None, None, None, address="sqlite:///a.db", join=None).secret


@pytest.mark.parametrize(("beats", "ends"), [(False, [70]), (True, [])])
def test_a_worker_whose_trial_makes_no_step_ends(monkeypatch, beats: bool, ends: list[int]) -> None:
    codes: list[int] = []
    monkeypatch.setattr(tuner.os, "_exit", codes.append)
    monkeypatch.setattr(tuner, "is_worker", lambda: True)
    one = object.__new__(tuner.SearchTuner)
    one._stall_seconds = 0.5
    with one._watched(Trial(HyperParameters(), trial_id="7")):
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and not codes:
            if beats:
                one._last_step = time.monotonic()
            time.sleep(0.01)
    assert codes[:1] == ends


@pytest.mark.slow
def test_no_process_outlives_the_launcher(tmp_path: Path) -> None:
    """The launcher is killed with -9; its processes detect the closed pipe."""
    child = (
        "import os, sys, time; sys.path[:] = " + repr(sys.path) + "\n"
        "from tuning.engine.launcher import exit_with_launcher\n"
        "exit_with_launcher()\n"
        f"open({str(tmp_path)!r} + '/' + str(os.getpid()) + '.pid', 'w').close()\n"
        "time.sleep(60)"
    )
    parent = (
        "import sys\nfrom pathlib import Path\nfrom tuning.engine.launcher import launch\n"
        f"launch([sys.executable, '-c', {child!r}], folder=Path({str(tmp_path)!r}), workers=1,"
        " address='127.0.0.1:1')"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
