"""Errors of a potential on labels before it is trained on them, beside the deviations that it predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrc_ase.dataset import Atoms
from lrc_ase.evaluation import evaluate_frames
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.potential_file import Potential
from lrc_ase.learning.state import FreshErrors

__all__ = ["AGREEMENT", "agrees", "correction", "errors_by_origin"]

AGREEMENT = 1.5
"""Ratio of the actual to the predicted error up to which they agree."""
_MEV = 1e3


def errors_by_origin(potential: Potential, frames: Sequence[Atoms]) -> dict[str, FreshErrors]:
    """Return the errors on all frames, and on those of each `origin` in `Atoms.info`; nothing without frames."""
    if not frames:
        return {}
    evaluation = evaluate_frames(potential, frames)
    origins = np.array([str(atoms.info.get("origin", "")) for atoms in frames])
    masks = {"all": np.ones(len(frames), dtype=bool)}
    masks |= {origin: origins == origin for origin in dict.fromkeys(origins.tolist()) if origin}
    return {name: _errors(evaluation, mask) for name, mask in masks.items()}


def agrees(errors: FreshErrors) -> bool:
    """Return True if an error is no larger than `AGREEMENT` times the predicted one."""
    return errors.forces_predicted is not None and errors.forces_rmse <= AGREEMENT * errors.forces_predicted


def correction(fresh: FreshErrors | None, held_out: FreshErrors | None, threshold: float) -> float:
    """Return the factor by which deviations are multiplied before they are compared with a threshold, at least 1.

    It is the ratio of the actual to the predicted error of the newest labels: held-out frames, on which deviations are
    calibrated, resemble those of training, and explorations go beyond them. The correction never lifts a deviation that
    is usual on held-out frames above half of the `threshold`, eV/Angstrom, as no walker could move any more.
    """
    if fresh is None or not fresh.forces_predicted:
        return 1.0
    ratio = fresh.forces_rmse / fresh.forces_predicted
    if held_out is not None and held_out.forces_predicted:
        ratio = min(ratio, 0.5 * _MEV * threshold / held_out.forces_predicted)
    return max(ratio, 1.0)


def _errors(evaluation: Evaluation, mask: np.ndarray) -> FreshErrors:
    """Return the errors over the frames of a mask."""
    metrics = evaluation.errors(mask)
    predicted = None
    if evaluation.forces_std is not None:
        predicted = _MEV * float(np.sqrt(np.mean(evaluation.forces_std[mask[evaluation.frame]] ** 2)))
    energy = metrics["energy_rmse"]
    return FreshErrors(
        n_frames=int(mask.sum()),
        forces_rmse=metrics["forces_rmse"],
        forces_predicted=predicted,
        energy_rmse=energy if np.isfinite(energy) else None,
    )
