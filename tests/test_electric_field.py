"""A uniform electric field: energy -E.P, its derivatives, and polarization across periodic boundaries."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import InputError, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from structures import potential, rattled_crystal, salt_potential, salt_water_slab, settings, water

from lrc_ase import LongRangeSettings, LRCCalculator, Potential, build_model
from lrc_ase.models.derivatives import evaluate
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

FIELD = (0.1, -0.2, 0.3)


@pytest.fixture(scope="module")
def some_potential():
    return potential()


@pytest.fixture(scope="module")
def rigid_potential():
    """Charges that follow from the elements alone."""
    made = potential()
    with torch.no_grad():
        made.model.long_range.transfers.profile.fill_(-1e3)  # weights of exp(-1000)
    return made


@pytest.mark.parametrize("make", [water, rattled_crystal, salt_water_slab])
def test_a_charge_feels_the_force_qE(make, rigid_potential):
    atoms = make()
    plain = LRCCalculator(rigid_potential).get_forces(atoms)
    calculator = LRCCalculator(rigid_potential, electric_field=FIELD)
    actual = calculator.get_forces(atoms) - plain
    charges = calculator.get_charges(atoms)
    np.testing.assert_allclose(actual, charges[:, None] * np.array(FIELD), rtol=0, atol=1e-12)
    assert np.abs(charges).max() > 0.1


def test_energy_of_a_charged_molecule_is_minus_field_times_dipole(some_potential):
    """Along open directions a field may act on a net charge: the whole molecule feels the force Q E."""
    atoms = water()
    atoms.info["charge"] = 1.0
    plain = LRCCalculator(some_potential)
    energy, dipole = plain.get_potential_energy(atoms), plain.get_property("dipole", atoms)
    in_field = LRCCalculator(some_potential, electric_field=FIELD)
    assert in_field.get_potential_energy(atoms) - energy == pytest.approx(-np.dot(FIELD, dipole), abs=1e-10)
    np.testing.assert_allclose(in_field.get_forces(atoms).sum(axis=0), FIELD, rtol=0, atol=1e-9)
    assert in_field.results["energies"].sum() == pytest.approx(in_field.results["energy"], rel=1e-12)


def test_entry_of_the_atoms_and_keyword_are_one_field(some_potential):
    atoms = rattled_crystal()
    by_keyword = LRCCalculator(some_potential, electric_field=FIELD)
    forces = by_keyword.get_forces(atoms)
    atoms.info["external_field"] = np.array(FIELD)
    by_entry = LRCCalculator(some_potential)
    np.testing.assert_array_equal(by_entry.get_forces(atoms), forces)
    np.testing.assert_array_equal(by_keyword.get_forces(atoms), forces)  # both, and the same
    atoms.info["external_field"] = [0, 0, 0]
    np.testing.assert_array_equal(by_entry.get_forces(atoms), LRCCalculator(some_potential).get_forces(atoms))
    with pytest.raises(InputError, match=r"info\[\"external_field\"\] is \[0.0, 0.0, 0.0\] V/Angstrom, the keyword"):
        by_keyword.get_forces(atoms)


def test_a_change_of_the_field_is_noticed(some_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(some_potential)
    energies = [atoms.get_potential_energy()]
    atoms.info["external_field"] = np.array([0.0, 0.0, 0.1])
    assert atoms.calc.check_state(atoms) == ["external_field"]
    energies.append(atoms.get_potential_energy())
    assert atoms.calc.check_state(atoms) == []
    atoms.info["external_field"][2] = 0.2  # in place
    energies.append(atoms.get_potential_energy())
    assert energies[2] - energies[1] == pytest.approx(energies[1] - energies[0], abs=1e-9)
    assert abs(energies[1] - energies[0]) > 1e-4
    searches = atoms.calc.neighbor_list.n_searches
    assert searches == 1  # pairs do not depend on the field


def test_a_wrapped_atom_makes_no_step(rigid_potential):
    """And a fresh calculator, or one after `reset`, starts from the branch of the positions that it is given."""
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(rigid_potential, electric_field=FIELD)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    polarization = atoms.calc.get_polarization(atoms)
    shift = atoms.cell[0] - 2 * atoms.cell[2]
    atoms.positions[3] += shift
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-9)
    np.testing.assert_allclose(atoms.calc.get_polarization(atoms), polarization, rtol=0, atol=1e-12)
    atoms.calc.reset()
    jump = atoms.get_charges()[3] * shift  # e Angstrom
    assert atoms.get_potential_energy() - energy == pytest.approx(-np.dot(FIELD, jump), abs=1e-9)
    np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-8)
    moved = atoms.calc.get_polarization(atoms) - polarization
    np.testing.assert_allclose(moved, jump / atoms.get_volume(), rtol=0, atol=1e-12)


def test_forces_do_not_depend_on_the_image_of_an_atom(some_potential):
    """Transfers count along vectors between neighbors: another image adds a constant to the energy."""
    atoms, other = rattled_crystal(), rattled_crystal()
    shift = atoms.cell[0] - 2 * atoms.cell[2]
    other.positions[3] += shift
    results = []
    for each in (atoms, other):
        each.calc = LRCCalculator(some_potential, electric_field=FIELD)
        results.append((each.get_forces(), each.get_potential_energy(), each.calc.get_polarization(each)))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=0, atol=1e-8)
    quantum = results[1][2] - results[0][2]
    transfers = some_potential.model.long_range.transfers
    charge = transfers.excess(None, neighbor_graph(atoms, ("H", "O", "Na", "Cl"), 4.0)).element_charges[3].item()
    np.testing.assert_allclose(quantum * atoms.get_volume(), charge * shift, rtol=0, atol=1e-9)
    assert results[1][1] - results[0][1] == pytest.approx(-np.dot(FIELD, charge * shift), abs=1e-8)
    assert np.ptp(atoms.get_charges()[atoms.symbols == "Cl"]) > 1e-3  # charges do depend on the surroundings


def test_born_charges_are_the_derivative_of_the_polarization(some_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(some_potential)
    actual = atoms.calc.get_born_effective_charges(atoms)[5]
    for axis in range(3):
        sides = []
        for step in (1e-4, -2e-4):
            atoms.positions[5, axis] += step
            sides.append(atoms.calc.get_polarization(atoms) * atoms.get_volume())
        atoms.positions[5, axis] += 1e-4
        np.testing.assert_allclose(actual[:, axis], (sides[0] - sides[1]) / 2e-4, rtol=0, atol=1e-7)


def shifted_potential():
    """Charges that are shifted evenly to the total charge, as in potentials of lrc-ase 0.2."""
    return potential(settings(long_range=LongRangeSettings(n_channels=2, accuracy=1e-6, charges="shifted")))


@pytest.mark.parametrize(
    ("make_potential", "atoms"), [(shifted_potential, rattled_crystal()), (potential, rattled_crystal()[:7])]
)
def test_charge_without_a_path_is_warned_of_once(make_potential, atoms, recwarn):
    """All charge where it is shifted, and the excess of a composition unlike those of training."""
    calculator = LRCCalculator(make_potential())
    calculator.get_forces(atoms)
    assert not recwarn.list
    atoms.info["external_field"] = FIELD
    with pytest.warns(UserWarning, match="forces depend on the periodic image in which each atom is given. Train it"):
        calculator.get_forces(atoms)
    atoms.rattle(0.01)
    calculator.get_forces(atoms)
    slab = atoms.copy()
    slab.pbc = (True, False, True)
    slab.info["external_field"] = np.cross(slab.cell[0], slab.cell[2]) / 1000
    LRCCalculator(make_potential()).get_forces(slab)  # along the open direction charge has a path


def test_another_structure_starts_from_its_own_positions(rigid_potential):
    first, second = rattled_crystal(seed=0), rattled_crystal(seed=1)
    second.positions[3] += [0, 0, 2.5]
    calculator = LRCCalculator(rigid_potential, electric_field=FIELD)
    calculator.get_potential_energy(first)
    first.positions[0] += first.cell[1]
    calculator.get_potential_energy(first)
    strained = first.copy()
    strained.set_cell(first.cell.array * 1.03, scale_atoms=True)
    for other in (strained, second):
        expected = LRCCalculator(rigid_potential, electric_field=FIELD).get_potential_energy(other)
        assert calculator.get_potential_energy(other) == pytest.approx(expected, abs=1e-9)


def test_no_jumps_are_counted_along_open_directions(rigid_potential):
    slab = salt_water_slab()
    calculator = LRCCalculator(rigid_potential, electric_field=(0, 0, 0.2))
    calculator.get_potential_energy(slab)
    slab.positions[-1, 2] += 0.8
    expected = LRCCalculator(rigid_potential, electric_field=(0, 0, 0.2)).get_potential_energy(slab)
    assert calculator.get_potential_energy(slab) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_dynamics_in_a_field_conserves_energy_while_atoms_are_wrapped(pbc):
    """Ions hot enough to leave their cell; one that jumps without its image would change the energy by 0.9 eV."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.pbc = pbc
    atoms.rattle(0.1, seed=3)
    atoms.set_momenta(4.0 * np.random.default_rng(0).standard_normal((8, 3)))
    atoms.calc = LRCCalculator(salt_potential(), electric_field=(0.3, 0, 0))
    ranges, n_wrapped = [], 0
    start = atoms.copy()
    for timestep, n_steps in ((1.0, 2), (0.5, 4)):
        atoms.set_positions(start.positions)
        atoms.set_momenta(start.get_momenta())
        atoms.calc.reset()
        totals = []
        dynamics = VelocityVerlet(atoms, timestep * units.fs)
        for _ in range(50):
            dynamics.run(n_steps)
            before = atoms.get_positions()
            atoms.wrap()
            n_wrapped += int((np.abs(atoms.positions - before) > 1).any(axis=1).sum())
            totals.append(atoms.get_total_energy())
        ranges.append(np.ptp(totals))
    assert n_wrapped > 10
    assert ranges[1] < 1e-3
    assert 3 < ranges[0] / ranges[1] < 5  # second order in the time step, as without a field


