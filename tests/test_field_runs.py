"""Runs and relaxations in an electric field, from Python and from the command line."""

import ase.io
import numpy as np
import pytest
from structures import potential, rattled_crystal
from typer.testing import CliRunner

from lrc_ase import LRCCalculator, save_potential
from lrc_ase.cli import app
from lrc_ase.simulation import MDSettings, run_md
from lrc_ase.simulation.restart import read_restart, write_restart

FIELD = (0.0, 0.1, -0.3)
SETTINGS = {"temperature": 300.0, "write_every": 2, "log_every": 1, "restart_every": 4, "extrapolate": True}


def crystal(field=FIELD):
    """Return ions in a slanted cell, some of them outside of it."""
    atoms = rattled_crystal()
    atoms.positions[3] -= atoms.cell[1]
    if field is not None:
        atoms.info["external_field"] = np.array(field)
    atoms.calc = LRCCalculator(potential())
    return atoms


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_a_resumed_run_in_a_field_equals_an_uninterrupted_one(ensemble, tmp_path):
    run_md(crystal(), MDSettings(ensemble, 8, **SETTINGS), tmp_path / "whole.traj")
    run_md(crystal(), MDSettings(ensemble, 4, **SETTINGS), tmp_path / "parts.traj")
    run_md(crystal(), MDSettings(ensemble, 8, **SETTINGS), tmp_path / "parts.traj", resume=True)
    whole, parts = (ase.io.read(tmp_path / f"{name}.traj", ":") for name in ("whole", "parts"))
    assert len(whole) == len(parts) == 5
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.get_forces(), other.get_forces())
        assert one.get_potential_energy() == other.get_potential_energy()
        np.testing.assert_array_equal(one.info["external_field"], FIELD)
    assert (tmp_path / "whole.csv").read_text() == (tmp_path / "parts.csv").read_text()


@pytest.mark.parametrize("other", [None, (0.0, 0.1, -0.2)])
def test_a_run_goes_on_in_its_own_field_only(other, tmp_path):
    run_md(crystal(), MDSettings("nvt", 2, **SETTINGS), tmp_path / "md.traj")
    now = "none" if other is None else "0.0 0.1 -0.2"
    with pytest.raises(ValueError, match=f"has the electric field 0.0 0.1 -0.3 V/Angstrom, not {now}: give the same"):
        run_md(crystal(other), MDSettings("nvt", 4, **SETTINGS), tmp_path / "md.traj", resume=True)


def test_field_of_the_calculator_belongs_to_the_run(tmp_path):
    atoms = crystal(None)
    atoms.calc = LRCCalculator(potential(), electric_field=FIELD)
    run_md(atoms, MDSettings("nvt", 2, **SETTINGS), tmp_path / "md.traj")
    with pytest.raises(ValueError, match=r"has electric_field 0\.0 0\.1 -0\.3, not none"):
        run_md(crystal(None), MDSettings("nvt", 4, **SETTINGS), tmp_path / "md.traj", resume=True)


def test_a_run_of_a_version_without_fields_goes_on_without_field(tmp_path):
    run_md(crystal(None), MDSettings("nvt", 2, **SETTINGS), tmp_path / "md.traj")
    restart = read_restart(tmp_path / "md.restart.npz")
    for name in ("external_field", "electric_field"):
        assert restart.settings.pop(name) == "none"
    write_restart(tmp_path / "md.restart.npz", restart)
    with pytest.raises(ValueError, match=r"has the electric field none V/Angstrom, not 0\.0 0\.1 -0\.3"):
        run_md(crystal(), MDSettings("nvt", 4, **SETTINGS), tmp_path / "md.traj", resume=True)
    run_md(crystal(None), MDSettings("nvt", 4, **SETTINGS), tmp_path / "md.traj", resume=True)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that calls a command on a crystal without field and returns its result."""
    monkeypatch.chdir(tmp_path)
    atoms = crystal(None)
    atoms.calc = None
    ase.io.write("start.extxyz", atoms)
    save_potential("potential.safetensors", potential())
    return lambda name, *words: CliRunner().invoke(app, [name, "potential.safetensors", "start.extxyz", *words])


def test_md_in_a_field_says_so_and_writes_it(command):
    words = ["-t", "300", "--steps", "2", "--extrapolate"]
    result = command("md", *words, "--field", "0", "0.1", "-0.3")
    assert result.exit_code == 0, result.output
    assert "2 steps of 1 fs, 300 K, field 0 0.1 -0.3 V/Angstrom\n" in result.output
    assert "\nfield 0 0.1 -0.3 V/Angstrom\nend: " in result.output
    in_field = ase.io.read("md.traj")
    np.testing.assert_array_equal(in_field.info["external_field"], FIELD)
    assert command("md", *words, "--overwrite").exit_code == 0
    assert np.abs(ase.io.read("md.traj").get_forces() - in_field.get_forces()).max() > 0.01


def test_relaxation_goes_another_way_in_a_field(command):
    for name, words in {"plain": [], "field": ["--field", "0", "0", "0.2"]}.items():
        result = command("relax", "--fmax", "0.6", "-o", f"{name}.extxyz", *words)
        assert "largest force" in result.output
        assert ("field 0 0 0.2 V/Angstrom" in result.output) == bool(words)
    plain, in_field = (ase.io.read(f"{name}.extxyz") for name in ("plain", "field"))
    assert np.abs(plain.positions - in_field.positions).max() > 1e-4
    np.testing.assert_array_equal(in_field.info["external_field"], [0, 0, 0.2])


@pytest.mark.parametrize("name", ["md", "relax"])
def test_a_field_in_another_unit_is_one_line(name, command):
    result = command(name, "--field", "0", "0", "1e8", *(["-t", "300"] if name == "md" else []))
    assert result.exit_code == 1
    assert "Error: --field is 1e+08 V/Angstrom strong, more than 10: check its unit;" in " ".join(result.output.split())
