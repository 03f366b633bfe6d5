"""Permanent and induced dipoles of atoms: energies, polarization, polarizability against formulas and differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import erf
from structures import rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase import LongRangeSettings, build_model
from lrc_ase.models.derivatives import born_effective_charges, dipole_moment, evaluate, polarizability
from lrc_ase.models.polarization_current import polarization_current
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

COULOMB_CONSTANT = 14.3996454785  # e^2 / (4 pi epsilon_0) in eV Angstrom, CODATA 2018
FRAMES = {"crystal": rattled_crystal, "slab": salt_water_slab, "molecule": water}
SMEARING = 1.25


def responding(**changes):
    """A model with both kinds of dipoles, and larger polarizabilities than a new one has."""
    chosen = {"n_channels": 2, "accuracy": 1e-6, "compositions": {"NaCl": 0, "H2O": 0}}
    long_range = LongRangeSettings(**(chosen | {"polarizable": True, "n_dipoles": 2} | changes))
    model = shaken_model(settings(long_range=long_range)).requires_grad_(False)
    model.long_range.weights.last.weight[-model.long_range.n_responses :] *= 10
    return model


def graph_of(atoms, **changes):
    return replace(neighbor_graph(atoms, ("H", "O", "Na", "Cl"), 4.5), **changes)


def in_field(graph, field):
    return replace(graph, field=torch.tensor(np.array([field]), dtype=torch.float64))


@pytest.mark.parametrize(
    "changes", [{}, {"charges": "shifted"}, {"polarizable": False}, {"n_dipoles": 0}], ids=lambda each: str(each)
)
def test_energy_is_that_of_dipoles_in_the_field_of_gaussian_charges(changes):
    """Against a model without polarizabilities and dipoles, and the field of smeared charges in NumPy."""
    model, graph = responding(**changes), graph_of(water())
    plain = build_model(
        settings(long_range=model.long_range.settings.model_copy(update={"polarizable": False, "n_dipoles": 0}))
    ).double()
    state = {name: value for name, value in model.state_dict().items() if "response" not in name}
    n_kept = plain.long_range.weights.last.out_features
    for name, value in state.items():
        if "weights.last" in name:
            state[name] = value[:n_kept]
        elif "weights.element_bias" in name:
            state[name] = value[:, :n_kept]
    plain.load_state_dict(state)
    output = model(graph)
    q, x = output.charges.numpy(), graph.positions.numpy()
    field = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            if i != j:
                r = np.linalg.norm(x[i] - x[j])
                gaussian = np.sqrt(2 / np.pi) / SMEARING * np.exp(-(r**2) / (2 * SMEARING**2))
                falling = erf(r / np.sqrt(2) / SMEARING) / r - gaussian
                field[i] += COULOMB_CONSTANT * q[j] * falling * (x[i] - x[j]) / r**2
    alpha = np.zeros(3) if output.polarizabilities is None else output.polarizabilities.numpy()
    induced = alpha[:, None] * field
    permanent = output.local_dipoles.numpy() - induced
    expected = -(permanent * field).sum() - 0.5 * (alpha * (field**2).sum(axis=1)).sum()
    difference = evaluate(model, graph).energy - evaluate(plain, graph).energy
    assert difference.item() == pytest.approx(expected, rel=1e-7)
    assert (alpha > 0).all() == changes.get("polarizable", True)
    assert (np.abs(permanent).max() > 1e-3) == (changes.get("n_dipoles", 1) > 0)
    assert (np.abs(induced).max() > 1e-3) == changes.get("polarizable", True)


def test_permanent_dipoles_point_along_edges():
    """Atoms of a line have dipoles along it, an atom alone has none."""
    model = responding()
    atoms = water()
    atoms.positions[:] = [[0, 0, 0], [0, 0, 1.0], [0, 0, -1.2]]
    dipoles = model(graph_of(atoms)).local_dipoles
    assert dipoles[:, :2].abs().max() < 1e-14
    assert dipoles[:, 2].abs().max() > 1e-3
    assert model(graph_of(atoms[:1])).local_dipoles.abs().max() == 0


@pytest.mark.parametrize("name", FRAMES)
def test_permanent_dipoles_are_divided_amounts_along_the_edges(name):
    """The definition, edge by edge, in NumPy."""
    model, graph = responding(), graph_of(FRAMES[name]())
    part = model.long_range.response.dipoles
    vectors = model.local(graph, None).vectors
    amounts = torch.randn(graph.n_atoms, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    profile = np.logaddexp(0, part.profile.numpy())  # (n_amounts, n_elements, n_powers)
    expected = np.zeros((graph.n_atoms, 3))
    for i in range(graph.n_atoms):
        edges = []
        for column in np.flatnonzero(graph.neighbor_mask[i]):
            r = vectors[i, column].numpy()
            if np.linalg.norm(r) < 4.5:
                functions = (1 - (np.linalg.norm(r) / 4.5) ** 2) ** np.array([4, 8, 16, 32])
                edges.append((r, profile[:, graph.species[graph.neighbors[i, column]]] @ functions))
        total = 1 + sum(weights for _, weights in edges)
        for r, weights in edges:
            expected[i] += (amounts[i].numpy() @ (weights / total)) * r
    np.testing.assert_allclose(part(vectors, graph, amounts), expected, rtol=0, atol=1e-13)


def test_a_new_model_has_half_a_cubic_angstrom_of_polarizability_and_no_permanent_dipoles():
    long_range = LongRangeSettings(compositions={"H2O": 0}, polarizable=True, n_dipoles=3)
    output = build_model(settings(long_range=long_range)).double()(graph_of(water()))
    np.testing.assert_allclose(output.polarizabilities.detach() * COULOMB_CONSTANT, 0.5, rtol=1e-6)
    field = (output.local_dipoles / output.polarizabilities[:, None]).detach()
    assert field[0, 2].abs() > 0.3  # V/Angstrom: the field of hydrogens at oxygen
    assert field[:, 0].abs().max() < 1e-6  # none across the plane of the molecule


@pytest.mark.parametrize("charges", ["transfers", "shifted"])
@pytest.mark.parametrize("name", FRAMES)
def test_polarization_and_polarizability_are_derivatives_by_the_field(name, charges):
    model, graph = responding(charges=charges), graph_of(FRAMES[name]())
    field, step = np.array([0.1, -0.05, 0.2]), 1e-3
    dipole = dipole_moment(model, in_field(graph, field))[0]
    alpha = polarizability(model, in_field(graph, field))[0]
    for axis in range(3):
        sides = [in_field(graph, field + sign * step * np.eye(3)[axis]) for sign in (1, -1)]
        energies = [evaluate(model, side).energy.item() for side in sides]
        assert dipole[axis].item() == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-8)
        dipoles = [dipole_moment(model, side)[0] for side in sides]
        torch.testing.assert_close(alpha[:, axis], (dipoles[0] - dipoles[1]) / (2 * step), rtol=1e-8, atol=1e-10)
    # charges do not depend on the field: what answers is the atoms
    expected = model(graph).polarizabilities.sum() * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(alpha, expected, rtol=1e-12, atol=1e-14)
    results = evaluate(model, in_field(graph, field), dipole=True)
    torch.testing.assert_close(results.dipole[0], dipole, rtol=1e-12, atol=1e-12)
    assert results.atomic_energies.sum().item() == pytest.approx(results.energy.item(), abs=1e-9)


@pytest.mark.parametrize("charges", ["transfers", "shifted"])
@pytest.mark.parametrize("field", [None, (0.3, 0.0, -0.2)])
def test_current_is_the_sum_of_born_charges_times_velocities(charges, field):
    atoms, model = water(), responding(charges=charges)
    graph = graph_of(atoms) if field is None else in_field(graph_of(atoms), field)
    velocities = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    born_charges = born_effective_charges(model, graph)
    current, moment = polarization_current(model, graph, velocities)
    torch.testing.assert_close(current, torch.einsum("iab,ib->a", born_charges, velocities), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(moment, dipole_moment(model, graph)[0], rtol=1e-12, atol=1e-12)
    for atom in range(3):
        for axis in range(3):
            sides = []
            for sign in (1, -1):
                moved = graph.positions.clone()
                moved[atom, axis] += 1e-4 * sign
                sides.append(dipole_moment(model, replace(graph, positions=moved))[0])
            expected = (sides[0] - sides[1]) / 2e-4
            torch.testing.assert_close(born_charges[atom, :, axis], expected, rtol=1e-6, atol=1e-7)


def test_a_batch_of_boundaries_gives_the_numbers_of_its_structures():
    model = responding()
    graphs = [in_field(graph_of(make()), (0.1, 0.0, 0.1)) for make in FRAMES.values()]
    together = evaluate(model, collate(graphs))
    alone = [evaluate(model, graph) for graph in graphs]
    torch.testing.assert_close(together.energy, torch.cat([each.energy for each in alone]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(together.forces, torch.cat([each.forces for each in alone]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", FRAMES)
def test_the_loss_on_forces_is_differentiated_through_the_field_of_the_charges(name):
    """A training step: the gradient of squared forces by the parameters, against a difference along itself."""
    model, graph = responding().requires_grad_(True), graph_of(FRAMES[name]())
    parameters = [each for part in (model.long_range.weights, model.long_range.response) for each in part.parameters()]
    loss = evaluate(model, graph, training=True).forces.square().sum()
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.sqrt(sum(each.square().sum() for each in gradients))
    losses = []
    for step in (1e-5, -1e-5):
        moved = [step * gradient / norm for gradient in gradients]
        with torch.no_grad():
            for parameter, move in zip(parameters, moved, strict=True):
                parameter += move
        losses.append(evaluate(model, graph).forces.square().sum())
        with torch.no_grad():
            for parameter, move in zip(parameters, moved, strict=True):
                parameter -= move
    assert ((losses[0] - losses[1]) / 2e-5).item() == pytest.approx(norm.item(), rel=1e-6)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="dipoles act on latent charges: set `electrostatics: true`"):
        LongRangeSettings(electrostatics=False, polarizable=True)
    with pytest.raises(ValueError, match="dipoles act on latent charges: set `electrostatics: true`"):
        LongRangeSettings(electrostatics=False, n_dipoles=1)
    with pytest.raises(ValueError, match="`eps_inf` and `polarizable` both stand for the electrons: set one"):
        LongRangeSettings(eps_inf=2.3, polarizable=True)