def test_dipole_of_a_slab_is_its_normal_component(some_potential):
    atoms = salt_water_slab()
    atoms.calc = LRCCalculator(some_potential)
    dipole, charges = atoms.get_dipole_moment(), atoms.get_charges()
    np.testing.assert_allclose(dipole[:2], 0, atol=1e-14)
    assert dipole[2] == pytest.approx(charges @ atoms.positions[:, 2], rel=1e-12)
    assert abs(dipole[2]) > 1e-3
    atoms.positions[2] += atoms.cell[0]  # in the plane
    atoms.translate([1.0, 2.0, 3.0])
    np.testing.assert_allclose(atoms.get_dipole_moment(), dipole, rtol=0, atol=1e-6)


def test_polarization_needs_three_periodic_directions(some_potential):
    atoms = salt_water_slab()
    atoms.calc = LRCCalculator(some_potential)
    with pytest.raises(PropertyNotImplementedError, match="needs three periodic directions; `get_dipole_moment`"):
        atoms.calc.get_property("polarization", atoms)


def test_responses_are_properties_by_name(some_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(some_potential)
    for name, shape in {"polarization": (3,), "polarizability": (3, 3), "born_effective_charges": (8, 3, 3)}.items():
        actual = atoms.calc.get_property(name, atoms)
        assert actual.shape == shape
        np.testing.assert_array_equal(actual, getattr(atoms.calc, f"get_{name}")(atoms))
        assert name not in atoms.calc.results


def test_stresses_of_atoms_are_refused_in_a_field(some_potential):
    atoms = rattled_crystal()
    atoms.calc = LRCCalculator(some_potential, electric_field=FIELD)
    with pytest.raises(PropertyNotImplementedError, match="stresses of single atoms are not defined in an electric"):
        atoms.get_stresses()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ((0, 0.1), r"three numbers, the electric field along x, y, z in V/Angstrom, got \(0, 0.1\)"),
        (0.1, "must be three numbers"),
        ("up", "must be three numbers, .* got 'up'"),
        ((0, 0, np.nan), "must be finite"),
        ((0, 0, 1e8), r"is 1e\+08 V/Angstrom strong, more than 10: check its unit; 1 V/nm = 0.1 V/Angstrom"),
    ],
)
def test_what_is_no_field_is_refused(field, message, some_potential):
    with pytest.raises(ValueError, match="`electric_field` .*" + message):
        LRCCalculator(some_potential, electric_field=field)
    atoms = rattled_crystal()
    atoms.info["external_field"] = field
    with pytest.raises(InputError, match=r'atoms.info\["external_field"\] .*' + message):
        LRCCalculator(some_potential).get_potential_energy(atoms)


