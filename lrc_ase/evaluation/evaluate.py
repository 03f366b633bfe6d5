"""Evaluation of a potential on labelled frames: predictions, references and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from lrc_ase.dataset import SOURCE_KEY, Atoms, Label, LabelKeys, collate_labelled, label_frame, labelled_graph
from lrc_ase.dataset.distinct_names import distinct_names
from lrc_ase.evaluation.electric import Comparison, ElectricPredictions, electric_errors
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.evaluation.uncertainty import UncertaintySummary, crossed_deviations, summarize_uncertainty
from lrc_ase.files.counted import counted
from lrc_ase.files.potential_file import Potential, check_potential
from lrc_ase.models.derivatives import evaluate

__all__ = ["Evaluation", "cross_calibrated", "evaluate_frames"]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Predicted and reference values of some frames; NaN where a reference has no label."""

    n_atoms: np.ndarray
    """Atoms of each frame, (n_frames,)."""
    symbols: np.ndarray
    """Element of each atom of all frames, (n_atoms,)."""
    sets: tuple[str, ...]
    """Name of the set each frame belongs to."""
    energy: np.ndarray
    """Predicted total energy, references included, eV, (n_frames,)."""
    reference_energy: np.ndarray
    """Labelled total energy, eV, (n_frames,)."""
    forces: np.ndarray
    """Predicted forces, eV/Angstrom, (n_atoms, 3)."""
    reference_forces: np.ndarray
    """Labelled forces, eV/Angstrom, (n_atoms, 3)."""
    stress: np.ndarray
    """Predicted stress, eV/Angstrom^3, positive in tension, (n_frames, 3, 3); NaN unless periodic in all directions."""
    reference_stress: np.ndarray
    """Labelled stress, eV/Angstrom^3, (n_frames, 3, 3)."""
    config_types: tuple[str, ...] = ()
    """``config_type`` of each frame, as in `Atoms.info`; empty if no frame has one."""
    charges: np.ndarray | None = None
    """Latent charge of each atom, e, (n_atoms,); None without the electrostatic head. A variable of the model fitted to
    energies and forces, not a charge of an ion."""
    energy_std: np.ndarray | None = None
    """Standard deviation of each energy, eV, (n_frames,); None for a single model."""
    forces_std: np.ndarray | None = None
    """Standard deviation of each force component, eV/Angstrom, (n_atoms, 3)."""
    electric: Mapping[Label, Comparison] = field(default_factory=dict)
    """Dipoles and Born effective charges beside their labels, if a frame has such labels."""
    seconds: float = float("nan")
    """Time of the predictions, neighbor search included."""
    metrics: dict[str, float] = field(init=False)
    """Errors over all frames, see `errors`."""

    def __post_init__(self) -> None:
        """Compute the errors over all frames."""
        object.__setattr__(self, "metrics", self.errors())

    def __repr__(self) -> str:
        """Return the number of frames and the root mean square errors, not the arrays."""
        errors = [
            f"{name} {self.metrics[f'{name}_rmse']:.3g} {unit.ascii}"
            for name, unit in ERROR_UNITS.items()
            if np.isfinite(self.metrics.get(f"{name}_rmse", np.nan))
        ]
        return f"Evaluation({counted(len(self.n_atoms), 'frame')}, RMSE: {', '.join(errors) or 'no labels'})"

    @property
    def frame(self) -> np.ndarray:
        """Return the index of the frame each atom belongs to, (n_atoms,)."""
        return np.repeat(np.arange(len(self.n_atoms)), self.n_atoms)

    @property
    def energy_errors(self) -> np.ndarray:
        """Return predicted minus reference energy per atom, meV/atom, (n_frames,); NaN without label."""
        return ERROR_UNITS["energy"].per_ase_unit * (self.energy - self.reference_energy) / self.n_atoms

    @property
    def force_errors(self) -> np.ndarray:
        """Return predicted minus reference forces, meV/Angstrom, (n_atoms, 3); NaN without label."""
        return ERROR_UNITS["forces"].per_ase_unit * (self.forces - self.reference_forces)

    @property
    def stress_errors(self) -> np.ndarray:
        """Return predicted minus reference stress, meV/Angstrom^3, (n_frames, 3, 3); NaN without label."""
        return ERROR_UNITS["stress"].per_ase_unit * (self.stress - self.reference_stress)

    def errors(self, frames: np.ndarray | None = None) -> dict[str, float]:
        """Return the errors over the frames of a mask, bool (n_frames,), or over all frames.

        `energy_mae`, `energy_rmse` in meV/atom (of total energies, nothing subtracted), `forces_mae`, `forces_rmse` in
        meV/Angstrom (over components), `stress_mae`, `stress_rmse` in meV/Angstrom^3. `forces_relative_l2` is the norm
        of the force error over that of the reference forces. `dipole_mae`, `dipole_rmse` are in e Angstrom,
        `born_effective_charges_mae`, `born_effective_charges_rmse` in e; `dipole_r2` and `born_effective_charges_r2`
        are coefficients of determination (see `Comparison.errors`). NaN without labels. `n_frames` counts frames, and
        `n_energies`, `n_forces`, `n_stresses`, `n_dipoles` and `n_born_effective_charges` those with such labels.
        """
        chosen = np.ones(len(self.n_atoms), dtype=bool) if frames is None else frames
        of_atoms = chosen[self.frame]
        forces = self.force_errors[of_atoms]
        labelled = np.isfinite(forces)  # NaN without label
        with_forces = np.unique(self.frame[of_atoms][labelled.any(axis=1)])
        reference = ERROR_UNITS["forces"].per_ase_unit * self.reference_forces[of_atoms][labelled]
        norm = np.linalg.norm(reference)
        return {
            "n_frames": float(chosen.sum()),
            "n_energies": float(np.isfinite(self.energy_errors[chosen]).sum()),
            "n_forces": float(len(with_forces)),
            "n_stresses": float(np.isfinite(self.stress_errors[chosen]).any(axis=(1, 2)).sum()),
            **_mae_rmse("energy", self.energy_errors[chosen]),
            **_mae_rmse("forces", forces),
            "forces_relative_l2": float(np.linalg.norm(forces[labelled]) / norm) if norm > 0 else float("nan"),
            **_mae_rmse("stress", self.stress_errors[chosen]),
            **electric_errors(self.electric, chosen),
        }

    def errors_by_set(self) -> dict[str, dict[str, float]]:
        """Return the `errors` of each set."""
        return self._errors_by(self.sets)

    def errors_by_config_type(self) -> dict[str, dict[str, float]]:
        """Return the `errors` of each ``config_type``; nothing if no frame has one."""
        return self._errors_by(self.config_types)

    def _errors_by(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the `errors` of the frames of each name, in the order of first appearance."""
        array = np.array(names, dtype=object)  # as objects: NumPy would pad text to the longest name
        return {name: self.errors(np.asarray(array == name, dtype=bool)) for name in dict.fromkeys(names)}

    def force_errors_by_element(self) -> dict[str, dict[str, float]]:
        """Return the force errors in meV/Angstrom and the number of atoms of each element."""
        errors = {}
        for symbol in np.unique(self.symbols):
            of_element = self.symbols == symbol
            errors[str(symbol)] = {
                "n_atoms": float(of_element.sum()),
                **_mae_rmse("forces", self.force_errors[of_element]),
            }
        return errors

    def uncertainty(self) -> dict[str, UncertaintySummary]:
        """Compare deviations of an ensemble with its errors: energies in meV/atom, forces in meV/Angstrom."""
        if self.energy_std is None or self.forces_std is None:
            return {}
        energy_std = ERROR_UNITS["energy"].per_ase_unit * self.energy_std / self.n_atoms
        forces_std = ERROR_UNITS["forces"].per_ase_unit * self.forces_std
        return {
            "energy": summarize_uncertainty(self.energy_errors, energy_std),
            "forces": summarize_uncertainty(self.force_errors, forces_std),
        }

    def hardest_frames(self, count: int, by: Literal["forces", "energy"] = "forces") -> list[tuple[int, float]]:
        """Return index and error of the `count` frames with the largest error, the hardest first.

        Frames are ordered by their root mean square force error in meV/Angstrom, or by the absolute energy error in
        meV/atom. Frames without such a label are left out.
        """
        if by == "energy":
            errors = np.abs(self.energy_errors)
        else:
            # mean over the labelled components of each frame; NaN without any
            squares = self.force_errors**2
            labelled = np.isfinite(squares)
            frame = np.repeat(self.frame[:, None], 3, axis=1)[labelled]
            sums = np.bincount(frame, weights=squares[labelled], minlength=len(self.n_atoms))
            counts = np.bincount(frame, minlength=len(self.n_atoms))
            errors = np.sqrt(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))
        order = np.argsort(-errors, kind="stable")  # NaN comes last
        return [(int(index), float(errors[index])) for index in order[:count] if np.isfinite(errors[index])]


def cross_calibrated(uncalibrated: Evaluation) -> Evaluation:
    """Calibrate the deviations of an ensemble by two-fold cross-validation.

    `uncalibrated` holds the bare spread of the members on held-out frames. Each half of the frames is calibrated on the
    other half, see `lrc_ase.evaluation.uncertainty.crossed_deviations`; NaN where there are too few frames. A single
    model has no deviations; its evaluation is returned unchanged.
    """
    if uncalibrated.energy_std is None or uncalibrated.forces_std is None:
        return uncalibrated
    # components of one frame share its half: their errors are correlated
    of_component = np.repeat(uncalibrated.frame[:, None], 3, axis=1)
    energy_errors = uncalibrated.energy - uncalibrated.reference_energy
    force_errors = uncalibrated.forces - uncalibrated.reference_forces
    frames = np.arange(len(energy_errors))
    return replace(
        uncalibrated,
        energy_std=crossed_deviations(energy_errors, uncalibrated.energy_std, frames, with_floor=False),
        forces_std=crossed_deviations(force_errors, uncalibrated.forces_std, of_component, with_floor=True),
    )


def evaluate_frames(
    potential: Potential,
    frames: Sequence[Atoms],
    *,
    keys: LabelKeys | None = None,
    required: Sequence[Label] = ("energy", "forces"),
    sets: Sequence[str] | None = None,
    batch_size: int = 4,
    report_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict energies, forces, stress and response to fields of `frames`, and collect the labels that they have.

    Parameters
    ----------
    potential
        Evaluated in the type and on the device of its model.
    frames
        Labelled structures, see `lrc_ase.dataset.label_frame`.
    keys
        Names of the labels; common names are tried if None.
    required
        Labels of which every frame must have at least one; a label that is absent counts in no error.
    sets
        Name of the set of each frame; None takes the name of its file.
    batch_size
        Frames evaluated at once.
    report_progress
        Called with the number of frames done and their total.

    Raises
    ------
    ValueError
        There are no frames, or a frame has none of the `required` labels.
    """
    check_potential(potential)
    if not frames:
        raise ValueError("`frames` must hold at least one frame, got none")
    settings = potential.settings
    parameter = next(potential.model.parameters())
    potential.model.eval()
    energies, forces, stresses, charges = [], [], [], []
    energies_std, forces_std = [], []
    labelled = [
        label_frame(atoms, keys, required=required, partial=True, name=atoms.info.get(SOURCE_KEY, f"frame {index}"))
        for index, atoms in enumerate(frames)
    ]
    electric = ElectricPredictions(labelled)
    begin = time.perf_counter()
    for start in range(0, len(labelled), batch_size):
        chunk = labelled[start : start + batch_size]
        batch = collate_labelled(
            [labelled_graph(frame, settings.elements, settings.cutoff, potential.references) for frame in chunk]
        ).to(parameter.device)
        results = evaluate(potential.model, batch.graph, forces=True, stress=True, dipole=True)
        assert results.forces is not None
        assert results.stress is not None
        graph = batch.graph
        # the model predicts energies relative to the element references, labels are totals
        references = potential.references[graph.species.cpu()]
        offsets = references.new_zeros(graph.n_structures).index_add(0, graph.structure.cpu(), references)
        energies.append(results.energy.detach().cpu().double() + offsets)
        forces.append(results.forces.detach().cpu().double())
        # without a volume there is no stress
        periodic = graph.pbc.all(dim=1)[:, None, None]
        stresses.append(torch.where(periodic, results.stress.detach(), torch.nan).cpu().double())
        if results.charges is not None:
            charges.append(results.charges.detach().cpu().double())
        if results.energy_std is not None and results.forces_std is not None:
            energies_std.append(results.energy_std.detach().cpu().double())
            forces_std.append(results.forces_std.detach().cpu().double())
        electric.add(potential.model, graph, results.dipole)
        if report_progress is not None:
            report_progress(start + len(chunk), len(labelled))
    return Evaluation(
        n_atoms=np.array([len(atoms) for atoms in frames]),
        symbols=np.concatenate([atoms.get_chemical_symbols() for atoms in frames]),
        sets=tuple(sets) if sets is not None else _files_of(frames),
        energy=torch.cat(energies).numpy(),
        reference_energy=np.array([frame.energy for frame in labelled]),
        forces=torch.cat(forces).numpy(),
        reference_forces=np.concatenate([frame.forces for frame in labelled]),
        stress=torch.cat(stresses).numpy(),
        reference_stress=np.stack([frame.stress for frame in labelled]),
        config_types=_config_types(frames),
        charges=torch.cat(charges).numpy() if charges else None,
        energy_std=torch.cat(energies_std).numpy() if energies_std else None,
        forces_std=torch.cat(forces_std).numpy() if forces_std else None,
        electric=electric.comparisons(),
        seconds=time.perf_counter() - begin,
    )


def _files_of(frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Return the name of the file of each frame, with folders where files in different folders share a name."""
    paths = [atoms.info.get(SOURCE_KEY, "frames").rpartition("@")[0] or "frames" for atoms in frames]
    names = distinct_names(paths)
    return tuple(names[path] for path in paths)


def _config_types(frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Return the ``config_type`` of each frame, or an empty tuple if no frame has one."""
    names = [atoms.info.get("config_type") for atoms in frames]
    if all(name is None for name in names):
        return ()
    return tuple("no config_type" if name is None else str(name) for name in names)


def _mae_rmse(name: str, errors: np.ndarray) -> dict[str, float]:
    """Return mean absolute and root mean square of the finite errors; NaN without any."""
    errors = errors[np.isfinite(errors)]
    if not errors.size:
        return {f"{name}_mae": float("nan"), f"{name}_rmse": float("nan")}
    return {f"{name}_mae": float(np.abs(errors).mean()), f"{name}_rmse": float(np.sqrt((errors**2).mean()))}
