"""Check that dynamics at constant energy conserves it, in double and in single precision."""

from __future__ import annotations

import numpy as np

from lrc_ase.checks import runs
from lrc_ase.checks.blocks import slope_with_error
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.conditions import MDFiles
from lrc_ase.simulation.output import ThermodynamicLog

__all__ = ["energy_conservation"]

LARGEST_DRIFT = 0.01
"""Largest drift, eV per atom and ns: 80 K/ns where half of it becomes kinetic energy."""
LARGEST_FLUCTUATION = 0.05
"""Largest standard deviation of the total energy, in units of that of the kinetic energy. Velocity Verlet leaves
(omega dt)^2 / 8 of the energy of a vibration, 0.02 for that of hydrogen at 0.5 fs."""


def energy_conservation(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Measure the drift of the total energy per atom and ns in runs of velocity Verlet.

    The error of a drift comes from the scatter of block means about the line.
    """
    double = _Conservation(runs.production(subject), len(runs.run_atoms(subject)))
    logs = {"float64": double}
    note = ""
    try:
        logs["float32"] = _Conservation(runs.single_precision(subject), double.n_atoms)
    except NotApplicable as reason:
        note = f" Single precision was not checked: {reason}."
    quantities, curves = [], []
    for name, log in logs.items():
        quantities += [
            Quantity(f"drift, {name}", log.drift, "eV/atom/ns", error=log.error, at_most=LARGEST_DRIFT, is_main=True),
            Quantity(f"fluctuation of total / kinetic energy, {name}", log.fluctuation, at_most=LARGEST_FLUCTUATION),
        ]
        curves.append(Curve.of(name, log.times, 1000 * log.deviation))
    figure = Figure(
        "Energy conservation",
        "Time (ps)",
        "Total energy - start (meV/atom)",
        tuple(curves),
        "A slope is a drift. Fast fluctuations belong to the time step.",
    )
    sentence = (
        f"Constant energy at {double.temperature:.0f} K for {double.times[-1]:.3g} ps with steps of "
        f"{subject.timestep:g} fs.{note}"
    )
    return CheckResult.judged("energy conservation", sentence, quantities, [figure])


class _Conservation:
    """Total energy of a run over time."""

    def __init__(self, files: MDFiles, n_atoms: int) -> None:
        log = ThermodynamicLog.read(files.log)
        self.n_atoms = n_atoms
        self.times = log["time_ps"]
        self.deviation = (log["total_eV"] - log["total_eV"][0]) / n_atoms
        """eV per atom, (n_samples,)."""
        slope, self.error = (1000 * each for each in slope_with_error(self.times, self.deviation))
        self.drift = abs(slope)
        kinetic = log["kinetic_eV"] / n_atoms
        self.fluctuation = float(self.deviation.std() / max(kinetic.std(), 1e-12))
        self.temperature = float(log["temperature_K"].mean())
