"""Memory and waiting of training on a large set from the cache on disk.

Run: python tests/benchmarks/training_stream.py FOLDER [--frames 100000] [--steps 300]

Writes that many frames of ethanol with random displacements and made-up labels to FOLDER, puts them into the cache and
trains on batches of them. Prints the time of each part, the largest resident memory of the process on the way, and
which part of the steps was spent waiting for data.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from ase.build import molecule

from lrc_ase.training.configuration import parse_configuration
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.prepare import model_settings, prepare
from lrc_ase.training.untrained import new_model


class EnoughSteps(Exception):
    """The benchmark has seen enough."""


class Observer:
    """Stops after some steps."""

    def __init__(self, n_steps):
        self.n_steps = n_steps

    def step_done(self, loop):
        if loop.progress.step >= self.n_steps:
            raise EnoughSteps

    def epoch_done(self, loop, record):
        pass

    def log(self, text):
        print(text)


def write_frames(path: Path, n_frames: int) -> None:
    """Write extended XYZ by hand: ASE would take many times as long."""
    atoms = molecule("CH3CH2OH")
    symbols = atoms.get_chemical_symbols()
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(n_frames):
            shift = 0.1 * rng.normal(size=atoms.positions.shape)
            forces = -10 * (shift - shift.mean(axis=0))
            energy = -4200 + 5 * float((shift**2).sum())
            file.write(f'{len(atoms)}\nProperties=species:S:1:pos:R:3:forces:R:3 energy={energy:.8f} pbc="F F F"\n')
            rows = np.hstack([atoms.positions + shift, forces])
            for symbol, row in zip(symbols, rows, strict=True):
                file.write(symbol + "".join(f" {value:.8f}" for value in row) + "\n")


def peak() -> float:
    """Largest resident memory so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / f"ethanol-{arguments.frames}.extxyz"
    if not path.exists():
        write_frames(path, arguments.frames)
    configuration = parse_configuration(
        {
            "data": {"ethanol": {"train": str(path), "validation_fraction": 0.01}},
            "stages": [{"name": "s", "epochs": 10, "batch_size": arguments.batch_size}],
            "cache": str(arguments.folder / "cache"),
            "n_workers": arguments.workers,
        }
    )
    print(f"at the start: {peak():.2f} GiB")
    for attempt in ("with an empty cache", "with a full one"):
        begin = time.perf_counter()
        prepared = prepare(configuration)
        print(f"prepared {attempt}: {time.perf_counter() - begin:.1f} s, {peak():.2f} GiB")
    (data_set,) = prepared.data_sets.values()
    loop = StageLoop(
        new_model(model_settings(prepared.configuration, full_range=True), n_members=1, seed=0),
        prepared.configuration.stages[0],
        data_set.train_graphs,
        data_set.validation_graphs,
        force_scale=prepared.force_scale,
        seed=0,
    )
    for n_steps in (arguments.steps // 3, arguments.steps):
        begin = time.perf_counter()
        try:
            loop.run(Observer(n_steps))
        except EnoughSteps:
            print(f"after {n_steps} steps ({time.perf_counter() - begin:.1f} s): {peak():.2f} GiB")
    print(f"data waits: {loop.fetcher.seconds_waited / loop.progress.seconds:.2%} of the steps")


if __name__ == "__main__":
    main()
