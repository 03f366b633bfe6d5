"""Compare frames that active learning chose with frames drawn at random from dynamics of the teacher, label for label.

Aluminium of 32 atoms at zero pressure, 300 to 2000 K, under ASE's effective-medium potential. `lrc-ase learn` collects
labels; as many frames are drawn at random from dynamics of the teacher at the same conditions. On each set one
potential is trained from nothing, with equal settings. Errors are those on further dynamics of the teacher from other
seeds, which neither set saw.

    python tests/benchmarks/active_against_random.py --labels 16 32 64 --seeds 1 -o FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from lrc_ase.evaluation import evaluate_frames
from lrc_ase.files.potential_file import load_potential
from lrc_ase.learning import learn
from lrc_ase.learning.exploration import levels
from lrc_ase.learning.settings import LearnSettings, parse_settings
from lrc_ase.learning.training_steps import divided, train_on
from lrc_ase.learning.walker import Plan, run_walker

LOW, HIGH = 300.0, 2000.0
LENGTH = 4.0
"""Length of a run, ps."""
MELT = 1200.0
"""Temperature above which frames are counted as hot, K."""
HELD_OUT = 8


class Teacher(EMT):
    """Effective-medium potential that is sure of everything, so that walkers run their whole length."""

    def get_forces_std(self, atoms: Atoms) -> np.ndarray:
        """Return zeros."""
        return np.zeros((len(atoms), 3))


def settings_of(start: Path, labels: int, seed: int, epochs: int) -> LearnSettings:
    """Return those of examples/learn/aluminium.yaml, with one thread."""
    return parse_settings(
        {
            "starts": [str(start)],
            "teacher": "ase.calculators.emt:EMT",
            "exploration": {"temperatures": [LOW, HIGH], "pressure": 0.0, "length": LENGTH},
            "training": {
                "final_epochs": epochs,
                "held_out": HELD_OUT,
                "settings": {
                    "model.long_range": None,
                    "model.cutoff": 6.0,
                    "model.descriptor.n_channels": 16,
                },
            },
            # the loop must not end before it has that many labels
            "budget": {"teacher_calls": labels, "target_error": 1e-3},
            "seed": seed,
            "n_threads": 1,
        }
    )


def dynamics(start: Atoms, seed: int, snapshots: int) -> list[Atoms]:
    """Return labelled frames of the teacher's dynamics, heated from the lowest to four temperatures."""
    frames = []
    plan = Plan(
        first_temperature=LOW,
        last_temperature=HIGH,
        pressure=0.0,
        steps=round(1000 * LENGTH / 2.6),
        timestep=2.6,
        friction=0.01,
        snapshots=snapshots,
        check_every=10,
        threshold=1e6,
        relative_threshold=0.0,
        correction=1.0,
        start_volume=start.get_volume(),
    )
    conditions = parse_settings({"starts": ["-"], "teacher": None, "exploration": {"temperatures": [LOW, HIGH]}})
    for number, temperature in enumerate(levels(conditions.exploration, 4)):
        atoms = start.copy()
        atoms.calc = Teacher()
        walk = run_walker(atoms, replace(plan, last_temperature=temperature), np.random.default_rng([seed, number]))
        frames += [labelled(frame) for frame in walk.snapshots]
    return frames


def labelled(frame: Atoms) -> Atoms:
    """Return the frame with the teacher's labels."""
    frame.calc = EMT()
    frame.get_potential_energy(), frame.get_forces(), frame.get_stress()
    return frame


def errors_of(frames: Sequence[Atoms], settings: LearnSettings, folder: Path, test: Sequence[Atoms]) -> list[float]:
    """Train on frames; return force errors on all, cold and hot test frames (meV/Angstrom), and that of energies."""
    train_frames, held_out, _ = divided(frames, [], HELD_OUT)
    epochs = settings.training.final_epochs
    path = train_on(train_frames, held_out, settings, folder, epochs=epochs, members=1, start=None)
    evaluation = evaluate_frames(load_potential(path), test)
    hot = np.array([atoms.info["temperature"] > MELT for atoms in test])
    parts = [evaluation.errors(mask)["forces_rmse"] for mask in (np.ones_like(hot), ~hot, hot)]
    return [*parts, evaluation.errors()["energy_rmse"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True)
    start = bulk("Al", cubic=True) * (2, 2, 2)
    ase.io.write(options.output / "start.extxyz", start)
    test = dynamics(start, 1000, 40)
    hot = sum(atoms.info["temperature"] > MELT for atoms in test)
    print(f"{len(test)} test frames, {hot} of them above {MELT:g} K; force errors in meV/A, energies in meV/atom")
    print("seed labels  frames     all    cold     hot  energy", flush=True)
    for seed in range(options.seeds):
        settings = settings_of(options.output / "start.extxyz", max(options.labels), seed, options.epochs)
        run = options.output / f"learn-{seed}"
        learn(settings, run)
        active = ase.io.read(run / "labels.extxyz", ":")
        pool = dynamics(start, seed, 100)
        drawn = np.random.default_rng(seed).permutation(len(pool))
        for count in options.labels:
            chosen = [pool[index] for index in drawn[:count]]
            for index, atoms in enumerate(chosen):
                atoms.info["held_out"] = index % HELD_OUT == HELD_OUT // 2
            for name, frames in (("active", active[:count]), ("random", chosen)):
                values = errors_of(frames, settings, options.output / f"{name}-{seed}-{count}", test)
                print(f"{seed:4} {count:6}  {name} " + " ".join(f"{value:7.2f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
