"""Ensembles: members trained side by side, what their spread is worth, and frames chosen by it."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from test_training_loop import ELEMENTS, Quiet, assert_bit_equal, state_of
from training_frames import TINY_MODEL, metal_frames, two_stage_configuration, write_frames
from typer.testing import CliRunner

from lrc_ase import LRCCalculator, evaluate, load_potential, save_potential
from lrc_ase.cli import app
from lrc_ase.dataset import label_frame, labelled_graph
from lrc_ase.evaluation import evaluate_frames, select_frames, selection
from lrc_ase.evaluation.selection import farthest_points
from lrc_ase.files.potential_file import Potential
from lrc_ase.files.tensors import read_tensors
from lrc_ase.models.atomic_stresses import atomic_stresses
from lrc_ase.models.derivatives import born_effective_charges
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.settings import ModelSettings
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import loop as loop_module
from lrc_ase.training import train
from lrc_ase.training.checkpoint import load_checkpoint, save_checkpoint
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.loop import Progress, StageLoop
from lrc_ase.training.members import calibration_text, left_out_frames
from lrc_ase.training.references import fit_references
from lrc_ase.training.untrained import new_model

SETTINGS = ModelSettings.model_validate({**TINY_MODEL, "elements": ELEMENTS})


@pytest.fixture(scope="module")
def graphs():
    frames = [label_frame(atoms) for atoms in metal_frames(10)]
    references = fit_references(frames, ELEMENTS).values
    return [labelled_graph(frame, ELEMENTS, 4.0, references) for frame in frames]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder with small.traj and a run of three members on it."""
    folder = tmp_path_factory.mktemp("ensemble")
    write_frames(folder, n_small=12)
    data = {"small": {"train": "small.traj", "validation_fraction": 0.4}}
    stages = [{"name": "only", "epochs": 2, "batch_size": 2}]
    train(two_stage_configuration(folder, data=data, stages=stages, ensemble=3), folder / "run", quiet=True)
    return folder


@pytest.fixture(scope="module")
def potential(finished):
    return load_potential(finished / "run" / "potential.safetensors", dtype=torch.float64)


def make_loop(graphs, n_members=3, **changes):
    stage = StageConfiguration(**{"name": "s", "epochs": 2, "batch_size": 3, "ema_decay": 0.9, **changes})
    model = new_model(SETTINGS, n_members=n_members, seed=5)
    left_out = left_out_frames(8, n_members, 0.25, seed=0)
    return StageLoop(model, stage, graphs[:8], graphs[8:], force_scale=0.5, seed=4, left_out=left_out)


def test_mean_and_deviations_follow_their_definition(potential):
    graph = neighbor_graph(metal_frames(1)[0], potential.settings.elements, 4.0)
    members = [evaluate(member, graph, stress=True) for member in members_of(potential.model)]
    together = evaluate(potential.model, graph, stress=True)
    scale = potential.model.uncertainty_scale
    for name in ("energy", "forces", "stress", "charges"):
        values = torch.stack([getattr(each, name) for each in members])
        assert torch.allclose(getattr(together, name), values.mean(dim=0), atol=1e-12)
    for name, factor in zip(("energy", "forces"), scale, strict=True):
        values = torch.stack([getattr(each, name) for each in members])
        expected = factor * ((values - values.mean(dim=0)) ** 2).sum(dim=0).div(2).sqrt()
        if name == "forces":
            expected = (expected**2 + potential.model.forces_floor**2).sqrt()
        assert torch.allclose(getattr(together, f"{name}_std"), expected, atol=1e-12)
    assert (scale != 1).all()
    output = potential.model(graph)
    assert float(output.atomic_energies.detach().sum()) == pytest.approx(float(together.energy))


def test_single_models_have_no_deviations(graphs):
    model = new_model(SETTINGS, n_members=1, seed=0)
    assert not isinstance(model, Ensemble)
    assert evaluate(model, graphs[0].graph).forces_std is None


def test_an_ensemble_needs_members_of_one_kind():
    member = new_model(SETTINGS, n_members=1, seed=0)
    with pytest.raises(ValueError, match="must be at least 2, got 1"):
        Ensemble([member])
    other = new_model(SETTINGS.model_copy(update={"cutoff": 3.0}), n_members=1, seed=0)
    with pytest.raises(ValueError, match="must have the same settings"):
        Ensemble([member, other])


def test_potential_file_holds_the_members(finished, potential, tmp_path):
    header = read_tensors(finished / "run" / "potential.safetensors")[1]["lrc_ase"]
    assert '"format_version": 5' in header
    assert '"n_members": 3' in header
    assert potential.n_members == 3
    save_potential(tmp_path / "copy.safetensors", potential)
    again = load_potential(tmp_path / "copy.safetensors")
    assert_bit_equal(dict(potential.model.state_dict()), dict(again.model.state_dict()))
    result = CliRunner().invoke(app, ["info", str(finished / "run" / "potential.safetensors")])
    assert "members of the ensemble" in result.output


