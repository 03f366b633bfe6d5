"""Training with core repulsion: its ranges follow from the frames, and no label holds any of it."""

from __future__ import annotations

import math

import ase.io
import pytest
import torch
from ase import Atoms
from training_frames import TINY_MODEL, metal_frames

from lrc_ase import load_potential
from lrc_ase.models.derivatives import evaluate
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.training import parse_configuration, train
from lrc_ase.training.configuration import ConfigurationError
from lrc_ase.training.presets import PRESETS
from lrc_ase.training.untrained import preset_model


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (["zpl"], "zpl"),
        (["zbl", {"zbl": {}}], "each baseline may stand there once"),
        ([{"zbl": {"ranges": {"Na": 2.0}}}], "expected pairs of elements such as 'Na-Cl', got 'Na'"),
        ([{"zbl": {"ranges": {"Na-Clx": 2.0}}}], "expected pairs of elements such as 'Na-Cl', got 'Na-Clx'"),
        ([{"zbl": {"ranges": {"Na-Cl": 2.0, "Cl-Na": 2.0}}}], "the pair Na-Cl occurs twice"),
        ([{"zbl": {"ranges": {"Na-Cl": 0.0}}}], "greater than 0"),
        ([{"zbl": {"range": {}}}], "range"),
        ([{"zbl": {"wall": -1.0}}], "greater than or equal to 0"),
    ],
)
def test_mistaken_settings_are_refused(baseline, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_configuration({"data": "frames.extxyz", "model": {"baseline": baseline}})
    assert "\n" not in str(caught.value)


def trained(folder, name, **model):
    content = {
        "data": {"train": "frames.traj", "validation_fraction": 0.34},
        "model": {**TINY_MODEL, **model},
        "stages": [{"epochs": 2, "batch_size": 2}],
        "n_threads": 1,
    }
    train(parse_configuration(content, folder=folder), folder / name, quiet=True)
    return load_potential(folder / name)


def test_training_derives_ranges_and_learns_what_it_learns_without(tmp_path):
    frames = metal_frames(6)
    ase.io.write(tmp_path / "frames.traj", frames)
    without, with_repulsion = trained(tmp_path, "without", baseline=[]), trained(tmp_path, "with", baseline=["zbl"])
    assert without.settings.zbl is None
    shortest = with_repulsion.description["training_domain"]["shortest_distances"]
    assert shortest.keys() == {"Cu-Cu", "Cu-Au", "Au-Au"}
    expected = {pair: 0.95 * distance for pair, distance in shortest.items()}
    assert with_repulsion.settings.zbl.ranges == pytest.approx(expected, abs=1e-4)
    for name, weight in without.model.state_dict().items():
        torch.testing.assert_close(with_repulsion.model.state_dict()[name], weight, rtol=0, atol=0)
    close = neighbor_graph(Atoms("CuAu", positions=[[0, 0, 0], [0, 0, 0.5]]), ("Cu", "Au"), 4.0)
    energies = [float(evaluate(each.model, close).energy) for each in (without, with_repulsion)]
    # 1/r times the screening at 0.5 Angstrom, times an envelope of 0.99
    x = 0.5 * (29**0.23 + 79**0.23) / 0.46850
    shares, rates = (0.18175, 0.50986, 0.28022, 0.02817), (3.1998, 0.94229, 0.4029, 0.20162)
    phi = sum(share * math.exp(-rate * x) for share, rate in zip(shares, rates, strict=True))
    assert energies[1] - energies[0] == pytest.approx(14.399645 * 29 * 79 / 0.5 * phi, rel=0.02)


def test_new_elements_bring_ranges_into_a_training_that_goes_on(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(6))
    trained(tmp_path, "old", baseline=["zbl"])
    frames = metal_frames(6, seed=3)
    for atoms in frames:
        atoms.symbols[0] = "Ag"
        atoms.calc.atoms = atoms.copy()
    ase.io.write(tmp_path / "silver.traj", frames)
    content = {"data": "silver.traj", "start": str(tmp_path / "old"), "stages": [{"epochs": 1, "batch_size": 2}]}
    train(parse_configuration(content, folder=tmp_path), tmp_path / "new", quiet=True)
    both = [load_potential(tmp_path / name) for name in ("old", "new")]
    shortest = [each.description["training_domain"]["shortest_distances"] for each in both]
    old, new = (each.settings.zbl.ranges for each in both)
    assert new.keys() - old.keys() == {"Cu-Ag", "Ag-Au", "Ag-Ag"}
    assert new["Cu-Ag"] == pytest.approx(0.95 * shortest[1]["Cu-Ag"], abs=1e-4)
    # closer frames shorten the ranges, wider ones leave them
    assert new["Cu-Cu"] == pytest.approx(0.95 * min(each["Cu-Cu"] for each in shortest), abs=1e-4)
    silver = shortest[1].get("Ag-Ag")
    assert new["Ag-Ag"] == pytest.approx(2 * 1.45 if silver is None else 0.95 * silver, abs=1e-4)


def test_training_goes_on_with_the_baselines_of_the_potential(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(6))
    for name, baseline in {"plain": [], "repelling": ["zbl"]}.items():
        trained(tmp_path, name, baseline=baseline)
        content = {"data": "frames.traj", "start": str(tmp_path / name), "stages": [{"epochs": 1, "batch_size": 2}]}
        more = tmp_path / f"{name}-more"
        train(parse_configuration(content, folder=tmp_path), more, quiet=True)
        assert load_potential(more).settings.zbl == load_potential(tmp_path / name).settings.zbl
        train(None, more, resume=True, quiet=True)
    limited = {**content, "model": {"baseline": [{"zbl": {"ranges": {"Cu-Au": 1.0}}}]}}
    train(parse_configuration(limited, folder=tmp_path), tmp_path / "limited", quiet=True)
    ranges = load_potential(tmp_path / "repelling").settings.zbl.ranges
    assert load_potential(tmp_path / "limited").settings.zbl.ranges == ranges | {"Cu-Au": 1.0}
    wrong = {**content, "start": str(tmp_path / "plain"), "model": {"baseline": ["zbl"]}}
    with pytest.raises(ConfigurationError, match=r"which differs in model\.baseline"):
        train(parse_configuration(wrong, folder=tmp_path), tmp_path / "wrong", quiet=True)


@pytest.mark.parametrize("name", PRESETS)
def test_models_of_presets_have_the_default_of_trainings(name):
    """`lrc-ase compile` runs such models, so that the kernels of the repulsion exist before the first training."""
    assert preset_model(name).settings.zbl is not None
