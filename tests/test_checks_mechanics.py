"""Checks of derivatives, invariances, conservation and short distances: each passes on EMT and fails on its fault."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from broken_calculators import (
    Anchored,
    Anisotropic,
    Driving,
    Hole,
    NotExtensive,
    Numbered,
    Rounded,
    ScaledForces,
    ScaledStress,
    Unwrapped,
)

from lrc_ase.checks import Candidate, CheckSettings, Subject, check
from lrc_ase.checks.blocks import block_error, slope_with_error
from lrc_ase.checks.dimers import approaching_pairs, dimers

SHORT = CheckSettings(quick=True, equilibration=0.05, production=0.2, smallest_cell=3.0)


def copper() -> Atoms:
    return bulk("Cu", "fcc", a=3.61, cubic=True)


def result(name, calculator, atoms=None, settings=SHORT, **options):
    report = check(calculator, copper() if atoms is None else atoms, only=[name], settings=settings, **options)
    (system,) = report.systems
    (only,) = system.results
    return only


def beyond(outcome) -> set[str]:
    return {quantity.name for quantity in outcome.quantities if not quantity.is_within}


@pytest.mark.parametrize("name", ["finite differences", "invariances", "approaching pairs", "energy conservation"])
@pytest.mark.parametrize("system", [copper, lambda: molecule("CH3CH2OH")], ids=["crystal", "molecule"])
def test_a_sound_calculator_passes(name, system):
    outcome = result(name, EMT(), system())
    assert outcome.verdict == "passed", outcome
    assert all(math.isfinite(quantity.value) for quantity in outcome.quantities)


@pytest.mark.parametrize(
    ("fault", "name", "broken"),
    [
        (ScaledForces, "finite differences", "largest error of forces / root mean square force"),
        (ScaledStress, "finite differences", "largest error of stress / root mean square stress"),
        (Anisotropic, "invariances", "rotation: forces / root mean square force"),
        (Anchored, "invariances", "translation: energy"),
        (Numbered, "invariances", "permutation: forces / root mean square force"),
        (Rounded, "invariances", "translation by 1000 Angstrom: forces / root mean square force"),
        (Unwrapped, "invariances", "shift by cell vectors: forces / root mean square force"),
        (NotExtensive, "invariances", "supercell: energy"),
        (Hole, "dimers", "Cu-Cu: fall of the energy below 1.85 Angstrom"),
        (Hole, "approaching pairs", "Cu-Cu: fall of the energy below 1.85 Angstrom"),
        (Driving, "energy conservation", "drift, float64"),
    ],
)
def test_a_planted_fault_fails_its_check(fault, name, broken):
    outcome = result(name, fault())
    assert outcome.verdict == "failed"
    assert broken in beyond(outcome)
    assert broken in outcome.sentence


class Blind(EMT):
    """No number for atoms closer than 1.5 Angstrom, as from models that overflow."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if neighbor_list("d", self.atoms, 1.5).size:
            self.results["energy"] = math.nan


@pytest.mark.parametrize("name", ["dimers", "approaching pairs"])
def test_an_energy_that_is_no_number_is_a_hole(name):
    outcome = result(name, Blind())
    assert outcome.verdict == "failed"
    assert beyond(outcome) == {"Cu-Cu: fall of the energy below 1.85 Angstrom"}


def test_constraints_do_not_make_forces_wrong():
    held = copper()
    held.set_constraint(FixAtoms([0, 1, 2]))
    assert result("finite differences", EMT(), held).verdict == "passed"


def test_scaled_forces_are_one_percent_off():
    outcome = result("finite differences", ScaledForces())
    relative, absolute = outcome.quantities[:2]
    assert absolute.unit == "eV/Angstrom"
    assert 0.005 < relative.value < 0.04  # the largest component of some atoms over the root mean square of all


def test_dimers_scan_all_pairs_of_elements_down_to_where_none_is_closer():
    outcome = result("dimers", EMT(), Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 2.5]]))
    (figure,) = outcome.figures
    assert [curve.name for curve in figure.curves] == ["Cu-Cu", "Cu-Au", "Au-Au"]
    assert {curve.x[0] for curve in figure.curves} == {0.8}
    distances = np.array(figure.curves[0].x)
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [distances[30], 0, 0]])
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    atoms.positions[1, 0] = 8.0
    assert figure.curves[0].y[30] == pytest.approx(energy - atoms.get_potential_energy(), abs=1e-4)


def test_single_precision_is_run_beside_double_precision():
    outcome = result("energy conservation", EMT(), single=Driving())
    assert "drift, float32" in beyond(outcome)
    assert not any(name.endswith("float64") for name in beyond(outcome))
    assert "Single precision was not checked" not in outcome.sentence
    assert "Single precision was not checked" in result("energy conservation", EMT()).sentence


def test_a_drift_is_per_atom_and_nanosecond():
    times = np.linspace(0, 2, 400)  # ps
    slope, error = slope_with_error(times, 3e-3 * times + 1e-5 * np.sin(300 * times))
    assert slope == pytest.approx(3e-3, rel=1e-2)
    assert 0 < error < 1e-5


def test_error_of_a_mean_of_white_noise_is_that_of_the_textbook():
    rng = np.random.default_rng(0)
    errors = [block_error(rng.standard_normal(1000)) for _ in range(400)]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(1 / np.sqrt(1000), rel=0.1)
    assert math.isnan(block_error(np.zeros(3)))


class Trench(EMT):
    """Copper whose energy falls by 5 eV at 2.1 Angstrom, between a bond's length and the wall of its cores."""

    def calculate(self, *arguments):
        super().calculate(*arguments)
        distances = self.atoms.get_all_distances(mic=True) + 10 * np.eye(len(self.atoms))
        self.results["energy"] -= 5.0 * float(np.exp(-(((distances.min() - 2.1) / 0.05) ** 2)))


@pytest.mark.parametrize(
    ("pair", "shortest", "wall", "fall"),
    [
        ("Cu-Cu", {}, 1.848, 0.0),  # 0.7 times 2 * 1.32 Angstrom, ase.data.covalent_radii
        ("Cu-Cu", {"Cu-Cu": 2.4}, 2.4, 4.0),
        ("Cu-Cu", {"Cu-Cu": 2.9}, 2.64, 4.0),  # the sum of the radii
        ("Cu-Cu", {"Cu-Cu": 1.0}, 1.848, 0.0),
    ],
)
def test_energies_of_approaching_pairs_rise_from_the_shortest_distance_in_training(pair, shortest, wall, fall):
    candidate = Candidate(Trench(), elements=("Cu",), shortest=shortest)
    subject = Subject(candidate, copper(), "crystal", Path(), SHORT)
    (quantity,) = approaching_pairs(subject, np.random.default_rng(0)).quantities
    assert quantity.name == f"{pair}: fall of the energy below {wall:.2f} Angstrom"
    assert fall <= quantity.value <= fall + 1.0
    (alone, *_) = dimers(subject, np.random.default_rng(0)).quantities
    assert (
        alone.name == f"{pair}: fall of the energy below 1.85 Angstrom"
    )  # two atoms alone may bond at shorter distances


@pytest.mark.parametrize("name", ["Na-Cl", "Cl-Na"])
def test_the_shortest_distance_of_a_pair_has_either_order(name):
    candidate = Candidate(EMT(), shortest={name: 2.28})
    assert candidate.shortest_distance("Na", "Cl") == candidate.shortest_distance("Cl", "Na") == 2.28
    assert candidate.shortest_distance("Na", "Na") is None
