"""Evaluation of a trained model for dynamics: the choice between the step without autograd and `derivatives`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lrc_ase.models.derivatives import Results, evaluate, mean_of_members
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.inference.step import StraightStep
from lrc_ase.models.model import FullRangeModel, ShortRangeModel
from lrc_ase.models.settings import LongRangeSettings, Settings, SphereSettings
from lrc_ase.structures.graph import Graph

__all__ = ["Evaluator"]

_KNOWN = {
    SphereSettings: {
        "name", "n_radial", "n_channels", "degrees", "n_blocks", "n_neighbor_features", "neighbor_degree",
        "compression",
    },
    LongRangeSettings: {
        "n_channels", "electrostatics", "charges", "n_transfers", "compositions", "eps_inf", "smearing", "accuracy",
        "n_features",
    },
}  # fmt: skip
"""Settings that the step follows, or that do not matter to it. All others must have their defaults."""


class Evaluator:
    """Evaluate energy, forces, charges and stress of one structure after another with a model that is not trained.

    Models with the sphere descriptor, short range or full range, and ensembles of them, go by derivatives that are
    written out (`step`), on the CPU and without an electric field. Polarizable models and all else go by autograd
    (`lrc_ase.models.derivatives.evaluate`), with the same results to rounding.

    Parameters
    ----------
    model
        Parameters may change between evaluations.
    """

    def __init__(self, model: ShortRangeModel) -> None:
        self._model = model
        self._steps: list[StraightStep] = []
        self._state: list[tuple[int, int, bool]] = []
        self._parameters = list(model.parameters())
        self._last: list[StraightStep] = []
        self._stress: Tensor | None = None

    def __call__(self, graph: Graph, *, dipole: bool = False) -> Results:
        """Evaluate energies, forces and charges, and the dipole on request; `stress` is there to be called next.

        Raises
        ------
        ValueError
            As `lrc_ase.models.derivatives.evaluate`.
        """
        self._last, self._stress = [], None
        if not self.goes_straight(graph):
            results = evaluate(self._model, graph, stress=bool(graph.pbc.all()), dipole=dipole)
            self._stress = results.stress
            return replace(results, stress=None)
        self._last = self._steps
        with torch.no_grad():
            if not isinstance(self._model, Ensemble):
                return self._steps[0](graph, dipole=dipole)
            return mean_of_members([step(graph, dipole=dipole) for step in self._steps], self._model)

    def stress(self) -> Tensor:
        """Return the stress of the structure evaluated last, (1, 3, 3), eV/Angstrom^3; three periodic directions."""
        if self._stress is None:
            with torch.no_grad():
                self._stress = torch.stack([step.stress() for step in self._last]).mean(dim=0)
        return self._stress

    def goes_straight(self, graph: Graph) -> bool:
        """Return True if the step without autograd serves the model for this graph."""
        whole = graph.exchange is None and graph.owners is None and len(graph.neighbors) == len(graph.positions)
        if graph.field is not None or not whole or len(graph.cell) != 1 or graph.positions.device.type != "cpu":
            return False
        # autograd's counter of changes in place, and the address, which changes where a tensor is replaced
        state = [(each.data_ptr(), each._version, each.requires_grad) for each in self._parameters]
        if state != self._state:
            self._state = state
            members = members_of(self._model)
            served = all(map(_is_served, members)) and not any(each.requires_grad for each in self._parameters)
            with torch.no_grad():
                self._steps = [StraightStep(member) for member in members] if served else []
        return bool(self._steps)


def _is_served(model: ShortRangeModel) -> bool:
    """Return True for the kinds of models that the step follows."""
    if type(model) not in (ShortRangeModel, FullRangeModel):
        return False
    descriptor, precision = model.descriptor, model.readout.dtype
    if type(descriptor) is not SphereDescriptor or descriptor.engine != "compiled":
        return False
    if precision not in (torch.float32, torch.float64) or next(model.parameters()).device.type != "cpu":
        return False
    return _follows(descriptor.settings) and _follows(model.settings.long_range)


def _follows(settings: Settings | None) -> bool:
    if settings is None:
        return True
    others = type(settings).model_fields.keys() - _KNOWN[type(settings)]
    return all(getattr(settings, name) == type(settings).model_fields[name].default for name in others)
