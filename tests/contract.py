"""Tests that every calculator must pass; a test class inherits `Contract` and defines a fixture `case`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from scipy.spatial.transform import Rotation

from lrc_ase.models.derivatives import dipole_moment
from lrc_ase.structures.neighbors import neighbor_graph


@dataclass(frozen=True)
class Case:
    """A calculator with atoms to try it on, and what it promises."""

    make: Callable[[], Calculator]
    atoms: Callable[[], Atoms]
    numbers: tuple[int, int] = (11, 17)
    """Two elements that the calculator tells apart."""
    offered: frozenset[str] = frozenset()
    """Properties that these atoms have."""
    absent: frozenset[str] = frozenset()
    """Properties that these atoms lack."""
    finite_difference: float = 1e-6
    """Relative error of derivatives by finite differences; may hold the jumps of a mesh that follows the cell."""
    mesh: float = 1e-10
    """Relative change where atoms move against a mesh."""
    rotation: float | None = 1e-10
    """Relative change of forces where atoms turn with their cell; None where nothing is promised."""
    supercell: tuple[int, int, int] | None = None
    """Repetition that multiplies energies, where any."""
    changes_noticed: frozenset[str] = frozenset({"positions", "numbers", "cell", "pbc", "charge"})


def evaluated(case: Case, atoms: Atoms) -> Atoms:
    atoms.calc = case.make()
    return atoms


def close(actual, expected, tolerance: float) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


class Contract:
    def test_forces_match_finite_differences(self, case):
        atoms = evaluated(case, case.atoms())
        some = sorted({0, len(atoms) // 2, len(atoms) - 1})
        numeric = calculate_numerical_forces(atoms, eps=1e-4, iatoms=some)
        close(numeric, atoms.get_forces()[some], case.finite_difference)

    def test_stress_matches_finite_differences(self, case):
        if "stress" not in case.offered:
            pytest.skip("no volume, no stress")
        atoms = evaluated(case, case.atoms())
        close(calculate_numerical_stress(atoms, eps=1e-5), atoms.get_stress(), case.finite_difference)

    @pytest.mark.filterwarnings("ignore:charge of this potential moves without a path:UserWarning")
    def test_derivatives_in_an_electric_field_match_finite_differences(self, case):
        if "charges" not in case.offered:
            pytest.skip("no charges that a field acts on")
        atoms = evaluated(case, case.atoms())
        plain = atoms.get_forces()
        atoms.info["external_field"] = (0.1, -0.2, 0.3)
        forces = atoms.get_forces()
        assert np.abs(forces - plain).max() > 1e-3
        one = len(atoms) // 2
        numeric = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[one])
        close(numeric, forces[[one]], case.finite_difference)
        if "stress" in case.offered:
            close(calculate_numerical_stress(atoms, eps=1e-5), atoms.get_stress(), case.finite_difference)

    def test_properties_offered_are_there_and_the_others_raise_ases_error(self, case):
        atoms = evaluated(case, case.atoms())
        shapes = {
            "energies": (len(atoms),),
            "stress": (6,),
            "stresses": (len(atoms), 6),
            "charges": (len(atoms),),
            "dipole": (3,),
            "born_effective_charges": (len(atoms), 3, 3),
        }
        for name in case.offered:
            actual = atoms.calc.get_property(name, atoms)
            assert np.isfinite(actual).all()
            assert actual.shape == shapes[name]
        for name in case.absent:
            with pytest.raises(PropertyNotImplementedError):
                atoms.calc.get_property(name, atoms)

    def test_sums_agree(self, case):
        atoms = evaluated(case, case.atoms())
        energy = atoms.get_potential_energy()
        assert atoms.get_potential_energy(force_consistent=True) == energy
        assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-12)
        forces = atoms.get_forces()
        assert np.abs(forces.sum(axis=0)).max() < len(atoms) * case.mesh * np.abs(forces).max()
        if "stresses" in case.offered:
            close(atoms.get_stresses().sum(axis=0), atoms.get_stress(), 1e-9)
        if "charges" in case.offered:
            assert atoms.get_charges().sum() == pytest.approx(atoms.info.get("charge", 0.0), abs=1e-10)

    def test_born_charges_match_finite_differences_of_the_polarization(self, case):
        if "born_effective_charges" not in case.offered:
            pytest.skip("no latent charges")
        atoms = evaluated(case, case.atoms())
        model = atoms.calc.model
        born_charges = atoms.calc.get_property("born_effective_charges", atoms)
        atom, step = len(atoms) // 2, 1e-4
        for axis in range(3):
            sides = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                graph = neighbor_graph(moved, model.settings.elements, model.settings.cutoff)
                sides.append(dipole_moment(model, graph)[0].numpy())
            close(born_charges[atom, :, axis], (sides[0] - sides[1]) / (2 * step), 1e-5)

    def test_translation(self, case):
        self.unchanged(case, lambda atoms: atoms.translate([11.3, -7.77, 33.3]), case.mesh)

    def test_lattice_shift_of_single_atoms(self, case):
        atoms = case.atoms()
        periodic = np.flatnonzero(atoms.pbc)
        if not len(periodic):
            pytest.skip("no lattice")

        def shift(atoms):
            atoms.positions[::2] += atoms.cell.array[periodic].sum(axis=0)

        self.unchanged(case, shift, max(case.mesh, 1e-8))

    def test_permutation(self, case):
        order = np.random.default_rng(0).permutation(len(case.atoms()))
        before, after = evaluated(case, case.atoms()), evaluated(case, case.atoms()[order])
        after.info.update(before.info)
        assert after.get_potential_energy() == pytest.approx(before.get_potential_energy(), rel=1e-11)
        close(after.get_forces(), before.get_forces()[order], 1e-8)
        for name in case.offered - {"stress"}:
            actual, expected = (each.calc.get_property(name, each) for each in (after, before))
            close(actual, expected if name == "dipole" else expected[order], 1e-7)

    def test_rotation_of_atoms_with_their_cell(self, case):
        if case.rotation is None:
            pytest.skip("not invariant, and says so")
        turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
        before, after = evaluated(case, case.atoms()), case.atoms()
        after.set_cell(after.cell.array @ turn.T)
        after.positions = after.positions @ turn.T
        evaluated(case, after)
        close(after.get_forces() @ turn, before.get_forces(), case.rotation)
        if "stress" in case.offered:
            close(turn.T @ after.get_stress(voigt=False) @ turn, before.get_stress(voigt=False), case.rotation)

    def test_supercell_has_a_multiple_of_the_energy(self, case):
        if case.supercell is None:
            pytest.skip("nothing to repeat")
        atoms = evaluated(case, case.atoms())
        large = evaluated(case, case.atoms().repeat(case.supercell))
        times = np.prod(case.supercell)
        energies = large.get_potential_energies().reshape(times, -1)
        assert np.abs(energies - atoms.get_potential_energies()).max() < case.mesh
        close(large.get_forces()[: len(atoms)], atoms.get_forces(), 10 * case.mesh)

    def test_energy_then_the_rest_is_one_evaluation(self, case, monkeypatch):
        atoms = evaluated(case, case.atoms())
        calls = []
        original = type(atoms.calc).calculate
        monkeypatch.setattr(
            type(atoms.calc), "calculate", lambda self, *a, **k: (calls.append(1), original(self, *a, **k))
        )
        for name in ["energy", "free_energy", "forces", "energies", *(case.offered & {"stress", "charges", "dipole"})]:
            atoms.calc.get_property(name, atoms)
        assert len(calls) == 1

    def test_results_do_not_alias(self, case):
        """Arrays that a calculator returned never change, and callers may write to them."""
        atoms = evaluated(case, case.atoms())
        names = ["forces", "energies", *case.offered]
        first = {name: atoms.calc.get_property(name, atoms) for name in names}
        kept = {name: value.copy() for name, value in first.items()}
        held = {name: value for name, value in atoms.calc.results.items() if isinstance(value, np.ndarray)}
        held_copies = {name: value.copy() for name, value in held.items()}
        atoms.positions[0] += 0.05
        second = {name: atoms.calc.get_property(name, atoms) for name in names}
        for name in names:
            np.testing.assert_array_equal(first[name], kept[name])
            second[name][...] = 777.0
            assert not (atoms.calc.get_property(name, atoms) == 777.0).any()
        for name, value in held.items():
            np.testing.assert_array_equal(value, held_copies[name])
        assert not np.array_equal(kept["forces"], atoms.get_forces())

    def test_atoms_are_never_changed(self, case):
        atoms = case.atoms()
        before = atoms.copy()
        evaluated(case, atoms)
        for name in ["energy", "forces", *case.offered]:
            atoms.calc.get_property(name, atoms)
        assert atoms == before
        assert atoms.info == before.info
        assert set(atoms.arrays) == set(before.arrays)

    @pytest.mark.parametrize("what", ["positions", "numbers", "cell", "pbc", "charge"])
    def test_a_change_is_noticed(self, case, what):
        """The result is compared with that of a new calculator."""
        if what not in case.changes_noticed:
            pytest.skip(f"the energy does not depend on {what}")
        atoms = evaluated(case, case.atoms())
        before = atoms.get_potential_energy()
        if what == "positions":
            atoms.positions[0, 0] += 1e-3
        elif what == "numbers":
            atoms.numbers[0] = next(number for number in case.numbers if number != atoms.numbers[0])
        elif what == "cell":
            atoms.set_cell(atoms.cell.array * 1.01)
        elif what == "pbc":
            if not atoms.pbc.any():
                atoms.cell = [12.0, 12.0, 12.0]
            atoms.pbc = not atoms.pbc.any()
        else:
            atoms.info["charge"] = 1.0
        after = atoms.get_potential_energy()
        assert after != before
        fresh = evaluated(case, atoms.copy())
        fresh.info.update(atoms.info)
        assert abs(after - fresh.get_potential_energy()) < case.mesh * len(atoms)

    def test_two_calculators_in_two_threads(self, case):
        """Two threads give the results of two evaluations in sequence."""
        moves = [0.1 * np.random.default_rng(seed).standard_normal((len(case.atoms()), 3)) for seed in range(4)]

        def run(calculator, results):
            for move in moves:
                atoms = case.atoms()
                atoms.positions += move
                results.append((calculator.get_potential_energy(atoms), calculator.get_forces(atoms)))

        alone: list = []
        run(case.make(), alone)
        together: list[list] = [[], []]
        threads = [threading.Thread(target=run, args=(case.make(), results)) for results in together]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for results in together:
            assert len(results) == len(alone)
            for (energy, forces), (expected_energy, expected_forces) in zip(results, alone, strict=True):
                assert energy == pytest.approx(expected_energy, rel=1e-13)
                close(forces, expected_forces, 1e-11)

    def unchanged(self, case, change, tolerance):
        before, after = evaluated(case, case.atoms()), case.atoms()
        change(after)
        evaluated(case, after)
        energies = [each.get_potential_energy() for each in (after, before)]
        assert abs(energies[0] - energies[1]) < tolerance * len(before)
        close(after.get_forces(), before.get_forces(), 10 * tolerance)
        if "stress" in case.offered:
            close(after.get_stress(), before.get_stress(), 10 * tolerance)
        if "born_effective_charges" in case.offered:
            born_charges = [each.calc.get_property("born_effective_charges", each) for each in (after, before)]
            close(*born_charges, 10 * tolerance)
