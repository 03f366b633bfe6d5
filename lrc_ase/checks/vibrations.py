"""Vibrations: normal modes of a molecule, and the density of states of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase.vibrations import Vibrations

from lrc_ase.checks import runs
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.bands import bands
from lrc_ase.simulation.power_spectrum import SpectrumSettings
from lrc_ase.simulation.relaxation import RelaxSettings, relax
from lrc_ase.simulation.vibrational_states import read_velocities, vibrational_states

__all__ = ["normal_modes", "vibrational_spectrum"]

FORCE = 1e-3
LARGEST_MOLECULE = 100
"""Largest number of atoms for normal modes: they need six evaluations each."""
LARGEST_IMAGINARY = 30.0
"""Largest imaginary wave number that passes, cm^-1: translations and rotations have some by finite differences."""
N_BLOCKS = 3
RESOLUTION = 20.0
"""Resolution of the density of states, cm^-1; short runs have less."""
SEGMENT = 2.5
"""Length of a run that resolves 20 cm^-1, ps."""


def normal_modes(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Relax the molecule and compute its normal modes by finite differences, with ASE; none may be imaginary."""
    subject.require("molecule")
    atoms = subject.atoms()
    if len(atoms) > LARGEST_MOLECULE:
        raise NotApplicable(
            f"Normal modes are computed for up to {LARGEST_MOLECULE} atoms, this system has {len(atoms)}"
        )
    subject.progress("relaxation")
    relax(atoms, RelaxSettings(fmax=FORCE, max_steps=1000))
    subject.progress("normal modes")
    with TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=str(Path(folder, "modes")))
        vibrations.run()
        wave_numbers = vibrations.get_frequencies()
    imaginary = float(np.abs(wave_numbers.imag).max())
    # as numbers: ASE gives imaginary ones as such
    real = np.sort(wave_numbers.real)
    quantities = [
        Quantity("largest imaginary wave number", imaginary, "cm^-1", at_most=LARGEST_IMAGINARY),
        Quantity("lowest vibration", float(real[min(6, len(real) - 1)]), "cm^-1"),
        Quantity("highest vibration", float(real[-1]), "cm^-1", is_main=True),
        Quantity("energy of the zero point", float(vibrations.get_zero_point_energy()), "eV"),
    ]
    sentence = f"{len(real)} modes of the relaxed molecule, displacements of 0.01 Angstrom."
    return CheckResult.judged("normal modes", sentence, quantities)


def vibrational_spectrum(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compute the vibrational density of states of the run at constant energy, by element."""
    files = runs.production(subject)
    record = read_velocities(files.trajectory)
    assert record is not None  # runs of molecular dynamics have velocities
    block = 1e-3 * record.interval * len(record.velocities) / N_BLOCKS
    resolution = RESOLUTION * max(1.0, 1.02 * SEGMENT / block)
    states = vibrational_states([record], SpectrumSettings(resolution=resolution, n_blocks=N_BLOCKS))
    inside = states.total > 1e-3 * states.total.max()
    highest = 1.2 * float(states.wavenumbers[inside].max())
    shown = states.wavenumbers <= highest
    curves = [
        Curve.of(element, states.wavenumbers[shown], density[shown]) for element, density in states.density.items()
    ]
    if len(curves) > 1:
        curves.insert(0, Curve.of("all", states.wavenumbers[shown], states.total[shown]))
    mean = float((states.wavenumbers * states.total).sum() / states.total.sum())
    quantities = [Quantity("mean wave number", mean, "cm^-1")]
    with contextlib.suppress(ValueError):
        quantities += [
            Quantity(f"band {index + 1}", band.position, "cm^-1", is_main=True)
            for index, band in enumerate(
                each  # diffusion has its maximum at zero
                for each in bands(states.wavenumbers[shown], states.total[shown], states.error[shown])
                if each.position > states.wavenumbers[1]
            )
        ]
    figure = Figure("Vibrational density of states", "Wave number (cm^-1)", "Modes per cm^-1", tuple(curves))
    sentence = f"{block * N_BLOCKS:.3g} ps at constant energy, resolution {resolution:.0f} cm^-1."
    return CheckResult.judged("vibrational spectrum", sentence, quantities, [figure])
