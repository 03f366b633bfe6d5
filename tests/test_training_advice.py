"""Advice to pretrain, where it was measured to help."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from lrc_ase.dataset.labels import label_frame
from lrc_ase.training import advice
from lrc_ase.training.advice import pretraining_advice
from lrc_ase.training.data_arguments import as_configuration
from lrc_ase.training.prepare import describe, prepare


def labelled(frames):
    return [label_frame(atoms, required=()) for atoms in frames]


def test_few_frames_of_molecules_are_told_of_pretraining():
    assert "--pretrain GFN2-xTB" in pretraining_advice(labelled([molecule("CH3CH2OH"), molecule("C6H6")]))


@pytest.mark.parametrize(
    "frame",
    [
        bulk("NaCl", "rocksalt", a=5.6),
        molecule("H2"),
        molecule("C60") + molecule("H2O"),
        molecule("NaCl") + molecule("H2O"),
    ],
    ids=["crystal", "two atoms", "63 atoms", "a metal"],
)
def test_other_frames_are_not(frame):
    assert pretraining_advice(labelled([molecule("C6H6"), frame])) is None


def test_frames_of_a_teacher_and_many_frames_are_not(monkeypatch):
    frames = [molecule("CH3CH2OH") for _ in range(4)]
    frames[2].info["teacher"] = "GFN2-xTB"
    assert pretraining_advice(labelled(frames)) is None
    del frames[2].info["teacher"]
    monkeypatch.setattr(advice, "_FEW_FRAMES", 3)
    assert pretraining_advice(labelled(frames)) is None
    assert pretraining_advice(labelled(frames[:3])) is not None


def test_a_training_tells_it_unless_it_starts_from_a_potential(tmp_path):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(8):
        atoms = molecule("CH3OH")
        forces = 0.1 * rng.normal(size=(6, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-forces.sum(), forces=forces)
        frames.append(atoms)
    ase.io.write(tmp_path / "frames.traj", frames)
    asked = as_configuration(str(tmp_path / "frames.traj"))
    prepared = prepare(asked)
    (hint,) = [line for line in describe(prepared) if line.startswith("hint: ")]
    assert "--pretrain" in hint
    continued = replace(prepared, configuration=prepared.configuration.model_copy(update={"start": "run"}))
    assert not [line for line in describe(continued) if line.startswith("hint: ")]
