"""Relaxation with ASE's own calculators."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from lrc_ase.simulation import RelaxationNotConverged, RelaxSettings, relax


class NoForces(EMT):
    """Forces that are not numbers."""

    def calculate(self, *args, **kwargs):
        """Spoil what the calculator finds."""
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.results["forces"] * np.nan


def copper() -> Atoms:
    """32 atoms with ASE's embedded-atom calculator."""
    atoms = bulk("Cu", cubic=True) * 2
    atoms.calc = EMT()
    return atoms


def test_relax_finds_the_lattice_constant_that_a_scan_finds():
    lengths = np.linspace(3.55, 3.65, 21)
    energies = []
    for length in lengths:
        crystal = bulk("Cu", a=length, cubic=True)
        crystal.calc = EMT()
        energies.append(crystal.get_potential_energy())
    fit = np.polyfit(lengths - 3.6, energies, 4)
    minima = np.roots(np.polyder(fit)).real + 3.6
    expected = minima[np.argmin(np.abs(minima - 3.6))]

    atoms = bulk("Cu", a=3.75, cubic=True)
    strained = atoms.cell.array @ (np.eye(3) + np.array([[0.02, 0.01, 0], [0, -0.01, 0], [0, 0, 0.0]]))
    atoms.set_cell(strained, scale_atoms=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    result = relax(atoms, RelaxSettings(fmax=1e-3, cell=True))
    assert result.fmax <= 1e-3
    np.testing.assert_allclose(atoms.cell.lengths(), expected, atol=2e-3)
    np.testing.assert_allclose(atoms.cell.angles(), 90, atol=0.1)


def test_relax_without_cell_leaves_the_cell_alone():
    atoms = copper()
    atoms.rattle(0.05, seed=0)
    before = atoms.cell.array.copy()
    steps = []
    relax(atoms, RelaxSettings(fmax=0.01), report=lambda state, _: steps.append(state.steps))
    np.testing.assert_array_equal(atoms.cell.array, before)
    assert steps[0] == 0
    assert len(steps) > 2


def test_states_of_a_relaxation_are_those_of_the_structure():
    atoms, first = bulk("Cu", a=3.6, cubic=True), []
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    forces = atoms.get_forces()
    final = relax(atoms, RelaxSettings(fmax=1e-3, cell=True, pressure=2.0), report=lambda state, _: first.append(state))
    assert first[0].fmax == pytest.approx(np.linalg.norm(forces, axis=1).max())
    assert first[0].volume == pytest.approx(3.6**3)
    assert first[-1] == final
    # at rest the pressure is the one asked for; fmax bounds the derivative of the enthalpy by the strain
    assert final.pressure == pytest.approx(2.0, abs=0.01)
    assert final.volume == pytest.approx(abs(np.linalg.det(atoms.cell.array)))
    assert final.energy == atoms.get_potential_energy()
    fixed = relax(atoms, RelaxSettings(fmax=0.1))
    assert np.isnan([fixed.pressure, fixed.volume]).all()


def test_relax_says_what_went_wrong():
    atoms = copper()
    atoms.rattle(0.05, seed=0)
    with pytest.raises(RelaxationNotConverged, match="after 1 step,"):
        relax(atoms, RelaxSettings(fmax=1e-6, max_steps=1))
    water = molecule("H2O")
    water.calc = EMT()
    with pytest.raises(ValueError, match=r"periodic in three directions, got pbc .*: relax the positions alone"):
        relax(water, RelaxSettings(cell=True))
    water.calc = NoForces()
    with pytest.raises(RelaxationNotConverged, match="not finite"):
        relax(water)
    with pytest.raises(ValueError, match="`fmax` must be positive"):
        RelaxSettings(fmax=0.0)


class Refusing(EMT):
    """Failure after some evaluations."""

    n_left = 4

    def calculate(self, *args, **kwargs):
        """Count down."""
        self.n_left -= 1
        if self.n_left < 0:
            raise CalculationFailed("atoms fly apart")
        super().calculate(*args, **kwargs)


@pytest.mark.parametrize("cell", [False, True])
def test_a_failure_on_the_way_keeps_the_structure_before_it(cell):
    atoms = copper()
    atoms.rattle(0.05, seed=0)
    atoms.calc = Refusing()
    last = []
    with pytest.raises(RelaxationNotConverged, match=r"the calculator failed \(atoms fly apart\) at step \d; the"):
        relax(atoms, RelaxSettings(fmax=1e-6, cell=cell), report=lambda state, each: last.append(each.copy()))
    np.testing.assert_array_equal(atoms.positions, last[-1].positions)
    np.testing.assert_array_equal(atoms.cell.array, last[-1].cell.array)
    assert len(last) == 4
    with pytest.raises(CalculationFailed, match="atoms fly apart"):  # the structure of the caller
        relax(atoms)
