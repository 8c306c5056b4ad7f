"""Workflows and issue forms: they parse, and their commands match the project."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from keras_inception.cli import app

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from project_urls import with_urls  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def parsed(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands(path: Path) -> list[str]:
    steps = [step for job in parsed(path)["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_triggers_and_permissions(path: Path) -> None:
    workflow = parsed(path)
    assert workflow[True], "`on` is YAML's true"
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"].startswith(("ubuntu", "windows"))
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_extras_and_files_in_workflows_exist(path: Path) -> None:
    text = "\n".join(commands(path))
    extras = PROJECT["optional-dependencies"]
    groups = re.findall(r"\.\[([\w,]+)", text)
    named = {name for group in groups for name in group.split(",") if name}
    assert named <= set(extras)
    for file in re.findall(r"(?:tests|\.ci)/[\w/]+(?:\.\w+)?", text):
        assert (ROOT / file).exists(), file


def test_the_workflows_cover_versions_backends_and_releases() -> None:
    names = {path.stem: parsed(path) for path in WORKFLOWS}
    assert set(names) == {"docs", "release", "tests", "weekly"}
    jobs = names["tests"]["jobs"]
    supported = [line.split()[-1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == supported
    assert jobs["without-tensorflow"]["strategy"]["matrix"]["backend"] == ["jax", "torch"]
    assert names["weekly"][True]["schedule"]
    assert names["release"][True] == {"push": {"tags": ["v*"]}}
    publish = names["release"]["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}, "trusted publishing stores no token"


@pytest.mark.parametrize("path", [form for form in FORMS if form.stem != "config"])
def test_an_issue_form_has_its_required_fields(path: Path) -> None:
    form = parsed(path)
    assert {"name", "description", "body"} <= set(form)
    identifiers = [field["id"] for field in form["body"]]
    assert len(identifiers) == len(set(identifiers))
    assert all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.parametrize("name", ["core.txt", "smoke.txt"])
def test_a_list_of_tests_names_tests_that_exist(name: str) -> None:
    words = (ROOT / "tests" / name).read_text(encoding="utf-8").split()
    for word in words:
        file, _, function = word.partition("::")
        assert file == "--deselect" or (ROOT / file).exists(), file
        assert not function or f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


# --- The container ---


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile and their arguments, without comments."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip() and line[0] != "#"]
    return [(name, rest) for name, rest in pairs]


def test_the_container_copies_what_the_package_is_built_from() -> None:
    sources = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    copied = {source for group in sources for source in group}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "keras_inception", "tuning"}
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_container_installs_extras_that_exist_and_serves_as_another_user() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert names.index("USER") < names.index("ENTRYPOINT") < names.index("CMD")
    (install,) = [rest for name, rest in instructions() if "pip install" in rest]
    found = re.search(r"\.\[([\w,]+)\]", install)
    assert found is not None
    assert set(found[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_container_runs_a_command_with_options_that_exist() -> None:
    by_name = dict(instructions())
    program, command, *options = json.loads(by_name["ENTRYPOINT"])
    assert program in PROJECT["scripts"]
    result = CliRunner().invoke(app, [command, "--help"])
    for option, value in zip(options[::2], options[1::2], strict=True):
        assert option in result.output
        if option == "--port":
            assert value == by_name["EXPOSE"]
    assert json.loads(by_name["CMD"]) == ["/model/saved_model"]


def test_a_release_links_to_the_repository_that_builds_it() -> None:
    """The release workflow writes the links; the sources name no address."""
    assert "urls" not in PROJECT
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    written = tomllib.loads(with_urls(text, "https://example.org/us/it"))["project"]
    links = written.pop("urls")
    assert written == PROJECT
    assert links["Repository"] == "https://example.org/us/it"
    assert links["Documentation"] == "https://example.org/us/it/blob/main/docs/index.md"
    for link in (links["Documentation"], links["Changelog"]):
        assert (ROOT / link.partition("/blob/main/")[2]).is_file()
    for given in ("http://example.org", "us/it"):
        with pytest.raises(ValueError, match="Expected an https address"):
            with_urls(text, given)
    build = commands(ROOT / ".github" / "workflows" / "release.yml")
    writes = next(index for index, command in enumerate(build) if "project_urls.py" in command)
    assert writes < build.index("python -m build")