def test_calculator_gives_mean_and_deviations(potential):
    atoms = metal_frames(1)[0]
    atoms.calc = LRCCalculator(potential)
    expected = evaluate_frames(potential, metal_frames(1))
    assert atoms.get_potential_energy() == pytest.approx(expected.energy[0])
    assert np.allclose(atoms.get_forces(), expected.forces)
    assert atoms.calc.get_energy_std(atoms) == pytest.approx(expected.energy_std[0])
    assert np.allclose(atoms.calc.get_forces_std(atoms), expected.forces_std)
    assert atoms.calc.get_forces_std(atoms).shape == (4, 3)
    shared = atoms.calc.get_property("stresses", atoms).sum(axis=0)
    assert np.allclose(shared, atoms.get_stress(), atol=1e-9)


def test_calculator_of_a_single_model_says_what_is_missing(potential):
    single = Potential(members_of(potential.model)[0], potential.references)
    atoms = metal_frames(1)[0]
    atoms.calc = LRCCalculator(single)
    with pytest.raises(PropertyNotImplementedError, match="forces_std"):
        atoms.calc.get_forces_std(atoms)


def test_derived_quantities_are_those_of_the_mean(potential):
    graph = neighbor_graph(metal_frames(1)[0], potential.settings.elements, 4.0)
    for quantity in (atomic_stresses, born_effective_charges):
        members = torch.stack([quantity(member, graph) for member in members_of(potential.model)])
        assert torch.allclose(quantity(potential.model, graph), members.mean(dim=0), atol=1e-9)


def test_members_start_differently_and_never_see_the_frames_left_out(graphs, monkeypatch):
    loop = make_loop(graphs)
    seen = [set() for _ in range(3)]
    original = loop_module.batch_gradient

    def noted(member, batch, *arguments, **options):
        number = members_of(loop.model).index(member)
        seen[number] |= {index for index in range(8) if any(graphs[index] is graph for graph in batch)}
        return original(member, batch, *arguments, **options)

    first, second, _ = (member.state_dict() for member in members_of(loop.model))
    assert not torch.equal(first["readout.first.weight"], second["readout.first.weight"])
    monkeypatch.setattr(loop_module, "batch_gradient", noted)
    loop.run(Quiet())
    assert [set(range(8)) - member_frames for member_frames in seen] == [set(frames) for frames in loop.left_out]


def test_every_frame_is_left_out_by_one_of_four_members():
    left_out = left_out_frames(40, 4, 0.25, seed=3)
    assert sorted(index for frames in left_out for index in frames) == list(range(40))
    assert left_out_frames(40, 1, 0.25, seed=3) == [frozenset()]


def test_resumed_ensemble_is_bit_equal(graphs, tmp_path):
    whole = make_loop(graphs)
    whole.run(Quiet())
    stopped = make_loop(graphs)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(Quiet(stop_after=4))
    save_checkpoint(tmp_path / "c.safetensors", stopped.tensors(), stopped.progress.to_json())
    tensors, values = load_checkpoint(tmp_path / "c.safetensors")
    resumed = make_loop(graphs)
    resumed.restore(tensors, Progress.from_json(values))
    resumed.run(Quiet())
    assert_bit_equal(state_of(resumed), state_of(whole))


def test_a_member_learns_as_if_it_were_alone(graphs):
    # nothing left out: the first member takes the steps of a single model from the same weights
    alone = make_loop(graphs, n_members=1)
    together = make_loop(graphs, n_members=2)
    together.left_out = [(), ()]
    for loop in (alone, together):
        loop.run(Quiet())
    member = dict(members_of(together.model)[0].state_dict())
    assert_bit_equal(dict(alone.model.state_dict()), member)


def test_a_frozen_long_range_part_stays_at_its_start_in_every_member(graphs):
    loop = make_loop(graphs, train="short-range-part")
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    loop.run(Quiet())
    moved = {name for name, value in loop.model.state_dict().items() if not torch.equal(value, before[name])}
    for member in range(3):
        assert f"members.{member}.readout.first.weight" in moved
    assert not any("long_range." in name for name in moved)


def test_members_go_through_all_stages(finished, tmp_path):
    configuration = two_stage_configuration(finished, epochs=1, ensemble=2)
    path = train(configuration, tmp_path / "run", quiet=True)
    first, second = (load_potential(each) for each in (path.parent / "potential-first.safetensors", path))
    assert (first.n_members, second.n_members) == (2, 2)
    assert first.settings.long_range is None
    assert second.settings.long_range is not None


