"""Checks of crystals: literal values of EMT and of the field, and a failure for each kind of broken crystal."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from broken_calculators import Crumbling, Rough, Stiff

from lrc_ase.checks import CheckSettings, check

QUICK = CheckSettings(quick=True)


def result(name, calculator, atoms, **options):
    (system,) = check(calculator, atoms, suite="crystal", only=[name], settings=QUICK, **options).systems
    return system.results[0]


def values(outcome) -> dict[str, float]:
    return {quantity.name: quantity.value for quantity in outcome.quantities}


def argon() -> LennardJones:
    return LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0, smooth=True)


def simple_cubic() -> Atoms:
    """A crystal that falls apart at the first touch."""
    return bulk("Ar", "sc", a=3.64)


def test_equation_of_state_of_silver_is_that_of_the_tutorial_of_ase():
    """EMT, 16.781 Angstrom^3 and 100.142 GPa (https://ase-lib.org/examples_generated/eos/plot_ag_eos.html)."""
    outcome = result("equation of state", EMT(), bulk("Ag", a=4.05))
    assert outcome.verdict == "passed"
    computed = values(outcome)
    assert computed["volume per atom"] == pytest.approx(16.781, rel=2e-3)
    assert computed["bulk modulus"] == pytest.approx(100.14, rel=5e-3)
    assert computed["lattice constant a"] == pytest.approx((4 * 16.781) ** (1 / 3), rel=1e-3)
    assert "deviation from the fit" in result("equation of state", Rough(), bulk("Ag", a=4.05)).sentence


def test_elastic_constants_of_argon_obey_cauchy():
    """In a Bravais lattice of central pair forces without pressure C12 = C44 (Born and Huang)."""
    outcome = result("elastic constants", argon(), bulk("Ar", "fcc", a=5.26))
    assert outcome.verdict == "passed"
    computed = values(outcome)
    assert computed["C12"] == pytest.approx(computed["C44"], rel=5e-3)
    assert computed["bulk modulus from stress (Voigt)"] == pytest.approx((computed["C11"] + 2 * computed["C12"]) / 3)
    shear = (computed["C11"] - computed["C12"] + 3 * computed["C44"]) / 5
    assert computed["shear modulus (Voigt)"] == pytest.approx(shear, rel=1e-6)


def test_elastic_constants_are_second_differences_of_the_energy():
    """C44 of copper from the energy of sheared cells, without matscipy."""
    computed = values(result("elastic constants", EMT(), bulk("Cu", cubic=True)))
    atoms = bulk("Cu", cubic=True, a=values(result("equation of state", EMT(), bulk("Cu")))["lattice constant a"])
    energies = []
    for shear in (-0.004, 0.0, 0.004):
        strained = atoms.copy()
        strained.set_cell(
            atoms.cell.array @ (np.eye(3) + shear / 2 * np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])), True
        )
        strained.calc = EMT()
        energies.append(strained.get_potential_energy())
    c44 = (energies[0] - 2 * energies[1] + energies[2]) / 0.004**2 / atoms.get_volume() / units.GPa
    assert computed["C44"] == pytest.approx(c44, rel=0.01)


@pytest.mark.parametrize(
    ("calculator", "atoms", "name", "sentence"),
    [
        (Stiff(), bulk("Cu", cubic=True), "elastic constants", "difference of both / bulk modulus is 0.2"),
        (argon(), simple_cubic(), "elastic constants", "lowest eigenvalue is -0.3"),
        (argon(), simple_cubic(), "phonons", "lowest frequency is -0.6"),
        (Crumbling(), bulk("Cu"), "surface energy", "energy of the (100) surface is -"),
    ],
)
def test_a_broken_crystal_fails(calculator, atoms, name, sentence):
    if name == "phonons":
        pytest.importorskip("phonopy")
    outcome = result(name, calculator, atoms)
    assert outcome.verdict == "failed"
    assert sentence in outcome.sentence


def test_phonons_of_aluminium_end_where_those_of_ase_do():
    """ASE's own tutorial of phonons with EMT draws the bands of aluminium up to 0.035 eV, 8.5 THz."""
    pytest.importorskip("phonopy")
    outcome = result("phonons", EMT(), bulk("Al"))
    assert outcome.verdict == "passed"
    assert values(outcome)["highest frequency"] == pytest.approx(8.5, abs=0.5)


def test_surface_energy_is_per_area_of_both_sides():
    outcome = result("surface energy", EMT(), bulk("Cu"))
    assert outcome.verdict == "passed"
    atoms = bulk("Cu", cubic=True, a=values(result("equation of state", EMT(), bulk("Cu")))["lattice constant a"])
    atoms.calc = EMT()
    bulk_energy = atoms.get_potential_energy() / 4
    slab = atoms.repeat((1, 1, 4))
    slab.calc = EMT()
    slab.pbc = (True, True, False)
    slab.center(vacuum=10, axis=2)
    area = slab.cell[0, 0] ** 2
    joules = (slab.get_potential_energy() - len(slab) * bulk_energy) / (2 * area) * 16.02176634
    assert values(outcome)["energy of the (100) surface as cut"] == pytest.approx(joules, rel=0.01)


def test_a_reference_stands_beside():
    outcome = result("equation of state", EMT(), bulk("Ag"), reference=EMT())
    assert all(quantity.reference == pytest.approx(quantity.value) for quantity in outcome.quantities)
    assert [curve.name for curve in outcome.figures[0].curves][-1] == "Birch-Murnaghan, reference"
    other = result("equation of state", EMT(), bulk("Ag"), reference=LennardJones())
    assert "The reference failed: " in other.sentence or other.quantities[0].reference != other.quantities[0].value


def test_a_molecule_has_no_checks_of_crystals():
    (system,) = check(EMT(), Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.3]]), only=["phonons"]).systems
    assert system.results[0].verdict == "not applicable"
    assert system.results[0].sentence == "Needs a crystal, and this system is a molecule."