def test_a_similar_name_is_not_ignored(some_potential):
    atoms = rattled_crystal()
    atoms.info["electric_field"] = FIELD
    with pytest.raises(InputError, match=r'info\["electric_field"\] is not read: write the field in V/Angstrom to'):
        LRCCalculator(some_potential).get_potential_energy(atoms)
    atoms.info["electric_field"] = np.zeros(3)
    LRCCalculator(some_potential).get_potential_energy(atoms)


def test_a_field_through_a_charged_cell_is_refused(some_potential):
    atoms = salt_water_slab()
    atoms.info["charge"] = 1.0
    message = r"along a periodic direction \(cell vector 1\) needs a neutral cell, got total charge \+1 e"
    with pytest.raises(InputError, match=message):
        LRCCalculator(some_potential, electric_field=(0, 0.1, 0)).get_potential_energy(atoms)
    LRCCalculator(some_potential, electric_field=(0, 0, 0.1)).get_potential_energy(atoms)


def test_a_field_needs_charges():
    made = potential(settings(long_range=False))
    with pytest.raises(ValueError, match="electric field acts on latent charges, and this model has none"):
        LRCCalculator(made, electric_field=FIELD)
    LRCCalculator(made, electric_field=(0, 0, 0)).get_potential_energy(water())
    atoms = water()
    atoms.info["external_field"] = FIELD
    with pytest.raises(InputError, match="electric field acts on latent charges, and this model has none"):
        LRCCalculator(made).get_potential_energy(atoms)


