"""Steps of molecular dynamics that the checks of a system still need, and their time."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

from lrc_ase.checks import runs
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.conditions import MDFiles
from lrc_ase.simulation.output import ThermodynamicLog

__all__ = ["DynamicsPlan", "dynamics_plan"]

DISPLACEMENT = 1e-3
"""Displacement between evaluations that are timed, Angstrom: calculators keep the results of equal structures."""
N_TIMED = 3


@dataclass(frozen=True)
class DynamicsPlan:
    """Length of the runs ahead."""

    n_steps: int
    n_atoms: int
    seconds_per_step: float

    @property
    def seconds(self) -> float:
        """Return the estimated time of all steps."""
        return self.n_steps * self.seconds_per_step


def dynamics_plan(subject: Subject, names: Collection[str]) -> DynamicsPlan:
    """Return the steps that the named runs still need, and the time of one by three evaluations with stress.

    Writing of frames and thermostats are not timed. A crystal is relaxed and repeated for its runs first.
    """
    n_steps = sum(_missing(subject, name) for name in names)
    atoms = runs.run_atoms(subject)
    with_stress = atoms.pbc.all() and "stress" in atoms.calc.implemented_properties
    seconds = []
    for _ in range(1 + N_TIMED):  # the first evaluation searches neighbors and loads kernels
        atoms.positions += DISPLACEMENT
        begin = time.perf_counter()
        atoms.get_forces()
        if with_stress:
            atoms.get_stress()
        seconds.append(time.perf_counter() - begin)
    return DynamicsPlan(n_steps, len(atoms), min(seconds[1:]))


def _missing(subject: Subject, name: str) -> int:
    """Return the number of steps of a run that are not in its folder yet."""
    steps = runs.n_steps(subject, name)
    log = MDFiles.beside(subject.folder / f"{name}.traj").log
    if log.exists() and len(times := ThermodynamicLog.read(log)["time_ps"]):
        steps -= round(1000 * float(times[-1]) / subject.timestep)
    return max(steps, 0)
