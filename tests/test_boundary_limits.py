"""Boundaries against each other: vacuum, growing boxes, charged cells."""

import numpy as np
import pytest
from ase.build import molecule
from structures import potential, rattled_crystal, salt_water_slab, settings

from lrc_ase import LongRangeSettings, LRCCalculator
from lrc_ase.layer.lattice import volume
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.finite_size import image_charge_energy
from lrc_ase.structures.neighbors import neighbor_graph

COULOMB_CONSTANT = 14.3996454785  # e^2 / (4 pi epsilon_0) in eV Angstrom, CODATA 2018


@pytest.fixture(scope="module")
def own_potential():
    """Atoms move against the mesh when the vacuum grows: the error of the mesh stays below the tolerances."""
    return potential(settings(long_range=LongRangeSettings(n_channels=2, accuracy=1e-10)))


@pytest.fixture(scope="module")
def charges_alone():
    """Electrostatics without latent weights, whose screened kernels add a tail of their own."""
    return potential(settings(long_range=LongRangeSettings(n_channels=0, accuracy=1e-6)))


def slab(vacuum):
    atoms = salt_water_slab()
    atoms.center(vacuum=vacuum, axis=2)
    return atoms


def wire(vacuum):
    atoms = rattled_crystal()
    atoms.pbc = (True, False, False)
    atoms.center(vacuum=vacuum, axis=(1, 2))
    return atoms


@pytest.mark.parametrize(("make", "n_periodic"), [(slab, 2), (wire, 1)])
def test_energy_forces_and_in_plane_stress_do_not_depend_on_the_vacuum(make, n_periodic, own_potential):
    """The stress per area (slab) or length (wire) along the periodic directions, which evaluate() gives."""
    results = []
    for vacuum in (10.0, 20.0, 40.0):
        atoms = make(vacuum)
        atoms.calc = LRCCalculator(own_potential)
        model = atoms.calc.model
        graph = neighbor_graph(atoms, model.settings.elements, model.settings.cutoff)
        evaluation = evaluate(model, graph, stress=True)
        assert evaluation.stress is not None
        virial = (evaluation.stress * volume(graph.cell)[:, None, None])[0, :n_periodic, :n_periodic]
        results.append((atoms.get_potential_energy(), atoms.get_forces(), virial.numpy()))
    for others in results[1:]:
        for value, first in zip(others, results[0], strict=True):
            assert np.abs(value - first).max() < 1e-6 * np.abs(first).max()


def energies_in_boxes(atoms, own_potential, sizes):
    """Energy in periodic cubes of these sizes, less that in open space."""
    atoms.calc = LRCCalculator(own_potential)
    open_energy = atoms.get_potential_energy()
    atoms.pbc = True
    energies = []
    for size in sizes:
        atoms.set_cell(np.eye(3) * size)
        energies.append(atoms.get_potential_energy())
    return np.array(energies) - open_energy


def images_of_a_screened_charge(size, screening):
    """Sum of exp(-screening r) / r over the images of a unit charge in a periodic cube."""
    n_images = int(np.ceil(35 / (screening * size)))
    shifts = np.moveaxis(np.indices((2 * n_images + 1,) * 3) - n_images, 0, -1).reshape(-1, 3)
    distances = size * np.linalg.norm(shifts[np.any(shifts, axis=1)], axis=1)
    return np.sum(np.exp(-screening * distances) / distances)


