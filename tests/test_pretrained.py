"""Potentials by name, and how ASE finds the calculator."""

import subprocess
import sys
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.spacegroup import crystal
from matscipy.neighbours import neighbour_list
from structures import potential, rattled_crystal
from typer.testing import CliRunner

import lrc_ase
import lrc_ase.files.pretrained
from lrc_ase import LRCCalculator, save_potential
from lrc_ase.cli import app
from lrc_ase.files.errors import PotentialFileError, ShadowedNameWarning
from lrc_ase.files.pretrained import absolute_potential, find_potential, is_potential, trained_potential
from lrc_ase.training.configuration import parse_configuration

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package `lrc_ase.potentials` with one trained potential, found as an installed one would be."""
    folder = tmp_path / "potentials" / "trained" / "table_salt"
    folder.mkdir(parents=True)
    (tmp_path / "potentials" / "__init__.py").touch()
    save_potential(folder / "potential.safetensors", potential())
    (folder / "README.md").write_text("# table_salt: crystals for the kitchen\n\nMore.\n")
    ase.io.write(folder / "start.extxyz", rattled_crystal())

    class Spec:
        submodule_search_locations = (str(tmp_path / "potentials"),)

    monkeypatch.setattr(
        lrc_ase.files.pretrained, "find_spec", lambda name: Spec if name == "lrc_ase.potentials" else None
    )
    return folder


def test_a_shipped_potential_loads_by_its_name(shipped):
    atoms = rattled_crystal()
    expected = LRCCalculator(potential()).get_potential_energy(atoms)
    for calculator in (LRCCalculator.from_pretrained("table_salt", skin=0.3), lrc_ase.load("table_salt", skin=0.3)):
        assert calculator.get_potential_energy(atoms) == expected
        assert calculator.neighbor_list.skin == 0.3


def test_load_takes_files_and_run_folders_too(shipped):
    expected = LRCCalculator(potential()).get_potential_energy(rattled_crystal())
    for place in (shipped, shipped / "potential.safetensors", str(shipped / "potential.safetensors")):
        for load in (lrc_ase.load, LRCCalculator):
            assert load(place).get_potential_energy(rattled_crystal()) == expected


def test_an_unknown_name_lists_the_shipped_ones(shipped):
    for ask in (lrc_ase.load, LRCCalculator, LRCCalculator.from_pretrained, lrc_ase.load_potential):
        with pytest.raises(PotentialFileError, match=r"shipped potential is called 'pepper'; shipped are: table_salt"):
            ask("pepper")


def test_without_any_potential_installed_the_error_says_so(monkeypatch):
    monkeypatch.setattr(lrc_ase.files.pretrained, "find_spec", lambda name: None)
    for ask in (lrc_ase.load, LRCCalculator.from_pretrained):
        with pytest.raises(ValueError, match="no potential is shipped with this installation"):
            ask("pepper")


@pytest.mark.parametrize("path", ["pepper.safetensors", "runs/pepper", "a\0b.safetensors"])
def test_a_missing_file_is_a_missing_file(path):
    with pytest.raises(PotentialFileError, match="does not exist: expected a potential file or a run folder"):
        lrc_ase.load(path)


def test_a_local_run_folder_takes_precedence_over_a_shipped_name_with_a_warning(shipped, tmp_path, monkeypatch):
    folder = tmp_path / "work" / "table_salt"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    with pytest.warns(ShadowedNameWarning, match=r"holds no potential\.safetensors: taking the shipped .*'table_salt'"):
        assert find_potential("table_salt") == shipped / "potential.safetensors"
    assert not is_potential(folder)
    (folder / "potential.safetensors").write_bytes(b"")
    with pytest.warns(ShadowedNameWarning, match=r"taking the local .*not the shipped potential 'table_salt'"):
        assert find_potential("table_salt") == Path("table_salt", "potential.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_potential("./table_salt") == Path("table_salt", "potential.safetensors")
        assert trained_potential("table_salt") == shipped / "potential.safetensors"
    assert is_potential(folder)


def test_a_run_folder_without_its_final_potential_names_those_of_its_stages(tmp_path):
    with pytest.raises(PotentialFileError, match="a run writes it after its first validation"):
        find_potential(tmp_path)
    (tmp_path / "potential-first.safetensors").touch()
    with pytest.raises(PotentialFileError, match=r"name one of potential-first\.safetensors in it"):
        find_potential(tmp_path)


def test_a_name_stays_a_name_and_a_path_becomes_absolute(shipped, tmp_path):
    assert absolute_potential("table_salt", tmp_path) == "table_salt"
    assert absolute_potential("pepper", tmp_path) == str(tmp_path / "pepper")
    assert absolute_potential("../run/p.safetensors", tmp_path / "here") == str(tmp_path / "run" / "p.safetensors")
    (tmp_path / "table_salt").mkdir()
    (tmp_path / "table_salt" / "potential.safetensors").touch()
    assert absolute_potential("table_salt", tmp_path) == str(tmp_path / "table_salt")


def test_the_start_of_a_training_may_be_a_shipped_name(shipped, tmp_path):
    content = {"data": {"a": {"train": "x.extxyz"}}, "stages": [{"name": "one"}]}
    for start, expected in (("table_salt", "table_salt"), ("run", str(tmp_path / "run")), (None, None)):
        assert parse_configuration(content | {"start": start}, folder=tmp_path).start == expected


def test_a_shipped_potential_brings_a_structure_along(shipped):
    assert np.allclose(lrc_ase.start_structure("table_salt").positions, rattled_crystal().positions, atol=1e-7)
    with pytest.raises(PotentialFileError, match="shipped are: table_salt"):
        lrc_ase.start_structure("pepper")
    (shipped / "start.extxyz").unlink()
    with pytest.raises(PotentialFileError, match="'table_salt' brings no structure along"):
        lrc_ase.start_structure("table_salt")


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["md", "--ensemble", "nve", "--temperature", "10", "--steps", "1"], "md.traj"),
        (["relax", "--fmax", "1000"], "r.traj"),
    ],
)
def test_commands_take_the_structure_of_a_shipped_potential(shipped, tmp_path, monkeypatch, command, output):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, [*command[:1], "table_salt", *command[1:], "--output", output])
    assert run.exit_code == 0, run.output
    assert np.allclose(ase.io.read(output, 0).positions, rattled_crystal().positions, atol=1e-7)
    (shipped / "start.extxyz").unlink()
    run = CliRunner().invoke(app, [*command[:1], "table_salt", *command[1:], "--output", output, "--overwrite"])
    assert run.exit_code == 1
    assert "no structure is given, and table_salt brings none along" in run.output


def test_the_list_of_shipped_potentials_shows_titles_elements_and_cards(shipped, monkeypatch):
    run = CliRunner().invoke(app, ["models"])
    assert run.exit_code == 0
    assert "table_salt  crystals for the kitchen (H O Na Cl)" in run.output
    assert str(shipped / "README.md") in run.output
    (shipped / "potential.safetensors").unlink()
    assert "no potential is shipped" in CliRunner().invoke(app, ["models"]).output


@pytest.mark.parametrize("name", lrc_ase.files.pretrained.trained_potentials())
def test_every_shipped_potential_has_a_card_and_a_structure_in_its_domain(name):
    file = trained_potential(name)
    assert file.stat().st_size < 2**20
    assert lrc_ase.files.pretrained.card_title(file)
    atoms = lrc_ase.start_structure(name)
    atoms.calc = lrc_ase.load(name)
    assert np.abs(atoms.get_forces()).max() < 5.0
    assert atoms.calc.extrapolation == ()
    assert atoms.calc.allowed_atomic_numbers == sorted(set(atoms.numbers), key=atoms.calc.allowed_atomic_numbers.index)


@pytest.mark.parametrize(("name", "expected"), [("water-pbe0-ts", 0.993), ("nacl-water-revpbe0-d3", 1.077)])
def test_liquids_start_at_the_density_of_their_data(name, expected):
    atoms = lrc_ase.start_structure(name)
    density = atoms.get_masses().sum() / atoms.get_volume() * 1.66053907  # amu/Angstrom^3 in g/cm^3, CODATA 2022
    assert density == pytest.approx(expected, abs=1e-3)  # the cards


def test_salt_water_starts_with_four_pairs_of_ions_and_whole_molecules():
    atoms = lrc_ase.start_structure("nacl-water-revpbe0-d3")
    assert atoms.symbols.formula.count() == {"H": 112, "O": 56, "Na": 4, "Cl": 4}
    bonds = neighbour_list("i", atoms, {("O", "H"): 1.2})
    assert np.array_equal(np.bincount(bonds, minlength=len(atoms))[atoms.numbers == 8], np.full(56, 2))


def test_anatase_lies_below_rutile_as_in_pbe():
    rutile = lrc_ase.start_structure("tio2-pbe")
    # lattice constants of the card's PBE column; the oxygen atoms where the potential has them
    cell = [3.8031, 3.8031, 9.7073, 90, 90, 90]
    anatase = crystal(["Ti", "O"], [(0, 0, 0), (0, 0, 0.2067)], spacegroup=141, cellpar=cell)
    energies = []
    for atoms in (rutile, anatase):
        atoms.calc = lrc_ase.load("tio2-pbe")
        assert np.abs(atoms.get_forces()).max() < 0.5
        energies.append(atoms.get_potential_energy() / (len(atoms) / 3))
    assert energies[1] - energies[0] == pytest.approx(-0.100, abs=0.015)


def test_ase_lists_the_calculator(tmp_path):
    """In a process of its own, where the package is installed as far as its entry points go."""
    pytest.importorskip("ase._4.plugins")
    metadata = tmp_path / "lrc_ase-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lrc-ase\nVersion: 0.1.0\n")
    declared = (ROOT / "pyproject.toml").read_text().split('[project.entry-points."ase.plugins"]')[1].split("[")[0]
    (metadata / "entry_points.txt").write_text("[ase.plugins]\n" + declared.replace('"', ""))
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from ase._4.plugins import plugins\n"
        "mine = plugins.by_package['lrc_ase'].calculators\n"
        "print([plugin.display() for plugin in mine], [plugin.implementation for plugin in mine])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "lrc " in done.stdout
    assert "(lrc_ase.engines.ase_plugin 0.1.0)" in done.stdout
    assert "<class 'lrc_ase.calculator.LRCCalculator'>" in done.stdout
