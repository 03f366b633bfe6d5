"""Predictions of a potential beside the labels of frames, and the errors that follow."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from lrc_ase.dataset import SOURCE_KEY, Atoms, Label, LabelKeys, collate_labelled, label_frame, labelled_graph
from lrc_ase.evaluation.uncertainty import UncertaintySummary, summarize_uncertainty
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.derivatives import evaluate

__all__ = ["Evaluation", "evaluate_frames", "write_evaluation"]


@dataclass(frozen=True)
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
    """eV, (n_frames,)."""
    forces: np.ndarray
    """Predicted, eV/Angstrom, (n_atoms, 3)."""
    reference_forces: np.ndarray
    """eV/Angstrom, (n_atoms, 3)."""
    stress: np.ndarray
    """Predicted, eV/Angstrom^3, positive in tension, (n_frames, 3, 3); NaN where not all directions are periodic."""
    reference_stress: np.ndarray
    """eV/Angstrom^3, (n_frames, 3, 3)."""
    charges: np.ndarray | None = None
    """Latent charge of each atom, e, (n_atoms,); None without the electrostatic head."""
    energy_std: np.ndarray | None = None
    """Standard deviation of each energy, eV, (n_frames,); None for a single model."""
    forces_std: np.ndarray | None = None
    """Standard deviation of each force component, eV/Angstrom, (n_atoms, 3)."""
    seconds: float = float("nan")
    """Time of the predictions, neighbor search included."""
    metrics: dict[str, float] = field(init=False)
    """Errors over all frames, see `errors`."""

    def __post_init__(self) -> None:
        """Compute the errors over all frames."""
        object.__setattr__(self, "metrics", self.errors())

    @property
    def frame(self) -> np.ndarray:
        """Index of the frame each atom belongs to, (n_atoms,)."""
        return np.repeat(np.arange(len(self.n_atoms)), self.n_atoms)

    def errors(self, set_name: str | None = None) -> dict[str, float]:
        """Errors over the frames of a set, or all.

        Energies in meV/atom, forces in meV/Angstrom (over components), stress in meV/Angstrom^3;
        `forces_relative_l2` is the norm of the force error over that of the reference forces. NaN without labels.
        """
        chosen = np.array([set_name is None or name == set_name for name in self.sets], dtype=bool)
        of_atoms = chosen[self.frame]
        energy = 1e3 * ((self.energy - self.reference_energy) / self.n_atoms)[chosen]
        forces = 1e3 * (self.forces - self.reference_forces)[of_atoms]
        stress = 1e3 * (self.stress - self.reference_stress)[chosen]
        labelled = np.isfinite(forces)
        norm = np.linalg.norm(1e3 * self.reference_forces[of_atoms][labelled])
        return {
            "n_frames": float(chosen.sum()),
            **_mae_rmse("energy", energy),
            **_mae_rmse("forces", forces),
            "forces_relative_l2": float(np.linalg.norm(forces[labelled]) / norm) if norm > 0 else float("nan"),
            **_mae_rmse("stress", stress),
        }

    def force_errors_by_element(self) -> dict[str, dict[str, float]]:
        """Force errors in meV/Angstrom of the atoms of each element."""
        errors = 1e3 * (self.forces - self.reference_forces)
        return {str(symbol): _mae_rmse("forces", errors[self.symbols == symbol]) for symbol in np.unique(self.symbols)}

    def uncertainty(self) -> dict[str, UncertaintySummary]:
        """Deviations of an ensemble beside its errors, of energies per atom (eV) and of forces (eV/Angstrom)."""
        if self.energy_std is None or self.forces_std is None:
            return {}
        energy = (self.energy - self.reference_energy) / self.n_atoms
        return {
            "energy": summarize_uncertainty(energy, self.energy_std / self.n_atoms),
            "forces": summarize_uncertainty(self.forces - self.reference_forces, self.forces_std),
        }

    def hardest_frames(self, count: int) -> list[tuple[int, float]]:
        """Frames with the largest root mean square force error, the hardest first, and that error in meV/Angstrom."""
        squares = 1e6 * (self.forces - self.reference_forces) ** 2
        frame = np.repeat(self.frame[:, None], 3, axis=1)[np.isfinite(squares)]
        sums, counts = (
            np.bincount(frame, weights=weights, minlength=len(self.n_atoms))
            for weights in (squares[np.isfinite(squares)], None)
        )
        errors = np.sqrt(sums / np.maximum(counts, 1))
        return [(int(index), float(errors[index])) for index in np.argsort(-errors, kind="stable")[:count]]

    def errors_by_set(self) -> dict[str, dict[str, float]]:
        """`errors` of each set."""
        return {name: self.errors(name) for name in dict.fromkeys(self.sets)}


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
    """Predict energies, forces and stress of `frames` and collect their labels.

    Parameters
    ----------
    potential
        Evaluated in the type and on the device of its model.
    frames
        Labelled structures, see `lrc_ase.dataset.label_frame`.
    keys
        Where the labels stand; looked for if None.
    required
        Labels of which every frame must have at least one.
    sets
        Name of the set of each frame; None: the file it was read from.
    batch_size
        Frames evaluated at once.
    report_progress
        Called with the number of frames done and their total.
    """
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
    begin = time.perf_counter()
    for start in range(0, len(labelled), batch_size):
        chunk = labelled[start : start + batch_size]
        batch = collate_labelled(
            [labelled_graph(frame, settings.elements, settings.cutoff, potential.references) for frame in chunk]
        ).to(parameter.device)
        results = evaluate(potential.model, batch.graph, forces=True, stress=True)
        assert results.forces is not None
        assert results.stress is not None
        graph = batch.graph
        references = potential.references[graph.species.cpu()]
        offsets = references.new_zeros(graph.n_structures).index_add(0, graph.structure.cpu(), references)
        energies.append(results.energy.detach().cpu().double() + offsets)
        forces.append(results.forces.detach().cpu().double())
        periodic = graph.pbc.all(dim=1)[:, None, None]
        stresses.append(torch.where(periodic, results.stress.detach(), torch.nan).cpu().double())
        if results.charges is not None:
            charges.append(results.charges.detach().cpu().double())
        if results.energy_std is not None and results.forces_std is not None:
            energies_std.append(results.energy_std.detach().cpu().double())
            forces_std.append(results.forces_std.detach().cpu().double())
        if report_progress is not None:
            report_progress(start + len(chunk), len(labelled))
    return Evaluation(
        n_atoms=np.array([len(atoms) for atoms in frames]),
        symbols=np.concatenate([atoms.get_chemical_symbols() for atoms in frames]),
        sets=tuple(sets) if sets is not None else tuple(_file_of(atoms) for atoms in frames),
        energy=torch.cat(energies).numpy(),
        reference_energy=np.array([frame.energy for frame in labelled]),
        forces=torch.cat(forces).numpy(),
        reference_forces=np.concatenate([frame.forces for frame in labelled]),
        stress=torch.cat(stresses).numpy(),
        reference_stress=np.stack([frame.stress for frame in labelled]),
        charges=torch.cat(charges).numpy() if charges else None,
        energy_std=torch.cat(energies_std).numpy() if energies_std else None,
        forces_std=torch.cat(forces_std).numpy() if forces_std else None,
        seconds=time.perf_counter() - begin,
    )


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str]) -> None:
    """Write errors.json, energies.csv (a row per frame) and forces.csv (a row per atom) to `folder`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    errors = {
        "units": {"energy": "meV/atom", "forces": "meV/Angstrom", "stress": "meV/Angstrom^3"},
        "all": evaluation.metrics,
        "by_set": evaluation.errors_by_set(),
        "by_element": evaluation.force_errors_by_element(),
        "uncertainty": {name: asdict(summary) for name, summary in evaluation.uncertainty().items()},
    }
    (target / "errors.json").write_text(json.dumps(_nan_to_null(errors), indent=2) + "\n", encoding="utf-8")
    with (target / "energies.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "set", "n_atoms", "reference_energy_eV", "energy_eV"])
        rows = zip(evaluation.sets, evaluation.n_atoms, evaluation.reference_energy, evaluation.energy, strict=True)
        for index, (name, n_atoms, reference, energy) in enumerate(rows):
            writer.writerow([index, name, int(n_atoms), f"{reference:.8f}", f"{energy:.8f}"])
    with (target / "forces.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "frame",
                "element",
                *(f"{kind}_{axis}_eV_per_Angstrom" for kind in ("reference", "force") for axis in "xyz"),
            ]
        )
        for frame, symbol, reference, force in zip(
            evaluation.frame, evaluation.symbols, evaluation.reference_forces, evaluation.forces, strict=True
        ):
            writer.writerow([int(frame), symbol, *(f"{value:.6f}" for value in (*reference, *force))])


def _file_of(atoms: Atoms) -> str:
    return Path(atoms.info.get(SOURCE_KEY, "frames").rpartition("@")[0] or "frames").name


def _mae_rmse(name: str, errors: np.ndarray) -> dict[str, float]:
    errors = errors[np.isfinite(errors)]
    if not errors.size:
        return {f"{name}_mae": float("nan"), f"{name}_rmse": float("nan")}
    return {f"{name}_mae": float(np.abs(errors).mean()), f"{name}_rmse": float(np.sqrt((errors**2).mean()))}


def _nan_to_null(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _nan_to_null(item) for key, item in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
