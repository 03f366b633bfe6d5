"""One step without autograd: energy, forces and stress of one structure."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrc_ase.models.baselines.d3 import Known
from lrc_ase.models.derivatives import Results
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.inference.core_repulsion import CoreRepulsionStep
from lrc_ase.models.inference.density import SphereFeatures
from lrc_ase.models.inference.external_field import ExternalField
from lrc_ase.models.inference.long_range import LongRangeStep
from lrc_ase.models.inference.networks import Columns, FirstLayers, LaterLayers
from lrc_ase.models.inference.plan import Plan
from lrc_ase.models.model import FullRangeModel, ShortRangeModel
from lrc_ase.models.polarization import NO_CHARGES
from lrc_ase.structures.electric_field import check_field
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.vectors import pull_sums, vectors_to_neighbors

__all__ = ["StraightStep"]


class StraightStep:
    """Energy and forces of one structure at a time, and its stress on request, with the parameters of construction."""

    def __init__(self, model: ShortRangeModel) -> None:
        assert isinstance(model.descriptor, SphereDescriptor)
        self._scale, dtype = model.settings.energy_scale, model.readout.dtype
        self._precision = np.dtype(str(dtype)[6:])
        self._features = SphereFeatures(model.descriptor)
        networks, self._long_range = [model.readout], None
        if isinstance(model, FullRangeModel):
            self._long_range = LongRangeStep(model.long_range, dtype)
            networks.append(model.long_range.weights)
        self._core: CoreRepulsionStep | None = None
        if model.core_repulsion is not None:
            self._core = CoreRepulsionStep(model.core_repulsion)
        self._dispersion = model.dispersion
        self._known: Known | None = None
        self._first, self._readout = FirstLayers(networks), LaterLayers(model.readout)
        self._columns = self._first.columns[0], self._first.columns[-1]  # of read-out and of latent weights
        self._by_energies = np.empty((0, 1))
        self._plan: Plan | None = None
        self._checked_field: np.ndarray | None = None
        self._vectors = self._by_vectors = np.empty(0)

    def __call__(self, graph: Graph, *, dipole: bool = False) -> Results:
        """Evaluate energy, forces, charges and, on request, dipole of one structure.

        If several processes share it, each gets its part, as `Results` says.

        Raises
        ------
        ValueError
            The model has no latent charges on which a field could act, or `check_field` refuses the field.
        """
        plan, long_range = self._plan, self._long_range
        if plan is None or not plan.serves(graph):
            plan = self._prepare(graph)
        positions = plan.sort(graph.positions.numpy())
        local_positions = positions[: plan.shape[0]]
        external = None if graph.field is None else self._external_field(plan, graph, local_positions)
        # forwards
        vectors = np.empty(plan.shape, self._precision)
        vectors_to_neighbors(positions, plan.cell, plan.pairs, vectors)
        features = self._features(vectors if self._core is None else self._core(vectors))
        hidden = self._first(features)
        column, column_of_weights = self._columns
        of_readout, of_weights = Columns(hidden, column), Columns(hidden, column_of_weights)
        if long_range is not None:
            long_range(features, of_readout, of_weights, vectors, local_positions, external)
        energies = self._readout(of_readout)[:, 0]
        # backwards: gradients of the total energy
        by_hidden = np.zeros(hidden.shape, hidden.dtype)
        self._readout.pull(self._by_energies, by_hidden)
        by_positions = by_vectors_too = by_features_too = repulsion = None
        if long_range is not None:
            by_hidden_columns = Columns(by_hidden, column), Columns(by_hidden, column_of_weights)
            by_positions, by_vectors_too, by_features_too = long_range.pull(*by_hidden_columns)
        by_features = self._first.pull(by_hidden)
        if by_features_too is not None:
            by_features[:, : by_features_too.shape[1]] += by_features_too
        by_vectors = self._features.pull(by_features)
        if self._core is not None:  # before others, which depend on the vectors themselves
            repulsion = self._core.pull(vectors, by_vectors)
        if by_vectors_too is not None:
            by_vectors += by_vectors_too
        gradient, _ = pull_sums(by_vectors, plan.pairs, (len(positions), 1), with_cell=False)
        if by_positions is not None:
            gradient[: len(by_positions)] += by_positions
        self._vectors, self._by_vectors = vectors, by_vectors
        local = self._scale * energies
        if repulsion is not None:
            local = local + repulsion  # in float64
        if long_range is not None and long_range.response is not None:
            local = local + long_range.response.energies
        if long_range is not None and external is not None:
            local = local + long_range.energies_in_field()
        unwrapped = plan.unwrapped(graph, local_positions) if dipole else None
        return self._results(plan, graph, local, gradient, unwrapped)

    def stress(self) -> Tensor:
        """Return the stress of the structure evaluated last, (1, 3, 3), eV/Angstrom^3; three periodic directions."""
        assert self._plan is not None
        # r -> r (1 + strain): sums over the edges, in float64 as the sums of forces
        vectors, by_vectors = (torch.from_numpy(each).flatten(0, 1) for each in (self._vectors, self._by_vectors))
        virial = vectors.T.double() @ by_vectors.double()
        if self._long_range is not None:
            virial = virial + torch.from_numpy(self._long_range.virial())
        if self._known is not None:
            virial = virial + torch.from_numpy(self._known.virial)
        return 0.5 * (virial + virial.T)[None] / self._plan.volume

    def _prepare(self, graph: Graph) -> Plan:
        """Set a structure, after a search of neighbors or a change of cell or charge."""
        plan, self._plan = Plan.of(graph), None  # None: an error below leaves no plan that only some parts follow
        self._checked_field = None
        self._features.prepare(plan)
        self._first.prepare(plan.graph)
        self._readout.prepare(plan.graph)
        self._by_energies = np.full((plan.graph.n_local, 1), self._scale, self._precision)
        if self._core is not None:
            self._core.prepare(plan.graph)
        if self._long_range is not None:
            self._long_range.prepare(plan.graph)
        self._plan = plan
        return plan

    def _external_field(self, plan: Plan, graph: Graph, positions: np.ndarray) -> ExternalField:
        """Return the field of a graph at sorted positions (n_atoms, 3)."""
        assert graph.field is not None
        field = graph.field[0].numpy()
        if self._checked_field is None or not np.array_equal(field, self._checked_field):
            check_field(graph.field, graph.cell, graph.pbc, graph.charge)
            self._checked_field = field.copy()
        if self._long_range is None:
            raise ValueError(NO_CHARGES)
        return self._long_range.in_field(field, plan.unwrapped(graph, positions), plan.volume)

    def _results(
        self, plan: Plan, graph: Graph, local: np.ndarray, gradient: np.ndarray, unwrapped: np.ndarray | None
    ) -> Results:
        """Put results together: `local` energies without electrostatics; positions (n_atoms, 3) for a dipole."""
        energy, charges, moment, pathless = float(local.sum(dtype=np.float64)), None, None, None
        long_range = self._long_range
        if long_range is not None:
            energy += long_range.values.energy
            if long_range.charges.carried is not None:
                local = local + long_range.atomic_energies()
                charges = torch.from_numpy(plan.unsort(long_range.weights[:, 0]))
                if unwrapped is not None:
                    moment = torch.from_numpy(long_range.moment(unwrapped))[None]
                if graph.field is not None and long_range.charges.pathless is not None:
                    pathless = torch.from_numpy(plan.unsort(long_range.charges.pathless))
        forces, atomic_energies = plan.unsort(-gradient), plan.unsort(local.astype(np.float64))
        if self._dispersion is not None:
            (self._known,) = self._dispersion.evaluate(graph)
            energy += self._known.energy
            atomic_energies += self._known.energy / len(atomic_energies)
            forces -= self._known.gradient
        whole = np.array([energy])
        tensors = torch.from_numpy(whole), torch.from_numpy(atomic_energies), torch.from_numpy(forces)
        return Results(*tensors, charges=charges, dipole=moment, pathless_charges=pathless)
