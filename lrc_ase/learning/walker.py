r"""A walker: molecular dynamics that is heated and cooled until the ensemble is unsure or the length is reached.

Temperatures are held by Langevin dynamics, pressures by stochastic cell rescaling (Bernetti and Bussi, J. Chem. Phys.
153, 114107 (2020), doi:10.1063/5.0020514), the isotropic form of which moves :math:`\epsilon = \ln V` by

.. math:: d\epsilon = -\frac{\beta}{\tau} \left(P_0 - P - \frac{k_B T}{V}\right) dt
          + \sqrt{\frac{2 k_B T \beta}{V \tau}}\; dW.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculatorError
from ase.md.langevin import Langevin

from lrc_ase.calculator import LRCCalculator
from lrc_ase.simulation import thermalize
from lrc_ase.structures.domain import ExtrapolationWarning

__all__ = ["Plan", "Walk", "force_deviation", "run_walker"]

BAROSTAT_EVERY = 10
"""Steps between rescalings of the cell."""
BAROSTAT_TIME = 500.0
"""Relaxation time of the pressure, fs, in a structure of the next compressibility."""
COMPRESSIBILITY = 0.05
"""Of a soft solid, 1/GPa. Another one changes the relaxation time, not the distribution of volumes."""
LARGEST_VOLUME_CHANGE = 3.0
"""Factor of the volume of the start beyond which a run counts as exploded."""
OVERHEATED = 3.0
"""Factor of the highest temperature, plus 1000 K, above which a run counts as exploded."""
HEATING = 0.5
"""Part of the length in which the temperature changes; it is constant afterwards."""


@dataclass(frozen=True)
class Plan:
    """Conditions of a run."""

    first_temperature: float
    """Temperature at the beginning, K."""
    last_temperature: float
    """Temperature of the second half, K."""
    pressure: float | None
    """GPa; None keeps the cell."""
    steps: int
    timestep: float
    """fs."""
    friction: float
    """1/fs."""
    snapshots: int
    """Frames of a full run that are kept."""
    check_every: int
    """Steps between evaluations of the deviation."""
    threshold: float
    """Deviation of the force on an atom at which the run stops, eV/Angstrom per component."""
    relative_threshold: float
    """The same as a part of the root mean square force of the frame; the larger one counts."""
    correction: float
    """Factor of deviations before they are compared, the ratio of actual to predicted errors of the newest labels."""
    start_volume: float
    """Volume of the start, Angstrom^3; of use where the pressure is controlled."""

    def temperature(self, step: int) -> float:
        """Return the temperature of the thermostat at a step, K."""
        part = min(step / max(HEATING * self.steps, 1.0), 1.0)
        return self.first_temperature + part * (self.last_temperature - self.first_temperature)


@dataclass
class Walk:
    """Result of a run."""

    snapshots: list[Atoms] = field(default_factory=list)
    """Frames along the run, with the corrected `deviation` (eV/Angstrom), `temperature` (K) and `step` in
    `Atoms.info`."""
    steps: int = 0
    """Steps made."""
    alarm: str = ""
    """Reason why the run stopped before its end."""
    exploded: bool = False
    """True if the dynamics broke down."""
    finished: bool = False
    """True if the run came to its end without an alarm."""
    interval: int = 1
    """Steps between snapshots, a multiple of those between evaluations of the deviation."""

    @property
    def last(self) -> Atoms | None:
        """Return the newest snapshot before the run stopped, a state to go on from; None if it stopped at once."""
        calm = [atoms for atoms in self.snapshots if "alarm" not in atoms.info]
        return calm[-1] if calm else None

    def keep(self, frame: Atoms, n_kept: int) -> None:
        """Keep a frame; where there are twice `n_kept`, drop every second one and keep only half as many from here on.

        A run that stops after a few steps has thus as many snapshots as a long one.
        """
        self.snapshots.append(frame)
        if len(self.snapshots) >= 2 * n_kept:
            self.snapshots = self.snapshots[1::2]
            self.interval *= 2


def force_deviation(forces_std: np.ndarray) -> float:
    """Return the largest deviation of the force on an atom, root mean square over its components, eV/Angstrom."""
    return float(np.sqrt(np.mean(forces_std**2, axis=1)).max())


def run_walker(
    atoms: Atoms,
    plan: Plan,
    rng: np.random.Generator,
    *,
    ensemble: LRCCalculator | None = None,
    first_step: int = 0,
    out_of_time: Callable[[], bool] = lambda: False,
    report: Callable[[int], None] | None = None,
) -> Walk:
    """Run `atoms` in place from `first_step` to the end of the plan.

    The calculator of `atoms` moves them: that of the `ensemble`, or that of one of its members, which costs less. Every
    `plan.check_every` steps the ensemble evaluates the frame.

    The run stops early with an alarm where the corrected deviation of the force on an atom passes the thresholds of the
    plan or the structure lies far outside the training domain, and with an explosion where energies or forces are
    not finite, the calculator fails, or temperature or volume leave all bounds. The frame of an alarm is the last of
    the snapshots; that of an explosion is not among them, but the last checked frame before is. A run that is
    `out_of_time` ends without an alarm, and has not finished.
    """
    walk = Walk(interval=plan.check_every)
    judge = atoms.calc if ensemble is None else ensemble
    if not atoms.has("momenta"):
        thermalize(atoms, plan.temperature(first_step), rng)
    dynamics = Langevin(
        atoms,
        plan.timestep * units.fs,
        temperature_K=plan.temperature(first_step),
        friction=plan.friction / units.fs,
        fixcm=False,
        rng=rng,
    )
    sane = _frame(atoms, 0.0, plan, first_step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # leaving the domain is what walkers are for
        for step in range(first_step, plan.steps + 1):
            try:
                if step > first_step:
                    dynamics.set_temperature(temperature_K=plan.temperature(step))
                    dynamics.step()
                    if plan.pressure is not None and step % BAROSTAT_EVERY == 0:
                        rescale_cell(atoms, plan, step, rng)
                reason = _insanity(atoms, plan)
                is_checked = (step - first_step) % plan.check_every == 0 or step == plan.steps
                far = getattr(atoms.calc, "extrapolation", ())
                if not reason and (is_checked or far):
                    deviation = plan.correction * force_deviation(judge.get_forces_std(atoms))
                    reason = "" if math.isfinite(deviation) else "the deviation of the forces is not finite"
            except (CalculatorError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                reason = f"the calculator failed: {error}"
            walk.steps = step - first_step
            if reason:
                walk.exploded, walk.alarm = True, reason
                sane.info["alarm"] = "before an explosion"
                if sane not in walk.snapshots[-1:]:  # it may have been kept when it was checked
                    walk.snapshots.append(sane)
                return walk
            if not (is_checked or far):
                continue
            limit = _limit(atoms, plan)
            sane = _frame(atoms, deviation, plan, step)
            if deviation > limit or far:
                walk.alarm = far[0] if far else f"deviation {deviation:.3f} above {limit:.3f} eV/Angstrom"
                sane.info["alarm"] = "domain" if far else "deviation"
                walk.snapshots.append(sane)
                return walk
            if step > first_step and ((step - first_step) % walk.interval == 0 or step == plan.steps):
                walk.keep(sane, plan.snapshots)
            if report is not None:
                report(step)
            if step < plan.steps and out_of_time():
                return walk
    walk.finished = True
    return walk


def rescale_cell(atoms: Atoms, plan: Plan, step: int, rng: np.random.Generator) -> None:
    """Move the logarithm of the volume by one step of stochastic cell rescaling."""
    assert plan.pressure is not None
    thermal = units.kB * plan.temperature(step)
    volume = atoms.get_volume()
    pressure = -float(np.trace(atoms.get_stress(voigt=False, include_ideal_gas=True))) / 3
    rate = COMPRESSIBILITY / units.GPa / (BAROSTAT_TIME * units.fs)
    duration = BAROSTAT_EVERY * plan.timestep * units.fs
    drift = -rate * (plan.pressure * units.GPa - pressure - thermal / volume) * duration
    noise = math.sqrt(2 * thermal * rate * duration / volume) * float(rng.standard_normal())
    # one step must not tear a structure apart, whatever pressure a poor potential predicts
    factor = math.exp(float(np.clip(drift + noise, -0.05, 0.05)) / 3)
    momenta = atoms.get_momenta() / factor
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    atoms.set_momenta(momenta, apply_constraint=False)


def _insanity(atoms: Atoms, plan: Plan) -> str:
    """Return the reason why the dynamics has broken down, empty if it has not."""
    if not (np.isfinite(atoms.get_forces()).all() and np.isfinite(atoms.positions).all()):
        return "forces or positions are not finite"
    hottest = OVERHEATED * max(plan.first_temperature, plan.last_temperature) + 1000
    if not atoms.get_temperature() <= hottest:
        return f"the temperature reached {atoms.get_temperature():.0f} K"
    if plan.pressure is not None:
        change = atoms.get_volume() / plan.start_volume
        if not 1 / LARGEST_VOLUME_CHANGE < change < LARGEST_VOLUME_CHANGE:
            return f"the volume changed by a factor of {change:.2f}"
    return ""


def _limit(atoms: Atoms, plan: Plan) -> float:
    """Return the deviation above which the present frame stops the run, eV/Angstrom per component."""
    return max(plan.threshold, plan.relative_threshold * float(np.sqrt(np.mean(atoms.get_forces() ** 2))))


def _frame(atoms: Atoms, deviation: float, plan: Plan, step: int) -> Atoms:
    """Return a copy of the present frame with notes on how it was reached."""
    frame = atoms.copy()
    notes: dict[str, Any] = {"deviation": deviation, "temperature": plan.temperature(step), "step": step}
    frame.info.update(notes)
    return frame
