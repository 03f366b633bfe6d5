"""Dipoles, Born charges, stresses of atoms: what they are, and that the costly ones come when asked."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, InputError, PropertyNotImplementedError
from structures import potential, rattled_crystal, settings, water

import lrc_ase.calculator as calculator_module
from lrc_ase import LRCCalculator
from lrc_ase.engines import ase_responses
from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.derivatives import born_effective_charges
from lrc_ase.models.inference import Evaluator
from lrc_ase.structures.neighbors import neighbor_graph


@pytest.fixture(scope="module")
def own_potential():
    return potential()


@pytest.fixture(scope="module")
def rigid_potential():
    """Charges that follow from the elements alone."""
    made = potential()
    with torch.no_grad():
        made.model.long_range.transfers.profile.fill_(-1e3)  # weights of exp(-1000)
    return made


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_dipole_is_about_the_origin_of_the_coordinates(charge, own_potential):
    atoms = water()
    atoms.info["charge"] = charge
    atoms.calc = LRCCalculator(own_potential)
    before = atoms.get_dipole_moment()
    np.testing.assert_allclose(before, atoms.get_charges() @ atoms.positions, rtol=1e-12, atol=1e-14)
    assert np.abs(before).max() > 1e-2
    atoms.translate([1.0, -2.0, 3.0])
    np.testing.assert_allclose(
        atoms.get_dipole_moment() - before, charge * np.array([1.0, -2.0, 3.0]), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("charge", [0.0, -1.0])
def test_born_charges_of_a_molecule_are_the_dipoles_derivative_and_sum_to_the_total_charge(charge, own_potential):
    atoms = water()
    atoms.rattle(0.1, seed=1)
    atoms.info["charge"] = charge
    atoms.calc = LRCCalculator(own_potential)
    actual = atoms.calc.get_born_effective_charges(atoms)
    dipole_slopes = np.empty((len(atoms), 3, 3))
    for atom, axis in np.ndindex(len(atoms), 3):
        sides = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.info["charge"] = charge
            moved.positions[atom, axis] += step
            moved.calc = atoms.calc
            sides.append(moved.get_dipole_moment())
        dipole_slopes[atom, :, axis] = (sides[0] - sides[1]) / 2e-4
    np.testing.assert_allclose(actual, dipole_slopes, rtol=0, atol=1e-7)
    np.testing.assert_allclose(actual.sum(axis=0), charge * np.eye(3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [water, rattled_crystal])
def test_born_charges_of_rigid_charges_are_the_charges(make, rigid_potential):
    atoms = make()
    atoms.calc = LRCCalculator(rigid_potential)
    actual = atoms.calc.get_born_effective_charges(atoms)
    np.testing.assert_allclose(actual, atoms.get_charges()[:, None, None] * np.eye(3), rtol=0, atol=1e-12)


def test_born_charges_of_a_cubic_crystal_are_isotropic_and_neutral(own_potential):
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = LRCCalculator(own_potential)
    actual = atoms.calc.get_born_effective_charges(atoms)
    for tensor, other in zip(actual, actual[[2, 3, 0, 1, 6, 7, 4, 5]], strict=True):
        np.testing.assert_allclose(tensor, tensor[0, 0] * np.eye(3), rtol=0, atol=1e-9)
        np.testing.assert_allclose(tensor, other, rtol=0, atol=1e-9)


def test_stresses_of_equivalent_atoms_are_equal(own_potential):
    """To the accuracy of the mesh, 1e-6 of forces that vanish by symmetry."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.calc = LRCCalculator(own_potential)
    stresses = atoms.get_stresses()
    np.testing.assert_allclose(stresses.sum(axis=0), atoms.get_stress(), rtol=1e-10, atol=1e-12)
    for symbol in ("Na", "Cl"):
        of_element = stresses[atoms.symbols == symbol]
        assert np.abs(of_element[0]).max() > 1e-5
        np.testing.assert_allclose(
            of_element, np.tile(of_element[0], (4, 1)), rtol=0, atol=1e-4 * np.abs(of_element).max()
        )


def test_stresses_of_a_strictly_local_model_are_those_of_edges():
    """An atom without neighbors has none, and two cells apart have what they have alone."""
    made = potential(settings(long_range=False))
    alone = Atoms("Na2", positions=[[0, 0, 0], [0, 0, 2.0]], cell=[30, 30, 30], pbc=True)
    together = alone + Atoms("ClO2", positions=[[15, 15, 15], [15, 2, 15], [15, 4.2, 15]])
    stresses = []
    for atoms in (alone, together):
        atoms.calc = LRCCalculator(made)
        stresses.append(atoms.get_stresses())
    np.testing.assert_allclose(stresses[1][:2], stresses[0], rtol=1e-12)
    assert (stresses[1][2] == 0).all()
    # a pair along z is strained along z alone
    assert abs(stresses[0][0, 2]) > 1e-7
    assert np.abs(stresses[0][0, [0, 1, 3, 4, 5]]).max() < 1e-10 * abs(stresses[0][0, 2])


def test_stresses_leave_the_model_as_it_was(own_potential):
    atoms = rattled_crystal()
    model = LRCCalculator(own_potential).model
    graph = neighbor_graph(atoms, model.settings.elements, model.settings.cutoff)
    before = model(graph).atomic_energies
    atomic_stresses(model, graph)
    assert torch.equal(model(graph).atomic_energies, before)


