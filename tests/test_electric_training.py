"""Dipoles and Born effective charges in training: gradients, components, parts, what is refused, what is said."""

from __future__ import annotations

import re
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from test_training_run import rows_of
from training_frames import TINY_MODEL, metal_frames, molecules

from lrc_ase.dataset import collate_labelled, elements_of, label_frame, labelled_graph
from lrc_ase.models.derivatives import born_effective_charges, evaluate
from lrc_ase.training import ConfigurationError, parse_configuration, train
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.losses import loss_of
from lrc_ase.training.prepare import describe, model_settings, prepare
from lrc_ase.training.processes import Processes
from lrc_ase.training.steps import batch_gradient, mean_errors
from lrc_ase.training.untrained import new_model

LOSS = LossConfiguration(energy=0, forces=0, dipole=1.0, born_effective_charges=1.0)


def configuration(folder, *, loss=None, **changes):
    content = {
        "data": {"frames": {"train": "train.traj", "validation_fraction": 0.25}},
        "model": TINY_MODEL,
        "stages": [{"name": "one", "epochs": 1, "batch_size": 2, "loss": loss or {}}],
        "n_threads": 1,
        "dtype": "float64",
    }
    return parse_configuration(content | changes, folder=folder)


@pytest.fixture
def graphs():
    frames = [label_frame(atoms) for atoms in molecules(4)]
    elements = elements_of(frame.atoms for frame in frames)
    return [labelled_graph(frame, elements, 4.0, torch.zeros(2)) for frame in frames]


@pytest.fixture
def model(tmp_path):
    ase.io.write(tmp_path / "train.traj", molecules(4))
    settings = model_settings(prepare(configuration(tmp_path)).configuration, full_range=True)
    model = new_model(settings, n_members=1, seed=0).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # charges of an untrained model do not depend on their surroundings
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def gradient(model, graphs, **options):
    model.zero_grad()
    errors = batch_gradient(model, graphs, LOSS, 1.0, processes=Processes(), **options)()
    known = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([each.flatten() for each in known]).clone(), errors


def test_components_are_those_of_the_born_effective_charges(model, graphs):
    batch = collate_labelled(graphs)
    expected = born_effective_charges(model, batch.graph)
    component = torch.tensor([0, 1, 2, 0])
    actual = evaluate(model, batch.graph, born_component=component).born_effective_charges
    for structure, axis in enumerate(component.tolist()):
        atoms = batch.graph.structure == structure
        torch.testing.assert_close(actual[atoms][:, axis], expected[atoms][:, axis], rtol=1e-10, atol=1e-12)
        others = [each for each in range(3) if each != axis]
        assert actual[atoms][:, others].isnan().all()


def test_born_charges_of_periodic_frames_need_charge_that_moves_along_vectors(model):
    frames = [label_frame(atoms) for atoms in metal_frames(2)]
    batch = collate_labelled([labelled_graph(frame, ("Cu", "Au"), 4.0, torch.zeros(2)) for frame in frames])
    component = torch.tensor([2, 1])
    assert model(batch.graph).pathless_charges is None
    actual = evaluate(model, batch.graph, born_component=component).born_effective_charges
    expected = born_effective_charges(model, batch.graph)
    torch.testing.assert_close(actual[:4, 2], expected[:4, 2], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(actual[4:, 1], expected[4:, 1], rtol=1e-10, atol=1e-12)
    charged = replace(batch.graph, charge=torch.ones(2, dtype=torch.float64))
    with pytest.raises(
        ValueError, match="Born effective charges of periodic frames cannot be trained on: charge of thi"
    ):
        evaluate(model, charged, born_component=component)


def test_three_steps_have_the_gradient_of_all_components_together(model, graphs):
    """Against finite differences of the loss of all nine components, by a direction in the space of the parameters."""
    mean_gradient = sum(gradient(model, graphs, step=step)[0] for step in range(3)) / 3
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in parameters]
    expected, step = 0.0, 1e-5
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * step * direction
        expected += sign * mean_errors(model, graphs, LOSS, 1.0, batch_size=4)["loss"] / (2 * step)
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= sign * step * direction
    actual = mean_gradient @ torch.cat([each.flatten() for each in directions])
    assert float(actual) == pytest.approx(expected, rel=1e-5)
    assert abs(expected) > 1e-3


def test_every_step_takes_other_components(model, graphs):
    first, again, next_step = (gradient(model, graphs, step=step)[0] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, next_step)


def test_parts_have_the_gradient_of_the_batch(model, graphs):
    whole, errors = gradient(model, graphs, step=2)
    parts, errors_of_parts = gradient(model, graphs, step=2, n_parts=3)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-12)
    assert errors_of_parts.numbers() == pytest.approx(errors.numbers(), rel=1e-10)


def test_validation_counts_all_components(model, graphs):
    batch = collate_labelled(graphs)
    errors = born_effective_charges(model, batch.graph) - batch.born_effective_charges
    metrics = mean_errors(model, graphs, LOSS, 1.0, batch_size=3)
    assert metrics["born_effective_charges_rmse"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-10)
    dipole = evaluate(model, batch.graph, dipole=True).dipole
    assert metrics["dipole_mae"] == pytest.approx(float((dipole - batch.dipole).abs().mean()), rel=1e-10)


