r"""Ensembles: models trained alike from different seeds; the mean predicts, the spread estimates the uncertainty.

.. math:: E = \frac1M \sum_m E_m, \qquad
          s_E^2 = \frac{1}{M-1} \sum_m (E_m - E)^2, \qquad
          \sigma_E = a_E s_E, \quad \sigma_F^2 = b_F^2 + (a_F s_F)^2,

for the energy of each structure and each component of the forces. Factors a and floor b are calibrated on held-out
frames so that the true value lies within 1.645 standard deviations in nine cases of ten
(`lrc_ase.evaluation.uncertainty`). Before the calibration they are 1 and 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.models.descriptors.base import Descriptor
from lrc_ase.models.model import ModelOutput, ShortRangeModel
from lrc_ase.structures.graph import Graph

__all__ = ["Ensemble", "members_of"]


class Ensemble(ShortRangeModel):
    """Mean of several models, `members`, that share their settings.

    An ensemble evaluates like any other model; `lrc_ase.models.derivatives.evaluate` adds the standard deviations.
    """

    uncertainty_scale: Tensor
    """Factors of the deviations of energies and of forces, (2,)."""
    forces_floor: Tensor
    """Smallest deviation of a force component, eV/Angstrom, a scalar."""

    def __init__(self, members: Sequence[ShortRangeModel]) -> None:
        nn.Module.__init__(self)  # skips ShortRangeModel: an ensemble has no descriptor of its own
        if len(members) < 2:
            raise ValueError(f"`members` of an ensemble must be at least 2, got {len(members)}")
        if any(member.settings != members[0].settings for member in members):
            raise ValueError("`members` of an ensemble must have the same settings")
        self.settings = members[0].settings
        self.members = nn.ModuleList(members)
        self.register_buffer("uncertainty_scale", torch.ones(2))
        self.register_buffer("forces_floor", torch.zeros(()))

    @property
    def descriptor(self) -> Descriptor:  # type: ignore[override]
        """Return the descriptor of the first member."""
        return members_of(self)[0].descriptor

    def forward(self, graph: Graph, *, strain: Tensor | None = None) -> ModelOutput:
        outputs = [member(graph, strain=strain) for member in members_of(self)]
        charges = [output.charges for output in outputs if output.charges is not None]
        # values alone: `evaluate` differentiates each member, not their mean
        energies = torch.stack([output.atomic_energies for output in outputs]).mean(dim=0)
        return ModelOutput(energies, torch.stack(charges).mean(dim=0) if charges else None)

    def mesh_shape_for(self, cell: np.ndarray, held: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        return members_of(self)[0].mesh_shape_for(cell, held)


def members_of(model: ShortRangeModel) -> list[ShortRangeModel]:
    """Return the members of an ensemble, or a list of the model alone if it is no ensemble."""
    if not isinstance(model, Ensemble):
        return [model]
    return [member for member in model.members if isinstance(member, ShortRangeModel)]
