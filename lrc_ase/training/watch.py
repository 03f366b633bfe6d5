"""Errors on watched frames, such as those of an earlier training, while a potential is trained further."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lrc_ase.dataset import LabelledGraph
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.processes import Processes
from lrc_ase.training.steps import mean_errors

__all__ = ["Watch"]

_ALARMING = 1.2
"""Ratio of the errors after and before training above which a warning is given."""
_UNITS = (("forces", "meV/Angstrom", 1), ("energy", "meV/atom", 2))
"""Label, unit and digits of the errors in messages, the most telling label first."""


class Watch:
    """Errors on watched frames, at the start and with every validation."""

    def __init__(
        self, graphs: Sequence[LabelledGraph], force_scale: float, device: torch.device, processes: Processes
    ) -> None:
        self.graphs = [graph.to(device) for graph in graphs]
        self.force_scale = force_scale
        self.processes = processes
        self.at_start: dict[str, float] | None = None

    def errors(self, model: ShortRangeModel, stage: StageConfiguration) -> dict[str, float] | None:
        """Return the errors of `model`, None without watched frames."""
        if not self.graphs:
            return None
        return mean_errors(
            model, self.graphs, stage.loss, self.force_scale, batch_size=stage.frames_per_step, processes=self.processes
        )

    def begin(self, model: ShortRangeModel, stage: StageConfiguration) -> str | None:
        """Store the errors before training; return those of energies and forces as a sentence, None without them."""
        self.at_start = self.errors(model, stage)
        if self.at_start is None:
            return None
        parts = [
            f"{label} {self.at_start[f'{label}_rmse']:.{digits}f} {unit}"
            for label, unit, digits in reversed(_UNITS)
            if math.isfinite(self.at_start[f"{label}_rmse"])
        ]
        return f"watched frames before training: {', '.join(parts)} (RMSE)" if parts else None

    def end(self, model: ShortRangeModel, stage: StageConfiguration) -> str | None:
        """Return a sentence that compares the errors with those at the start; a warning if they grew by a fifth.

        Frames without forces are compared by their energies; None for frames without either.
        """
        errors = self.errors(model, stage)
        if errors is None or self.at_start is None:
            return None
        # forces if there are any, as the label that tells most
        known = [each for each in _UNITS if math.isfinite(errors[f"{each[0]}_rmse"])]
        if not known:  # dipoles or Born effective charges alone, whose errors the metrics hold
            return None
        label, unit, digits = known[0]
        before, after = self.at_start[f"{label}_rmse"], errors[f"{label}_rmse"]
        name = "force" if label == "forces" else label
        change = f"{name} error on the watched frames: {before:.{digits}f} before, {after:.{digits}f} {unit} after"
        if after > _ALARMING * before:
            return f"warning: {change}; add some of the old frames to the training frames, or train fewer epochs"
        return change
