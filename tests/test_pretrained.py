"""Potentials by name, and how ASE finds the calculator."""

import subprocess
import sys
from pathlib import Path

import pytest
from structures import potential, rattled_crystal

import lrc_ase
import lrc_ase.files.pretrained
from lrc_ase import LRCCalculator, save_potential
from lrc_ase.files.potential_file import PotentialFileError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package `lrc_ase.potentials` with one trained potential, found as an installed one would be."""
    folder = tmp_path / "potentials" / "trained" / "table_salt"
    folder.mkdir(parents=True)
    (tmp_path / "potentials" / "__init__.py").touch()
    save_potential(folder / "potential.safetensors", potential())

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
        assert lrc_ase.load(place).get_potential_energy(rattled_crystal()) == expected


def test_an_unknown_name_lists_what_there_is(shipped):
    for ask in (lrc_ase.load, LRCCalculator.from_pretrained):
        with pytest.raises(ValueError, match="no shipped potential is called 'pepper'; there are table_salt"):
            ask("pepper")


def test_without_any_potential_installed_the_error_says_so(monkeypatch):
    monkeypatch.setattr(lrc_ase.files.pretrained, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"none is installed\. A file of your own loads by its path"):
        lrc_ase.load("pepper")


def test_a_missing_file_is_a_missing_file():
    with pytest.raises(PotentialFileError, match=r"pepper\.safetensors does not exist"):
        lrc_ase.load("pepper.safetensors")


def test_every_shipped_potential_loads():
    for name in lrc_ase.files.pretrained.trained_potentials():
        assert LRCCalculator.from_pretrained(name).model.settings.elements


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
