r"""The short-range and the full-range model: atomic energies from a graph.

.. math:: E_i = \epsilon\, F(D^{sr}_i, D^{lr}_i) + \tfrac12 k_e\, q_i u_i, \qquad
          D^{lr}_i = g(u_i, f_i * u_i), \quad u = \phi_\theta * f, \quad f_i = \mathrm{MLP}(D^{sr}_i),

the paper's eqs. 12, 15 and 17. The weights f are learned from the descriptor. One channel, in the electrostatic head,
is a latent charge q in e (k_e = 14.399645 eV Angstrom / e^2). Charge moves between neighbors, and the latent charges
sum to the total charge (`lrc_ase.models.charges`). Energies leave out the reference energies of the elements, which the
potential keeps in float64.

Several processes may share a structure (`Graph.exchange`). An evaluation then takes four steps:

- *local*: local atoms and ghosts to features and latent weights;
- *spread*: weights of the local atoms to the mesh, which is summed over the processes;
- *mesh*: the filter, of which each process does a part (`lrc_ase.layer.mesh.shared_filtering`);
- *gather*: the field at the local atoms to their energies.

The derivative passes the steps backwards and sums over the processes once more, on the mesh. A single process has
nothing to sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.models.baselines import CoreRepulsion, Dispersion
from lrc_ase.models.descriptors import build_descriptor
from lrc_ase.models.long_range import LongRangePart
from lrc_ase.models.readout import ReadOut
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.vectors import neighbor_vectors, strained_positions

__all__ = ["FullRangeModel", "ModelOutput", "ShortRangeModel", "build_model", "extend_to_full_range"]


@dataclass(frozen=True)
class ModelOutput:
    """Energies of a model, without reference energies of the elements, and its latent charges."""

    local_energies: Tensor
    """Energies of the atoms without the electrostatic part, (n_local,), eV."""
    charges: Tensor | None = None
    """Latent charges (n_local,), e; None without an electrostatic head."""
    electrostatic: Tensor | None = None
    """Electrostatic energy of each structure, of the local atoms alone, (n_structures,), eV."""
    atomic_electrostatic: Tensor | None = None
    """Electrostatic energy of each atom, (n_local,), eV, without derivatives."""
    dispersion: Tensor | None = None
    """Dispersion correction of each structure, (n_structures,), eV in float64; None in a model without."""
    atomic_dispersion: Tensor | None = None
    """The same in equal shares, (n_local,), eV, without derivatives."""
    carried_charges: Tensor | None = None
    """Charges that atoms carry along in the polarization, (n_local,), e in float64: element charges with the excess,
    or all charge where charges are shifted; see `lrc_ase.models.polarization`. None without an electrostatic head."""
    transfer_dipoles: Tensor | None = None
    """Dipoles of the transfers that each atom takes from its neighbors, (n_local, 3), e Angstrom; None without."""
    pathless_charges: Tensor | None = None
    """Charges that depend on their surroundings without transfers along vectors, (n_local,), e: the excess that element
    charges leave over, or all charges that are shifted. None where all charge moves along vectors."""
    local_dipoles: Tensor | None = None
    """Permanent dipoles of the atoms, and dipoles induced by the field of the latent charges alone, (n_local, 3), e
    Angstrom; None in a model without."""
    polarizabilities: Tensor | None = None
    """Polarizabilities of the atoms, (n_local,), e Angstrom^2 / V; None in a model without."""
    permittivity: float = 1.0
    """Electronic permittivity, `LongRangeSettings.eps_inf`; its root is a factor of charges and dipoles above."""

    @property
    def atomic_energies(self) -> Tensor:
        """Return the energies of the atoms, (n_local,), eV; `energies` is the output to differentiate."""
        shares = [each for each in (self.atomic_electrostatic, self.atomic_dispersion) if each is not None]
        return sum(shares, start=self.local_energies)

    def energies(self, structure: Tensor, n_structures: int) -> Tensor:
        """Sum the energies of the local atoms over each structure, differentiable, (n_structures,), eV in float64."""
        local = self.local_energies.double()
        # the electrostatic energy of a structure can be differentiated, its division among atoms cannot
        energies = local.new_zeros(n_structures).index_add(0, structure, local)
        return sum((each for each in (self.electrostatic, self.dispersion) if each is not None), start=energies)


class LocalPart(NamedTuple):
    """Result of the step *local* of an evaluation."""

    features: Tensor
    """Short-range features, (n_local, n_features)."""
    vectors: Tensor
    """Vectors to the neighbors, (n_local, n_neighbors, 3), Angstrom, strained."""
    repulsion: Tensor | None = None
    """Core repulsion of the local atoms, (n_local,), eV; None in a model without."""


class ShortRangeModel(nn.Module):
    """Strictly local model, the paper's eq. 16: a descriptor and a read-out network per atom."""

    def __init__(self, settings: ModelSettings, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.settings = settings
        n_elements = len(settings.elements)
        self.descriptor = build_descriptor(
            settings.descriptor,
            n_elements=n_elements,
            cutoff=settings.cutoff,
            average_neighbors=settings.average_neighbors,
            generator=generator,
        )
        self.readout = ReadOut(self.descriptor.n_features, n_elements, settings.hidden, generator)
        self.core_repulsion = None
        if (zbl := settings.zbl) is not None:
            self.core_repulsion = CoreRepulsion(settings.elements, zbl.ranges or {}, settings.cutoff, zbl.wall)
        self.dispersion = None
        if (d3 := settings.d3) is not None:
            self.dispersion = Dispersion(settings.elements, d3.damping, d3.parameters, d3.cutoff)

    def forward(self, graph: Graph, *, strain: Tensor | None = None) -> ModelOutput:
        """Compute atomic energies; `strain` (n_structures, 3, 3) deforms positions and cells, x -> x (1 + strain)."""
        features, _, repulsion = self.local(graph, strain)
        energies = self.settings.energy_scale * self.readout(features, graph.of_local(graph.species))
        energies = energies if repulsion is None else energies + repulsion
        return self.with_dispersion(ModelOutput(energies), graph, strain)

    def local(self, graph: Graph, strain: Tensor | None) -> LocalPart:
        """Compute the short-range features of the local atoms, and the geometry that they follow from."""
        # a process without ghosts takes part in the communication too
        handing: dict[str, Any] = {}
        if self.descriptor.hands_on and graph.owners is not None:
            handing["to_ghosts"] = graph.copy_to_ghosts
        if self.descriptor.reach > 1 and graph.n_local < graph.n_atoms and not handing:
            raise ValueError(
                f"the descriptor reaches {self.descriptor.reach} cutoffs: ghosts would need features of their own, "
                "which no other process hands over; take a potential with one block, or run in one process (ASE)"
            )
        positions, cell = graph.positions, graph.cell
        if strain is not None:
            positions = strained_positions(positions, strain, graph.structure)
            cell = cell + torch.matmul(cell, strain)
        vectors = neighbor_vectors(positions, cell, graph.neighbors, graph.shifts, graph.structure, self.readout.dtype)
        visible, repulsion = vectors, None
        if self.core_repulsion is not None:
            visible, repulsion = self.core_repulsion(vectors, graph)
        if self.descriptor.hands_on and graph.on_host is not None:
            handing["element_counts"] = graph.element_counts(len(self.settings.elements))
        features = self.descriptor(visible, graph.neighbor_mask, graph.species, graph.neighbors, **handing)
        return LocalPart(features, vectors, repulsion)

    def with_dispersion(self, output: ModelOutput, graph: Graph, strain: Tensor | None) -> ModelOutput:
        """Add the dispersion correction to an output, if the model has one."""
        if self.dispersion is None:
            return output
        energies = self.dispersion(graph, strain)
        counts = torch.bincount(graph.structure, minlength=graph.n_structures)
        shares = (energies.detach() / counts)[graph.structure]
        return replace(output, dispersion=energies, atomic_dispersion=shares)

    def mesh_shape_for(self, cell: np.ndarray, held: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """Return the mesh shape for a periodic cell, None for a model without a mesh.

        `held` is the mesh of the structure before a small change of its cell. It is returned while it is fine enough,
        so that the energy stays smooth.
        """
        return None


class FullRangeModel(ShortRangeModel):
    """Model with a short-range descriptor and a long-range convolution, the paper's eq. 17."""

    def __init__(self, settings: ModelSettings, *, generator: torch.Generator | None = None) -> None:
        super().__init__(settings, generator=generator)
        if settings.long_range is None:
            raise ValueError("a full-range model needs `settings.long_range`; without it build a ShortRangeModel")
        self.long_range = LongRangePart(settings, settings.long_range, self.descriptor.n_features, generator)

    def forward(self, graph: Graph, *, strain: Tensor | None = None) -> ModelOutput:
        features, vectors, repulsion = self.local(graph, strain)
        latent = self.long_range.latent_weights(features, vectors, graph)
        sums = self.long_range.field(latent.values, graph, strain)  # spread, mesh, gather
        added = self.long_range(latent, sums)
        hidden = [each for each in (added.hidden, latent.hidden) if each is not None]
        energies = self.settings.energy_scale * self.readout(
            features, graph.of_local(graph.species), sum(hidden) if hidden else None
        )
        if repulsion is not None:
            energies = energies + repulsion
        if latent.response is not None:
            assert added.field is not None
            energies = energies + latent.response.energies(added.field)
        output = ModelOutput(energies, added.charges, added.electrostatic, added.atomic_electrostatic)
        output = self.with_dispersion(output, graph, strain)
        if added.charges is None:
            return output
        carried, dipoles, pathless = latent.carried_charges, latent.transfer_dipoles, latent.pathless_charges
        local_dipoles = polarizabilities = None
        if latent.response is not None:
            assert added.field is not None
            local_dipoles = latent.response.dipoles(added.field)
            polarizabilities = latent.response.polarizabilities
        if (scale := self.long_range.polarization_scale(graph)) is not None:
            carried = carried * scale
            dipoles = None if dipoles is None else dipoles.double() * scale[:, None]
            pathless = None if pathless is None else pathless.double() * scale
            local_dipoles = None if local_dipoles is None else local_dipoles.double() * scale[:, None]
        return replace(
            output,
            carried_charges=carried,
            transfer_dipoles=dipoles,
            pathless_charges=pathless,
            local_dipoles=local_dipoles,
            polarizabilities=polarizabilities,
            permittivity=self.long_range.settings.eps_inf,
        )

    def mesh_shape_for(self, cell: np.ndarray, held: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        return self.long_range.convolution.mesh_shape_for(cell, held)


def build_model(settings: ModelSettings, *, generator: torch.Generator | None = None) -> ShortRangeModel:
    """Build an untrained model: full range if `settings.long_range` is set, short range otherwise."""
    kind = ShortRangeModel if settings.long_range is None else FullRangeModel
    return kind(settings, generator=generator)


def extend_to_full_range(
    model: ShortRangeModel, long_range: LongRangeSettings, *, generator: torch.Generator | None = None
) -> FullRangeModel:
    """Build a full-range model whose short-range part is a copy of `model`.

    The non-linear long-range path starts at zero: without electrostatics the predictions do not change. With
    electrostatics they do, since latent charges start from electronegativities. Training then has to remove from the
    copied part the electrostatic energy that it had imitated.
    """
    if isinstance(model, FullRangeModel):
        raise ValueError("`model` already has a long-range part")
    extended = FullRangeModel(model.settings.model_copy(update={"long_range": long_range}), generator=generator)
    extended.to(next(model.parameters()))
    # not strict: the long-range part has no counterpart in `model`
    extended.load_state_dict(model.state_dict(), strict=False)
    return extended