def test_a_molecule_in_a_growing_box_goes_to_the_open_result(own_potential):
    """Dipoles in a cube of conducting surroundings add -2 pi k p^2 / 3 V; latent weights add their screened images.

    The longest screening length of this potential is 9.5 Angstrom: below 40 Angstrom images shift the field so far
    that the read-out is not linear in it, and the energy is no multiple of the sum over images.
    """
    atoms, sizes = molecule("H2O"), np.array([48.0, 60.0, 72.0])
    atoms.calc = LRCCalculator(own_potential)
    dipoles = -2 * np.pi / 3 * COULOMB_CONSTANT * np.sum(atoms.get_dipole_moment() ** 2) / sizes**3
    differences = energies_in_boxes(atoms, own_potential, sizes)
    _, screened = own_potential.model.long_range.convolution.multiplier.multipliers
    screening = screened.log_screening.detach().exp().min().item()
    images = np.array([images_of_a_screened_charge(size, screening) for size in sizes])
    response = (differences[0] - dipoles[0]) / images[0]
    np.testing.assert_allclose(differences, dipoles + response * images, rtol=3e-3)
    assert (dipoles / differences)[-1] > 0.5 > (dipoles / differences)[0]


def test_what_a_box_adds_to_a_neutral_molecule_falls_with_its_volume(charges_alone):
    """Dipoles see their images as 1 / V, which is all that is left."""
    sizes = np.array([14.0, 20.0, 28.0])
    differences = energies_in_boxes(molecule("H2O"), charges_alone, sizes)
    assert abs(differences[0]) > 1e-5
    np.testing.assert_allclose(differences * sizes**3, differences[-1] * sizes[-1] ** 3, rtol=0.05)


def test_a_charged_molecule_less_its_image_energy_goes_to_the_open_result(charges_alone):
    sizes = np.array([16.0, 22.0, 30.0])
    atoms = molecule("H2O")
    atoms.info["charge"] = 1.0
    differences = energies_in_boxes(atoms, charges_alone, sizes)
    corrected = differences - [image_charge_energy(1.0, np.eye(3) * size) for size in sizes]
    assert np.abs(corrected).max() < 0.1 * np.abs(differences).min()
    np.testing.assert_allclose(corrected * sizes**3, corrected[-1] * sizes[-1] ** 3, rtol=0.05)


@pytest.mark.parametrize(
    ("cell", "constant"),
    [
        (np.eye(3), -0.88005944),
        (0.5 * (np.ones((3, 3)) - 2 * np.eye(3)), -0.89592925),
        (0.5 * (np.ones((3, 3)) - np.eye(3)), -0.89587366),
    ],
    ids=["simple cubic", "body-centered", "face-centered"],
)
@pytest.mark.parametrize("stretch", [1.0, 7.3])
def test_image_energy_is_that_of_wigner_lattices(cell, constant, stretch):
    """In units of k_e Q^2 / r_s, with r_s the radius of the sphere of one cell's volume."""
    cell = stretch * cell
    radius = (3 * abs(np.linalg.det(cell)) / (4 * np.pi)) ** (1 / 3)
    actual = image_charge_energy(-2.0, cell) * radius / (COULOMB_CONSTANT * 4)
    assert actual == pytest.approx(constant, abs=1e-7)


def test_image_energy_does_not_depend_on_the_choice_of_cell_vectors():
    cell = np.array([[6.0, 0, 0], [1, 7, 0], [2, -1, 8]])
    same = np.array([[1, 0, 0], [3, 1, 0], [-2, 1, 1]]) @ cell
    assert image_charge_energy(1.0, same) == pytest.approx(image_charge_energy(1.0, cell), rel=1e-12)


def test_image_energy_needs_a_volume():
    with pytest.raises(ValueError, match=r"`cell` must have shape \(3, 3\) and a volume"):
        image_charge_energy(1.0, np.zeros((3, 3)))


def test_a_uniform_background_neutralizes_a_charged_cell(own_potential):
    """The energy of a charged supercell per cell stays, which it would not without background."""
    atoms = rattled_crystal()
    energies = []
    for repeat in (1, 2):
        large = atoms.repeat((repeat, 1, 1))
        large.info["charge"] = 0.5 * repeat
        large.calc = LRCCalculator(own_potential)
        energies.append(large.get_potential_energy() / repeat)
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)
    neutral = LRCCalculator(own_potential).get_potential_energy(atoms)
    assert abs(neutral - energies[0]) > 1e-3