def test_costly_properties_come_when_asked_and_do_not_evaluate_the_rest_again(own_potential, monkeypatch):
    calls = []
    for module, name in (
        (Evaluator, "__call__"),
        (calculator_module, "atomic_stresses"),
        (ase_responses, "born_effective_charges"),
    ):
        original = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda *a, _name=name, _original=original, **k: (calls.append(_name), _original(*a, **k))[1],
        )
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(own_potential)
    atoms.get_potential_energy()
    atoms.get_stress()
    assert calls == ["__call__"]
    for _ in range(2):
        atoms.get_stresses()
        atoms.calc.get_born_effective_charges(atoms)
        atoms.get_forces()
    assert calls == ["__call__", "atomic_stresses", "born_effective_charges"]
    before = atoms.calc.get_born_effective_charges(atoms)
    assert before.shape == (8, 3, 3)
    atoms.positions[0] += 0.1
    atoms.get_stresses()
    assert calls[3:] == ["__call__", "atomic_stresses"]
    assert not np.array_equal(atoms.calc.get_born_effective_charges(atoms), before)
    assert calls[5:] == ["born_effective_charges"]


def test_asking_for_what_a_structure_has_not_does_not_evaluate_again(own_potential, monkeypatch):
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    atoms.get_forces()
    monkeypatch.setattr(Evaluator, "__call__", None)
    for ask in (atoms.get_stress, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError):
            ask()


def test_a_model_without_charges_offers_none():
    atoms = water()
    atoms.calc = LRCCalculator(potential(settings(long_range=False)))
    assert not {"charges", "dipole", "born_effective_charges"} & set(atoms.calc.implemented_properties)
    for ask in (atoms.get_charges, atoms.get_dipole_moment, atoms.calc.get_born_effective_charges):
        with pytest.raises(PropertyNotImplementedError):
            ask()
    model = atoms.calc.model
    with pytest.raises(ValueError, match="need latent charges: this model has no electrostatic head"):
        born_effective_charges(model, neighbor_graph(atoms, model.settings.elements, model.settings.cutoff))


def test_results_follow_the_atoms_even_where_a_caller_says_that_nothing_changed(own_potential):
    """ASE's CheckpointCalculator does this after it has read energies from its file."""
    calculator = LRCCalculator(own_potential)
    first, second = rattled_crystal(seed=0), rattled_crystal(seed=1)
    calculator.get_forces(first)
    calculator.results.update(energy=0.0)
    calculator.calculate(second, ["forces"], [])
    np.testing.assert_array_equal(calculator.results["forces"], LRCCalculator(own_potential).get_forces(second))
    assert calculator.results["energy"] != 0.0


@pytest.mark.parametrize(("charge", "message"), [("plus", "one number, got 'plus'"), (np.nan, "must be finite")])
def test_a_charge_that_is_no_number_is_refused(charge, message, own_potential):
    atoms = water()
    atoms.info["charge"] = charge
    atoms.calc = LRCCalculator(own_potential)
    with pytest.raises(InputError, match=message) as caught:
        atoms.get_potential_energy()
    assert isinstance(caught.value.__cause__, ValueError)


def test_no_atoms_at_all_are_refused(own_potential):
    with pytest.raises(InputError, match="LRCCalculator needs atoms, got None"):
        LRCCalculator(own_potential).calculate()


def test_a_model_that_gives_no_numbers_fails(own_potential):
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    with torch.no_grad():
        next(atoms.calc.model.readout.parameters()).fill_(torch.nan)
    with pytest.raises(CalculationFailed, match="energies or forces that are not finite"):
        atoms.get_potential_energy()
    assert not atoms.calc.results


def more_than_the_cpu_has(*arguments, **options):
    torch.empty(10**15)


def more_than_the_gpu_has(*arguments, **options):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def more_than_numpy_gets(*arguments, **options):
    np.empty(10**15)


@pytest.mark.parametrize("too_large", [more_than_the_cpu_has, more_than_the_gpu_has, more_than_numpy_gets])
def test_memory_that_runs_out_says_what_to_lower(too_large, own_potential, monkeypatch):
    monkeypatch.setattr(Evaluator, "__call__", too_large)
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    with pytest.raises(CalculationFailed, match="out of memory with 3 atoms: take a smaller") as caught:
        atoms.get_potential_energy()
    assert isinstance(caught.value.__cause__, (MemoryError, RuntimeError))


def test_other_failures_of_torch_keep_their_own_words(own_potential, monkeypatch):
    monkeypatch.setattr(Evaluator, "__call__", lambda *arguments, **options: torch.ones(2) @ torch.ones(3))
    atoms = water()
    atoms.calc = LRCCalculator(own_potential)
    with pytest.raises(RuntimeError, match="size"):
        atoms.get_potential_energy()


def test_float32_gives_the_same_to_its_digits(own_potential):
    actual = []
    for dtype in (torch.float64, torch.float32):
        atoms = rattled_crystal()
        atoms.calc = LRCCalculator(own_potential, dtype=dtype)
        actual.append((atoms.get_stresses(), atoms.calc.get_born_effective_charges(atoms), atoms.get_stress()))
    for double, single in zip(*actual, strict=True):
        assert np.abs(single - double).max() < 2e-4 * np.abs(double).max()
    np.testing.assert_allclose(actual[1][0].sum(axis=0), actual[1][2], rtol=0, atol=1e-4 * np.abs(actual[1][2]).max())
