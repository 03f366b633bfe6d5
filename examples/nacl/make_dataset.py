"""Make the NaCl training set: `python examples/nacl/make_dataset.py --output DIR`.

Stages, each of which keeps what it has done under `--work` and goes on from there when it is started again:

1. `potential`: the xTB lattice constant; a pair potential force-matched to xTB, with two refinements.
2. `dynamics`: xTB Langevin dynamics of a 64-atom melt, for the reference radial distribution.
3. `small`: 64-atom frames, drawn with the pair potential and labeled with xTB.
4. `large`: 216-atom frames, likewise.
5. `write`: `small.extxyz`, `large.extxyz`, `reference_rdf.csv` and the tables of `contents.md`.

Needs `tblite` (GFN1-xTB) beside ASE, NumPy, SciPy and matscipy. On one core, with OMP_NUM_THREADS=1, the stages
take about as long as README.md says; `dynamics` and the two labeling stages can run side by side.
"""

from __future__ import annotations

import argparse
import json
from itertools import zip_longest
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from dataset_files import spread_frames, write_and_check
from force_matching import compare, fit_pair_potential
from labeling import LabelCache, label, rounded, xtb_calculator
from pair_potential import PairPotential, PairShape
from plan import fit_conditions, fit_lattice_constants, large_conditions, small_conditions
from reference_rdf import ReferenceDynamics, production_frames, run_reference_dynamics, write_reference_rdf
from sampling import Condition, density, draw_frames, interleave, lattice_constant_at, start_configuration

STAGES = ("potential", "dynamics", "small", "large", "write")
STATES = ("crystal", "melt")
SEED = 20250
N_REFINEMENTS = 2
N_DYNAMICS_FRAMES = 50
LARGEST_FORCE = 15.0  # eV/Angstrom: frames of the fit with closer contacts than that are left out
RATTLES = (0.1, 0.2, 0.3)  # Angstrom


def xtb_lattice_constant(trials: tuple[float, ...] = (5.40, 5.45, 5.50, 5.55)) -> float:
    """Return the edge (Angstrom) of the cubic cell at which the stress of 64-atom rocksalt is zero."""
    stresses = []
    for lattice_constant in trials:
        atoms = bulk("NaCl", "rocksalt", a=lattice_constant, cubic=True).repeat(2)
        atoms.calc = xtb_calculator()
        stresses.append(atoms.get_stress()[:3].mean())
    # the lattice constant as a polynomial of the stress, at zero stress
    return float(np.polyfit(stresses, trials, deg=2)[-1])


def make_potential(work: Path) -> tuple[float, PairPotential]:
    """Return the xTB lattice constant and the fitted pair potential, from `work` if they are there."""
    path = work / "potential.json"
    if path.exists():
        stored = json.loads(path.read_text())
        shape = PairShape(decay_lengths=tuple(stored["decay_lengths"]))
        return stored["lattice_constant"], PairPotential(np.array(stored["coefficients"]), shape)
    lattice_constant = round(xtb_lattice_constant(), 4)
    print(f"xTB lattice constant {lattice_constant} Angstrom")
    cache = LabelCache(work / "labels_potential.jsonl")
    rng = np.random.default_rng([SEED, 0])
    frames = []
    for trial in fit_lattice_constants(lattice_constant):
        for rattle in RATTLES:
            atoms = start_configuration(Condition("crystal", 0.0, trial, strain=0.03), rng)
            atoms.positions += rattle * rng.standard_normal(atoms.positions.shape)
            atoms.info = {
                "temperature": 0.0,
                "state": "crystal",
                "density": round(density(atoms), 4),
                "origin": "rattled",
            }
            frames.append(rounded(atoms))
    labeled = label(frames, cache)
    potential = fit_pair_potential(labeled)
    for _ in range(N_REFINEMENTS):
        drawn = [
            rounded(frame)
            for condition in fit_conditions(lattice_constant)
            for frame in draw_frames(condition, potential, rng, equilibration=1.5, spacing=1.0)
        ]
        drawn = label(drawn, cache)
        print(f"unseen frames: {compare(potential, drawn)}")
        labeled += drawn
        potential = fit_pair_potential(labeled)
        print(f"after the fit: {compare(potential, drawn)}", flush=True)
    stored = {
        "lattice_constant": lattice_constant,
        "coefficients": potential.coefficients.tolist(),
        "decay_lengths": potential.shape.decay_lengths,
    }
    write(work / "potential.traj", [rounded(atoms) for atoms in labeled])
    path.write_text(json.dumps(stored, indent=2) + "\n")
    return lattice_constant, potential


