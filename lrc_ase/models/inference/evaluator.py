"""Evaluation of a trained model for dynamics: the choice between its fast ways and `derivatives`."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from lrc_ase.models.derivatives import Results, evaluate, mean_of_members
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.inference.recorded_step import RecordedStep, fixed_by_recording
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
        "n_features", "polarizable", "n_dipoles",
    },
}  # fmt: skip
"""Settings that the step follows, or that do not matter to it. All others must have their defaults."""

_VERSION, _REQUIRES_GRAD = attrgetter("_version"), attrgetter("requires_grad")
_RECORDING_DEVICE = "cuda"
_STEPS_BEFORE = 3
"""Steps of the same atoms on the same mesh after which the next one is recorded."""
_MOST_RECORDED = 40_000
"""Atoms up to which steps are recorded: with more, Python is ahead of the GPU anyway."""


class Evaluator:
    """Evaluate energy, forces, charges and stress of one graph after another with a model that is not trained.

    Models with the sphere descriptor, short range or full range, and ensembles of them, go by derivatives that are
    written out (`step`), for one structure on the CPU, also if processes share it. Models with latent tensors, batches
    and all else go by autograd (`lrc_ase.models.derivatives.evaluate`), with the same results to rounding.

    On CUDA devices structures of up to 40,000 atoms in all, which are periodic in all directions or belong to a
    short-range model, are evaluated by autograd a few times. If the atoms stay the same, the step is then recorded
    (`recorded_step`), which makes it several times as fast. A batch is recorded if all its structures have one mesh.

    Parameters
    ----------
    model
        Parameters may change between evaluations.
    stress
        The stress will be asked for in every step, so that a recorded step computes it too.
    """

    def __init__(self, model: ShortRangeModel, *, stress: bool = False) -> None:
        self._model, self._wants_stress = model, stress
        self._steps: list[StraightStep] = []
        self._state: list[Any] = []
        self._parameters = list(model.parameters())
        self._last: list[StraightStep] = []
        self._stress: Tensor | None = None
        self._recorded: RecordedStep | None = None
        self._recorded_state: list[Any] = []
        self._fixed: tuple[object, ...] = ()
        self._cell: Tensor | None = None
        self._n_steps = 0
        self._graph: Graph | None = None

    def __call__(self, graph: Graph, *, dipole: bool = False) -> Results:
        """Evaluate energies, forces and charges, and the dipole on request; `stress` is there to be called next.

        Raises
        ------
        ValueError
            As of `lrc_ase.models.derivatives.evaluate`.
        """
        self._last, self._stress, self._graph = [], None, None
        if not self.goes_straight(graph):
            if not dipole and (recorded := self._recorded_step(graph)) is not None:
                results = recorded(graph)
                self._graph, self._stress = graph, results.stress
                return replace(results, stress=None)
            results = evaluate(self._model, graph, stress=graph.fully_periodic, dipole=dipole)
            self._stress = results.stress
            return replace(results, stress=None)
        self._last = self._steps
        with torch.no_grad():
            if not isinstance(self._model, Ensemble):
                return self._steps[0](graph, dipole=dipole)
            return mean_of_members([step(graph, dipole=dipole) for step in self._steps], self._model)

    def with_stress(self, graph: Graph) -> Results:
        """Evaluate energies, forces, charges and stress; that of slabs and wires goes by autograd."""
        if not graph.fully_periodic:
            results = evaluate(self._model, graph, stress=True)
            self._last, self._stress, self._graph = [], results.stress, None  # not those of the structure before
            return results
        results = self(graph)
        return replace(results, stress=self.stress())

    def stress(self) -> Tensor:
        """Return the stress of the structures evaluated last, (n_structures, 3, 3), eV/Angstrom^3.

        For three periodic directions.
        """
        if self._stress is None and self._graph is not None:
            self._stress = evaluate(self._model, self._graph, stress=True).stress
            assert self._stress is not None
        if self._stress is None:
            with torch.no_grad():
                self._stress = torch.stack([step.stress() for step in self._last]).mean(dim=0)
        return self._stress

    def goes_straight(self, graph: Graph) -> bool:
        """Return True if the step without autograd serves the model for this graph."""
        if len(graph.cell) != 1 or graph.positions.device.type != "cpu":
            return False
        if graph.owners is None and len(graph.neighbors) < len(graph.positions):
            return False  # `evaluate` says what ghosts need
        state = self._parameter_state()
        if state != self._state:
            self._state = state
            members = members_of(self._model)
            served = all(map(_is_served, members)) and not any(each.requires_grad for each in self._parameters)
            with torch.no_grad():
                self._steps = [StraightStep(member) for member in members] if served else []
        return bool(self._steps)

    def forget(self) -> None:
        """Forget the recorded step, so that the next evaluations depend on nothing before them."""
        self._recorded, self._fixed, self._cell, self._n_steps = None, (), None, 0

    def _recorded_step(self, graph: Graph) -> RecordedStep | None:
        """Return a recorded step that fits the graph; None where there is none yet, or never will be."""
        if not _can_be_recorded(self._model, graph) or any(each.requires_grad for each in self._parameters):
            return None
        state = self._parameter_state()
        if state != self._recorded_state:
            self._recorded_state = state
            self.forget()
        if self._recorded is not None and self._recorded.fits(graph):
            return self._recorded
        fixed = fixed_by_recording(graph, cell=False)
        assert graph.on_host is not None
        self._n_steps = self._n_steps + 1 if fixed == self._fixed else 1
        changes = self._cell is not None and not torch.equal(self._cell, graph.on_host.cell)
        self._fixed, self._cell, self._recorded = fixed, graph.on_host.cell, None  # the memory of the last one first
        if self._n_steps > _STEPS_BEFORE:
            self._recorded = RecordedStep(self._model, graph, cell_changes=changes, stress=self._wants_stress)
        return self._recorded

    def _parameter_state(self) -> list[Any]:
        # autograd's counter of changes in place, and the address, which changes where a tensor is replaced
        parameters = self._parameters
        return [*map(_VERSION, parameters), *map(_REQUIRES_GRAD, parameters), *map(Tensor.data_ptr, parameters)]


def _can_be_recorded(model: ShortRangeModel, graph: Graph) -> bool:
    """Return True for structures and models whose step makes no decision that depends on the positions."""
    if graph.positions.device.type != _RECORDING_DEVICE or graph.on_host is None or graph.n_atoms > _MOST_RECORDED:
        return False
    if graph.field is not None or graph.exchange is not None or graph.owners is not None:
        return False
    if len(set(graph.mesh_shapes or ())) > 1:  # structures with one mesh after those with another
        return False
    members = members_of(model)
    # boxes of open directions follow the atoms; the dispersion correction is computed on the CPU
    open_mesh = not graph.fully_periodic and any(type(member) is not ShortRangeModel for member in members)
    return not open_mesh and all(
        type(member.descriptor) is SphereDescriptor and member.dispersion is None for member in members
    )


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
