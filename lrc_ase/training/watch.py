"""Accuracy on frames that a potential could do before it was trained further."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lrc_ase.dataset import LabelledGraph
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.processes import Processes
from lrc_ase.training.steps import mean_errors

__all__ = ["Watch"]

_ALARMING = 1.2
"""Ratio of force errors after and before at which the user hears of it."""


class Watch:
    """Errors on watched frames, at the start and on the way; nothing to do without frames."""

    def __init__(
        self, graphs: Sequence[LabelledGraph], force_scale: float, device: torch.device, processes: Processes
    ) -> None:
        self.graphs = [graph.to(device) for graph in graphs]
        self.force_scale = force_scale
        self.processes = processes
        self.at_start: dict[str, float] | None = None

    def errors(self, model: ShortRangeModel, stage: StageConfiguration) -> dict[str, float] | None:
        """Errors of `model` now."""
        if not self.graphs:
            return None
        return mean_errors(
            model, self.graphs, stage.loss, self.force_scale, batch_size=stage.batch_size, processes=self.processes
        )

    def begin(self, model: ShortRangeModel, stage: StageConfiguration) -> str | None:
        """Note the errors before anything is trained, and say them."""
        self.at_start = self.errors(model, stage)
        if self.at_start is None:
            return None
        return (
            f"watched frames before training: energy {self.at_start['energy_rmse']:.2f} meV/atom, "
            f"forces {self.at_start['forces_rmse']:.1f} meV/Angstrom (RMSE)"
        )

    def end(self, model: ShortRangeModel, stage: StageConfiguration) -> str | None:
        """Compare with the start; the sentence warns where the old accuracy is lost."""
        found = self.errors(model, stage)
        if found is None or self.at_start is None:
            return None
        before, after = self.at_start["forces_rmse"], found["forces_rmse"]
        change = f"force error on the watched frames: {before:.1f} before, {after:.1f} meV/Angstrom after"
        if after > _ALARMING * before:
            return f"warning: {change}; add some of the old frames to the training frames, or train fewer epochs"
        return change
