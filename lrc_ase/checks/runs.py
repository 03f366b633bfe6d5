"""Runs of molecular dynamics that several checks share, in the folder of the system.

A run is made when the first check asks for it. After an interruption it goes on from its restart file, and a complete
run is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.io.trajectory import Trajectory
from ase.md.velocitydistribution import Stationary, ZeroRotation

from lrc_ase.checks.crystal_cells import relaxed_crystal, repetitions
from lrc_ase.checks.results import NotApplicable
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.conditions import MDFiles, MDSettings
from lrc_ase.simulation.current import polarization_current
from lrc_ase.simulation.dynamics import MDState, run_md
from lrc_ase.simulation.output import TIME, ThermodynamicLog, write_structure
from lrc_ase.structures.charge import repeated

__all__ = [
    "HOT",
    "TrajectoryRecord",
    "constant_energy",
    "constant_pressure",
    "frames",
    "hot",
    "n_steps",
    "production",
    "run_atoms",
    "single_precision",
    "trajectory",
]

HOT = 1.5
"""Temperature of the run for stability, in units of that of the other runs."""
FRAME_INTERVAL = 4.0
"""Time between frames of the production run, fs; half with hydrogen. It resolves 4000 cm^-1."""
LOG_INTERVAL = 5.0
SECONDS_BETWEEN_MESSAGES = 5.0
_START = "start.extxyz"
_LENGTHS = {
    "equilibration": ("equilibration", 1.0),
    "production": ("production", 1.0),
    "production-float32": ("production", 0.5),
    "constant-pressure": ("density_run", 1.0),
    "hot": ("hot_run", 1.0),
}
"""Setting that holds the length of each run, and the factor between them."""
LARGEST_CELL = 1500
"""Largest number of atoms of a cell that is repeated for a run."""


def run_atoms(subject: Subject) -> Atoms:
    """Return the structure for runs.

    Crystals are relaxed, with their cell, and repeated until the cell is as wide as the settings ask for. The structure
    is kept in the folder of the runs.
    """
    if subject.kind != "crystal":
        return subject.atoms()
    stored = subject.folder / _START
    if stored.exists():
        atoms = cast(Atoms, ase.io.read(stored))
        atoms.calc = subject.candidate.calculator
        return atoms
    atoms = relaxed_crystal(subject)
    repeats = repetitions(atoms, subject.settings.cell_width)
    if len(atoms) * math.prod(repeats) > LARGEST_CELL:
        raise NotApplicable(
            f"a cell of {subject.settings.cell_width:g} Angstrom would hold {len(atoms) * math.prod(repeats)} atoms, "
            f"more than {LARGEST_CELL}"
        )
    large = repeated(atoms, repeats)
    subject.folder.mkdir(parents=True, exist_ok=True)
    write_structure(stored, large)
    large.calc = atoms.calc
    return large


def equilibrated(subject: Subject) -> Atoms:
    """Return the end of a run at constant temperature, at rest as a whole; momenta included.

    Momenta are scaled so that the total energy is the mean of the second half of the run: the temperature at constant
    energy is then close to that of the thermostat, also of few atoms.
    """
    steps = n_steps(subject, "equilibration")
    md = MDSettings("nvt", steps, timestep=subject.timestep, temperature=subject.temperature, friction=0.02)
    start = run_atoms(subject)
    entries = dict(start.info)  # frames keep the charge alone
    files = _run(subject, "equilibration", start, md)
    atoms = cast(Atoms, ase.io.read(files.trajectory, -1))
    atoms.info |= entries
    Stationary(atoms, preserve_temperature=False)
    if subject.kind == "molecule":
        ZeroRotation(atoms, preserve_temperature=False)
    total = ThermodynamicLog.read(files.log)["total_eV"]
    wanted = float(total[len(total) // 2 :].mean()) - atoms.get_potential_energy()
    if wanted > 0 and atoms.get_kinetic_energy() > 0:
        atoms.set_momenta(atoms.get_momenta() * np.sqrt(wanted / atoms.get_kinetic_energy()))
    return atoms


def production(subject: Subject) -> MDFiles:
    """Return the files of the run at constant energy that follows the equilibration, polarization current included."""
    return constant_energy(subject, "production", subject.candidate.calculator)


def single_precision(subject: Subject) -> MDFiles:
    """Return the files of a run like `production` of the calculator in single precision.

    Raises
    ------
    NotApplicable
        There is no calculator in single precision.
    """
    if subject.candidate.single is None:
        raise NotApplicable("there is no calculator in single precision")
    return constant_energy(subject, "production-float32", subject.candidate.single)


def constant_energy(subject: Subject, name: str, calculator: Calculator) -> MDFiles:
    """Return the files of a run at constant energy from the equilibrated structure."""
    atoms = equilibrated(subject)
    atoms.calc = calculator
    has_hydrogen = 1 in atoms.numbers
    every = max(round(FRAME_INTERVAL / (2 if has_hydrogen else 1) / subject.timestep), 1)
    current_every = every if has_hydrogen else 2 * every  # a row costs more than a step
    md = MDSettings(
        "nve",
        n_steps(subject, name),
        timestep=subject.timestep,
        log_every=max(round(LOG_INTERVAL / subject.timestep), 1),
        write_every=every,
        current_every=current_every if calculator is subject.candidate.calculator and _has_current(atoms) else None,
        max_temperature=20 * subject.temperature,
        extrapolate=True,
    )
    return _run(subject, name, atoms, md)


def constant_pressure(subject: Subject) -> MDFiles:
    """Return the files of a run at zero pressure."""
    md = MDSettings(
        "npt",
        n_steps(subject, "constant-pressure"),
        timestep=subject.timestep,
        temperature=subject.temperature,
        max_temperature=20 * subject.temperature,
        extrapolate=True,
    )
    return _run(subject, "constant-pressure", run_atoms(subject), md)


def hot(subject: Subject) -> MDFiles:
    """Return the files of a run at `HOT` times the temperature."""
    md = MDSettings(
        "nvt",
        n_steps(subject, "hot"),
        timestep=subject.timestep,
        temperature=HOT * subject.temperature,
        friction=0.02,
        write_every=max(round(20 / subject.timestep), 1),
        max_temperature=20 * subject.temperature,
        extrapolate=True,
    )
    return _run(subject, "hot", run_atoms(subject), md)


def n_steps(subject: Subject, name: str) -> int:
    """Return the number of steps of a run."""
    setting, factor = _LENGTHS[name]
    return max(round(1000 * factor * subject.settings.length(setting) / subject.timestep), 1)


def _has_current(atoms: Atoms) -> bool:
    """Return True if the calculator knows the polarization current."""
    try:
        polarization_current(atoms)
    except (ValueError, PropertyNotImplementedError):
        return False
    return True


def _run(subject: Subject, name: str, atoms: Atoms, md: MDSettings) -> MDFiles:
    """Make a run, go on with it, or read it if it is complete; return its files."""
    subject.folder.mkdir(parents=True, exist_ok=True)
    files = MDFiles.beside(Path(subject.folder, f"{name}.traj"))
    resume = files.restart.exists()
    run_md(
        atoms,
        replace(md, seed=subject.settings.seed, restart_every=1000),
        files.trajectory,
        resume=resume,
        overwrite=not resume,
        report=_messages(name, subject.progress),
    )
    return files


def _messages(name: str, show: Callable[[str], None]) -> Callable[[MDState], None]:
    """Return a function that shows the state of a run every few seconds."""
    last = time.monotonic()

    def report(state: MDState) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_MESSAGES:
            last = time.monotonic()
            show(f"{name} run, step {state.step} of {state.steps}, {state.temperature:.0f} K")

    return report


@dataclass(frozen=True)
class TrajectoryRecord:
    """Positions of a run over time at equal intervals, with what goes with them."""

    interval: float
    """Time between frames, fs."""
    symbols: np.ndarray
    """Chemical symbols, (n_atoms,)."""
    masses: np.ndarray
    """(n_atoms,), atomic mass units."""
    positions: np.ndarray
    """Positions, not wrapped, (n_frames, n_atoms, 3), Angstrom."""
    stresses: np.ndarray | None
    """Stresses with their kinetic part, (n_frames, 3, 3), eV/Angstrom^3; None where the calculator gave none."""
    volume: float
    """Angstrom^3."""
    temperature: float
    """Mean kinetic temperature, K."""


def trajectory(files: MDFiles) -> TrajectoryRecord:
    """Read the trajectory of a run at constant volume."""
    read = frames(files)
    times = [frame.info[TIME] for frame in read]
    interval = 1000 * (times[1] - times[0])
    if len(times) > 2 and times[-1] - times[-2] < 0.999 * (times[1] - times[0]):
        read = read[:-1]  # the last frame of a run is written whatever its time
    stresses = None
    if all("stress" in frame.calc.results for frame in read):
        stresses = np.array([frame.get_stress(voigt=False, include_ideal_gas=True) for frame in read])
    return TrajectoryRecord(
        interval=interval,
        symbols=np.array(read[0].get_chemical_symbols()),
        masses=read[0].get_masses(),
        positions=np.array([frame.positions for frame in read]),
        stresses=stresses,
        volume=float(read[0].get_volume()),
        temperature=float(np.mean([frame.get_temperature() for frame in read])),
    )


def frames(files: MDFiles, largest: int | None = None) -> list[Atoms]:
    """Return the frames of a run, at most `largest` evenly spread ones."""
    with Trajectory(files.frames) as stored:
        count = len(stored)
        chosen = range(count) if largest is None else np.unique(np.linspace(0, count - 1, largest).astype(int))
        return [stored[int(index)] for index in chosen]
