"""Numbers that describe a set of frames, for programs that read the data report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.outliers import force_noise, net_forces
from lrc_ase.structures.charge import total_charge

__all__ = ["set_statistics"]


def set_statistics(frames: Sequence[LabelledFrame]) -> dict[str, Any]:
    """Return counts and distributions of a set as numbers, in eV and Angstrom; NaN without labels.

    `n_frames`, `n_energies`, `n_forces`, `n_stresses` count frames, and those with such labels. `n_atoms` and
    `energy_per_atom` are minimum and maximum. `compositions` and `charges` count frames by formula and by total charge.
    `force_rms` is over components, and `force_quantiles` are median, 99% quantile and maximum of the forces on atoms.
    `net_force` holds median and maximum, `force_noise` the noise of components that net forces reveal.
    """
    sizes = [len(frame.atoms) for frame in frames]
    energies = np.array([frame.energy / max(len(frame.atoms), 1) for frame in frames])
    forces = np.concatenate([frame.forces for frame in frames])
    norms = np.linalg.norm(forces, axis=1)
    norms, net = norms[np.isfinite(norms)], net_forces(frames)
    net = net[np.isfinite(net)]
    components = forces[np.isfinite(forces)]
    charges = Counter(total_charge(frame.atoms) for frame in frames)
    nothing = float("nan")
    return {
        "n_frames": len(frames),
        "n_energies": int(np.isfinite(energies).sum()),
        "n_forces": sum(bool(np.isfinite(frame.forces).any()) for frame in frames),
        "n_stresses": sum(bool(np.isfinite(frame.stress).all()) for frame in frames),
        "n_atoms": [min(sizes), max(sizes)],
        "compositions": dict(Counter(frame.atoms.get_chemical_formula("metal") for frame in frames)),
        "charges": {f"{charge:g}": count for charge, count in charges.items()},
        "energy_per_atom": [np.nanmin(energies), np.nanmax(energies)] if np.isfinite(energies).any() else [nothing] * 2,
        "force_rms": float(np.sqrt(np.mean(components**2))) if components.size else nothing,
        "force_quantiles": np.quantile(norms, [0.5, 0.99, 1.0]).tolist() if norms.size else [nothing] * 3,
        "net_force": [float(np.median(net)), float(net.max())] if net.size else [nothing] * 2,
        "force_noise": force_noise(frames),
    }
