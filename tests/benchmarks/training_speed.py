"""Cost of training: an ensemble beside one model, and how long steps wait for data.

Run: python tests/benchmarks/training_speed.py FRAMES [--epochs 3] [--members 4] [--batch-size 4]

One model and an ensemble are trained in turn, epoch by epoch, on the same graphs, so that what else the machine does
hurts both; the medians of their epochs are compared. Validation (of the ensemble: by all members) is part of an epoch.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from lrc_ase.dataset import elements_of, force_rms, label_frame, labelled_graph, read_frames
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.training.configuration import LossConfiguration, StageConfiguration
from lrc_ase.training.loop import StageLoop
from lrc_ase.training.members import left_out_frames
from lrc_ase.training.references import fit_references
from lrc_ase.training.untrained import new_model


class Silent:
    """Observer that ends the loop after each epoch."""

    def step_done(self, loop):
        pass

    def epoch_done(self, loop, record):
        raise StopIteration

    def log(self, text):
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    arguments = parser.parse_args()
    frames = [label_frame(atoms) for atoms in read_frames(arguments.frames)]
    elements = elements_of([frame.atoms for frame in frames])
    references = fit_references(frames, elements).values
    settings = ModelSettings(elements=elements, long_range=LongRangeSettings())
    graphs = [labelled_graph(frame, elements, settings.cutoff, references) for frame in frames]
    n_validation = max(len(graphs) // 9, 1)
    stage = StageConfiguration(
        name="s", epochs=1000, batch_size=arguments.batch_size, loss=LossConfiguration(stress=0.0)
    )
    loops, seconds, waited = {}, {}, {}
    for n_members in (1, arguments.members):
        loops[n_members] = StageLoop(
            new_model(settings, n_members=n_members, seed=0),
            stage,
            graphs[n_validation:],
            graphs[:n_validation],
            force_scale=force_rms(frames),
            seed=0,
            left_out=left_out_frames(len(graphs) - n_validation, n_members, 0.25, seed=0),
        )
        seconds[n_members] = []
    for _ in range(arguments.epochs + 1):  # the first compiles and warms up
        for n_members, loop in loops.items():
            begin = time.perf_counter()
            try:
                loop.run(Silent())
            except StopIteration:
                seconds[n_members].append(time.perf_counter() - begin)
            waited[n_members] = loop.fetcher.seconds_waited
    times = {n_members: statistics.median(values[1:]) for n_members, values in seconds.items()}
    n_atoms = sum(graph.graph.n_atoms for graph in graphs[n_validation:])
    print(f"{len(graphs) - n_validation} frames, {n_atoms} atoms, {torch.get_num_threads()} threads")
    for n_members, value in times.items():
        share = waited[n_members] / sum(seconds[n_members])
        print(f"{n_members} members: {value:.2f} s per epoch, {value / times[1]:.2f} times one, data waits {share:.2%}")


if __name__ == "__main__":
    main()
