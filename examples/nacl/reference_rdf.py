r"""The reference radial distribution of molten NaCl: GFN1-xTB Langevin dynamics, and g(r) of its frames.

.. math:: g_{ab}(r) = \frac{V}{N_a N_b} \frac{\langle n_{ab}(r) \rangle}{4 \pi r^2 \Delta r}

with n_ab(r) the number of ordered pairs of species a and b in the shell, N_b one less when a = b. The shell volume
is exact, 4 pi ((r + dr/2)^3 - (r - dr/2)^3) / 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory, read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from labeling import PROPERTIES, xtb_calculator
from pair_potential import Array
from sampling import density

BLOCK_STEPS = 20
SPECIES_PAIRS = (("Na", "Na"), ("Na", "Cl"), ("Cl", "Cl"))


@dataclass(frozen=True)
class ReferenceDynamics:
    """Langevin dynamics of the reference melt. Temperature in K, time step in fs, friction in 1/fs.

    One frame is kept every `stride` steps; the first `discarded` part of them is equilibration.
    """

    temperature: float = 1200.0
    density: float = 1.60
    time_step: float = 5.0
    friction: float = 0.01
    n_steps: int = 1500
    stride: int = 5
    discarded: float = 0.15
    bin_width: float = 0.08


def run_reference_dynamics(
    trajectory: Path, settings: ReferenceDynamics, *, seed: int, start: Atoms | None = None
) -> None:
    """Run, or go on with, the dynamics until `trajectory` holds `n_steps` steps.

    `start` is read when there is no trajectory yet.

    Written block by block; each block has a random generator of its own, so that a run that was interrupted and
    continued equals one that was not (up to the convergence of the self-consistent charges).
    """
    frames = read(trajectory, ":") if trajectory.exists() else []
    atoms = (frames[-1] if frames else start).copy()
    if not frames:
        rng = np.random.default_rng([seed, 0])
        MaxwellBoltzmannDistribution(atoms, temperature_K=settings.temperature, rng=rng)
    atoms.calc = xtb_calculator()
    n_done = len(frames) * settings.stride
    for block in range(n_done // BLOCK_STEPS, settings.n_steps // BLOCK_STEPS):
        dynamics = Langevin(
            atoms,
            settings.time_step * units.fs,
            temperature_K=settings.temperature,
            friction=settings.friction / units.fs,
            fixcm=False,
            rng=np.random.default_rng([seed, 1 + block]),
        )
        kept = []
        for _ in range(BLOCK_STEPS // settings.stride):
            dynamics.run(settings.stride)
            frame = atoms.copy()
            results = {name: atoms.calc.results[name] for name in PROPERTIES}
            frame.calc = SinglePointCalculator(frame, **results)
            kept.append(frame)
        with Trajectory(trajectory, "a") as file:
            for frame in kept:
                file.write(frame)


def production_frames(trajectory: Path, settings: ReferenceDynamics) -> list[Atoms]:
    """Return the frames after equilibration."""
    frames = read(trajectory, ":")
    return frames[round(settings.discarded * len(frames)) :]


def radial_distribution(frames: Sequence[Atoms], bin_width: float) -> tuple[Array, Array]:
    """Return the centers of the bins (n_bins,) up to half the cubic cell's edge and g (3, n_bins) of SPECIES_PAIRS."""
    edge = frames[0].cell[0, 0]
    edges = np.arange(0.0, edge / 2, bin_width)
    counts = np.zeros((len(SPECIES_PAIRS), len(edges) - 1))
    for atoms in frames:
        distances = atoms.get_all_distances(mic=True)
        np.fill_diagonal(distances, np.inf)
        symbols = np.array(atoms.get_chemical_symbols())
        for row, (first, second) in enumerate(SPECIES_PAIRS):
            chosen = distances[np.ix_(symbols == first, symbols == second)]
            counts[row] += np.histogram(chosen, bins=edges)[0]
    shells = 4 * np.pi / 3 * np.diff(edges**3)
    for row, (first, second) in enumerate(SPECIES_PAIRS):
        n_first, n_second = np.sum(symbols == first), np.sum(symbols == second)
        n_pairs = n_first * (n_second - (first == second))
        counts[row] /= len(frames) * n_pairs * shells / frames[0].get_volume()
    return (edges[:-1] + edges[1:]) / 2, counts


def write_reference_rdf(path: Path, trajectory: Path, settings: ReferenceDynamics) -> None:
    """Write g(r) of the dynamics as CSV, its conditions in the comment lines on top."""
    frames = production_frames(trajectory, settings)
    n_steps = len(read(trajectory, ":")) * settings.stride
    radii, values = radial_distribution(frames, settings.bin_width)
    temperatures = [atoms.get_temperature() for atoms in frames]
    pressures = [-atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa for atoms in frames]
    header = [
        "Radial distribution functions of molten NaCl, GFN1-xTB (Gamma point), Langevin dynamics",
        f"n_atoms: {len(frames[0])}",
        f"density_g_cm3: {density(frames[0]):.4f}",
        f"cell_edge_angstrom: {frames[0].cell[0, 0]:.6f}",
        f"temperature_K: {settings.temperature:.1f}",
        f"mean_kinetic_temperature_K: {np.mean(temperatures):.1f}",
        f"mean_pressure_GPa: {np.mean(pressures):.3f}",
        f"time_step_fs: {settings.time_step}",
        f"friction_per_fs: {settings.friction}",
        f"steps: {n_steps}",
        f"steps_discarded: {n_steps - len(frames) * settings.stride}",
        f"frames: {len(frames)}",
    ]
    lines = [f"# {line}" for line in header] + ["r_angstrom,g_NaNa,g_NaCl,g_ClCl"]
    lines += [f"{r:.4f},{g[0]:.5f},{g[1]:.5f},{g[2]:.5f}" for r, g in zip(radii, values.T, strict=True)]
    path.write_text("\n".join(lines) + "\n")
