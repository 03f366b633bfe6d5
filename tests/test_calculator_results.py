"""Results as ASE's writers and helpers take them, and the values that documented getters return instead."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.outputs import all_outputs
from structures import potential, rattled_crystal, salt_water_slab, settings, water

from lrc_ase import LRCCalculator, Potential
from lrc_ase.models.ensemble import Ensemble

FRAMES = {"crystal": rattled_crystal, "molecule": water, "slab": salt_water_slab}


@pytest.fixture(scope="module", params=["single", "ensemble"])
def any_potential(request):
    members = [potential(seed=seed) for seed in range(2)]
    if request.param == "single":
        return members[0]
    return Potential(Ensemble([member.model for member in members]), members[0].references)


def evaluated(atoms, any_potential):
    """Atoms with everything computed that they have."""
    atoms.calc = LRCCalculator(any_potential)
    atoms.get_forces()
    if atoms.pbc.all():
        atoms.get_stresses()
    atoms.calc.get_born_effective_charges(atoms)
    return atoms


@pytest.mark.parametrize("name", FRAMES)
def test_results_have_ases_names_shapes_and_types(name, any_potential):
    atoms = evaluated(FRAMES[name](), any_potential)
    sizes = {"natoms": len(atoms)}
    assert set(atoms.calc.results) <= set(all_properties)
    assert set(atoms.calc.implemented_properties) <= set(all_properties)
    for key, value in atoms.calc.results.items():
        assert np.shape(value) == tuple(sizes.get(length, length) for length in all_outputs[key].shapespec)
        assert isinstance(value, float) or value.dtype == np.float64


@pytest.mark.parametrize("ending", ["traj", "extxyz", "json", "db"])
@pytest.mark.parametrize("name", FRAMES)
def test_every_result_is_written_and_read_back(name, ending, any_potential, tmp_path):
    atoms = evaluated(FRAMES[name](), any_potential)
    dropped = {"energies", "stresses"} if ending == "db" else set()  # ASE's databases have no room for them
    ase.io.write(tmp_path / f"atoms.{ending}", atoms)
    again = ase.io.read(tmp_path / f"atoms.{ending}")
    assert set(again.calc.results) == set(atoms.calc.results) - dropped
    for key, value in again.calc.results.items():
        np.testing.assert_allclose(value, atoms.calc.results[key], rtol=0, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", FRAMES)
def test_ases_helpers_take_the_results(name, any_potential):
    atoms = evaluated(FRAMES[name](), any_potential)
    single = SinglePointCalculator(atoms, **atoms.calc.results)
    np.testing.assert_array_equal(single.get_forces(atoms), atoms.get_forces())
    exported = atoms.calc.export_properties()
    assert exported["energy"] == atoms.get_potential_energy()


def test_properties_as_the_driver_of_ipi_asks_for_them(any_potential):
    """`ASEDriver` of i-PI 3.3 asks `Atoms.get_properties`."""
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(any_potential)
    properties = atoms.get_properties(["energy", "forces", "stress"])
    assert properties["energy"] == atoms.get_potential_energy()
    np.testing.assert_array_equal(properties["stress"], atoms.get_stress())


def test_sums_of_calculators_take_the_results(any_potential):
    atoms = rattled_crystal()
    atoms.calc = SumCalculator([LRCCalculator(any_potential), LRCCalculator(any_potential)])
    alone = LRCCalculator(any_potential)
    np.testing.assert_allclose(atoms.get_forces(), 2 * alone.get_forces(atoms.copy()), rtol=1e-12)


def test_born_charges_and_deviations_follow_the_atoms(any_potential):
    """The first request may be for charges, before any for energies, and after a move."""
    ensemble = any_potential.n_members > 1
    atoms, fresh = rattled_crystal(), LRCCalculator(any_potential)
    atoms.calc = LRCCalculator(any_potential)
    for move in (0.0, 0.1):
        atoms.positions[0, 0] += move
        actual = atoms.calc.get_born_effective_charges(atoms)
        np.testing.assert_array_equal(actual, atoms.calc.get_property("born_effective_charges", atoms))
        np.testing.assert_array_equal(actual, fresh.get_born_effective_charges(atoms.copy()))
        actual[:] = 0  # a copy
        assert atoms.calc.get_born_effective_charges().any()
        if ensemble:
            assert atoms.calc.get_energy_std(atoms) == fresh.get_energy_std(atoms.copy()) > 0
            np.testing.assert_array_equal(atoms.calc.get_forces_std(atoms), fresh.get_forces_std(atoms.copy()))
    assert atoms.calc.extrapolation == ()
    json.dumps(atoms.calc.extrapolation)


def test_a_single_model_has_no_deviations():
    atoms = water()
    atoms.calc = LRCCalculator(potential())
    for ask, name in ((atoms.calc.get_energy_std, "energy_std"), (atoms.calc.get_forces_std, "forces_std")):
        with pytest.raises(PropertyNotImplementedError, match=f"{name} needs the potential of an ensemble"):
            ask(atoms)


@pytest.mark.parametrize(("name", "frame"), [("charges", "crystal"), ("dipole", "crystal"), ("dipole", "slab")])
def test_a_potential_without_charges_says_why_it_has_none(name, frame):
    atoms = FRAMES[frame]()
    atoms.calc = LRCCalculator(potential(settings(long_range=None)))
    with pytest.raises(PropertyNotImplementedError, match=f"{name}: this potential has no latent charges"):
        atoms.calc.get_property(name, atoms)


def test_none_stands_for_the_defaults_of_calculate():
    calculator = LRCCalculator(potential())
    calculator.calculate(water(), None)
    energy = calculator.results["energy"]
    calculator.calculate(water(), None, None)
    assert calculator.results["energy"] == energy


@pytest.mark.parametrize("dtype", [">f8", "<f4"])
def test_positions_of_any_floating_type(dtype):
    """NetCDF files and other programs hold other types and byte orders."""
    atoms = rattled_crystal()
    atoms.arrays["positions"] = atoms.positions.astype(dtype)
    rounded = Atoms(atoms.numbers, atoms.positions.astype(float), cell=atoms.cell, pbc=True)
    atoms.calc = rounded.calc = LRCCalculator(potential())
    for _ in range(2):
        assert atoms.get_potential_energy() == rounded.get_potential_energy()
        atoms.positions[0, 0] = rounded.positions[0, 0] = rounded.positions[0, 0] + 0.0625


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        ("stress", "slab", r"the stress of a structure needs three periodic directions, got pbc \[True, True, False\]"),
        ("stresses", "slab", "the stresses of a structure need three periodic directions.*mask"),
        ("dipole", "crystal", "a dipole needs an open direction.*get_polarization"),
    ],
)
def test_properties_that_boundaries_exclude_say_so(name, frame, message, any_potential):
    atoms = FRAMES[frame]()
    atoms.calc = LRCCalculator(any_potential)
    with pytest.raises(PropertyNotImplementedError, match=message):
        atoms.calc.get_property(name, atoms)
    assert atoms.calc.get_property(name, atoms, allow_calculation=False) is None