def make_dynamics(work: Path, potential: PairPotential, settings: ReferenceDynamics) -> None:
    """Run the reference dynamics from a melt that the pair potential has equilibrated."""
    trajectory = work / "reference.traj"
    start = None
    if not trajectory.exists():
        condition = Condition("melt", settings.temperature, lattice_constant_at(settings.density))
        (start,) = draw_frames(condition, potential, np.random.default_rng([SEED, 1]), equilibration=6.0)
    run_reference_dynamics(trajectory, settings, seed=SEED, start=start)


def draw_all(conditions: list[Condition], potential: PairPotential, path: Path, stage: int, **times: float) -> None:
    """Draw the frames of every condition and write them to `path`, crystals and melts interleaved."""
    drawn = {state: [] for state in STATES}
    for number, condition in enumerate(conditions):
        frames = draw_frames(condition, potential, np.random.default_rng([SEED, stage, number]), **times)
        drawn[condition.state].append([rounded(frame) for frame in frames])
        print(f"drawn {number + 1}/{len(conditions)}: {condition}", flush=True)
    # within a state: the first frame of every condition, then the second of every condition, ...
    groups = [
        [frame for row in zip_longest(*conditions_frames) for frame in row if frame is not None]
        for conditions_frames in drawn.values()
    ]
    write(path, interleave(groups))


def make_frames(name: str, work: Path, potential: PairPotential, conditions: list[Condition]) -> list[Atoms]:
    """Draw (unless they are there) and label the frames of `name`, "small" or "large"."""
    path = work / f"{name}.traj"
    if not path.exists():
        stage, times = {
            "small": (2, {"equilibration": 1.2, "spacing": 0.6, "melting": 1.5}),
            "large": (3, {"equilibration": 1.2, "spacing": 0.8, "melting": 1.0}),
        }[name]
        draw_all(conditions, potential, path, stage, **times)
    return label(read(path, ":"), LabelCache(work / f"labels_{name}.jsonl"), log=work / f"{name}.log")


def write_files(work: Path, output: Path, settings: ReferenceDynamics) -> None:
    """Write the finished files from the labels and the dynamics in `work`."""
    dynamics = production_frames(work / "reference.traj", settings)
    taken = spread_frames(dynamics, N_DYNAMICS_FRAMES)
    for atoms in taken:
        atoms.info = {
            "temperature": settings.temperature,
            "state": "melt",
            "density": round(density(atoms), 4),
            "origin": "xtb-md",
        }
    labels = {
        name: LabelCache(work / f"labels_{name}.jsonl").labeled_frames(read(work / f"{name}.traj", ":"))
        for name in ("potential", "small", "large")
    }
    fitted = {
        state: [
            atoms
            for atoms in labels["potential"]
            if atoms.info["state"] == state and np.abs(atoms.get_forces()).max() < LARGEST_FORCE
        ]
        for state in STATES
    }
    lines = ["# Contents of the data set, written by make_dataset.py", ""]
    lines += write_and_check(output / "small.extxyz", interleave([labels["small"], *fitted.values(), taken]))
    lines += write_and_check(output / "large.extxyz", labels["large"])
    (output / "contents.md").write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))
    write_reference_rdf(output / "reference_rdf.csv", work / "reference.traj", settings)


def main() -> None:
    """Run the stages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the finished files")
    parser.add_argument("--work", type=Path, help="folder of intermediate results (OUTPUT/work)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="stages to run (all)")
    parser.add_argument("--steps", type=int, default=ReferenceDynamics.n_steps, help="steps of the reference dynamics")
    arguments = parser.parse_args()
    work = arguments.work or arguments.output / "work"
    work.mkdir(parents=True, exist_ok=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    lattice_constant, potential = make_potential(work)
    settings = ReferenceDynamics(n_steps=arguments.steps)
    if "dynamics" in arguments.stages:
        make_dynamics(work, potential, settings)
    if "small" in arguments.stages:
        make_frames("small", work, potential, small_conditions(lattice_constant))
    if "large" in arguments.stages:
        make_frames("large", work, potential, large_conditions(lattice_constant))
    if "write" in arguments.stages:
        write_files(work, arguments.output, settings)


if __name__ == "__main__":
    main()
