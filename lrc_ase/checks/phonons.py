"""Check that a crystal has no imaginary phonons."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np

from lrc_ase.checks.crystal_cells import relaxed_crystal, repetitions
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject

__all__ = ["phonon_frequencies"]

SMALLEST_FREQUENCY = -0.1
"""Lowest frequency that passes, THz: imaginary frequencies are negative, and acoustic ones at the center have noise."""
MESH = (8, 8, 8)
SUPERCELL_WIDTH = 10.0
"""Smallest width of the supercell of force constants, Angstrom."""


def phonon_frequencies(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compute the phonons of the relaxed crystal on a mesh of wave vectors, by phonopy.

    The non-analytic correction of a polar crystal is included where the calculator has Born effective charges.
    """
    subject.require("crystal")
    if find_spec("phonopy") is None:
        raise NotApplicable('phonopy is not installed: pip install "lrc-ase[phonons]"')
    from lrc_ase.engines.phonopy import phonons

    atoms = relaxed_crystal(subject)
    supercell = repetitions(atoms, SUPERCELL_WIDTH)
    subject.progress("force constants")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy's, on defaults that changed between its versions
        phonon = phonons(atoms, atoms.calc, supercell)
        phonon.run_mesh(MESH, is_gamma_center=True)
        frequencies = np.asarray(phonon.mesh.frequencies)
        phonon.run_total_dos()
        density = phonon.total_dos
    quantities = [
        Quantity("lowest frequency", float(frequencies.min()), "THz", at_least=SMALLEST_FREQUENCY, is_main=True),
        Quantity("highest frequency", float(frequencies.max()), "THz", is_main=True),
    ]
    figure = Figure(
        "Phonon density of states",
        "Frequency (THz)",
        "States per THz and cell",
        (Curve.of("density of states", density.frequency_points, density.dos),),
        "States below zero are imaginary frequencies.",
    )
    sentence = (
        f"Supercell of {len(atoms) * int(np.prod(supercell))} atoms, mesh of {MESH[0]} x {MESH[1]} x {MESH[2]} wave "
        f"vectors; {int((frequencies < SMALLEST_FREQUENCY).sum())} of {frequencies.size} frequencies are imaginary."
    )
    return CheckResult.judged("phonons", sentence, quantities, [figure])
