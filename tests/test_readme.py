"""The README: its family table is current, its commands exist, its example runs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_inception.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_family_table_matches_the_counted_costs():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import family_table
    finally:
        sys.path.pop(0)
    shown = README.split(family_table.BEGIN)[1].split(family_table.END)[0]
    assert shown == family_table.family_table(), "run: python scripts/family_table.py"


def test_family_table_has_the_published_counts():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", README, flags=re.MULTILINE))
    assert "6,998,552 | 1,582,671,872" in rows["paper"]
    assert "6,624,904 | 1,498,376,192" in rows["torchvision"]  # torchvision's own table


def test_exactly_two_set_up_commands():
    commands = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/keras-inception train")
    assert commands[1].endswith(".venv/bin/pytest")


@pytest.mark.parametrize("command", re.findall(r"`keras-inception (\w[\w-]*)", README))
def test_every_command_named_exists(command):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_the_example_runs():
    code = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    assert len(ast.parse(code).body) <= 5
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "macs=1582671872" in result.stdout
