"""The command line before it works: help, version, arguments; nothing heavy is imported for them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import lrc_ase
from lrc_ase.cli import app

COMMANDS = [
    "data",
    "train",
    "learn",
    "sample",
    "evaluate",
    "check",
    "select",
    "relax",
    "md",
    "spectrum",
    "dielectric",
    "lammps",
    "serve",
    "info",
    "models",
    "compile",
    "paper",
]
HEAVY = (
    "torch",
    "numba",
    "llvmlite",
    "matplotlib",
    "jinja2",
    "scipy",
    "ase",
    "matscipy",
    "pykeops",
    "pydantic",
    "numpy",
)
PROGRAM = """
import sys
from lrc_ase.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("IMPORTED", *sys.modules)
"""


def run(*arguments: str) -> tuple[str, set[str]]:
    """Return what a command prints in a process of its own, and the modules that it imports."""
    finished = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    output, _, modules = finished.stdout.partition("IMPORTED")
    return output, set(modules.split())


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]], ids=" ".join)
def test_help_and_version_load_no_heavy_library(arguments):
    _, modules = run(*arguments)
    assert "lrc_ase.cli" in modules
    assert not modules & set(HEAVY)
    assert [name for name in modules if name.startswith("lrc_ase.")] == ["lrc_ase.cli"]


@pytest.mark.parametrize("name", ["md", "relax", "serve", "lammps", "spectrum", "dielectric"])
def test_help_of_a_command_loads_no_heavy_library(name):
    output, modules = run(name, "--help")
    assert f"Usage: lrc-ase {name}" in output or f"{name} [OPTIONS]" in output
    assert not modules & (set(HEAVY) - {"pydantic"})  # typer's


def test_a_report_on_data_loads_neither_plots_nor_training():
    _, modules = run("data", "--help")
    assert not modules & {"matplotlib", "lrc_ase.training"}


def test_a_command_keeps_freed_memory(monkeypatch):
    calls = []
    monkeypatch.setattr("lrc_ase.layer.memory.keep_freed_memory", lambda: calls.append(True))
    CliRunner().invoke(app, ["info", "nacl"])
    assert calls == [True]


def test_help_lists_every_command_with_the_first_sentence_of_its_own_help():
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    for name in COMMANDS:
        (line,) = [
            line for line in result.output.splitlines() if line.startswith(f"\N{BOX DRAWINGS LIGHT VERTICAL} {name} ")
        ]
        summary = line.strip("\N{BOX DRAWINGS LIGHT VERTICAL} ").partition(" ")[2].strip()
        help_of_command = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
        assert help_of_command.exit_code == 0
        assert summary in help_of_command.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(name):
    output = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    assert max(map(len, output.splitlines())) <= 80


def test_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).output == f"lrc-ase {lrc_ase.__version__}\n"


def test_a_misspelt_command_is_answered_with_the_right_one():
    result = CliRunner().invoke(app, ["realx"])
    assert result.exit_code == 2
    assert "Did you mean 'relax'?" in result.output


@pytest.mark.parametrize(("words", "expected"), [("lrc-ase tr", "train"), ("lrc-ase train --ep", "--epochs")])
def test_shell_completes_commands_and_options(words, expected):
    environment = {"_LRC_ASE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    completed = CliRunner(env=environment).invoke(app, [], prog_name="lrc-ase")
    assert completed.output.split() == [expected]
