"""Molecular dynamics at constant energy, temperature or pressure, with restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet

from lrc_ase.files.counted import counted
from lrc_ase.files.lock import exclusive_use
from lrc_ase.simulation.calculators import forget_results
from lrc_ase.simulation.conditions import MDFiles, MDSettings, check_same_run, check_structure, run_identity
from lrc_ase.simulation.current import CurrentLog, polarization_current
from lrc_ase.simulation.initial_velocities import thermalize
from lrc_ase.simulation.observables import ThermodynamicState, thermodynamic_state
from lrc_ase.simulation.output import (
    ThermodynamicLog,
    TrajectoryFile,
    check_trajectory_output,
    convert_frames,
    write_structure,
)
from lrc_ase.simulation.restart import Restart, integrator_state, read_restart, restore_integrator, write_restart

__all__ = ["MDState", "MDSummary", "SimulationStopped", "run_md"]

LARGEST_VOLUME_CHANGE = 10.0
Integrator = VelocityVerlet | Langevin | IsotropicMTKNPT | MTKNPT


class SimulationStopped(RuntimeError):
    """Error of a run whose results became meaningless: not finite, too hot, or refused by the calculator."""


@dataclass(frozen=True)
class MDState:
    """State of a run after a step, for a display of progress."""

    step: int
    steps: int
    """Total number of steps."""
    temperature: float
    """Temperature, K."""
    potential: float
    """Potential energy, eV."""
    ns_per_day: float
    """Speed since the start or the restart."""


@dataclass(frozen=True)
class MDSummary:
    """Summary of a run: steps, time, final state and files."""

    steps: int
    first_step: int
    """0, or the step at which it resumed."""
    seconds: float
    """Wall time of this part."""
    final: ThermodynamicState
    files: MDFiles

    def __repr__(self) -> str:
        return (
            f"MDSummary({counted(self.steps, 'step')} in {self.seconds:.1f} s, {self.final.temperature:.1f} K, "
            f"potential {self.final.potential:.6f} eV, {self.files.trajectory})"
        )

    @property
    def ms_per_step(self) -> float:
        """Return the mean wall time of a step, ms."""
        return 1000 * self.seconds / max(self.steps - self.first_step, 1)


def run_md(
    atoms: Atoms,
    settings: MDSettings,
    trajectory: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Callable[[MDState], None] | None = None,
) -> MDSummary:
    """Run molecular dynamics on `atoms`, in place, and write trajectory, log and restart file.

    With ``resume=True`` a run that was interrupted, by Ctrl-C or a kill, continues from its last restart file. Log and
    trajectory are cut back to that step, and the continuation equals an uninterrupted run bit for bit. To this end the
    calculator is reset at every restart file: both runs then build their neighbor lists again at the same step.

    Parameters
    ----------
    atoms
        Structure with a calculator.
    trajectory
        File to write, in any format of ASE that holds several frames; log and restart file are named after it, see
        `MDFiles.beside`. Formats other than .traj and .extxyz are written at the end.
    resume, overwrite
        Continue an existing run, or replace it. Without either, existing files are an error.
    report
        Called after every step.

    Raises
    ------
    FileExistsError, ValueError
        Files of a run exist already; settings and structure do not fit.
    SimulationStopped
        Energy, forces or positions are not finite, the temperature passes `settings.max_temperature`, the volume
        changes tenfold, the calculator refuses the structure or says that it lies far outside the training set
        (`LRCCalculator.extrapolation`; not with `settings.extrapolate`). The last sane frame is kept in its own file.
    """
    files = MDFiles.beside(trajectory)
    check_structure(atoms, settings)
    if resume and overwrite:
        raise ValueError("`resume` and `overwrite` exclude each other")
    if not files.trajectory.parent.is_dir():
        raise FileNotFoundError(f"the folder {files.trajectory.parent} does not exist")
    with exclusive_use(files.lock, f"the run {files.trajectory}"):
        if resume:
            files.check_resumable()
        elif not overwrite:
            files.check_free()
        return _run(atoms, settings, files, read_restart(files.restart) if resume else None, report)


def _run(
    atoms: Atoms,
    settings: MDSettings,
    files: MDFiles,
    restart: Restart | None,
    report: Callable[[MDState], None] | None,
) -> MDSummary:
    """Run from the start, or from a restart file; the caller holds the lock of the files."""
    rng = np.random.default_rng(settings.seed)
    if restart is not None:
        same_atoms = np.array_equal(atoms.numbers, restart.numbers)  # else `apply` says what differs
        check_same_run(restart.settings, settings, run_identity(atoms) if same_atoms else {})
        restart.apply(atoms)
        rng.bit_generator.state = restart.random_state
    elif settings.temperature is not None:
        thermalize(atoms, settings.temperature, rng)
    check_trajectory_output(files.trajectory, atoms)
    integrator = _integrator(atoms, settings, rng)
    first_step = 0
    if restart is not None:
        first_step = restart.step
        restore_integrator(integrator, restart.integrator)
    forget_results(atoms.calc)
    atoms.get_potential_energy()  # a structure that the calculator refuses must not cost files that are there
    if settings.current_every is not None:
        polarization_current(atoms)  # nor one without a current
    last_step = restart.step if restart else None
    if restart is None:
        files.restart.unlink(missing_ok=True)  # else a kill right now would leave one that fits no other file
        files.current.unlink(missing_ok=True)
    with ExitStack() as opened:
        log = opened.enter_context(closing(ThermodynamicLog(files.log, last_step=last_step)))
        frames = opened.enter_context(
            closing(TrajectoryFile(files.frames, keep=restart.trajectory if restart else None))
        )
        current = None
        if settings.current_every is not None:
            current = opened.enter_context(closing(CurrentLog(files.current, last_step=last_step)))
        if restart is not None:
            log.warn_of_a_gap(restart.step, restart.settings.get("log_every"))
            if current is not None:
                current.warn_of_a_gap(restart.step, restart.settings.get("current_every"))
        started = time.perf_counter()
        run = _Run(atoms, settings, integrator, rng, files, log, frames, current)
        if restart is None:
            run.begin()
        for step in range(first_step + 1, settings.steps + 1):
            run.step(step)
            run.write(step)
            if report is not None:
                elapsed = time.perf_counter() - started
                speed = (step - first_step) * settings.timestep * 1e-6 / elapsed * 86400
                temperature, potential = run.temperature, run.potential
                report(MDState(step, settings.steps, temperature, potential, speed))
        seconds = time.perf_counter() - started
    if files.frames != files.trajectory:
        convert_frames(files.frames, files.trajectory)
    return MDSummary(max(settings.steps, first_step), first_step, seconds, thermodynamic_state(atoms), files)


class _Run:
    """Mutable state of `run_md`: steps, their checks, and the files that are written."""

    def __init__(
        self,
        atoms: Atoms,
        settings: MDSettings,
        integrator: Integrator,
        rng: np.random.Generator,
        files: MDFiles,
        log: ThermodynamicLog,
        frames: TrajectoryFile,
        current: CurrentLog | None,
    ) -> None:
        self.atoms, self.settings, self.integrator, self.rng = atoms, settings, integrator, rng
        self.files, self.log, self.frames, self.current = files, log, frames, current
        self.identity = run_identity(atoms)
        self.volume = atoms.cell.volume
        self.sane = atoms.copy()
        self.temperature = self.potential = float("nan")

    def begin(self) -> None:
        """Check and write the initial structure."""
        if reason := self.unreasonable():
            self.stop(0, reason)
        self.write(0)

    def step(self, step: int) -> None:
        """Advance by one step; raise SimulationStopped if the new state is unreasonable."""
        try:
            self.integrator.step()
            reason = self.unreasonable()
        except (CalculatorError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            self.stop(step, f"the calculator failed: {error}", error)
        if reason:
            self.stop(step, reason)

    def unreasonable(self) -> str | None:
        """Return the reason why the present state cannot be trusted, or None after keeping a copy of it."""
        self.temperature = float(self.atoms.get_temperature())
        self.potential = float(self.atoms.get_potential_energy())
        forces = self.atoms.get_forces(apply_constraint=False, md=True)
        if not (np.isfinite(self.potential) and np.isfinite(forces).all() and np.isfinite(self.atoms.positions).all()):
            return "energy, forces or positions are not finite"
        if not self.temperature <= self.settings.max_temperature:  # "not <=" holds for NaN too
            return f"the temperature reached {self.temperature:.0f} K"
        if not self.settings.extrapolate and (far := getattr(self.atoms.calc, "extrapolation", ())):
            return f"far outside the training set: {far[0]}"
        if self.settings.ensemble == "npt":
            change = self.atoms.cell.volume / self.volume
            if not 1 / LARGEST_VOLUME_CHANGE < change < LARGEST_VOLUME_CHANGE:
                return f"the volume changed by a factor {change:.3g}"
        self.sane.arrays["positions"][:] = self.atoms.positions
        self.sane.arrays["momenta"][:] = self.atoms.arrays["momenta"]
        self.sane.cell[:] = self.atoms.cell
        return None

    def stop(self, step: int, reason: str, error: Exception | None = None) -> None:
        """Write the last sane frame and raise SimulationStopped."""
        try:
            write_structure(self.files.last_sane, self.sane)
            kept = f"The last sane frame is in {self.files.last_sane}"
        except OSError as failure:  # the reason of the stop matters more
            kept = f"The last sane frame could not be written ({failure})"
        raise SimulationStopped(
            f"stopped at step {step}: {reason}. {kept}; try a shorter timestep, a relaxed start, or training frames "
            "nearer to it"
        ) from error

    def write(self, step: int) -> None:
        """Write log, trajectory and restart file if they are due at `step`."""
        settings = self.settings
        last = step == settings.steps
        picoseconds = step * settings.timestep * 1e-3
        if step % settings.log_every == 0 or last:
            state = thermodynamic_state(self.atoms)
            self.log.write(step, picoseconds, state, self.conserved(state))
        if self.current is not None and step % cast(int, settings.current_every) == 0:  # equal intervals: no last row
            self.current.write(step, picoseconds, self.atoms)
        if step % settings.write_every == 0 or last:
            self.frames.write(self.atoms, picoseconds)
        if step % settings.restart_every == 0 or last:
            write_restart(self.files.restart, self.restart(step))
            forget_results(self.atoms.calc)

    def conserved(self, state: ThermodynamicState) -> float:
        """Return the conserved quantity of the equations of motion, eV; NaN for a stochastic thermostat.

        It is NaN too if ASE needs a `free_energy` that the calculator does not have.
        """
        if isinstance(self.integrator, VelocityVerlet):
            return state.total
        if isinstance(self.integrator, Langevin):
            return float("nan")
        with suppress(PropertyNotImplementedError):
            return self.integrator.get_conserved_energy()
        return float("nan")

    def restart(self, step: int) -> Restart:
        """Return the state that a continuation needs."""
        atoms = self.atoms
        return Restart(
            step=step,
            settings=asdict(self.settings) | self.identity,
            numbers=atoms.numbers,
            positions=atoms.positions,
            momenta=atoms.get_momenta(),
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            random_state=json.loads(json.dumps(self.rng.bit_generator.state)),
            trajectory=self.frames.position,
            integrator=integrator_state(self.integrator),
        )


def _integrator(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    """Return ASE's integrator for the ensemble, in ASE's units."""
    timestep = settings.timestep * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    assert settings.temperature is not None  # checked by MDSettings
    if settings.ensemble == "nvt":
        # fixcm=False: holding the center of mass does not sample the canonical distribution
        return Langevin(
            atoms,
            timestep,
            temperature_K=settings.temperature,
            friction=settings.friction / units.fs,
            fixcm=False,
            rng=rng,
        )
    barostat: type[IsotropicMTKNPT | MTKNPT] = IsotropicMTKNPT if settings.npt_mode == "isotropic" else MTKNPT
    return barostat(
        atoms,
        timestep,
        temperature_K=settings.temperature,
        pressure_au=settings.pressure * units.GPa,
        tdamp=settings.thermostat_time * units.fs,
        pdamp=settings.barostat_time * units.fs,
    )
