"""Ensembles in training: frames left out for each member, and calibration of the deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lrc_ase.dataset import LabelledGraph, collate_labelled
from lrc_ase.evaluation.uncertainty import calibrate_spread, crossed_coverage
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.ensemble import Ensemble

__all__ = ["calibrate", "calibration_text", "left_out_frames"]


def left_out_frames(n_frames: int, n_members: int, fraction: float, seed: int) -> Sequence[frozenset[int]]:
    """Return the frames left out for each member: a random `fraction`, as different as possible between members.

    With four members and a quarter left out, every frame is left out for exactly one member, as in cross-validation.

    >>> [sorted(frames) for frames in left_out_frames(8, 4, 0.25, seed=0)]
    [[4, 6], [0, 3], [2, 7], [1, 5]]
    """
    if n_members == 1:
        return [frozenset()]
    order = np.random.default_rng([seed, 0xE25]).permutation(n_frames)
    length = round(fraction * n_frames)
    # windows of one permutation, evenly shifted and wrapped around: they overlap as little as possible
    starts = [member * n_frames // n_members for member in range(n_members)]
    return [frozenset(np.take(order, range(start, start + length), mode="wrap").tolist()) for start in starts]


def calibrate(ensemble: Ensemble, graphs: Sequence[LabelledGraph], *, batch_size: int = 4) -> dict[str, float]:
    """Calibrate the ensemble's deviations on held-out `graphs`; return the calibration and its quality.

    `energy_scale`, `forces_scale`, `forces_floor` (eV/Angstrom): see `lrc_ase.evaluation.uncertainty`.
    `energy_coverage`, `forces_coverage`: fraction of errors in intervals of 90%, each half of the frames calibrated on
    the other half; absent if there are too few frames. Without held-out labels nothing is calibrated.
    """
    ensemble.uncertainty_scale.fill_(1.0)
    ensemble.forces_floor.fill_(0.0)
    energies, forces, groups = [], [], []
    for start in range(0, len(graphs), batch_size):
        batch = collate_labelled([graphs[index] for index in range(start, min(start + batch_size, len(graphs)))])
        results = evaluate(ensemble, batch.graph)
        assert results.forces is not None
        assert results.energy_std is not None
        assert results.forces_std is not None
        energies.append(torch.stack([results.energy - batch.energy, results.energy_std]).detach().cpu())
        forces.append(torch.stack([results.forces - batch.forces, results.forces_std]).detach().cpu())
        groups.append(start + batch.graph.structure.cpu())
    if not energies:
        return {"energy_scale": 1.0, "forces_scale": 1.0, "forces_floor": 0.0}
    energy_errors, energy_std = torch.cat(energies, dim=1).double().numpy()
    force_errors, forces_std = torch.cat(forces, dim=1).double().numpy()
    of_component = np.repeat(torch.cat(groups).numpy()[:, None], 3, axis=1)
    energy = calibrate_spread(energy_errors, energy_std, with_floor=False)
    force = calibrate_spread(force_errors, forces_std, with_floor=True)
    ensemble.uncertainty_scale.copy_(torch.tensor([energy.scale, force.scale]))
    ensemble.forces_floor.fill_(force.floor)
    coverages = {
        "energy_coverage": crossed_coverage(energy_errors, energy_std, np.arange(len(energy_errors)), with_floor=False),
        "forces_coverage": crossed_coverage(force_errors, forces_std, of_component, with_floor=True),
    }
    return {
        "energy_scale": energy.scale,
        "forces_scale": force.scale,
        "forces_floor": force.floor,
        **{name: value for name, value in coverages.items() if np.isfinite(value)},
    }


def calibration_text(calibration: Mapping[str, float]) -> str:
    """Return the result of `calibrate` in a sentence.

    >>> calibration_text({"energy_scale": 1.0, "forces_scale": 0.6, "forces_floor": 0.185})
    'uncertainties: deviations of the members times 1 (energy) and 0.6 (forces, at least 0.185 eV/Angstrom)'
    """
    text = (
        f"uncertainties: deviations of the members times {calibration['energy_scale']:.3g} (energy) and "
        f"{calibration['forces_scale']:.3g} (forces, at least {calibration['forces_floor']:.3g} eV/Angstrom)"
    )
    covered = [
        f"{calibration[f'{name}_coverage']:.0%} of the {label} errors"
        for name, label in (("energy", "energy"), ("forces", "force"))
        if f"{name}_coverage" in calibration
    ]
    if covered:
        text += f"; {' and '.join(covered)} on validation frames lie in the predicted 90% intervals"
    return text
