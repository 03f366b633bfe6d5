"""Dipoles of the potential to start from as labels: a training on energies and forces keeps what charges it has."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from structures import potential, settings
from training_frames import TINY_MODEL, metal_frames, molecules
from typer.testing import CliRunner

from lrc_ase import LRCCalculator
from lrc_ase.cli import app
from lrc_ase.dataset import label_frame, labelled_graph, write_frames
from lrc_ase.learning.pretraining import pretraining_configuration
from lrc_ase.training import load_configuration, parse_configuration, train
from lrc_ase.training.configuration import ConfigurationError
from lrc_ase.training.data_arguments import default_configuration
from lrc_ase.training.kept_dipoles import with_kept_dipoles

ELEMENTS = ("H", "O", "Na", "Cl")


def without_dipoles(frames):
    """Return copies with energies and forces alone."""
    bare = []
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        bare.append(copy)
    return bare


def dipoles_of(path, frames) -> np.ndarray:
    calculator = LRCCalculator(path)
    return np.array([calculator.get_property("dipole", atoms.copy()) for atoms in frames])


def test_a_training_on_energies_and_forces_keeps_the_dipoles_of_its_start(tmp_path):
    frames = molecules(6)
    write_frames(tmp_path / "labelled.extxyz", frames)
    ase.io.write(tmp_path / "bare.extxyz", without_dipoles(frames))
    stage = {"epochs": 12, "batch_size": 2, "learning_rate": 0.02, "loss": {"dipole": 1.0}}
    first = {"data": "labelled.extxyz", "model": TINY_MODEL, "stages": [stage], "n_threads": 1}
    train(parse_configuration(first, folder=tmp_path), tmp_path / "start", quiet=True)
    before = dipoles_of(tmp_path / "start", frames)
    changes = {}
    for keep in (False, True):
        loss = {"dipole": 10.0 if keep else 0.0}
        second = {
            "data": "bare.extxyz",
            "start": str(tmp_path / "start"),
            "keep_dipoles": keep,
            "stages": [{**stage, "epochs": 10, "learning_rate": 0.01, "loss": loss}],
            "n_threads": 1,
        }
        folder = tmp_path / f"keep-{keep}"
        train(parse_configuration(second, folder=tmp_path), folder, quiet=True)
        changes[keep] = np.sqrt(np.mean((dipoles_of(folder, frames) - before) ** 2))
        assert ("dipole" in (folder / "log.txt").read_text(encoding="utf-8")) is keep
    assert changes[True] < 0.5 * changes[False], changes


def molecule(symbols: str, *, periodic: bool = False, **labels):
    """Return the graph of a chain of atoms."""
    atoms = metal_frames(1)[0][: len(symbols) // 2]
    atoms.symbols = symbols
    atoms.pbc = periodic
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)), **labels)
    return atoms, labelled_graph(label_frame(atoms), (*ELEMENTS, "Au"), 4.5, torch.zeros(5))


def test_only_molecules_without_a_label_take_the_dipole_of_the_start():
    start = potential(settings())
    lacking, lacking_graph = molecule("NaCl")
    _, labelled = molecule("NaCl", dipole=np.array([1.0, 2.0, 3.0]))
    _, periodic = molecule("NaCl", periodic=True)
    _, unknown = molecule("NaAu")
    kept = with_kept_dipoles([lacking_graph, labelled, periodic, unknown], start)
    expected = LRCCalculator(start, dtype="float64").get_property("dipole", lacking)
    assert np.linalg.norm(expected) > 1e-4
    np.testing.assert_allclose(kept[0].dipole.numpy(), [expected], rtol=1e-6)
    assert not kept[0].dipole.requires_grad
    assert [after is before for after, before in zip(kept[1:], (labelled, periodic, unknown), strict=True)] == [
        True
    ] * 3


def test_a_start_without_charges_is_refused():
    with pytest.raises(ConfigurationError, match="needs a potential with latent charges in `start`"):
        with_kept_dipoles([], potential(settings(long_range=None)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "needs a potential in `start`, and no `cache`"),
        ({"start": "nacl", "cache": "cache"}, "needs a potential in `start`, and no `cache`"),
        ({"start": "nacl", "stages": [{}]}, "without a weight of dipoles: set `stages.loss.dipole`, say 0.1"),
    ],
)
def test_settings_that_keep_nothing_are_refused(changes, message):
    content = {"data": "a.extxyz", "keep_dipoles": True, "stages": [{"loss": {"dipole": 0.1}}], **changes}
    with pytest.raises(ConfigurationError, match=message):
        parse_configuration(content)


def test_pretraining_learns_dipoles_and_the_training_keeps_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_frames("cheap.extxyz", molecules(5, seed=1))
    ase.io.write("frames.extxyz", without_dipoles(molecules(5)))
    small = ["--batch-size", "2", "--epochs", "1", "--threads", "1", "--set", "model.hidden=[8]", "--cutoff", "4.5"]
    words = ["train", "frames.extxyz", "-o", "run", *small, "--pretrain", "cheap.extxyz", "--pretrain-epochs", "1"]
    words.append("--pretrain-dipoles")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    first = load_configuration("run/pretraining/run/configuration.yaml")
    second = load_configuration("run/configuration.yaml")
    assert [each.stages[0].loss.dipole for each in (first, second)] == [0.1, 0.02]
    assert (first.keep_dipoles, second.keep_dipoles) == (False, True)
    resumed = CliRunner().invoke(app, [*words, "--resume"])
    assert resumed.exit_code == 0, resumed.output


def test_pretraining_weighs_dipoles_on_request_alone(tmp_path):
    write_frames(tmp_path / "cheap.extxyz", molecules(3))
    second = default_configuration(tmp_path / "cheap.extxyz")
    weights = [
        pretraining_configuration(second, tmp_path / "cheap.extxyz", 4, dipoles=dipoles).stages[0].loss.dipole
        for dipoles in (False, True)
    ]
    assert weights == [0.0, 0.1]


def test_a_method_without_dipoles_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ase.io.write("frames.extxyz", metal_frames(5))
    words = ["train", "frames.extxyz", "--pretrain", "frames.extxyz", "--pretrain-dipoles", "--pretrain-epochs", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert "has no dipole under any of" in result.output
