"""Losses and error sums against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import ase
import numpy as np
import pytest
import torch

from lrc_ase.dataset import LabelledFrame, collate_labelled, labelled_graph
from lrc_ase.models.derivatives import Results
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.losses import ErrorSums, LabelCounts, loss_of

FORCE_SCALE = 2.0


def frame(n_atoms, energy, weight=1.0, stress=np.nan, **electric):
    atoms = ase.Atoms("H" * n_atoms, positions=np.arange(3 * n_atoms).reshape(n_atoms, 3), cell=[4, 5, 10], pbc=True)
    return LabelledFrame(atoms, energy, np.zeros((n_atoms, 3)), np.full((3, 3), stress), "frame", weight, **electric)


def batch_of(*frames):
    return collate_labelled([labelled_graph(item, ("H",), 1.0, torch.zeros(1)) for item in frames])


def results(energies, forces, stress=None):
    energy = torch.tensor(energies, dtype=torch.float64, requires_grad=True)
    forces = torch.tensor(forces, dtype=torch.float64, requires_grad=True)
    return Results(energy=energy, atomic_energies=forces[:, 0], forces=forces, stress=stress, charges=None)


@pytest.fixture
def batch():
    return batch_of(frame(1, 1.0), frame(2, 3.0, weight=3.0))


@pytest.fixture
def predicted():
    # errors of the energy: 0.5 eV for 1 atom, -2 eV for 2 atoms; one force component wrong by 4, one by -1
    return results([1.5, 1.0], [[4.0, 0, 0], [0, 0, 0], [0, -1.0, 0]])


def test_energy_term_is_a_weighted_mean_of_squares_per_atom(batch, predicted):
    loss = loss_of(predicted, batch, LossConfiguration(energy=2.0, forces=0), FORCE_SCALE)
    # 2 * (1 * (0.5/2)^2 + 3 * (-1/2)^2) / 2
    assert float(loss.detach()) == pytest.approx(2 * (0.0625 + 3 * 0.25) / 2, rel=1e-14)


def test_force_term_is_a_weighted_mean_over_components(batch, predicted):
    loss = loss_of(predicted, batch, LossConfiguration(energy=0, forces=1.0), FORCE_SCALE)
    assert float(loss.detach()) == pytest.approx((2.0**2 + 3 * 0.5**2) / 9, rel=1e-14)


def test_force_only_loss_of_the_paper_does_not_see_energies(batch, predicted):
    loss = loss_of(predicted, batch, LossConfiguration(energy=0, forces=1.0), FORCE_SCALE)
    loss.backward()
    assert predicted.energy.grad is None


def test_stress_term_is_volume_times_stress_per_atom():
    batch = batch_of(frame(2, 0.0, stress=0.0), frame(2, 0.0))
    stress = torch.full((2, 3, 3), 0.01, dtype=torch.float64)
    predicted = results([0.0, 0.0], np.zeros((4, 3)), stress)
    loss = loss_of(predicted, batch, LossConfiguration(energy=0, forces=0, stress=1.0), FORCE_SCALE)
    # 200 A^3 * 0.01 eV/A^3 / 2 atoms / 2; the second frame has no stress label and does not count
    assert float(loss.detach()) == pytest.approx(0.5**2, rel=1e-12)


def test_huber_agrees_with_the_square_below_delta_and_is_linear_above(batch, predicted):
    loss = loss_of(
        predicted, batch, LossConfiguration(energy=0, forces=1.0, function="huber", huber_delta=1.0), FORCE_SCALE
    )
    # |x| = 2: 2 delta (|x| - delta/2) = 3; |x| = 0.5: x^2
    assert float(loss.detach()) == pytest.approx((3.0 + 3 * 0.25) / 9, rel=1e-14)


def test_absent_labels_give_neither_loss_nor_gradient(predicted):
    batch = batch_of(frame(1, np.nan), frame(2, 3.0))
    loss = loss_of(predicted, batch, LossConfiguration(energy=1.0, forces=0), FORCE_SCALE)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.25, rel=1e-14)
    assert predicted.energy.grad[0] == 0
    assert predicted.energy.grad[1] != 0


def test_dipole_term_is_a_weighted_mean_over_labelled_components(predicted):
    labels = [{"dipole": np.array([1.0, np.nan, 0.0])}, {}]
    batch = batch_of(frame(1, 1.0, weight=3.0, **labels[0]), frame(2, 3.0, **labels[1]))
    dipole = torch.tensor([[1.5, 9.0, -2.0], [7.0, 7.0, 7.0]], dtype=torch.float64)
    loss = loss_of(
        replace(predicted, dipole=dipole), batch, LossConfiguration(energy=0, forces=0, dipole=2.0), FORCE_SCALE
    )
    assert float(loss) == pytest.approx(2 * 3 * (0.5**2 + 2.0**2) / 2, rel=1e-14)


@pytest.fixture
def born_batch():
    born = np.zeros((2, 3, 3))
    born[1, 0] = np.nan
    return batch_of(frame(1, 1.0), frame(2, 3.0, weight=3.0, born_effective_charges=born))


def born_charges(*components):
    charges = torch.arange(27, dtype=torch.float64).reshape(3, 3, 3)
    known = torch.zeros(3, dtype=torch.bool)
    known[list(components)] = True
    return torch.where(known[:, None], charges, torch.nan)


def born_loss(predicted, batch, *components, counts=None, **options):
    loss = LossConfiguration(energy=0, forces=0, born_effective_charges=1.0, **options)
    results = replace(predicted, born_effective_charges=born_charges(*components))
    return float(loss_of(results, batch, loss, FORCE_SCALE, counts).detach())


def test_born_term_is_a_weighted_mean_over_labelled_components(predicted, born_batch):
    squares = np.arange(27.0).reshape(3, 3, 3)[1:] ** 2  # the first frame has no label
    squares[1, 0] = 0
    assert born_loss(predicted, born_batch, 0, 1, 2) == pytest.approx(3 * squares.sum() / 15, rel=1e-14)


@pytest.mark.parametrize("options", [{}, {"function": "huber", "huber_delta": 4.0}])
@pytest.mark.parametrize("counted", [False, True])
def test_mean_of_the_losses_of_single_components_is_the_loss_of_all(predicted, born_batch, options, counted):
    counts = LabelCounts.of([born_batch]) if counted else None
    whole = born_loss(predicted, born_batch, 0, 1, 2, counts=counts, **options)
    parts = [born_loss(predicted, born_batch, component, counts=counts, **options) for component in range(3)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-12)


def test_batches_without_the_label_that_is_weighed_have_no_loss(predicted, batch):
    loss = loss_of(predicted, batch, LossConfiguration(energy=0, forces=0, dipole=1.0), FORCE_SCALE)
    loss.backward()
    assert float(loss.detach()) == 0


def test_errors_of_dipoles_and_born_charges_are_those_of_their_labels(predicted, born_batch):
    dipole = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]], dtype=torch.float64)
    batch = replace(born_batch, dipole=torch.tensor([[torch.nan] * 3, [0.0, 0.0, 0.0]], dtype=torch.float64))
    sums = ErrorSums()
    sums.add(replace(predicted, dipole=dipole, born_effective_charges=born_charges(1)), batch, torch.tensor(0.0))
    metrics = sums.metrics()
    assert metrics["dipole_mae"] == pytest.approx(7 / 3)
    assert metrics["dipole_rmse"] == pytest.approx(5 / np.sqrt(3))
    assert (sums.n_dipoles, sums.n_born_charges) == (3, 6)
    assert metrics["born_effective_charges_mae"] == pytest.approx(np.mean([12, 13, 14, 21, 22, 23]))
    assert ErrorSums.from_numbers((sums + sums).numbers()).n_born_charges == 12
    sums.add(predicted, batch, torch.tensor(0.0))  # nothing was predicted
    assert sums.n_dipoles == 3


def test_error_sums_are_those_of_all_frames_together(batch, predicted):
    sums = ErrorSums()
    sums.add(predicted, batch, torch.tensor(0.25))
    sums.add(predicted, batch, torch.tensor(0.75))
    metrics = sums.metrics()
    assert metrics["loss"] == pytest.approx(0.5)
    assert metrics["energy_mae"] == pytest.approx(750)
    assert metrics["energy_rmse"] == pytest.approx(1000 * np.sqrt((0.25 + 1) / 2))
    assert metrics["forces_mae"] == pytest.approx(5000 / 9)
    assert metrics["forces_rmse"] == pytest.approx(1000 * np.sqrt(17 / 9))
    assert ErrorSums(**sums.to_json()) == sums


def test_error_sums_without_labels_are_nan(predicted):
    sums = ErrorSums()
    sums.add(predicted, batch_of(frame(1, np.nan), frame(2, np.nan)), torch.tensor(0.0))
    assert np.isnan(sums.metrics()["energy_mae"])


def test_stress_sums_are_in_mev_per_cubic_angstrom_and_skip_frames_without_stress():
    batch = batch_of(frame(2, 0.0, stress=0.5), frame(2, 0.0))
    stress = torch.full((2, 3, 3), 0.5, dtype=torch.float64)
    stress[0, 0, 0] += 0.09
    sums = ErrorSums()
    sums.add(results([0.0, 0.0], np.zeros((4, 3)), stress), batch, torch.tensor(0.0))
    assert sums.metrics()["stress_mae"] == pytest.approx(1000 * 0.09 / 9)
    assert sums.metrics()["stress_rmse"] == pytest.approx(1000 * 0.09 / 3)
    sums.add(results([0.0, 0.0], np.zeros((4, 3))), batch, torch.tensor(0.0))  # a stage that computes no stress
    assert sums.metrics()["stress_mae"] == pytest.approx(1000 * 0.09 / 9)


@pytest.mark.parametrize("function", ["mse", "huber"])
def test_losses_and_error_sums_of_parts_add_up_to_those_of_the_batch(function):
    frames = [frame(1, 1.0, stress=0.1), frame(2, 3.0, weight=3.0), frame(1, np.nan, stress=0.2)]
    energies, forces = [1.5, 1.0, 2.0], [[4.0, 0, 0], [0, 0, 0], [0, -1.0, 0], [0, 0, 7.0]]
    stress = torch.linspace(0, 1, 27, dtype=torch.float64).reshape(3, 3, 3)
    configuration = LossConfiguration(energy=2.0, forces=0.5, stress=3.0, function=function, huber_delta=0.7)
    graphs = [labelled_graph(item, ("H",), 1.0, torch.zeros(1)) for item in frames]
    whole, together = results(energies, forces, stress), collate_labelled(graphs)
    loss = loss_of(whole, together, configuration, FORCE_SCALE).detach()
    sums, parts, total = ErrorSums(), ErrorSums(), 0.0
    sums.add(whole, together, loss)
    for part, atoms in ((slice(0, 2), slice(0, 3)), (slice(2, 3), slice(3, 4))):
        predicted, labelled = results(energies[part], forces[atoms], stress[part]), collate_labelled(graphs[part])
        share = loss_of(predicted, labelled, configuration, FORCE_SCALE, LabelCounts.of(graphs)).detach()
        parts.add(predicted, labelled, share, len(graphs))
        total += float(share)
    assert total == pytest.approx(float(loss), rel=1e-12)
    assert parts.numbers() == pytest.approx(sums.numbers(), rel=1e-12)
    assert parts.metrics()["loss"] == pytest.approx(float(loss), rel=1e-12)
