"""Phonons by phonopy: Born charges and permittivity in its form, and the splitting that they make."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator
from structures import potential, rattled_crystal, settings, water

import lrc_ase
from lrc_ase import LRCCalculator

pytest.importorskip("phonopy")
pytestmark = pytest.mark.filterwarnings("ignore:.*primitive_matrix", "ignore:logm result may be inaccurate")

from phonopy.file_IO import parse_BORN, write_BORN  # noqa: E402

from lrc_ase.engines.phonopy import nac_params, phonons  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "phonons"


class Ions(Calculator):
    """Charges that do not sum to zero and answer to a field, on springs between nearest neighbors of rock salt."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Fill forces of springs of 1 eV/Angstrom^2."""
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.get_all_distances(mic=True, vector=True)
        lengths = np.linalg.norm(vectors, axis=2)
        near = (lengths > 0) & (lengths < 3.4)
        stretch = np.where(near, lengths - 2.8, 0.0)
        units = vectors / np.where(near, lengths, 1.0)[:, :, None]
        self.results = {"energy": 0.25 * float((stretch**2).sum()), "forces": (stretch[:, :, None] * units).sum(axis=1)}

    def get_born_effective_charges(self, atoms):
        """Return 0.8005 e for Na, -0.7995 e for Cl."""
        return np.where(atoms.symbols == "Na", 0.8005, -0.7995)[:, None, None] * np.eye(3)

    def get_polarizability(self, atoms):
        """Return 0.01 e Angstrom^2/V for each atom."""
        return 0.01 * len(atoms) * np.eye(3)


@pytest.fixture(scope="module")
def phonon():
    return phonons(bulk("NaCl", "rocksalt", a=5.6, cubic=True), Ions(), (2, 2, 2))


def test_charges_and_permittivity_are_in_phonopys_form(phonon, tmp_path):
    params = phonon.nac_params
    # charges that sum to zero: the mean is subtracted
    np.testing.assert_allclose(params["born"], np.array([0.8, -0.8])[:, None, None] * np.eye(3), atol=1e-12)
    # 1 + 8 * 0.01 / (5.6^3 * 5.52634936e-3)
    np.testing.assert_allclose(params["dielectric"], 1.082432 * np.eye(3), rtol=1e-5, atol=1e-12)
    assert params["factor"] == pytest.approx(14.399645)
    write_BORN(phonon.primitive, params["born"], params["dielectric"], filename=tmp_path / "BORN")
    again = parse_BORN(phonon.primitive, filename=tmp_path / "BORN")
    np.testing.assert_allclose(again["born"], params["born"], atol=1e-7)
    np.testing.assert_allclose(again["dielectric"], params["dielectric"], atol=1e-7)


def optical(phonon) -> np.ndarray:
    """Return the optical frequencies next to the zone center, THz."""
    phonon.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 0])
    return np.sort(phonon.qpoints.frequencies[0])[3:]


def test_splitting_is_that_of_the_charges(phonon):
    """w_LO^2 - w_TO^2 = Z^2 / (epsilon_0 eps V mu), V and mu of a pair of ions."""
    low, middle, high = optical(phonon)
    reduced_mass = 22.98976928 * 35.45 / (22.98976928 + 35.45) * 1.66053907e-27  # kg
    squared = (0.8 * 1.602176634e-19) ** 2 / (8.8541878e-12 * 1.082432 * 5.6**3 / 4 * 1e-30 * reduced_mass)
    assert low == pytest.approx(middle, rel=1e-6)
    assert (2 * np.pi * 1e12) ** 2 * (high**2 - low**2) == pytest.approx(squared, rel=2e-3)


def test_screened_charges_become_true_ones_and_frequencies_stay(phonon):
    screened = nac_params(phonon, Ions())
    before = optical(phonon)
    true = nac_params(phonon, Ions(), eps_inf=2.25)
    np.testing.assert_allclose(true["born"], 1.5 * screened["born"])
    np.testing.assert_allclose(true["dielectric"], 2.25 * screened["dielectric"])
    phonon.nac_params = true
    np.testing.assert_allclose(optical(phonon), before)
    phonon.nac_params = screened
    with pytest.raises(ValueError, match=r"`eps_inf` must be at least 1, got 0\.5"):
        nac_params(phonon, Ions(), eps_inf=0.5)


def test_potential_whose_charges_do_not_answer_has_the_permittivity_of_the_vacuum():
    rigid = potential()
    with torch.no_grad():
        rigid.model.long_range.weights.last.weight.zero_()
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    params = phonons(crystal, LRCCalculator(rigid), (1, 1, 1)).nac_params
    np.testing.assert_allclose(params["dielectric"], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(params["born"].sum(axis=0), 0, atol=1e-9)


def test_potential_without_charges_has_no_correction():
    short = LRCCalculator(potential(settings(long_range=False)))
    assert phonons(bulk("NaCl", "rocksalt", a=5.6, cubic=True), short, (1, 1, 1)).nac_params is None


def test_open_structures_are_refused():
    with pytest.raises(ValueError, match=r"phonons need three periodic directions, got pbc \[False, False, False\]"):
        phonons(water(), Ions(), (1, 1, 1))


def test_displacement_and_supercell_arrive(phonon):
    assert len(phonon.supercell) == 64
    crystal = rattled_crystal()
    other = phonons(crystal, Ions(), np.diag([1, 1, 2]), displacement=0.05, primitive="P")
    assert len(other.supercell) == 16
    assert len(other.primitive) == 8
    lengths = [np.linalg.norm(entry[1:]) for entry in other.displacements]
    np.testing.assert_allclose(lengths, 0.05)


@pytest.mark.slow
def test_correction_agrees_with_forces_of_a_long_wave():
    """Forces on displaced layers of a cell of 8 x 2 x 2 cubes contain the field without any Born charge."""
    long_waves = runpy.run_path(str(EXAMPLE / "long_waves.py"))
    calculator = lrc_ase.load("nacl")
    longitudinal, transverse, charge = long_waves["optical"](calculator, 5.433, 8)
    phonon = phonons(bulk("NaCl", "rocksalt", a=5.433, cubic=True), calculator, (2, 2, 2))
    assert charge == pytest.approx(phonon.nac_params["born"][0, 0, 0], rel=2e-3)
    phonon.run_qpoints([[0, 1 / 16, 1 / 16]])  # 1/8 of 2 pi/a along x
    frequencies = 33.35641 * np.sort(phonon.qpoints.frequencies[0])
    assert frequencies[5] == pytest.approx(longitudinal, abs=0.5)
    assert frequencies[3] == pytest.approx(transverse, abs=0.5)


@pytest.mark.slow
def test_example_gives_the_splitting_of_its_reference_within_a_fifth(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1])}
    command = [sys.executable, "-W", "ignore", str(EXAMPLE / "lo_to.py"), "nacl"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^(\S+) +[\d.]+ +[\d.]+ +([\d.]+)$", done.stdout, flags=re.MULTILINE))
    assert float(rows["potential"]) == pytest.approx(float(rows["GFN1-xTB"]), rel=0.2)
    assert (tmp_path / "BORN").exists()
    assert (tmp_path / "lo_to.png").read_bytes()[:4] == b"\x89PNG"
