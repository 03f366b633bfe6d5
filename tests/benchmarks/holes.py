"""Holes of a potential at short distance, with and without core repulsion.

python tests/benchmarks/holes.py POTENTIAL FRAMES.extxyz [--frames 3] [--range 0.9] [--wall 0]
python tests/benchmarks/holes.py POTENTIAL FRAMES.extxyz --falls [--wall 0 50 100 150]

The closest pair of each kind, in frames and alone, is moved together from the shortest distance in training to 0.5
Angstrom. A hole is a place whose energy is 0.05 eV and more below that at the start; printed are its distance, the
barrier before it and its depth. The repulsion is added to the potential as it is: training would not see it.

--falls prints the largest fall of the energy in any of the frames instead, by the check `approaching pairs` of
``lrc-ase check``. Its columns are heights of the wall, eV, with the repulsion in each of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from lrc_ase import LRCCalculator, Potential, load_potential
from lrc_ase.checks import CHECKS, Candidate, CheckSettings, Subject, kind_of
from lrc_ase.models.baselines import ranges_from_data
from lrc_ase.models.baselines.zbl import MARGIN
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.model import ShortRangeModel, build_model
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import neighbor_graph

STEP, SHORTEST = 0.06, 0.5
"""Of the scan, Angstrom."""
HOLE = 0.05
"""eV."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("potential")
    parser.add_argument("frames")
    parser.add_argument("--frames", type=int, default=3, dest="n_frames")
    parser.add_argument("--range", type=float, default=MARGIN, help="range of the repulsion / shortest distance")
    parser.add_argument("--wall", type=float, nargs="+", default=[150.0], help="heights of the wall, eV")
    parser.add_argument("--falls", action="store_true", help="print falls by the check `approaching pairs`")
    arguments = parser.parse_args()
    potential = load_potential(arguments.potential, dtype="float64")
    elements, cutoff = potential.settings.elements, potential.settings.cutoff
    shortest = potential.description["training_domain"]["shortest_distances"]
    scaled = {pair: arguments.range / MARGIN * distance for pair, distance in shortest.items()}
    ranges = ranges_from_data(None, elements, scaled, cutoff)
    repelling = [[{"zbl": {"ranges": ranges, "wall": height}}] for height in arguments.wall]
    frames = ase.io.read(arguments.frames, f":{arguments.n_frames}")
    if arguments.falls:
        print_falls([with_baseline(potential, each) for each in repelling], frames, arguments.wall)
        return
    models = [with_baseline(potential, each).model for each in [[], *repelling]]
    walls = ", ".join(f"with a wall of {height:g} eV" for height in arguments.wall)
    print(f"{'pair':8} {'shortest':>8}   without, {walls}: the hole with the lowest barrier; Angstrom, eV")
    for pair, distance in shortest.items():
        scans = list(scans_of(pair, distance, frames, elements, cutoff))
        print(f"{pair:8} {distance:8.2f}   " + " | ".join(worst_hole(model, scans) for model in models))


def with_baseline(potential: Potential, baseline: list[dict]) -> Potential:
    """Return the potential with the same weights and another baseline."""
    model = build_model(potential.settings.model_copy(update={"baseline": baseline})).double()
    model.load_state_dict(potential.model.state_dict())
    return replace(potential, model=model.requires_grad_(False))


def print_falls(potentials: list[Potential], frames: list[Atoms], heights: list[float]) -> None:
    """Print the largest fall of each pair in any frame, a column for each potential."""
    columns = [falls(each, frames) for each in potentials]
    print(f"largest fall in eV, wall of {' | '.join(f'{height:g} eV' for height in heights)}")
    for pair in columns[0]:
        print(f"{pair:8} " + " | ".join(f"{column[pair]:.2f}" for column in columns))


def falls(potential: Potential, frames: list[Atoms]) -> dict[str, float]:
    """Return the largest fall of the energy of each pair that is pushed together in the frames, eV."""
    candidate = Candidate.of(LRCCalculator(potential))
    largest: dict[str, float] = {}
    for atoms in frames:
        kind = kind_of(atoms, candidate.calculator)
        subject = Subject(candidate, atoms, kind, Path(tempfile.gettempdir()), CheckSettings())
        for quantity in CHECKS["approaching pairs"].function(subject, np.random.default_rng(0)).quantities:
            pair = quantity.name.partition(":")[0]
            largest[pair] = max(largest.get(pair, 0.0), quantity.value)
    return largest


def scans_of(
    pair: str, shortest: float, frames: list[Atoms], elements: tuple[str, ...], cutoff: float
) -> Iterator[tuple[np.ndarray, list[Graph]]]:
    """Yield distances from `shortest` inwards and the graphs at them, for the pair alone and in each frame."""
    one, two = pair.split("-")
    distances = np.append(np.arange(SHORTEST, shortest, STEP), shortest)[::-1]
    for frame in [Atoms([one, two], positions=[[0, 0, 0], [0, 0, shortest]]), *frames]:
        atoms = frame.copy()  # the next pair starts from the frame as it was
        table = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
        np.fill_diagonal(table, np.inf)
        numbers = np.array(atoms.get_chemical_symbols())
        table[~np.outer(numbers == one, numbers == two)] = np.inf
        first, second = np.unravel_index(table.argmin(), table.shape)
        if not np.isfinite(table[first, second]):
            continue
        direction = atoms.get_distance(first, second, mic=bool(atoms.pbc.any()), vector=True)
        direction /= np.linalg.norm(direction)
        graphs = []
        for distance in distances:
            atoms.positions[second] = atoms.positions[first] + distance * direction
            graphs.append(neighbor_graph(atoms, elements, cutoff))
        yield distances, graphs


def worst_hole(model: ShortRangeModel, scans: list[tuple[np.ndarray, list[Graph]]]) -> str:
    """Describe the hole behind the lowest barrier."""
    holes = []
    for distances, graphs in scans:
        energies = np.array([float(evaluate(model, graph, forces=False).energy) for graph in graphs])
        energies -= energies[0]
        below = np.flatnonzero(energies < -HOLE)
        if len(below):
            holes.append((energies[: below[0]].max(), distances[below[0]], energies.min()))
    if not holes:
        return "none"
    barrier, distance, depth = min(holes)
    return f"at {distance:.2f} behind {barrier:.2f}, depth {depth:.1f}"


if __name__ == "__main__":
    main()