def test_a_dipole_loss_alone_needs_no_forces(graphs, model):
    batch = collate_labelled(graphs)
    results = evaluate(model, batch.graph, forces=False, dipole=True, training=True)
    assert results.forces is None
    loss = loss_of(results, batch, LossConfiguration(energy=0, forces=0, dipole=1.0), 1.0)
    loss.backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("label", ["dipole", "born_effective_charges"])
def test_labels_are_learned(tmp_path, label):
    ase.io.write(tmp_path / "train.traj", molecules(8))
    stage = {"epochs": 40, "batch_size": 2, "learning_rate": 0.01, "loss": {label: 100}}
    train(configuration(tmp_path, stages=[stage]), tmp_path / "run", quiet=True)
    errors = [float(row[f"train_{label}_rmse"]) for row in rows_of(tmp_path / "run")]
    assert errors[-1] < 0.7 * errors[0]


def test_labels_are_logged_and_tabulated(tmp_path, capsys):
    ase.io.write(tmp_path / "train.traj", molecules(8))
    loss = {"dipole": 1, "born_effective_charges": 1}
    train(configuration(tmp_path, stages=[{"epochs": 3, "batch_size": 2, "loss": loss}]), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert all(float(row[f"validation_{label}_rmse"]) > 0 for row in rows for label in loss)
    printed = capsys.readouterr().out
    assert "   energy   forces   dipole     Born     left" in printed
    assert max(map(len, printed.split("stage '")[1].splitlines()[1:20])) <= 80
    table = printed.split("errors of the potential:")[1]
    assert "Dipole Born RMSE RMSE" in " ".join(table.split())
    assert "born effective charges" in (tmp_path / "run" / "log.txt").read_text()


def test_labels_without_a_weight_are_noted(tmp_path):
    ase.io.write(tmp_path / "train.traj", molecules(8))
    lines = describe(prepare(configuration(tmp_path)))
    for label, plural in (("dipole=0.1", "dipoles"), ("born_effective_charges=1", "Born effective charges")):
        expected = f"6 of 6 frames have {plural}, which the loss does not weigh: `--set stages.loss.{label}` trains"
        assert any(line.startswith("note: data set 'frames': ") and expected in line for line in lines)
    weighed = describe(prepare(configuration(tmp_path, loss={"dipole": 1})))
    assert not any("have dipoles, which" in line for line in weighed)
    assert any("have Born effective charges, which" in line for line in weighed)


def test_dipoles_are_validated_without_a_weight(tmp_path):
    ase.io.write(tmp_path / "train.traj", molecules(8))
    train(configuration(tmp_path), tmp_path / "run", quiet=True)
    (row,) = rows_of(tmp_path / "run")
    assert float(row["validation_dipole_rmse"]) > 0
    assert row["validation_born_effective_charges_rmse"] == ""


def test_frames_with_dipoles_alone_train_beside_others(tmp_path):
    frames = molecules(6)
    for atoms in frames[:2]:
        atoms.calc = SinglePointCalculator(atoms, dipole=atoms.calc.results["dipole"])
    ase.io.write(tmp_path / "train.traj", frames)
    asked = configuration(tmp_path, loss={"dipole": 1})
    assert any(re.search(r"2 of \d frames have no energy", line) for line in describe(prepare(asked)))
    assert train(asked, tmp_path / "run", quiet=True).exists()
    with pytest.raises(ValueError, match=r"train\.traj@0 has no energy"):
        prepare(configuration(tmp_path))


@pytest.mark.parametrize(
    ("frames", "loss", "message"),
    [
        (metal_frames(4), {"dipole": 1}, r"train\.traj@\d has no dipole under any of \['dipole', 'REF_dipole'"),
        (metal_frames(4), {"born_effective_charges": 1}, r"has no born_effective_charges under any of"),
    ],
)
def test_weights_without_labels_are_errors(tmp_path, frames, loss, message):
    ase.io.write(tmp_path / "train.traj", frames)
    with pytest.raises(ValueError, match=message):
        prepare(configuration(tmp_path, loss=loss))


def test_dipoles_of_periodic_frames_are_refused_with_the_reason(tmp_path):
    frames = metal_frames(4)
    for atoms in frames:
        atoms.calc.results["dipole"] = np.ones(3)
    ase.io.write(tmp_path / "train.traj", frames)
    with pytest.raises(ValueError, match="along periodic directions a dipole is known up to cell vectors"):
        prepare(configuration(tmp_path, loss={"dipole": 1}))


@pytest.mark.parametrize("label", ["dipole", "born_effective_charges"])
@pytest.mark.parametrize(
    "changes", [{"model": TINY_MODEL | {"long_range": {"electrostatics": False}}}, {"model": TINY_MODEL, "short": True}]
)
def test_models_without_charges_are_refused(tmp_path, label, changes):
    stage = {"loss": {label: 1}, "model": "short-range" if changes.get("short") else "full-range"}
    changes = {"model": changes["model"]}
    with pytest.raises(ConfigurationError, match="trains on dipoles or Born effective charges, which need latent char"):
        configuration(tmp_path, stages=[stage], **changes)
