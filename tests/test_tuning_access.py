"""The chief's service over gRPC: what strangers, leftovers and wrong results get."""

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import keras_tuner
import pytest
from keras_tuner.engine.trial import TrialStatus
from processes import free_ports

from tuning.engine import service
from tuning.engine.access import Access, access_for, chosen_secret, is_loopback
from tuning.engine.keras_tuner_compat import make_stub, messages
from tuning.engine.oracles import RandomOracle
from tuning.engine.service import ChiefLostError, RetryingClient

SECRET = "correct-horse-battery"


def make_oracle(folder: Path, trials: int = 2) -> Any:
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0, step=1 / 64, default=0.5)
    made = RandomOracle(
        objective=keras_tuner.Objective("score", "max"),
        max_trials=trials,
        hyperparameters=space,
        seed=1,
        bounds={"score": (0.0, 1.0)},
        lease_seconds=1.0,  # of trials that a test leaves behind
    )
    made.verbose = 0
    made._set_project_dir(str(folder), "search")
    return made


Client = Callable[..., RetryingClient]


@contextmanager
def chief(folder: Path, monkeypatch: pytest.MonkeyPatch, access: Access) -> Iterator[Client]:
    """Serve an oracle in a thread; clients with the access's or other secrets."""
    port = str(free_ports(1)[0])
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", port)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker")

    def use(one: Access) -> None:
        for name, value in one.to_environment().items():
            monkeypatch.setenv(name, value)

    def client(other: Access = access) -> RetryingClient:
        use(other)
        return RetryingClient(make_oracle(folder / "worker"), retry_seconds=20.0)

    use(access)
    oracle = make_oracle(folder)
    thread = threading.Thread(target=service.serve, args=(oracle,))
    thread.start()
    client().get_space()  # it serves
    yield client
    last = client()  # the search is run to its end, whatever went before
    while (trial := last.create_trial("last")).status != TrialStatus.STOPPED:
        if trial.status == TrialStatus.RUNNING:
            last.update_trial(trial.trial_id, {"score": 0.5})
            trial.status = TrialStatus.COMPLETED
            last.end_trial(trial)
    thread.join()
    assert [trial.status for trial in oracle.trials.values()] == ["COMPLETED"] * 2


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with chief(tmp_path, monkeypatch, Access(secret=SECRET)) as client:
        yield client


CALLS: dict[str, tuple[str, Any]] = {
    "GetSpace": ("GetSpace", messages.GetSpaceRequest()),
    "UpdateSpace": ("UpdateSpace", messages.UpdateSpaceRequest()),
    "CreateTrial": ("CreateTrial", messages.CreateTrialRequest(tuner_id="stranger")),
    "UpdateTrial": ("UpdateTrial", messages.UpdateTrialRequest(trial_id="0")),
    "EndTrial": ("EndTrial", messages.EndTrialRequest()),
    "GetTrial": ("GetTrial", messages.GetTrialRequest(trial_id="0")),
    "GetBestTrials": ("GetBestTrials", messages.GetBestTrialsRequest(num_trials=1)),
}


