"""Predicted dipoles and Born effective charges beside labels, and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import Label, LabelledFrame
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.models.derivatives import born_effective_charges
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.graph import Graph

__all__ = ["COMPARED", "Comparison", "ElectricPredictions", "electric_errors"]

COMPARED: tuple[Label, ...] = ("dipole", "born_effective_charges")
"""Labels of the response to electric fields that a model with latent charges predicts."""


@dataclass(frozen=True)
class Comparison:
    """Predicted and labelled values of one kind, in the unit of docs/reference/conventions.md."""

    predicted: np.ndarray
    """(n_frames, 3) for dipoles, (n_atoms, 3, 3) for Born effective charges; NaN if the model has no latent charges."""
    reference: np.ndarray
    """Labels of the same shape; NaN without label."""
    frame: np.ndarray
    """Index of the frame of each row."""

    def errors(self, frames: np.ndarray) -> dict[str, float]:
        r"""Return `mae`, `rmse`, `r2` over components and the number of labelled frames `n`, of frames in a mask.

        .. math:: R^2 = 1 - \frac{\sum (p - r)^2}{\sum (r - \bar r)^2}

        of predictions p and references r.
        """
        chosen = frames[self.frame]
        reference, predicted = self.reference[chosen], self.predicted[chosen]
        labelled = np.isfinite(reference).any(axis=tuple(range(1, reference.ndim)))
        n_frames = float(len(np.unique(self.frame[chosen][labelled])))
        known = np.isfinite(predicted - reference)
        errors = (predicted - reference)[known]
        if not errors.size:
            return {"n": n_frames, **dict.fromkeys(("mae", "rmse", "r2"), float("nan"))}
        square, variance = float(np.mean(errors**2)), float(reference[known].var())
        r2 = 1 - square / variance if variance > 0 else float("nan")
        return {"n": n_frames, "mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(square)), "r2": r2}


def electric_errors(comparisons: Mapping[Label, Comparison], frames: np.ndarray) -> dict[str, float]:
    """Return the errors of all kinds over the frames of a mask, by names such as `dipole_rmse` and `n_dipoles`."""
    values = {}
    for label in COMPARED:
        nothing = Comparison(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=int))
        errors = comparisons.get(label, nothing).errors(frames)
        values[f"n_{label.rstrip('s')}s"] = errors.pop("n")
        unit = ERROR_UNITS[label].per_ase_unit
        values |= {f"{label}_{name}": value * (1 if name == "r2" else unit) for name, value in errors.items()}
    return values


class ElectricPredictions:
    """Predictions for the electric labels that frames have, collected batch by batch."""

    def __init__(self, frames: Sequence[LabelledFrame]) -> None:
        self.frames = frames
        self.labels = tuple(label for label in COMPARED if any(frame.has(label) for frame in frames))
        self._predicted: dict[Label, list[np.ndarray]] = {label: [] for label in self.labels}
        self._n_done = 0

    def add(self, model: ShortRangeModel, graph: Graph, dipole: Tensor | None) -> None:
        """Add the predictions for the next frames; `dipole` (n_structures, 3) is None without latent charges."""
        frames = self.frames[self._n_done : self._n_done + graph.n_structures]
        self._n_done += graph.n_structures
        for label, collected in self._predicted.items():
            shape = (graph.n_structures, 3) if label == "dipole" else (graph.n_atoms, 3, 3)
            predicted = np.full(shape, np.nan)
            if dipole is not None and label == "dipole":
                predicted = _array(dipole)
            elif dipole is not None and any(frame.has(label) for frame in frames):  # a backward pass for each component
                predicted = _array(born_effective_charges(model, graph))
            collected.append(predicted)

    def comparisons(self) -> dict[Label, Comparison]:
        """Return predictions beside labels, by label."""
        frames = np.arange(len(self.frames))
        of_atoms = np.repeat(frames, [len(frame.atoms) for frame in self.frames])
        return {
            label: Comparison(
                np.concatenate(self._predicted[label]),
                self._references(label),
                of_atoms if label == "born_effective_charges" else frames,
            )
            for label in self.labels
        }

    def _references(self, label: Label) -> np.ndarray:
        """Return the labels of all frames, NaN for a frame without one."""
        values = []
        for frame in self.frames:
            shape = (len(frame.atoms), 3, 3) if label == "born_effective_charges" else (1, 3)
            value = getattr(frame, label)
            values.append(np.full(shape, np.nan) if value is None else value.reshape(shape))
        return np.concatenate(values)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().to(dtype=torch.float64, device="cpu").numpy()
    return array
