"""Options of `lrc-ase train`, `md` and `relax` arrive in the settings that they name."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field
from typing import Any

import ase.io
import pytest
import torch
import typer
from ase import Atoms
from ase.build import bulk
from structures import potential, settings
from typer.testing import CliRunner

import lrc_ase.simulation
from lrc_ase import save_potential, train
from lrc_ase.cli import app
from lrc_ase.dataset import LabelKeys

DYNAMICS: dict[str, tuple[str, Any]] = {
    "--ensemble": ("ensemble", "npt"),
    "--temperature": ("temperature", 321.0),
    "--steps": ("steps", 7),
    "--timestep": ("timestep", 0.5),
    "--pressure": ("pressure", 2.5),
    "--npt-mode": ("npt_mode", "flexible"),
    "--friction": ("friction", 0.05),
    "--thermostat-time": ("thermostat_time", 77.0),
    "--barostat-time": ("barostat_time", 770.0),
    "--seed": ("seed", 5),
    "--log-every": ("log_every", 3),
    "--write-every": ("write_every", 4),
    "--current-every": ("current_every", 4),
    "--restart-every": ("restart_every", 6),
    "--max-temperature": ("max_temperature", 1234.0),
    "--extrapolate": ("extrapolate", True),
}
RELAXATION: dict[str, tuple[str, Any]] = {
    "--fmax": ("fmax", 0.5),
    "--cell": ("cell", True),
    "--pressure": ("pressure", 2.5),
    "--optimizer": ("optimizer", "fire"),
    "--steps": ("max_steps", 7),
}
TRAINING: dict[str, tuple[str, Any]] = {
    "--model": ("model", "accurate"),
    "--cutoff": ("cutoff", 4.5),
    "--from": ("start", "nacl"),
    "--ensemble": ("ensemble", 2),
    "--epochs": ("epochs", 3),
    "--batch-size": ("batch_size", 2),
    "--patience": ("patience", 5),
    "--time-limit": ("time_limit", 1.5),
    "--seed": ("seed", 4),
    "--watch": ("watch", ["old.traj"]),
    "--cache": ("cache", "folder"),
    "--skip-unlabelled": ("skip_unlabelled", True),
    "--device": ("device", "cuda"),
    "--dtype": ("dtype", "float64"),
    "--threads": ("n_threads", 2),
    "--short-range": ("short_range", True),
    "--validation": ("validation", ["v.traj"]),
    "--test": ("test", ["t.traj"]),
    "--small": ("small", ["s.traj"]),
    "--large": ("large", ["l.traj"]),
    "--resume": ("resume", True),
    "--quiet": ("quiet", True),
    "--set": ("settings", {"model.hidden": [8]}),
    "--energy-key": ("keys", LabelKeys(energy="E")),
    "--forces-key": ("keys", LabelKeys(forces="F")),
    "--stress-key": ("keys", LabelKeys(stress="S")),
    "--virial-key": ("keys", LabelKeys(virial="V")),
    "--charge-key": ("keys", LabelKeys(charge="Q")),
    "--dipole-key": ("keys", LabelKeys(dipole="D")),
    "--born-key": ("keys", LabelKeys(born_effective_charges="Z")),
    "--polarizability-key": ("keys", LabelKeys(polarizability="A")),
}
"""Options of `lrc-ase train`: keyword of `lrc_ase.train` and value."""
WORDS = {
    "--set": "model.hidden=[8]",
    "--energy-key": "E",
    "--forces-key": "F",
    "--stress-key": "S",
    "--virial-key": "V",
    "--charge-key": "Q",
    "--dipole-key": "D",
    "--born-key": "Z",
    "--polarizability-key": "A",
}
"""Words on the command line where they are not those of the value."""
OTHERWISE = {
    "--field",
    "--output",
    "--repeat",
    "--resume",
    "--overwrite",
    "--device",
    "--dtype",
    "--threads",
    "--debug",
    "--help",
}
"""Options of no settings; tests below or in test_cli.py use them."""


@dataclass
class Called:
    """Arguments that a command passed on."""

    atoms: Atoms
    settings: Any
    output: Any = None
    keywords: dict[str, Any] = field(default_factory=dict)


class Stop(Exception):
    """Ends a command once the settings are known."""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Return a function that calls a command and returns what reached the simulation."""
    ase.io.write(tmp_path / "start.extxyz", bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    save_potential(tmp_path / "potential.safetensors", potential(settings()))
    seen: list[Called] = []

    def stand_in(atoms: Atoms, chosen: Any, output: Any = None, **keywords: Any) -> None:
        seen.append(Called(atoms, chosen, output, keywords))
        raise Stop

    monkeypatch.setattr(lrc_ase.simulation, "run_md", stand_in)
    monkeypatch.setattr(lrc_ase.simulation, "relax", stand_in)
    monkeypatch.chdir(tmp_path)

    def run(command: str, *options: str) -> Called:
        seen.clear()
        result = CliRunner().invoke(app, [command, "potential.safetensors", "start.extxyz", *options, "--debug"])
        assert isinstance(result.exception, Stop), result.output
        return seen[0]

    return run


def options_of(command: str) -> set[str]:
    """Return the long options of a command."""
    group = typer.main.get_command(app)
    context = typer.Context(group)
    _, resolved, _ = group.resolve_command(context, [command])  # type: ignore[attr-defined]
    return {name for option in resolved.get_params(context) for name in option.opts if name.startswith("--")}


def test_every_option_of_md_and_relax_has_a_case():
    assert options_of("md") == set(DYNAMICS) | OTHERWISE
    assert options_of("relax") - OTHERWISE == set(RELAXATION)


def test_every_option_of_train_has_a_case():
    pretraining = {
        "--pretrain",
        "--teacher-options",
        "--pretrain-frames",
        "--pretrain-epochs",
        "--pretrain-dipoles",
    }  # test_cli_pretraining.py and test_kept_dipoles.py
    assert options_of("train") == set(TRAINING) | pretraining | {"--output", "--template", "--debug", "--help"}


@pytest.mark.parametrize("option", TRAINING)
def test_option_of_train_arrives_in_its_keyword(option, monkeypatch):
    seen: list[dict[str, Any]] = []
    command = importlib.import_module("lrc_ase.cli.train")
    monkeypatch.setattr(command, "train_potential", lambda *words, **keywords: seen.append(keywords))
    monkeypatch.setattr(command, "report_run", str)
    name, value = TRAINING[option]
    word = WORDS.get(option, value[0] if isinstance(value, list) else value)
    for words in ([], [option] if value is True else [option, str(word)]):
        result = CliRunner().invoke(app, ["train", "frames.traj", *words])
        assert result.exit_code == 0, result.output
    without, changed = (keywords[name] for keywords in seen)
    assert without != value
    assert changed == value


def test_keywords_of_train_are_shown_one_by_one():
    shown = inspect.signature(train).parameters
    assert {"model", "cutoff", "n_threads", "small"} <= set(shown)
    assert all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in shown.values())