def test_every_call_needs_the_secret(clients: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, another, a prefix, one more letter; every call of the protocol."""
    address = f"127.0.0.1:{os.environ['KERASTUNER_ORACLE_PORT']}"
    key = "keras-inception-secret"
    wrong: list[list[tuple[str, str]]] = [
        [],
        [(key, "")],
        [(key, "another-secret-of-length")],
        [(key, SECRET[:-1])],
        [(key, SECRET + "x")],
        [("other-key", SECRET)],
    ]
    with grpc.insecure_channel(address) as channel:
        stub = make_stub(channel)
        for name, request in CALLS.values():
            for metadata in wrong:
                with pytest.raises(grpc.RpcError) as error:
                    getattr(stub, name)(request, metadata=metadata)
                assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED, name
    assert set(CALLS) == {name for name in dir(service.OracleServicer) if name[0].isupper()}


def test_a_stranger_that_sends_no_message_holds_nobody_up(clients: Client) -> None:
    """Its call begins, without the secret, and its message never comes."""
    service_name = messages.DESCRIPTOR.services_by_name["Oracle"].full_name
    ended = threading.Event()

    def no_message() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{os.environ['KERASTUNER_ORACLE_PORT']}") as channel:
        call = channel.stream_unary(f"/{service_name}/GetSpace").future(no_message())
        try:
            assert call.exception(timeout=20).code() == grpc.StatusCode.UNAUTHENTICATED
            assert clients().get_space().space
        finally:
            ended.set()


def test_a_worker_with_another_secret_ends_with_the_remedy(clients: Client) -> None:
    with pytest.raises(ChiefLostError, match="same --secret-file"):
        clients(Access(secret="another-secret-of-length")).create_trial("stranger")


def test_unknown_trials_are_refused_and_the_chief_goes_on(clients: Client) -> None:
    """A worker left over from a deleted folder; `clients` runs the search to its end."""
    left_over = clients()
    for call in (
        lambda: left_over.update_trial("77", {"score": 0.5}),
        lambda: left_over.get_trial("77"),
    ):
        with pytest.raises(ChiefLostError, match="no trial '77'"):
            call()
    trial = left_over.create_trial("worker")
    trial.trial_id, trial.status = "77", TrialStatus.COMPLETED
    with pytest.raises(ChiefLostError, match="left over from another search"):
        left_over.end_trial(trial)


@pytest.mark.parametrize(
    "results",
    [
        *({"score": score} for score in (1.5, -1.0, float("nan"), float("inf"))),
        {},
        {"other": 0.5},
        {"score": 0.5, "other": float("inf")},
        {"score": 0.5, "stopped_epoch": 0.0},
        {"score": 0.5} | {str(number): 0.5 for number in range(100_000)},
    ],
)
def test_results_that_cannot_be_are_refused(
    clients: Client, results: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    """The worker gets the reason, which becomes that of the trial; the chief logs it."""
    client = clients()
    trial = client.create_trial("worker")
    with pytest.raises(ValueError, match="Expected") as refused:
        client.update_trial(trial.trial_id, results)
    assert len(str(refused.value)) < 500
    assert "Refused UpdateTrial of ipv4:127.0.0.1" in caplog.text
    client.update_trial(trial.trial_id, {"score": 1.0})
    trial.status = TrialStatus.COMPLETED
    trial.hyperparameters.values["x"] = 9.0
    with pytest.raises(ValueError, match="Expected hyperparameters"):
        client.end_trial(trial)


def test_hyperparameters_outside_the_space_are_refused(clients: Client) -> None:
    strange = keras_tuner.HyperParameters()
    strange.Float("y", 0.0, 1.0)
    with pytest.raises(grpc.RpcError) as error:
        clients().update_space(strange)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_chief_without_a_secret_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERAS_INCEPTION_TUNING_SECRET", raising=False)
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_ports(1)[0]))
    with pytest.raises(ValueError, match="Expected the secret of the search in KERAS_INCEPTION"):
        service.serve(make_oracle(tmp_path))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 by openssl; its key is beside it."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *(
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=chief",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem"


def test_calls_are_encrypted_with_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    access = Access(secret=SECRET, certificate=certificate, key=certificate.with_name("key.pem"))
    with chief(tmp_path, monkeypatch, access) as client:
        assert client().create_trial("worker").status == TrialStatus.RUNNING
        address = f"127.0.0.1:{os.environ['KERASTUNER_ORACLE_PORT']}"
        with Access(secret=SECRET).channel(address, []) as plain:
            with pytest.raises(grpc.RpcError) as error:
                make_stub(plain).GetSpace(messages.GetSpaceRequest())
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", ["other key", "no PEM", "key alone", "no file", "pipe"])
def test_certificates_that_do_not_fit_are_refused(
    tmp_path: Path, certificate: Path, kind: str
) -> None:
    key = certificate.with_name("key.pem")
    secret = tmp_path / "secret"
    other = tmp_path / "other.pem"
    if kind == "other key":
        command = "openssl ecparam -name prime256v1 -genkey -noout -out"
        subprocess.run([*command.split(), str(other)], check=True, capture_output=True)
    elif kind == "key alone":
        other.write_bytes(key.read_bytes())
    elif kind == "no PEM":
        other.write_text("nothing")
    elif kind == "pipe":
        os.mkfifo(other)
    pair = (certificate, other) if kind == "other key" else (other, key)
    with pytest.raises(ValueError, match="Expected a certificate as a PEM file"):
        access_for(secret, *pair, address="127.0.0.1:5000", join=None)
    if kind != "other key":
        with pytest.raises(ValueError, match="Expected a certificate as a PEM file"):
            access_for(secret, other, None, address=None, join="127.0.0.1:5000")
    assert not secret.exists()
    assert access_for(secret, certificate, key, address="127.0.0.1:5000", join=None).key == key


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:5000", True),
        ("127.1.2.3:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("0.0.0.0:5000", False),
        ("[::]:5000", False),
        ("10.0.0.1:5000", False),
        (":5000", False),
        ("no.such.host.invalid:5000", False),
    ],
)
def test_addresses_that_other_machines_reach(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


def test_a_secret_is_created_for_its_owner_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    made = access_for(file, None, None, address="0.0.0.0:5000", join=None)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(made.secret) >= 32
    again = access_for(file, None, None, address="0.0.0.0:5000", join=None)
    joined = access_for(file, None, None, address=None, join="10.0.0.1:5000")
    assert again == joined == made
    assert chosen_secret(None, may_create=False) != chosen_secret(None, may_create=False)


@pytest.mark.parametrize(
    "secret",
    ["", "short", "has a blank inside it", "ümlaut-in-the-secret", "a" * 20 + "\n", "a" * 1001],
)
def test_secrets_that_cannot_be_sent_are_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="Expected a secret of at least 16"):
        Access(secret=secret)


def test_the_longest_secret_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chief(tmp_path, monkeypatch, Access(secret="s" * 1000)) as client:
        assert client().get_space().space


def test_a_secret_is_not_shown_with_its_access() -> None:
    assert SECRET not in repr(Access(secret=SECRET))


@pytest.mark.parametrize("kind", ["pipe", "folder", "bytes", "link to nothing", "no folder"])
def test_a_secret_is_read_from_a_text_file_alone(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "secret"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "bytes":
        file.write_bytes(bytes(range(128, 168)))
    elif kind == "link to nothing":
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file = tmp_path / "missing" / "secret"
    with pytest.raises(ValueError, match="Expected a file with the secret") as refused:
        chosen_secret(file, may_create=True)
    assert str(file) in str(refused.value)
    assert not (tmp_path / "elsewhere").exists()


def test_a_taken_port_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("KERAS_INCEPTION_TUNING_SECRET", SECRET)
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(taken.getsockname()[1]))
        with pytest.raises(ValueError, match="Expected a free port"):
            service.serve(make_oracle(tmp_path))
