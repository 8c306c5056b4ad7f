"""The scripts of docs/clusters.md: parsed, and run with substitutes for SLURM's commands."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml

from keras_inception.cli import app
from tuning.engine.access import chosen_secret

PAGE = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text(encoding="utf-8")
BASH = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
JOBS = [block for block in BASH if block.startswith("#!")]
MANIFESTS = [
    document
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for document in yaml.safe_load_all(block)
]
HOSTS = ["node1", "node2"]

# Options of sbatch (its manual) and the form of their values.
SBATCH = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "gpus-per-node": r"\d+",
    "time": r"\d\d:\d\d:\d\d",
    "signal": r"TERM@\d+",
    "requeue": "",
    "output": r"%x-%j\.log",
}
# `srun` starts its command once for each host; what it prints is one line for each process.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
status=0
for index in $(seq 0 $(($SLURM_NTASKS - 1))); do
    SLURM_PROCID=$index "$@" || status=$?
done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo "$HOSTS" | tr ' ' '\\n'; else echo "$@" >> requeued; fi
"""
PACKAGE = """#!/usr/bin/env python3
import json, os, sys
names = ("TF_CONFIG", "KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_PROCESS_ID")
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}]))
sys.exit(int(os.environ["STATUS"]))
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def started(folder: Path, script: str, hosts: list[str], *, status: int = 0, **more: str) -> list:
    """Run a script; return (arguments, environment) of each `keras-inception` that it starts."""
    executable(folder / "bin" / "srun", SRUN)
    executable(folder / "bin" / "scontrol", SCONTROL)
    executable(folder / "bin" / "keras-inception", PACKAGE)
    executable(folder / ".venv" / "bin" / "keras-inception", PACKAGE)
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NAME": "job",
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": str(len(hosts)),
        "HOSTS": " ".join(hosts),
        "HOME": str(folder),
        "STATUS": str(status),
        **more,
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return the options as the command line reads them; an unknown one is an error."""
    group: Any = typer.main.get_command(app)
    name, command, rest = group.resolve_command(typer.Context(group), arguments)
    return command.make_context(name, rest).params


@pytest.mark.parametrize("script", BASH)
def test_scripts_have_valid_syntax(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", JOBS)
def test_sbatch_directives_are_known(script: str) -> None:
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert len(lines) == len(SBATCH)
    for line in lines:
        name, _, value = line.removeprefix("#SBATCH --").partition("=")
        assert re.fullmatch(SBATCH[name], value), line


@pytest.mark.parametrize("script", JOBS)
def test_a_job_that_exits_with_75_is_queued_again(script: str, tmp_path: Path) -> None:
    started(tmp_path, script, HOSTS, status=75)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    (tmp_path / "requeued").unlink()
    started(tmp_path, script, HOSTS, status=2)
    assert not (tmp_path / "requeued").exists()


def test_the_job_on_one_node(tmp_path: Path) -> None:
    ((arguments, _),) = started(tmp_path, JOBS[0], HOSTS[:1])
    assert parsed(arguments)["strategy"] == "mirrored"


def test_the_job_on_several_nodes(tmp_path: Path) -> None:
    workers = started(tmp_path, JOBS[1], HOSTS)
    for index, (arguments, environment) in enumerate(workers):
        assert parsed(arguments)["strategy"] == "multi-worker"
        assert json.loads(environment["TF_CONFIG"]) == {
            "cluster": {"worker": ["node1:2222", "node2:2222"]},
            "task": {"type": "worker", "index": index},
        }
    assert len(workers) == 2


def test_the_job_under_jax(tmp_path: Path) -> None:
    """The two lines take the place of the two before `exec`."""
    (replacement,) = (block for block in BASH if "KERAS_DISTRIBUTION" in block)
    script = re.sub(r"    task=.*?(?=    exec)", lambda _: replacement, JOBS[1], flags=re.DOTALL)
    assert "TF_CONFIG" not in script
    found = [environment for _, environment in started(tmp_path, script, HOSTS)]
    assert [worker["KERAS_DISTRIBUTION_PROCESS_ID"] for worker in found] == ["0", "1"]
    addresses = {worker["KERAS_DISTRIBUTION_JOB_ADDRESSES"] for worker in found}
    assert addresses == {"node1:2222,node2:2222"}


def test_the_search_has_one_chief(tmp_path: Path) -> None:
    options = [parsed(arguments) for arguments, _ in started(tmp_path, JOBS[2], [*HOSTS, "node3"])]
    assert [option["address"] for option in options] == ["node1:5000", None, None]
    assert [option["join"] for option in options] == [None, "node1:5000", "node1:5000"]
    (secret,) = {option["secret_file"] for option in options}
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(chosen_secret(secret, may_create=False)) == 64  # 32 bytes in hexadecimal
    before = secret.read_text()
    started(tmp_path, JOBS[2], HOSTS)
    assert secret.read_text() == before, "a job that is queued again keeps its secret"


def manifest(kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        document
        for document in MANIFESTS
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return found


def test_manifests_have_known_kinds() -> None:
    versions = {"Service": "v1", "Job": "batch/v1", "Deployment": "apps/v1"}
    assert len(MANIFESTS) == 4
    for document in MANIFESTS:
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        assert document["apiVersion"] == versions[document["kind"]]


@pytest.mark.parametrize(("kind", "name"), [("Job", "inception"), ("Deployment", "googlenet")])
def test_every_mounted_volume_is_declared(kind: str, name: str) -> None:
    pod = manifest(kind, name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_workers_of_the_job(tmp_path: Path) -> None:
    """Each pod's command; the host names are those that an indexed Job and its Service give."""
    job, service = manifest("Job", "inception"), manifest("Service", "inception")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (port,) = (entry["containerPort"] for entry in container["ports"])
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"  # headless: a name for each pod
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    hosts = [f"{job['metadata']['name']}-{index}.{pod['subdomain']}:{port}" for index in range(2)]
    assert container["command"] == ["bash", "-c"]
    for index in range(2):
        more = {"JOB_COMPLETION_INDEX": str(index)}
        ((arguments, environment),) = started(tmp_path, container["args"][0], [], **more)
        config = json.loads(environment["TF_CONFIG"])
        assert config["cluster"]["worker"] == hosts
        assert config["task"] == {"type": "worker", "index": index}
        assert parsed(arguments)["out"] == Path("/runs/inception")
    assert container["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]


def test_the_service_finds_the_pods_that_serve() -> None:
    deployment, service = manifest("Deployment", "googlenet"), manifest("Service", "googlenet")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    (container,) = template["spec"]["containers"]
    (port,) = (entry["containerPort"] for entry in container["ports"])
    assert service["spec"]["ports"][0]["targetPort"] == port == 8501
    name = container["env"][0]["value"]
    assert container["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{name}", "port": port}
