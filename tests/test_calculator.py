import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, InputError, PropertyNotImplementedError
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from structures import potential, rattled_crystal, salt_water_slab, settings, water

from lrc_ase import LRCCalculator, load_potential, save_potential
from lrc_ase.simulation import thermalize


@pytest.fixture(scope="module")
def own_potential():
    return potential()


def test_results_are_complete_and_consistent(own_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential)
    energy = atoms.get_potential_energy()
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-13)
    assert atoms.get_charges().sum() == pytest.approx(0, abs=1e-12)
    assert atoms.get_stress(voigt=False).shape == (3, 3)
    references = dict(zip(own_potential.settings.elements, own_potential.references.tolist(), strict=True))
    assert abs(energy - sum(references[symbol] for symbol in atoms.get_chemical_symbols())) < 200


def test_representations_name_model_elements_precision_and_device(own_potential):
    assert repr(own_potential) == "Potential(full-range, H O Na Cl, cutoff 4.5 Angstrom)"
    calculator = LRCCalculator(own_potential, dtype="float32")
    assert repr(calculator) == f"LRCCalculator({own_potential!r}, float32, cpu)"


def test_energy_then_forces_is_one_evaluation(own_potential, monkeypatch):
    calls = []
    original = LRCCalculator.calculate
    monkeypatch.setattr(LRCCalculator, "calculate", lambda self, *a, **k: (calls.append(1), original(self, *a, **k)))
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential)
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    atoms.get_charges()
    assert len(calls) == 1


def test_results_do_not_alias_and_atoms_are_not_changed(own_potential):
    atoms = rattled_crystal()
    before = atoms.copy()
    atoms.calc = LRCCalculator(own_potential)
    forces = atoms.get_forces()
    atoms.positions[0] += 0.1
    assert not np.array_equal(forces, atoms.get_forces())
    atoms.positions[0] -= 0.1
    np.testing.assert_array_equal(atoms.cell.array, before.cell.array)
    assert atoms.info == before.info


def test_precision_by_name_is_that_of_torch(own_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential, dtype="float32")
    assert {parameter.dtype for parameter in atoms.calc.model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="`dtype` must be float32 or float64, by name or of torch, got half"):
        LRCCalculator(own_potential, dtype="half")


def test_change_of_charge_is_noticed(own_potential):
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1.0
    assert atoms.get_potential_energy() != neutral
    assert atoms.get_charges().sum() == pytest.approx(1.0)


def test_vacuum_around_a_slab_changes_nothing(own_potential):
    """Energy, forces: to rounding, because open cell vectors are never read."""
    energies, forces = [], []
    for vacuum in (10.0, 20.0, 40.0):
        atoms = salt_water_slab()
        atoms.center(vacuum=vacuum, axis=2)
        atoms.calc = LRCCalculator(own_potential)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    assert np.ptp(energies) < 1e-6 * abs(energies[0])
    assert np.abs(forces[0] - forces[2]).max() < 1e-5 * np.abs(forces[0]).max()


@pytest.mark.parametrize("distance", [1e4, 1e6])
def test_molecules_far_apart_have_the_energy_of_two(distance, own_potential):
    """A cell list of the box around both would have 1e9 bins and more."""
    alone, both = water(), water()
    both.extend(Atoms(alone.numbers, alone.positions + distance))
    alone.calc = both.calc = LRCCalculator(own_potential)
    energy, forces = alone.get_potential_energy(), alone.get_forces()
    assert both.get_potential_energy() == pytest.approx(2 * energy, rel=1e-10)
    np.testing.assert_allclose(both.get_forces(), np.tile(forces, (2, 1)), rtol=0, atol=1e-7)


def test_lack_of_memory_for_neighbors_is_ases_error(own_potential, monkeypatch):
    def failing(*arguments, **options):
        raise RuntimeError("Failed to allocate last array")

    monkeypatch.setattr("lrc_ase.structures.pairs.neighbour_list", failing)
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    with pytest.raises(CalculationFailed, match="out of memory with 3 atoms: take a smaller structure"):
        atoms.get_potential_energy()


def test_stress_is_left_out_where_the_cell_has_no_volume(own_potential):
    for atoms in (water(), salt_water_slab()):
        atoms.calc = LRCCalculator(own_potential)
        atoms.get_forces()
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "empty"),
        (Atoms("Na", positions=[[0, np.inf, 0]]), "not finite"),
        (Atoms("NaXe", positions=[[0, 0, 0], [2, 0, 0]]), "unknown element Xe: this model knows H, O, Na, Cl"),
        (Atoms("Na", cell=[3, 0, 3], pbc=True), "cell vector 1, which is zero"),
        (Atoms("Na2", positions=[[0, 0, 0], [0, 0, 0]]), "same position"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_impossible_structures_raise_ases_input_error(atoms, message, own_potential):
    atoms.calc = LRCCalculator(own_potential)
    with pytest.raises(InputError, match=message):
        atoms.get_potential_energy()


def test_calculator_recovers_after_bad_positions(own_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential)
    energy = atoms.get_potential_energy()
    good = atoms.positions.copy()
    atoms.positions[0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        atoms.get_potential_energy()
    atoms.positions = good
    assert atoms.get_potential_energy() == energy


@pytest.mark.parametrize("long_range", [True, False])
def test_saved_and_loaded_potential_gives_bit_equal_results(tmp_path, long_range):
    original = potential(settings(long_range=long_range))
    path = tmp_path / "potential.safetensors"
    save_potential(path, original)
    atoms = rattled_crystal()
    results = []
    for source in (original, path, load_potential(path)):
        atoms.calc = LRCCalculator(source)
        results.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    for other in results[1:]:
        assert other[0] == results[0][0]
        np.testing.assert_array_equal(other[1], results[0][1])
        np.testing.assert_array_equal(other[2], results[0][2])


def test_float32_is_close_and_leaves_the_potential_alone(own_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential, dtype=torch.float32)
    single = atoms.get_forces()
    assert next(own_potential.model.parameters()).dtype == torch.float64
    atoms.calc = LRCCalculator(own_potential)
    assert np.abs(single - atoms.get_forces()).max() < 1e-4 * np.abs(single).max()


def test_neighbor_list_is_reused_between_steps(own_potential):
    atoms = rattled_crystal(repeat=(2, 2, 1))
    atoms.calc = LRCCalculator(own_potential, skin=1.0)
    for step in range(5):
        atoms.rattle(0.02, seed=step)
        atoms.get_forces()
    assert atoms.calc.neighbor_list.n_searches == 1
    fresh = LRCCalculator(own_potential, skin=0.0)
    np.testing.assert_allclose(fresh.get_forces(atoms), atoms.get_forces(), rtol=0, atol=1e-10)


def test_relaxation_and_dynamics_run(own_potential):
    atoms = rattled_crystal(repeat=(1, 1, 2))
    atoms.calc = LRCCalculator(own_potential)
    start = atoms.get_potential_energy()
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.05, steps=8)
    assert atoms.get_potential_energy() < start
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    thermalize(atoms, 100, np.random.default_rng(0))
    total = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=0.05 * units.fs).run(40)
    assert atoms.get_total_energy() == pytest.approx(total, abs=2e-4)


def test_constrained_atoms_keep_still_but_their_forces_are_computed(own_potential):
    atoms = rattled_crystal()
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = LRCCalculator(own_potential)
    assert (atoms.get_forces()[0] == 0).all()
    assert (atoms.get_forces(apply_constraint=False)[0] != 0).any()
