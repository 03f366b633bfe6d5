"""Polarization current of a potential: Born charges times velocities, and the rate of change of the polarization."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from structures import ELEMENTS, potential, rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase import LongRangeSettings, LRCCalculator, Potential
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.models.polarization_current import polarization_current
from lrc_ase.simulation import MDSettings, read_current, run_md
from lrc_ase.structures.neighbors import neighbor_graph


def moving(atoms: Atoms) -> Atoms:
    """Give atoms velocities of the size of those at room temperature."""
    atoms.set_velocities(np.random.default_rng(1).normal(scale=0.05, size=(len(atoms), 3)))
    return atoms


def charged_crystal() -> Atoms:
    atoms = rattled_crystal()
    atoms.info["charge"] = 1.0
    return atoms


MODELS = {
    "transfers": lambda: potential(),
    "shifted": lambda: potential(settings(long_range=LongRangeSettings(n_channels=2, charges="shifted"))),
    "insulator": lambda: potential(
        settings(long_range=LongRangeSettings(n_channels=2, compositions={"NaCl": 0, "H2O": 0}, eps_inf=2.25))
    ),
    "ensemble": lambda: Potential(Ensemble([shaken_model(seed=seed) for seed in (0, 1)]), torch.zeros(len(ELEMENTS))),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("make", [rattled_crystal, charged_crystal, salt_water_slab, water])
def test_current_is_born_charges_times_velocities(kind, make):
    atoms = moving(make())
    calculator = LRCCalculator(MODELS[kind]())
    charges = calculator.get_born_effective_charges(atoms)
    expected = sum(z @ v for z, v in zip(charges, atoms.get_velocities(), strict=True))
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(calculator.get_polarization_current(atoms), expected, rtol=1e-10, atol=1e-12)


def test_current_is_the_rate_of_change_of_the_polarization_of_a_periodic_cell():
    """Atoms outside of the cell, some wrapped on the way, and a molecule that a boundary cuts."""
    atoms = moving(rattled_crystal())
    atoms.positions += (3.0, -7.0, 11.0)
    atoms.calc = LRCCalculator(potential())
    moments, time = [], 1e-3
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * time * atoms.get_velocities()
        moved.calc = LRCCalculator(potential())
        moments.append(moved.calc.get_polarization(moved) * moved.get_volume())
    expected = (moments[0] - moments[1]) / (2 * time)
    np.testing.assert_allclose(atoms.calc.get_polarization_current(atoms), expected, rtol=1e-7, atol=1e-10)


def test_table_of_a_run_holds_moments_that_follow_the_current(tmp_path):
    """Central differences of the moment over 0.2 fs; their error is third order in the time between rows."""
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(potential())
    run = MDSettings("nve", 12, temperature=300.0, timestep=0.1, current_every=1, restart_every=5, extrapolate=True)
    run_md(atoms, run, tmp_path / "md.traj")
    record = read_current(tmp_path / "md.current.csv")
    slopes = (record.moments[2:] - record.moments[:-2]) / (2 * record.interval)
    np.testing.assert_allclose(slopes, record.current[1:-1], rtol=0, atol=1e-4 * np.abs(record.current).max())


def test_current_leaves_the_polarization_on_the_branch_of_wrapped_atoms(monkeypatch):
    atoms = moving(rattled_crystal())
    calculator = LRCCalculator(potential())
    before = calculator.get_polarization(atoms)
    current = calculator.get_polarization_current(atoms)
    atoms.positions[0] += atoms.cell[0]
    np.testing.assert_allclose(calculator.get_polarization_current(atoms), current, rtol=1e-9)
    monkeypatch.setattr("lrc_ase.engines.ase_responses.dipole_moment", None)  # no further evaluation
    np.testing.assert_allclose(calculator.get_polarization(atoms), before, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:charge of this potential moves without a path")
@pytest.mark.parametrize("kind", MODELS)
def test_current_leaves_the_polarization_in_a_field(kind):
    atoms = moving(rattled_crystal())
    potential_of_kind = MODELS[kind]()
    field = {"electric_field": (0.0, 0.02, 0.1)}
    expected = LRCCalculator(potential_of_kind, **field).get_polarization(atoms)
    calculator = LRCCalculator(potential_of_kind, **field)
    calculator.get_polarization_current(atoms)
    np.testing.assert_allclose(calculator.get_polarization(atoms), expected, rtol=1e-10)


def test_current_of_atoms_evaluated_last_and_of_others():
    atoms = moving(rattled_crystal())
    calculator = LRCCalculator(potential())
    before = calculator.get_polarization_current(atoms)
    atoms.set_velocities(2 * atoms.get_velocities())
    np.testing.assert_allclose(calculator.get_polarization_current(atoms), 2 * before, rtol=1e-12)
    np.testing.assert_allclose(calculator.get_polarization_current(), before, rtol=1e-12)


def test_model_without_charges_has_no_current():
    short = potential(settings(long_range=False))
    atoms = moving(water())
    with pytest.raises(PropertyNotImplementedError):
        LRCCalculator(short).get_polarization_current(atoms)
    graph = neighbor_graph(atoms, short.model.settings.elements, short.model.settings.cutoff)
    with pytest.raises(ValueError, match="this model has none"):
        polarization_current(short.model, graph, torch.zeros(3, 3, dtype=torch.float64))