def test_run_reports_calibration(finished, potential):
    log = (finished / "run" / "log.txt").read_text()
    assert "stage 'only': 3 members of full-range model" in log
    calibration = potential.description["calibration"]
    assert calibration_text(calibration) in log
    assert torch.allclose(
        potential.model.uncertainty_scale.double(),
        torch.tensor([calibration["energy_scale"], calibration["forces_scale"]], dtype=torch.float64),
    )


def test_without_validation_frames_deviations_stay_as_they_are(finished, tmp_path):
    data = {"small": {"train": "small.traj@:4", "validation_fraction": 0}}
    stages = [{"name": "only", "epochs": 1, "batch_size": 2}]
    configuration = two_stage_configuration(finished, data=data, stages=stages, ensemble=2)
    loaded = load_potential(train(configuration, tmp_path / "run", quiet=True))
    assert loaded.model.uncertainty_scale.tolist() == [1, 1]
    assert any("are not calibrated" in remark for remark in loaded.description["remarks"])


def test_select_prefers_what_the_members_disagree_about(potential):
    near = metal_frames(6, seed=3)
    far = metal_frames(2, seed=4)
    for atoms in far:
        atoms.set_cell(0.88 * atoms.cell.array, scale_atoms=True)
    selection = select_frames(potential, near + far, 2)
    assert set(selection.frames) <= set(range(8))
    assert selection.frames[0] == int(np.argmax(selection.disagreement))
    expected = evaluate_frames(potential, (near + far)[:1], required=())
    assert selection.disagreement[0] == pytest.approx(np.linalg.norm(expected.forces_std, axis=1).max())
    mean = select_frames(potential, near, 1, by="mean").disagreement[0]
    assert mean == pytest.approx(np.linalg.norm(evaluate_frames(potential, near[:1]).forces_std, axis=1).mean())
    again = select_frames(potential, near + far, 2, known=[(near + far)[selection.frames[0]]])
    assert selection.frames[0] not in again.frames[:1]
    assert len(select_frames(potential, near, 100).frames) == 6


def test_known_frames_cost_no_forces(potential, monkeypatch):
    scored = []
    score = selection._disagreement

    def counted(model, graph, by):
        scored.append(graph.n_structures)
        return score(model, graph, by)

    monkeypatch.setattr(selection, "_disagreement", counted)
    select_frames(potential, metal_frames(4), 1, known=metal_frames(8, seed=1), batch_size=2)
    assert sum(scored) == 4


def test_diversity_takes_one_of_each_kind():
    points = np.array([[0.0, 0], [0.01, 0], [0, 0.01], [5, 5], [5.01, 5]])
    chosen = farthest_points(points, 2, np.array([1.0, 0.9, 0.9, 0.5, 0.5]), np.empty((0, 2)))
    assert chosen[0] == 0
    assert chosen[1] in (3, 4)
    assert farthest_points(points, 1, np.ones(5), points[:1])[0] in (3, 4)


def test_select_command_writes_frames(finished, tmp_path):
    potential = finished / "run" / "potential.safetensors"
    for name in ("chosen.extxyz", "chosen.traj"):
        result = CliRunner().invoke(
            app, ["select", str(potential), f"{finished}/small.traj", "-n", "3", "-o", str(tmp_path / name)]
        )
        assert result.exit_code == 0, result.output
        assert "3 of 12 frames" in result.output
        chosen = ase.io.read(tmp_path / name, ":")
        assert len(chosen) == 3
        assert chosen[0].info["lrc_ase_forces_std"] >= 0
        assert chosen[0].calc is None
    result = CliRunner().invoke(
        app, ["select", str(potential), f"{finished}/small.traj", "-o", str(tmp_path / "chosen.traj")]
    )
    assert result.exit_code == 1
    assert "exists already" in result.output
    result = CliRunner().invoke(
        app, ["select", str(potential), f"{finished}/small.traj", "--by", "luck", "-o", str(tmp_path / "x.traj")]
    )
    assert "--by must be max or mean, got luck" in result.output


def test_select_refuses_what_it_cannot_use(potential):
    single = Potential(members_of(potential.model)[0], potential.references)
    frames = metal_frames(1)
    with pytest.raises(ValueError, match="needs the potential of an ensemble, got a single model"):
        select_frames(single, frames, 1)
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        select_frames(potential, frames, 0)
    with pytest.raises(ValueError, match="`frames` must hold at least one frame"):
        select_frames(potential, [], 1)


def test_evaluate_shows_uncertainty(finished, tmp_path):
    potential = finished / "run" / "potential.safetensors"
    result = CliRunner().invoke(
        app, ["evaluate", str(potential), f"{finished}/small.traj", "--report", str(tmp_path / "report")]
    )
    assert result.exit_code == 0, result.output
    assert "Uncertainty" in result.output
    assert (tmp_path / "report" / "uncertainty.png").read_bytes().startswith(b"\x89PNG")
    assert '"coverage"' in (tmp_path / "report" / "errors.json").read_text()