@pytest.mark.parametrize("option", DYNAMICS)
def test_option_of_md_arrives_in_its_setting(call, option):
    name, value = DYNAMICS[option]
    words = [option] if value is True else [option, str(value)]
    assert getattr(call("md", "-t", "300").settings, name) != value
    assert getattr(call("md", "-t", "300", *words).settings, name) == value


@pytest.mark.parametrize("option", RELAXATION)
def test_option_of_relax_arrives_in_its_setting(call, option):
    name, value = RELAXATION[option]
    words = [option] if value is True else [option, str(value)]
    cell = ["--cell"] if option == "--pressure" else []
    assert getattr(call("relax", *cell).settings, name) != value
    assert getattr(call("relax", *cell, *words).settings, name) == value


@pytest.mark.parametrize("command", ["md", "relax"])
def test_structure_device_precision_and_threads_arrive(call, command, monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    temperature = ["--temperature", "300"] if command == "md" else []
    plain = call(command, *temperature)
    changed = call(command, *temperature, "--dtype", "float32", "--threads", "3")
    assert next(plain.atoms.calc.model.parameters()).dtype == torch.float64
    assert next(changed.atoms.calc.model.parameters()).dtype == torch.float32
    assert told == [3]


@pytest.mark.parametrize("command", ["md", "relax"])
def test_field_arrives_in_the_structure(call, command):
    temperature = ["--temperature", "300"] if command == "md" else []
    assert "external_field" not in call(command, *temperature).atoms.info
    assert call(command, *temperature, "--field", "0", "0.1", "-0.2").atoms.info["external_field"].tolist() == [
        0,
        0.1,
        -0.2,
    ]


def test_structure_of_md_is_repeated(call):
    assert len(call("md", "-t", "300", "--repeat", "2,1,1").atoms) == 2 * len(call("md", "-t", "300").atoms)


def test_ways_to_begin_a_run_arrive(call):
    for option in ("--resume", "--overwrite"):
        name = option.removeprefix("--")
        assert call("md", "-t", "300").keywords[name] is False
        assert call("md", "-t", "300", option).keywords[name] is True
    assert str(call("md", "-t", "300", "--output", "other.traj").output) == "other.traj"
