"""Latent tensors: their definition in NumPy, and what their fields tell that scalar fields do not."""

import numpy as np
import pytest
import torch
from scipy.special import erfc, erfcx
from structures import rattled_crystal, settings, shaken_model, water

from lrc_ase import LongRangeSettings
from lrc_ase.layer.kernels import Matrix, Repeated, Yukawa
from lrc_ase.models.derivatives import evaluate
from lrc_ase.structures.neighbors import neighbor_graph

ELEMENTS, CUTOFF, SMEARING = ("H", "O", "Na", "Cl"), 4.5, 1.25
POWERS = np.array([4, 8, 16, 32])


def oriented_model(**changes):
    chosen = {"n_channels": 1, "n_tensors": 2, "accuracy": 1e-6, "compositions": {"NaCl": 0, "H2O": 0}}
    return shaken_model(settings(long_range=LongRangeSettings(**(chosen | changes)))).requires_grad_(False)


def graph_of(atoms):
    return neighbor_graph(atoms, ELEMENTS, CUTOFF)


def traceless(matrix):
    return matrix - np.trace(matrix) / 3 * np.eye(3)


def as_matrices(components):
    """Return symmetric traceless matrices of five numbers each, (..., 5) -> (..., 3, 3)."""
    xy, yz, zx, first, second = np.moveaxis(np.asarray(components), -1, 0) / np.sqrt(2)
    second = second / np.sqrt(3)
    rows = [[first - second, xy, zx], [xy, -first - second, yz], [zx, yz, 2 * second]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


@pytest.mark.parametrize("make", [water, rattled_crystal])
def test_tensors_are_those_of_the_edges(make):
    """Edge by edge, in NumPy."""
    model, graph = oriented_model(), graph_of(make())
    part = model.long_range.orientations
    vectors = model.local(graph, None).vectors
    amounts = torch.randn(
        graph.n_atoms, part.n_amounts, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    oriented = part(vectors, graph, amounts)
    of_vectors, of_tensors = part.vectors.numpy(), part.tensors.numpy()
    for i in range(graph.n_atoms):
        tensors, own_vectors = np.zeros((4, 3, 3)), np.zeros((2, 3))
        for column in np.flatnonzero(graph.neighbor_mask[i]):
            r = vectors[i, column].numpy()
            distance = np.linalg.norm(r)
            if distance >= CUTOFF:
                continue
            functions = (1 - (distance / CUTOFF) ** 2) ** POWERS
            rows = np.arange(4) * len(ELEMENTS) + int(graph.species[graph.neighbors[i, column]])
            unit = r / distance
            tensors += (functions @ of_tensors[rows])[:, None, None] * traceless(np.outer(unit, unit))
            own_vectors += (functions @ of_vectors[rows])[:, None] * unit
        own_vectors *= amounts[i, :2].numpy()[:, None]
        tensors *= amounts[i, 2:].numpy()[:, None, None]
        np.testing.assert_allclose(as_matrices(oriented.spread[i]), tensors[:2], rtol=0, atol=1e-13)
        pairs = [(own_vectors[a], own_vectors[b]) for a, b in ((0, 0), (0, 1), (1, 1))]
        products = [traceless((np.outer(v, w) + np.outer(w, v)) / 2) for v, w in pairs]
        np.testing.assert_allclose(as_matrices(oriented.reading[i]), [*tensors[2:], *products], rtol=0, atol=1e-13)


def test_invariants_are_contractions_of_fields_with_tensors():
    model, graph = oriented_model(), graph_of(water())
    local = model.local(graph, None)
    latent = model.long_range.latent_weights(local.features, local.vectors, graph)
    fields = model.long_range.field(latent.values, graph, None).field[:, 1:].unflatten(1, (2, 5))
    invariants = latent.oriented.invariants(fields).numpy()
    screening = model.long_range.convolution.multiplier.multipliers[2].multiplier.screening.numpy()
    amplitude = model.long_range.convolution.multiplier.multipliers[2].multiplier.amplitude.numpy()
    spread, positions = as_matrices(latent.oriented.spread), graph.positions.numpy()
    expected_fields = np.zeros((3, 2, 3, 3))
    for i in range(3):
        for j in range(3):
            if i != j:
                kernel = amplitude * smeared_yukawa(np.linalg.norm(positions[i] - positions[j]), screening)
                expected_fields[i] += kernel[:, None, None] * spread[j]
    reading = as_matrices(latent.oriented.reading)
    read = np.einsum("nrab,ntab->nrt", reading, expected_fields).reshape(3, -1)
    among = np.einsum("nsab,ntab->nst", expected_fields, expected_fields).reshape(3, -1)
    np.testing.assert_allclose(invariants, np.concatenate([read, among], axis=1), rtol=1e-6, atol=1e-9)


def smeared_yukawa(r, screening):
    """Return the potential at distance r of a Gaussian charge of width SMEARING, exp(-screening r) / r far away."""
    shift = screening * SMEARING / np.sqrt(2)
    minus, plus = shift - r / (np.sqrt(2) * SMEARING), shift + r / (np.sqrt(2) * SMEARING)
    gaussian = np.exp(-(r**2) / (2 * SMEARING**2))
    return (np.exp(shift**2 - screening * r) * erfc(minus) - gaussian * erfcx(plus)) / (2 * r)


def test_a_field_tells_how_a_group_beyond_the_cutoff_is_turned():
    """Turned about the axis to an ion 7 Angstrom away, a molecule changes the force on it across the axis."""
    forces = []
    for angle in (0, 90):
        atoms = water()
        atoms.rotate(angle, "z", center=atoms.positions[0])
        ion = water()
        ion.rotate(35, (1, 2, 0), center=ion.positions[0])
        ion.translate([0, 0, 7.0])
        forces.append(evaluate(oriented_model(electrostatics=False, n_channels=0), graph_of(atoms + ion)).forces[3:])
    assert (forces[0] - forces[1]).abs().max() > 1e-5


def test_an_atom_alone_has_no_tensor():
    model, graph = oriented_model(), graph_of(water()[:1])
    local = model.local(graph, None)
    latent = model.long_range.latent_weights(local.features, local.vectors, graph)
    assert latent.oriented.spread.abs().max() == 0
    assert torch.isfinite(evaluate(model, graph).forces).all()


def test_repeated_kernels_are_the_kernel_for_each_channel_in_turn():
    yukawa = Yukawa([0.3, 0.9], [1.0, -2.0], smearing=1.0)
    repeated = Repeated(yukawa, 3)
    assert (repeated.n_channels, repeated.largest_smearing) == (6, 1.0)
    squared = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    columns = [0, 0, 0, 1, 1, 1]
    for evaluated in (lambda kernel: kernel.fourier(squared, 3), lambda kernel: kernel.radial(squared + 1)):
        torch.testing.assert_close(evaluated(repeated), evaluated(yukawa)[:, columns])
    torch.testing.assert_close(repeated.at_origin(3), yukawa.at_origin(3)[columns])


def test_kernels_that_cannot_be_repeated_are_refused():
    with pytest.raises(ValueError, match="`multiplier` must map channels one to one, got a Matrix"):
        Repeated(Matrix(Yukawa([0.5] * 4), 2, 2), 3)
    with pytest.raises(ValueError, match="`n_times` must be a positive whole number, got 0"):
        Repeated(Yukawa([0.5]), 0)
