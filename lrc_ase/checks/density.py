"""Density at zero pressure."""

from __future__ import annotations

import numpy as np
from ase import units

from lrc_ase.checks import runs
from lrc_ase.checks.blocks import block_error
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.output import ThermodynamicLog

__all__ = ["density_at_zero_pressure"]

SKIPPED = 1 / 3
"""Part at the beginning of the run that is left out of means."""
LARGEST_VOLUME_CHANGE = 0.5
"""Largest relative change of the volume, up or down: beyond it a liquid has evaporated, or a crystal collapsed."""
GRAM_PER_CUBIC_CENTIMETER = units.kg * 1e-3 / (units.m * 1e-2) ** 3


def density_at_zero_pressure(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Return the mean density of a run at zero pressure, with an error from blocks."""
    if not subject.is_periodic:
        raise NotApplicable("A density needs three periodic directions")
    log = ThermodynamicLog.read(runs.constant_pressure(subject).log)
    atoms = runs.run_atoms(subject)
    mass = float(atoms.get_masses().sum())
    late = log["time_ps"] >= SKIPPED * log["time_ps"][-1]
    densities = mass / log["volume_A3"] / GRAM_PER_CUBIC_CENTIMETER
    mean_volume = float(log["volume_A3"][late].mean())
    change = mean_volume / atoms.get_volume() - 1
    quantities = [
        Quantity("density", float(densities[late].mean()), "g/cm^3", error=block_error(densities[late]), is_main=True),
        Quantity(
            "volume per atom",
            mean_volume / len(atoms),
            "Angstrom^3",
            error=block_error(log["volume_A3"][late]) / len(atoms),
        ),
        Quantity(
            "change of the volume of the structure",
            change,
            at_most=LARGEST_VOLUME_CHANGE,
            at_least=-LARGEST_VOLUME_CHANGE,
        ),
        Quantity(
            "mean pressure",
            float(log["pressure_GPa"][late].mean()),
            "GPa",
            error=block_error(log["pressure_GPa"][late]),
        ),
    ]
    figure = Figure(
        "Density at zero pressure",
        "Time (ps)",
        "Density (g/cm^3)",
        (Curve.of("density", log["time_ps"], densities),),
        f"The mean is over the last {1 - SKIPPED:.0%}: a density that still drifts there needs a longer run.",
        y_range=(float(0.98 * densities.min()), float(1.02 * densities.max())),
    )
    sentence = f"{log['time_ps'][-1]:.3g} ps of {len(atoms)} atoms at {subject.temperature:g} K and zero pressure."
    return CheckResult.judged("density", sentence, quantities, [figure])
