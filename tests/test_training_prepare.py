"""Settings that a configuration leaves open follow from the frames."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from structures import potential
from training_frames import TINY_MODEL, metal_frames, two_stage_configuration, write_frames

from lrc_ase import save_potential
from lrc_ase.training.configuration import parse_configuration
from lrc_ase.training.fragments import SHIFTED_REMARK
from lrc_ase.training.prepare import describe, prepare


def test_stress_is_trained_on_where_there_is_any(tmp_path):
    write_frames(tmp_path)
    configuration = two_stage_configuration(tmp_path)
    assert [stage.loss.stress for stage in configuration.stages] == [None, None]
    assert [stage.loss.stress for stage in prepare(configuration).configuration.stages] == [1.0, 1.0]
    frames = ase.io.read(tmp_path / "large.traj", ":")
    for atoms in frames:
        del atoms.calc.results["stress"]
    ase.io.write(tmp_path / "large.traj", frames)
    assert [stage.loss.stress for stage in prepare(configuration).configuration.stages] == [1.0, 0.0]


def test_references_of_another_level_of_theory_are_remarked(tmp_path):
    write_frames(tmp_path)
    configuration = two_stage_configuration(tmp_path)
    assert not [text for text in prepare(configuration).remarks if "level of theory" in text]
    elements = prepare(configuration).configuration.model.elements
    foreign = configuration.model_copy(update={"references": dict.fromkeys(elements, -45e3)})
    (remark,) = [text for text in prepare(foreign).remarks if "level of theory" in text]
    assert remark.startswith("energies lie +4.5e+04 eV per atom from the element references")
    assert f"note: {remark}" in describe(prepare(foreign))


@pytest.mark.parametrize(
    ("n_frames", "repeat", "expected"),
    [
        (66, (1, 1, 1), (8, 2667)),  # 4 atoms each: an eighth of the 66 frames, 9 batches an epoch, 24,000 steps
        (6, (1, 1, 1), (4, 4000)),
        (17, (3, 4, 2), (4, 3200)),  # 96 atoms each: 384 in a batch, 5 batches an epoch, 16,000 steps
        (13, (3, 4, 4), (4, 3000)),  # 192 atoms each: 768 in a batch, 4 batches an epoch, 12,000 steps
    ],
)
def test_batches_hold_256_atoms_and_steps_are_24000_or_fewer_for_larger_batches(tmp_path, n_frames, repeat, expected):
    ase.io.write(tmp_path / "frames.traj", metal_frames(n_frames, repeat=repeat))
    data = {"frames": {"train": str(tmp_path / "frames.traj"), "validation_fraction": 0.0}}
    (stage,) = prepare(parse_configuration({"data": data})).configuration.stages
    assert (stage.batch_size, stage.epochs) == expected
    (stage,) = prepare(
        parse_configuration({"data": data, "stages": {"batch_size": 3, "epochs": 7}})
    ).configuration.stages
    assert (stage.batch_size, stage.epochs) == (3, 7)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({"batch_size": 3}, (3, 3429)),  # 20 frames, 7 batches an epoch
        ({"epochs": 7}, (4, 7)),
    ],
)
def test_a_stage_keeps_the_number_that_it_names_and_gets_the_other(tmp_path, stage, expected):
    ase.io.write(tmp_path / "frames.traj", metal_frames(20))
    data = {"frames": {"train": str(tmp_path / "frames.traj"), "validation_fraction": 0.0}}
    (completed,) = prepare(parse_configuration({"data": data, "stages": stage})).configuration.stages
    assert (completed.batch_size, completed.epochs) == expected


@pytest.mark.parametrize(
    ("n_frames", "stage", "expected"),
    [
        (40, {"epochs": None}, 900),  # 8 batches an epoch: 3000 epochs
        (40, {"validate_every": 4}, 225),
        (40, {"patience": 5}, 5),
        (40, {"epochs": 3000}, None),
        (36, {}, None),  # 9 validation frames
    ],
)
def test_a_stage_without_epochs_ends_where_the_validation_loss_no_longer_falls(tmp_path, n_frames, stage, expected):
    ase.io.write(tmp_path / "frames.traj", metal_frames(n_frames))
    data = {"frames": {"train": str(tmp_path / "frames.traj"), "validation_fraction": 0.25}}
    (completed,) = prepare(parse_configuration({"data": data, "stages": stage})).configuration.stages
    assert completed.patience == expected


def test_a_training_from_a_potential_takes_half_the_steps(tmp_path):
    save_potential(tmp_path / "start.safetensors", potential())
    frames = [molecule("H2O") for _ in range(80)]
    for atoms in frames:
        atoms.rattle(0.05)
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=0.1 * np.ones((3, 3)))
    ase.io.write(tmp_path / "frames.extxyz", frames)
    data = {"frames": {"train": str(tmp_path / "frames.extxyz"), "validation_fraction": 0.0}}
    epochs = [
        prepare(parse_configuration({"data": data, **start})).configuration.stages[0].epochs
        for start in ({}, {"start": str(tmp_path / "start.safetensors")})
    ]
    assert epochs == [3000, 1500]  # of 8 batches


def test_a_run_does_not_go_on_with_other_charges_or_periodic_directions(tmp_path):
    frames = metal_frames(2)
    fingerprints = []
    for pbc, charge in ((True, None), (True, 0.0), ((True, True, False), 0.0), (False, 0.0), (True, 1.0), (True, -1.0)):
        for atoms in frames:
            atoms.pbc = pbc
            atoms.info |= {} if charge is None else {"charge": charge}
        ase.io.write(tmp_path / "frames.extxyz", frames)
        data = {"set": {"train": str(tmp_path / "frames.extxyz"), "validation_fraction": 0.0}}
        fingerprints.append(prepare(parse_configuration({"data": data, "model": TINY_MODEL})).fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == len(fingerprints) - 1


def test_compositions_of_the_frames_fix_the_charges_of_elements(tmp_path):
    """Salts leave the charge of their ions free; an isolated neutral atom, there for its energy, does not fix it."""
    frames = []
    for symbols, charge in [("NaCl", 0), ("Na2Cl2", 0), ("Na", 0)]:
        atoms = Atoms(symbols, positions=2.5 * np.arange(len(Atoms(symbols)))[:, None] * np.ones(3))
        atoms.info["charge"] = charge
        atoms.calc = SinglePointCalculator(atoms, energy=-len(atoms), forces=0.1 * np.ones((len(atoms), 3)))
        frames += [atoms] * 2
    ase.io.write(tmp_path / "salt.extxyz", frames)
    configuration = parse_configuration(
        {"data": {"set": {"train": "salt.extxyz", "validation": ["salt.extxyz"]}}, "model": TINY_MODEL}, folder=tmp_path
    )
    prepared = prepare(configuration)
    assert prepared.configuration.model.long_range.compositions == {"NaCl": 0.0}
    assert "total charge of each composition in e: NaCl 0" in describe(prepared)
    stages = tuple(stage.model_copy(update={"model": "short-range"}) for stage in configuration.stages)
    without_charges = prepare(configuration.model_copy(update={"stages": stages}))
    assert not any("charge" in line for line in describe(without_charges))
    assert without_charges.configuration.model.long_range == configuration.model.long_range
    for element_charges in ({}, {"Na": 1.0, "Cl": -1.0}):
        chosen = configuration.model.long_range.model_copy(update={"compositions": element_charges})
        model = configuration.model.model_copy(update={"long_range": chosen})
        kept = prepare(configuration.model_copy(update={"model": model}))
        assert kept.configuration.model.long_range.compositions == element_charges


def pairs_of_molecules(symbols, distance):
    """Frames of two diatomic molecules at `distance`, and of an atom of argon far from both."""
    frames = []
    for stretch in (1.1, 1.15, 1.2):
        positions = [[0, 0, 0], [stretch, 0, 0], [0, distance, 0], [stretch, distance, 0], [30, 30, 30]]
        atoms = Atoms([*symbols, "Ar"], positions=positions)
        atoms.calc = SinglePointCalculator(atoms, energy=-stretch, forces=0.1 * np.ones((5, 3)))
        frames.append(atoms)
    return frames


@pytest.mark.parametrize(
    ("symbols", "distance", "compositions", "setting", "expected"),
    [
        ("COCO", 3.5, {"CO": 0, "Ar": 0}, None, "transfers"),  # neighbors
        ("COCO", 9.0, {"CO": 0, "Ar": 0}, None, "shifted"),
        ("COCO", 9.0, {"CO": 0, "Ar": 0}, "transfers", "transfers"),
        ("COCO", 3.5, {"CO": 0, "Ar": 0}, "shifted", "shifted"),
        ("COCN", 9.0, {"CO": 0, "Ar": 0}, None, "transfers"),  # the charge of nitrogen is free
        ("COCN", 9.0, {"CO": 0, "N": 0, "Ar": 0}, None, "transfers"),  # and now that of carbon and oxygen
        ("COCN", 9.0, {"CO": 0, "CN": 0, "Ar": 0, "C": 0}, None, "shifted"),
    ],
)
def test_charges_are_shifted_where_far_molecules_may_be_ions(
    tmp_path, symbols, distance, compositions, setting, expected
):
    ase.io.write(tmp_path / "pairs.extxyz", pairs_of_molecules(symbols, distance))
    long_range = {**TINY_MODEL["long_range"], "charges": setting, "compositions": compositions}
    prepared = prepare(
        parse_configuration(
            {
                "data": {"train": "pairs.extxyz", "validation": "pairs.extxyz"},
                "model": {**TINY_MODEL, "long_range": long_range},
            },
            folder=tmp_path,
        )
    )
    assert prepared.configuration.model.long_range.charges == expected
    assert (SHIFTED_REMARK in prepared.remarks) == (setting is None and expected == "shifted")
