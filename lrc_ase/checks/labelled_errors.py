"""Errors of a calculator on labelled frames."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from ase.calculators.calculator import PropertyNotImplementedError

from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.dataset import SOURCE_KEY, label_frame
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.counted import counted

__all__ = ["labelled_errors"]


def labelled_errors(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Return mean absolute and root mean square errors of energies, forces and stresses on labelled frames."""
    if not subject.labels:
        raise NotApplicable("No labelled frames were given")
    evaluation = _evaluate(subject)
    errors = evaluation.metrics
    quantities = [
        Quantity(f"{label}, {kind}", errors[f"{label}_{key}"], ERROR_UNITS[label].ascii, is_main=key == "rmse")
        for label in ("energy", "forces", "stress")
        for key, kind in (("mae", "mean absolute error"), ("rmse", "root mean square error"))
        if np.isfinite(errors[f"{label}_{key}"])
    ]
    if np.isfinite(errors["forces_relative_l2"]):
        quantities.append(Quantity("forces, error / norm of the labels", errors["forces_relative_l2"]))
    labelled = np.isfinite(evaluation.reference_forces)
    figures = []
    if labelled.any():
        predicted, reference = evaluation.forces[labelled], evaluation.reference_forces[labelled]
        figures.append(
            Figure(
                "Forces beside their labels",
                "Label (eV/Angstrom)",
                "Prediction (eV/Angstrom)",
                (Curve.of("components", reference, predicted, points=True),),
            )
        )
    n_frames, n_atoms = len(evaluation.n_atoms), int(evaluation.n_atoms.sum())
    sentence = f"{counted(n_frames, 'frame')} with labels, {counted(n_atoms, 'atom')}."
    return CheckResult.judged("labelled errors", sentence, quantities, figures)


def _evaluate(subject: Subject) -> Evaluation:
    """Evaluate the calculator frame by frame, as any calculator of ASE allows."""
    calculator = subject.candidate.calculator
    energies, forces, stresses = [], [], []
    labelled = []
    for index, atoms in enumerate(subject.labels):
        subject.progress(f"frame {index + 1} of {len(subject.labels)}")
        name = atoms.info.get(SOURCE_KEY, f"frame {index}")
        labelled.append(label_frame(atoms, None, required=("energy", "forces"), partial=True, name=name))
        bare = atoms.copy()
        bare.calc = calculator
        energies.append(bare.get_potential_energy())
        forces.append(bare.get_forces(apply_constraint=False))
        stress = np.full((3, 3), np.nan)
        if bare.pbc.all():
            with suppress(PropertyNotImplementedError):
                stress = bare.get_stress(voigt=False, apply_constraint=False)
        stresses.append(stress)
    return Evaluation(
        n_atoms=np.array([len(atoms) for atoms in subject.labels]),
        symbols=np.concatenate([atoms.get_chemical_symbols() for atoms in subject.labels]),
        sets=("labels",) * len(subject.labels),
        energy=np.array(energies),
        reference_energy=np.array([frame.energy for frame in labelled]),
        forces=np.concatenate(forces),
        reference_forces=np.concatenate([frame.forces for frame in labelled]),
        stress=np.array(stresses),
        reference_stress=np.stack([frame.stress for frame in labelled]),
    )