def test_a_batch_equals_its_structures(some_potential):
    """Also where a part of the structures is in no field."""
    model = some_potential.model
    graphs = [
        neighbor_graph(atoms, model.settings.elements, model.settings.cutoff)
        for atoms in (rattled_crystal(), water(), salt_water_slab())
    ]
    graphs[0] = replace(graphs[0], field=torch.tensor([FIELD], dtype=torch.float64))
    graphs[2] = replace(
        graphs[2],
        field=torch.tensor([[0.2, 0, 0]], dtype=torch.float64),
        images=torch.tensor([1.0, 0, 0], dtype=torch.float64).repeat(graphs[2].n_atoms, 1),
    )
    batch = evaluate(model, collate(graphs))
    singles = [evaluate(model, graph) for graph in graphs]
    torch.testing.assert_close(batch.energy, torch.cat([each.energy for each in singles]), rtol=0, atol=1e-9)
    torch.testing.assert_close(batch.forces, torch.cat([each.forces for each in singles]), rtol=0, atol=1e-9)


def test_electronic_permittivity_scales_the_response_of_a_periodic_insulator():
    """Z = sqrt(eps_inf) q, and electrons of polarizability eps_0 (eps_inf - 1) V, all of one energy."""
    plain = potential()
    long_range = plain.settings.long_range.model_copy(update={"eps_inf": 2.25})
    model = build_model(plain.settings.model_copy(update={"long_range": long_range}))
    model.to(torch.float64).load_state_dict(plain.model.state_dict())
    screened = Potential(model, plain.references)
    atoms = rattled_crystal()
    before, after = LRCCalculator(plain), LRCCalculator(screened)
    np.testing.assert_array_equal(after.get_forces(atoms), before.get_forces(atoms))  # without a field nothing changes
    born = before.get_born_effective_charges(atoms)
    np.testing.assert_allclose(after.get_born_effective_charges(atoms), 1.5 * born, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after.get_polarization(atoms), 1.5 * before.get_polarization(atoms), rtol=0, atol=1e-12)
    vacuum_permittivity = 0.0055263494  # e/(V Angstrom), CODATA 2018
    expected = 1.25 * vacuum_permittivity * atoms.get_volume() * np.eye(3)
    np.testing.assert_allclose(after.get_polarizability(atoms), expected, rtol=1e-7, atol=1e-12)
    np.testing.assert_array_equal(before.get_polarizability(atoms), 0)
    in_field = LRCCalculator(screened, electric_field=FIELD)
    induced = in_field.get_polarization(atoms) - after.get_polarization(atoms)
    np.testing.assert_allclose(induced, 1.25 * vacuum_permittivity * np.array(FIELD), rtol=1e-7)
    atoms.calc = in_field
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), rtol=0, atol=1e-7)
    forces = in_field.get_forces(atoms) - before.get_forces(atoms)
    np.testing.assert_allclose(forces, 1.5 * np.einsum("a,iab->ib", FIELD, born), rtol=0, atol=1e-9)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    for open_structure in (water(), salt_water_slab()):  # the charges of molecules and slabs are what they are
        dipoles = [calculator.get_property("dipole", open_structure) for calculator in (before, after)]
        np.testing.assert_array_equal(*dipoles)
