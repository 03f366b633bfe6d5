"""Training that goes on from a potential: what it keeps, what it adds, and whether it forgets."""

from __future__ import annotations

import csv

import ase.io
import numpy as np
import pytest
import torch
from test_training_references import frame
from training_frames import TINY_MODEL, metal_frames, two_stage_configuration, write_frames

from lrc_ase import evaluate, load_potential
from lrc_ase.evaluation import evaluate_frames
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import train
from lrc_ase.training.configuration import ConfigurationError
from lrc_ase.training.prepare import prepare
from lrc_ase.training.references import fit_references
from lrc_ase.training.untrained import with_settings

DESCRIPTORS = {
    "sphere": {"name": "sphere", "n_radial": 4, "n_channels": 4, "degrees": [1, 1]},
    "two blocks": {"name": "sphere", "n_radial": 4, "n_channels": 4, "degrees": [1, 1], "n_blocks": 2},
    "ponita": {"name": "ponita", "n_orientations": 6, "n_layers": 1, "n_channels": 4, "n_basis": 4},
    "paper": {"name": "paper", "widths": [2, 4]},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with frames of Cu and Au, a potential trained on them, and frames with Ag, which it does not know."""
    folder = tmp_path_factory.mktemp("continuation")
    write_frames(folder, n_small=8)
    data = {"small": {"train": "small.traj", "validation_fraction": 0.25}}
    stages = [{"name": "only", "epochs": 4, "batch_size": 2}]
    train(two_stage_configuration(folder, data=data, stages=stages), folder / "old", quiet=True)
    frames = metal_frames(6, seed=7)
    for atoms in frames:
        atoms.symbols[0] = "Ag"
        atoms.calc.atoms = atoms.copy()
    ase.io.write(folder / "silver.traj", frames)
    return folder


def configuration(folder, **changes):
    values = {
        "data": {"new": {"train": "silver.traj", "validation_fraction": 0.3}},
        "stages": [{"name": "more", "epochs": 2, "batch_size": 2}],
        "start": str(folder / "old" / "potential.safetensors"),
        "model": {},
        **changes,
    }
    return two_stage_configuration(folder, **values)


@pytest.mark.parametrize("name", DESCRIPTORS)
@pytest.mark.parametrize("full_range", [False, True])
def test_new_elements_do_not_change_what_is_known(name, full_range, plain_descriptor):
    values = {**TINY_MODEL, "elements": ("Cu", "Au"), "descriptor": DESCRIPTORS[name]}
    if not full_range:
        values["long_range"] = None
    model = build_model(ModelSettings.model_validate(values), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    grown_settings = ModelSettings.model_validate({**values, "elements": ("Cu", "Au", "H")})
    grown = with_settings(model, grown_settings, torch.Generator().manual_seed(2))
    atoms = metal_frames(1)[0]
    before, after = (
        evaluate(each, neighbor_graph(atoms, each.settings.elements, 4.0), stress=True) for each in (model, grown)
    )
    for quantity in ("energy", "forces", "stress"):
        assert torch.allclose(getattr(after, quantity), getattr(before, quantity), rtol=1e-12, atol=1e-12), quantity
    atoms.symbols[0] = "H"
    assert torch.isfinite(evaluate(grown, neighbor_graph(atoms, grown.settings.elements, 4.0)).energy).all()


def test_a_long_range_part_can_be_added():
    values = {**TINY_MODEL, "elements": ("Cu",), "long_range": None}
    model = build_model(ModelSettings.model_validate(values), generator=torch.Generator().manual_seed(0))
    grown = with_settings(model, model.settings.model_copy(update={"long_range": LongRangeSettings()}))
    assert torch.equal(grown.readout.first.weight, model.readout.first.weight)


def test_settings_must_fit_the_model():
    model = build_model(ModelSettings.model_validate({**TINY_MODEL, "elements": ("Cu", "Au")}))
    with pytest.raises(ValueError, match=r"must begin with the elements \('Cu', 'Au'\), got \('Au',\)"):
        with_settings(model, model.settings.model_copy(update={"elements": ("Au",)}))
    with pytest.raises(
        ValueError, match="differ from those of the model in new elements and the long-range part alone"
    ):
        with_settings(model, model.settings.model_copy(update={"energy_scale": 3.0}))


def test_potential_learns_a_new_element_and_keeps_the_rest(trained, tmp_path):
    old = load_potential(trained / "old" / "potential.safetensors")
    path = train(configuration(trained, watch="small.traj"), tmp_path / "run", quiet=True)
    new = load_potential(path)
    assert new.settings.elements == ("Cu", "Au", "Ag")
    assert new.settings.energy_scale == old.settings.energy_scale
    assert new.settings.average_neighbors == old.settings.average_neighbors
    assert torch.equal(new.references[:2], old.references)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "watched frames before training: energy" in log
    assert "force error on the watched frames: " in log
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(np.isfinite(float(row["watched_forces_rmse"])) for row in rows)
    train(None, tmp_path / "run", resume=True, quiet=True)


def test_forgetting_is_said(trained, tmp_path):
    frames = metal_frames(6, seed=9)
    for atoms in frames:
        atoms.calc.results["forces"] *= -20
    ase.io.write(tmp_path / "wrong.traj", frames)
    data = {"new": {"train": str(tmp_path / "wrong.traj")}}
    stages = [{"name": "more", "epochs": 8, "batch_size": 1, "learning_rate": 0.05}]
    train(configuration(trained, data=data, stages=stages, watch="small.traj"), tmp_path / "run", quiet=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "warning: force error on the watched frames" in log
    assert "add some of the old frames" in log


def test_members_start_from_one_potential(trained, tmp_path):
    loaded = load_potential(train(configuration(trained, ensemble=2), tmp_path / "run", quiet=True))
    assert loaded.n_members == 2
    again = configuration(trained, start=str(tmp_path / "run" / "potential.safetensors"))
    assert load_potential(train(again, tmp_path / "again", quiet=True)).n_members == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"cutoff": 3.0}},
            r"the model is that of the potential, which differs in model\.cutoff: leave these keys and `--model` out",
        ),
        ({"stages": [{"name": "s", "model": "short-range"}]}, "a stage is short-range but the potential"),
        ({"start": "absent.safetensors"}, r"absent\.safetensors does not exist"),
    ],
)
def test_what_does_not_fit_the_potential_is_refused(trained, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(configuration(trained, **changes), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_known_references_stay_and_the_rest_is_fitted():
    elements = ("H", "O", "Na", "Cl")
    frames = [frame(formula) for formula in ("H2O", "NaCl", "HCl", "NaOH", "H2O2")]
    free = fit_references(frames, elements)
    fitted = fit_references(frames, elements, {"H": float(free.values[0]), "O": float(free.values[1])})
    assert torch.allclose(fitted.values, free.values, atol=1e-6)
    assert fitted.values[0] == free.values[0]
    assert not fitted.rank_deficient
    assert fit_references(frames[:1], ("H", "O"), {"H": 1.0, "O": 2.0}).values.tolist() == [1.0, 2.0]


SHIFTS = {"Cu": -1500.0, "Au": 300.0, "Ag": -20.0}
"""Differences between the energies of two methods, eV."""


def shifted(folder, name, source, shifts=SHIFTS):
    """Write frames of another level of theory: energies differ by a constant for each element."""
    frames = ase.io.read(folder / source, ":")
    for atoms in frames:
        energy = atoms.get_potential_energy() + sum(shifts[symbol] for symbol in atoms.get_chemical_symbols())
        atoms.calc.results["energy"] = energy
    ase.io.write(folder / name, frames)


def referenced(folder, **changes):
    prepared = prepare(configuration(folder, **changes))
    return dict(zip(prepared.configuration.model.elements, prepared.references.tolist(), strict=True)), prepared


def test_references_follow_another_level_of_theory(trained):
    same = {"data": {"new": {"train": "small.traj", "validation_fraction": 0.3}}}
    other = {"data": {"new": {"train": "other.traj", "validation_fraction": 0.3}}}
    shifted(trained, "other.traj", "small.traj")
    before, prepared = referenced(trained, **same)
    old = load_potential(trained / "old" / "potential.safetensors")
    assert before == dict(zip(old.settings.elements, old.references.tolist(), strict=True))
    assert not any("levels of theory" in remark for remark in prepared.remarks)
    after, prepared = referenced(trained, **other)
    assert any("levels of theory: the element references were shifted" in remark for remark in prepared.remarks)
    # what is left for training to learn is small again; the frames have one composition, so only its sum is determined
    energies = [float(item.energy) for item in prepared.data_sets["new"].train_graphs]
    sizes = [item.graph.n_atoms for item in prepared.data_sets["new"].train_graphs]
    assert max(abs(energy) / size for energy, size in zip(energies, sizes, strict=True)) < 1.0
    assert after != before


def test_a_small_difference_of_levels_shows_where_all_elements_are_known(trained):
    """1 eV per atom: far less than what new elements may differ by."""
    shifted(trained, "near.traj", "small.traj", {"Cu": 1.0, "Au": 1.0})
    before, _ = referenced(trained, data={"new": {"train": "small.traj", "validation_fraction": 0.3}})
    after, prepared = referenced(trained, data={"new": {"train": "near.traj", "validation_fraction": 0.3}})
    assert any("levels of theory" in remark for remark in prepared.remarks)
    assert {name: after[name] - before[name] for name in after} == pytest.approx({"Cu": 1.0, "Au": 1.0}, abs=0.05)


def test_a_first_step_at_another_level_of_theory_spoils_nothing(trained, tmp_path):
    shifted(trained, "other.traj", "small.traj")
    data = {"new": {"train": "other.traj", "validation_fraction": 0.3}}
    stages = [{"name": "more", "epochs": 1, "batch_size": 2, "learning_rate": 1e-5}]
    potential = train(configuration(trained, data=data, stages=stages), tmp_path / "run", quiet=True)
    old = evaluate_frames(
        load_potential(trained / "old" / "potential.safetensors"), ase.io.read(trained / "small.traj", ":")
    )
    tuned = evaluate_frames(load_potential(potential), ase.io.read(trained / "other.traj", ":"))
    np.testing.assert_allclose(tuned.forces, old.forces, atol=0.02)
    assert np.abs(tuned.energy_errors).max() < np.abs(old.energy_errors).max() + 100.0  # meV/atom


def test_new_elements_at_another_level_of_theory_shift_the_references(trained):
    shifted(trained, "other_silver.traj", "silver.traj")
    data = {"new": {"train": "other_silver.traj", "validation_fraction": 0.3}}
    _, prepared = referenced(trained, data=data)
    assert any("levels of theory" in remark for remark in prepared.remarks)
    energies = [float(item.energy) / item.graph.n_atoms for item in prepared.data_sets["new"].train_graphs]
    assert np.abs(energies).max() < 5.0
    _, prepared = referenced(trained)
    assert not any("levels of theory" in remark for remark in prepared.remarks)


@pytest.mark.parametrize("ensemble", [1, 2])
def test_a_run_from_a_potential_is_resumed_by_the_same_arguments(trained, tmp_path, ensemble):
    arguments = {"start": trained / "old", "epochs": 2, "batch_size": 2, "ensemble": ensemble}

    def interrupt(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trained / "small.traj", tmp_path / "run", quiet=True, on_epoch=interrupt, **arguments)
    train(trained / "small.traj", tmp_path / "run", quiet=True, resume=True, **arguments)
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    for changes, key in [
        ({"cutoff": 6.0}, "model.cutoff"),
        ({"settings": {"stages.learning_rate": 0.1}}, "learning_rate"),
    ]:
        with pytest.raises(ConfigurationError, match=f"differs from that of the run in .*{key}"):
            train(trained / "small.traj", tmp_path / "run", quiet=True, resume=True, **arguments, **changes)


def test_steps_from_a_potential_are_smaller_unless_they_are_set(trained):
    stages = [{"name": "usual", "epochs": 1}, {"name": "set", "epochs": 1, "learning_rate": 4e-3}]
    data = {"new": {"train": "small.traj", "validation_fraction": 0.3}}
    _, prepared = referenced(trained, data=data, stages=stages)
    assert [stage.learning_rate for stage in prepared.configuration.stages] == [1e-3, 4e-3]
    untrained = prepare(two_stage_configuration(trained, data=data, stages=stages))
    assert [stage.learning_rate for stage in untrained.configuration.stages] == [4e-3, 4e-3]


def test_training_on_forces_alone_keeps_the_references_of_the_potential(trained, tmp_path):
    frames = ase.io.read(trained / "small.traj", ":")
    for atoms in frames:
        del atoms.calc.results["energy"]
    loss = {"energy": 0.0, "stress": 0.0}
    path = train(frames, tmp_path / "run", start=trained / "old", epochs=1, settings={"stages.loss": loss}, quiet=True)
    old, new = load_potential(trained / "old" / "potential.safetensors"), load_potential(path)
    assert old.references.abs().min() > 1e-3
    assert torch.equal(new.references, old.references)
