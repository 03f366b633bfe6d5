"""Potentials by name, and how ASE finds the calculator."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from structures import potential, rattled_crystal

import lrc_ase
import lrc_ase.files.pretrained
from lrc_ase import LRCCalculator, save_potential
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
