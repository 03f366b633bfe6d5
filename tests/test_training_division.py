"""Which frames are validated on: blocks of a trajectory with gaps, others at random; and what is said about it."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from ase.units import fs, kB
from training_frames import TINY_MODEL, metal_frames

from lrc_ase.dataset import label_frame, split_indices
from lrc_ase.training import train
from lrc_ase.training.division import divide


@pytest.fixture(scope="module")
def trajectory():
    """Sixty consecutive frames of copper at 600 K, every 5 fs."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    rng = np.random.default_rng(0)
    atoms.set_momenta(np.sqrt(600 * kB * atoms.get_masses())[:, None] * rng.normal(size=(len(atoms), 3)))
    atoms.calc = EMT()
    dynamics = VelocityVerlet(atoms, 5 * fs)
    frames = []
    for _ in range(60):
        dynamics.run(1)
        copy = atoms.copy()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        copy.calc = SinglePointCalculator(copy, **results)
        frames.append(copy)
    return frames


def labelled(frames):
    return [label_frame(atoms) for atoms in frames]


@pytest.mark.parametrize("seed", range(5))
def test_consecutive_frames_are_divided_by_blocks_with_gaps(trajectory, seed):
    division = divide(labelled(trajectory), 0.2, seed)
    assert len(division.validation) == 12
    steps = np.diff(division.validation)
    assert (steps != 1).sum() <= 1, "two blocks at most"
    nearest = np.abs(np.subtract.outer(division.validation, division.train)).min()
    assert nearest >= 2, "no training frame is the neighbor of a validation frame"
    left_out = 60 - len(division.train) - len(division.validation)
    assert f"60 frames are consecutive: 2 blocks of them to validate on, {left_out} frames beside" in division.text
    assert divide(labelled(trajectory), 0.2, seed) == division


@pytest.mark.parametrize("seed", range(5))
def test_blocks_next_to_each_other_keep_all_of_their_frames(trajectory, seed):
    assert len(divide(labelled(trajectory), 0.7, seed).validation) == 42


def test_places_of_blocks_depend_on_the_seed(trajectory):
    assert len({tuple(divide(labelled(trajectory), 0.1, seed).validation) for seed in range(8)}) > 4


def test_other_frames_are_divided_at_random():
    frames = labelled(metal_frames(30))
    division = divide(frames, 0.2, 3)
    assert (division.train, division.validation) == split_indices(30, 0.2, 3)
    assert division.text == "chosen at random among all"


def test_a_trajectory_beside_other_frames(trajectory):
    division = divide(labelled([*metal_frames(20), *trajectory[:50]]), 0.1, 0)
    others = [index for index in division.validation if index < 20]
    assert len(others) == 2
    assert len(division.validation) == 7
    assert division.text.endswith("; chosen at random among the others")


@pytest.mark.parametrize(("fraction", "n_runs"), [(0.2, 2), (0.12, 1)])
def test_of_many_short_trajectories_whole_ones_are_set_aside(monkeypatch, fraction, n_runs):
    runs = [range(start, start + 8) for start in range(0, 80, 8)]
    monkeypatch.setattr("lrc_ase.training.division.consecutive_runs", lambda frames: runs)
    division = divide([None] * 80, fraction, 0)
    assert len(division.validation) == 8 * n_runs
    assert len(division.train) == 80 - 8 * n_runs
    assert {index // 8 for index in division.validation}.isdisjoint(index // 8 for index in division.train)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("length", "fraction", "n_blocks", "gap"), [(300, 0.25, 5, 3), (100, 0.1, 2, 1), (30, 0.2, 1, 1)]
)
def test_blocks_are_spread_over_the_run_with_a_fifth_of_their_length_left_out(
    length, fraction, n_blocks, gap, seed, monkeypatch
):
    monkeypatch.setattr("lrc_ase.training.division.consecutive_runs", lambda frames: [range(7, 7 + length)])
    division = divide([None] * (length + 7), fraction, seed)
    validation = [index for index in division.validation if index >= 7]  # others are divided at random
    blocks = np.split(validation, np.flatnonzero(np.diff(validation) > 1) + 1)
    assert [len(block) for block in blocks] == [round(fraction * length / n_blocks)] * n_blocks
    for number, block in enumerate(blocks):
        # one block in each equal part of the run
        assert 7 + number * length / n_blocks <= block[0] <= block[-1] < 7 + (number + 1) * length / n_blocks
    beside = {index for block in blocks for index in range(block[0] - gap, block[-1] + gap + 1)}
    left_out = {index for index in range(7, 7 + length) if index in beside and index not in validation}
    assert set(range(7, 7 + length)) - set(division.train) - set(validation) == left_out


@pytest.mark.parametrize(("fraction", "n_validation"), [(0.0, 0), (0.95, 59)])
def test_extreme_fractions_leave_frames_to_train_on(trajectory, fraction, n_validation):
    division = divide(labelled(trajectory), fraction, 0)
    assert division.train
    assert len(division.validation) <= n_validation
    assert bool(division.validation) == (fraction > 0)


def test_the_log_says_how_frames_were_divided(trajectory, tmp_path, capsys):
    ase.io.write(tmp_path / "md.traj", trajectory[:30])
    settings = {"model": TINY_MODEL, "n_threads": 1, "stages.optimizer": "adamw"}
    train(tmp_path / "md.traj", tmp_path / "run", epochs=1, settings=settings, quiet=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "validation frames: 30 frames are consecutive: 1 block of them to validate on, 2 frames beside" in log
    train(metal_frames(1), tmp_path / "one", epochs=1, settings=settings)
    assert "warning: data set 'frames': no frames to validate on, so that the last weights" in capsys.readouterr().out
    settings |= {"data.frames.validation_fraction": 0}
    train(metal_frames(2), tmp_path / "none", epochs=1, settings=settings, quiet=True)
    assert "note: data set 'frames': no frames to validate on" in (tmp_path / "none" / "log.txt").read_text()
