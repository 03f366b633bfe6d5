"""Cost of Born effective charges in the loss, one component of the polarization a step.

Run: python tests/benchmarks/born_charges_in_the_loss.py FRAMES [--repeats 12]

FRAMES hold Born effective charges; the first four are one batch. Steps with and without them are taken in turn in one
process, and medians of the processor time are compared. Two more components would add the same time each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from lrc_ase.dataset import collate_labelled, elements_of, label_frame, labelled_graph, read_frames
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.model import build_model
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.training.loss_configuration import LossConfiguration
from lrc_ase.training.losses import loss_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames")
    parser.add_argument("--repeats", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frames = [label_frame(atoms) for atoms in read_frames(arguments.frames)[:4]]
    elements = elements_of(frame.atoms for frame in frames)
    settings = ModelSettings(elements=elements, long_range=LongRangeSettings(), average_neighbors=20.0)
    model = build_model(settings)
    references = torch.zeros(len(elements), dtype=torch.float64)
    batch = collate_labelled([labelled_graph(frame, elements, settings.cutoff, references) for frame in frames])
    configuration = LossConfiguration(dipole=1.0, born_effective_charges=1.0, stress=0.0)

    def step(component: int | None) -> None:
        model.zero_grad()
        chosen = None if component is None else torch.full((len(frames),), component)
        labelled = replace(batch, born_effective_charges=None) if component is None else batch
        results = evaluate(model, batch.graph, dipole=True, born_component=chosen, training=True)
        loss_of(results, labelled, configuration, 1.0).backward(inputs=list(model.parameters()))

    times: dict[int | None, list[float]] = {None: [], 0: []}
    for component in times:  # compiles kernels
        step(component)
    for _ in range(arguments.repeats):
        for component, seconds in times.items():
            begin = time.process_time()
            step(component)
            seconds.append(time.process_time() - begin)
    without, one = (statistics.median(each) for each in times.values())
    print(f"a step with one component takes {one / without:.2f} times one without, with three about", end=" ")
    print(f"{1 + 3 * (one / without - 1):.2f} times")


if __name__ == "__main__":
    main()
