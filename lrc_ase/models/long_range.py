r"""The long-range part of a model: latent weights, their convolution, and energies from the field.

.. math:: D^{lr}_i = g(u_i, f_i * u_i), \quad u = \phi_\theta * f, \quad f_i = \mathrm{MLP}(D^{sr}_i)

(the paper's eq. 15 with learned weights), and the electrostatic head :math:`\tfrac12 k_e q_i u_i`. Its weights q, the
first channel, are latent charges in e, learned from energies and forces: charge moves between neighbors
(`lrc_ase.models.charges`). Potentials of lrc-ase 0.2 and before shift all charges evenly to the total charge instead.

Two further terms are off by default: dipoles of atoms in the field of the charges (`lrc_ase.models.response`), and
latent tensors, whose fields tell how groups far away are turned (`lrc_ase.models.orientations`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lrc_ase.layer.convolution import FieldAndEnergy, LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Multiplier, Repeated, Stack, Yukawa
from lrc_ase.layer.lattice import fractional_coordinates
from lrc_ase.layer.mesh import total
from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.models.charges import COULOMB_CONSTANT, Excess, TransferredCharges
from lrc_ase.models.electronegativity import starting_charges
from lrc_ase.models.orientations import N_COMPONENTS, Orientations, Oriented
from lrc_ase.models.readout import ReadOut, random_linear
from lrc_ase.models.response import Response, ResponsePart
from lrc_ase.models.settings import LongRangeSettings, ModelSettings
from lrc_ase.structures.graph import Graph

__all__ = ["COULOMB_CONSTANT", "LongRangeOutput", "LongRangePart"]

_PER_CHARGE = 5.0
"""Size of the first weights of the excess charge, 1/e: an ion's charge is divided among ten atoms and more."""


@dataclass(frozen=True)
class LatentWeights:
    """Weights that local atoms spread on the mesh, and dipoles of their charges."""

    values: Tensor
    """(n_local, n_weights), latent charges first."""
    hidden: Tensor | None = None
    """Addition of the excess charge to the first hidden layer of the read-out, (n_local, n_hidden); None without."""
    excess: Excess | None = None
    """Element charges and the charge that they leave over; None where charges are shifted."""
    transfer_dipoles: Tensor | None = None
    """Dipoles of the transfers of each atom, (n_local, 3), e Angstrom; None where charges are shifted."""
    response: Response | None = None
    """Polarizabilities and permanent dipoles; None in a model without."""
    oriented: Oriented | None = None
    """Tensors, of which `values` hold those to spread behind the other weights; None in a model without."""

    @property
    def pathless_charges(self) -> Tensor | None:
        """Return the charges that move between atoms without a path, (n_local,), see `ModelOutput`."""
        return self.values[:, 0] if self.excess is None else self.excess.charges

    @property
    def carried_charges(self) -> Tensor:
        """Return the charges that atoms carry along in the polarization, (n_local,) in float64, see `ModelOutput`."""
        if self.excess is None:
            return self.values[:, 0].double()
        # without the transfers: these have dipoles of their own, along their edges
        charges, excess = self.excess
        return charges if excess is None else charges + excess


@dataclass(frozen=True)
class LongRangeOutput:
    """Contributions of the long-range part; None for a part that the settings leave out."""

    hidden: Tensor | None
    """Addition to the first hidden layer of the read-out, (n_local, n_hidden)."""
    electrostatic: Tensor | None
    """Electrostatic energy of the local atoms of each structure, eV (n_structures,) in float64."""
    atomic_electrostatic: Tensor | None
    """Electrostatic energy of each atom, eV (n_local,). Not to be differentiated: `electrostatic` is."""
    charges: Tensor | None
    """Latent charges, e (n_local,)."""
    field: Tensor | None
    """Electric field of the latent charges at the atoms, V/Angstrom (n_local, 3); None unless dipoles need it."""


class LongRangePart(nn.Module):
    """Latent weights, their convolutions, and their contributions to read-out and energy."""

    def __init__(
        self,
        settings: ModelSettings,
        long_range: LongRangeSettings,
        n_features: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        if long_range.n_channels == 0 and long_range.n_tensors == 0 and not long_range.electrostatics:
            raise ValueError("`long_range` needs `n_channels` > 0, `n_tensors` > 0 or `electrostatics`, got none")
        n_elements = len(settings.elements)
        self.settings = long_range
        # charges come first: `n_energies` of the layer counts channels from the front
        kernels: list[Multiplier] = []
        if long_range.electrostatics:
            kernels.append(Coulomb(smearing=long_range.smearing))
        if long_range.n_channels:
            # screening lengths from twice the cutoff to a quarter of it: a generic guess that training refines
            screening = [
                2.0**exponent / settings.cutoff for exponent in torch.linspace(-1, 2, long_range.n_channels).tolist()
            ]
            kernels.append(Yukawa(screening, smearing=long_range.smearing))
        self.orientations = None
        if long_range.n_tensors:
            self.orientations = Orientations(
                n_elements, cutoff=settings.cutoff, n_tensors=long_range.n_tensors, generator=generator
            )
            # far groups matter: neighbors within the cutoff are in the descriptor already
            far = Yukawa([0.25 / settings.cutoff] * long_range.n_tensors, smearing=long_range.smearing)
            kernels.append(Repeated(far, N_COMPONENTS))  # one kernel for all components, so that fields turn with atoms
        kernel = Stack(kernels).to(torch.get_default_dtype())
        self.convolution = LongRangeConvolution(kernel, smearing=long_range.smearing, accuracy=long_range.accuracy)
        self.transfers = None
        n_charges = int(long_range.electrostatics)
        if long_range.electrostatics and long_range.charges != "shifted":
            n_charges = long_range.n_transfers
            self.transfers = TransferredCharges(
                settings.elements,
                long_range.compositions or {},
                cutoff=settings.cutoff,
                n_features=n_features,
                n_transfers=n_charges,
                generator=generator,
            )
            # the excess enters both networks, so that one model holds several states of charge
            self.excess_to_weights = nn.Parameter(_PER_CHARGE * torch.randn(settings.hidden[-1], generator=generator))
            self.excess_to_hidden = nn.Parameter(_PER_CHARGE * torch.randn(settings.hidden[0], generator=generator))
        self.n_charges = n_charges
        """Outputs of the network `weights` for the charges: amounts of transfers, or the charge itself."""
        self.response = None
        if long_range.polarizable or long_range.n_dipoles:
            self.response = ResponsePart(
                n_elements=n_elements,
                cutoff=settings.cutoff,
                polarizable=long_range.polarizable,
                n_dipoles=long_range.n_dipoles,
            )
        self.n_responses = 0 if self.response is None else self.response.n_outputs
        self.n_amounts = 0 if self.orientations is None else self.orientations.n_amounts
        """Outputs of the network `weights` for the tensors, behind charges, channels and responses."""
        n_weights = n_charges + long_range.n_channels + self.n_responses + self.n_amounts
        self.weights = ReadOut(n_features, n_elements, settings.hidden[-1:], generator, n_outputs=n_weights)
        self._start_weights(settings.elements)
        if long_range.n_channels or self.orientations is not None:
            n_invariants = 0 if self.orientations is None else self.orientations.n_invariants
            self.mix = random_linear(2 * long_range.n_channels + n_invariants, long_range.n_features, generator)
            self.to_hidden = nn.Linear(long_range.n_features, settings.hidden[0], bias=False)
            nn.init.zeros_(self.to_hidden.weight)  # no effect before training

    def latent_weights(self, features: Tensor, vectors: Tensor, graph: Graph) -> LatentWeights:
        """Compute latent charges and weights from features (n_local, n_features) and vectors to neighbors."""
        species = graph.of_local(graph.species)
        sizes = [self.n_charges, self.settings.n_channels, self.n_responses, self.n_amounts]
        if self.transfers is None:
            amounts, *others = self.weights(features, species, squeeze=False).split(sizes, dim=1)
            charges = _neutralized(amounts[:, 0], graph) if self.settings.electrostatics else None
            return self._with_others(LatentWeights(amounts), charges, others, vectors, graph)
        excess = self.transfers.excess(features, graph)
        addition = hidden = None
        if excess.charges is not None:
            # a product, without the bias of a linear layer: zero where nothing is left over
            column = excess.charges.to(features)[:, None]
            addition, hidden = column * self.excess_to_weights, column * self.excess_to_hidden
        amounts, *others = self.weights(features, species, addition, squeeze=False).split(sizes, dim=1)
        charges, dipoles = self.transfers(vectors, graph, amounts, excess)
        return self._with_others(LatentWeights(amounts, hidden, excess, dipoles), charges, others, vectors, graph)

    def _with_others(
        self, latent: LatentWeights, charges: Tensor | None, others: list[Tensor], vectors: Tensor, graph: Graph
    ) -> LatentWeights:
        """Add what needs no charges: latent channels, and responses and tensors from outputs and vectors."""
        channels, responses, amounts = others
        columns = [channels] if charges is None else [charges[:, None], channels]
        response = None if self.response is None else self.response(vectors, graph, responses)
        oriented = None
        if self.orientations is not None:
            oriented = self.orientations(vectors, graph, amounts)
            columns.append(oriented.spread.flatten(1))
        return replace(latent, values=torch.cat(columns, dim=1), response=response, oriented=oriented)

    def polarization_scale(self, graph: Graph) -> Tensor | None:
        """Return the root of the electronic permittivity for local atoms of fully periodic structures, (n_local,).

        It is 1 for the atoms of other structures; None stands for 1 everywhere.
        """
        if self.settings.eps_inf == 1:
            return None
        # charges learned from forces in a bulk are screened by its electrons: the true ones over this root
        scale = torch.ones(len(graph.pbc), dtype=torch.float64, device=graph.pbc.device)
        scale = scale.masked_fill(graph.pbc.all(dim=1), math.sqrt(self.settings.eps_inf))
        return scale[graph.of_local(graph.structure)]

    def field(self, weights: Tensor, graph: Graph, strain: Tensor | None) -> FieldAndEnergy:
        """Convolve all weights (n_local, n_weights); return energy of the charges and field of the latent weights.

        The layer returns the energy itself, whose derivative needs no second convolution.
        """
        arguments, options = self.arguments(weights, graph, strain)
        return self.convolution.field_and_energy(
            *arguments,
            n_energies=int(self.settings.electrostatics),
            gradient=self.response is not None,
            **options,
        )

    def arguments(
        self, weights: Tensor, graph: Graph, strain: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
        """Return the arguments of the layer, weights, fractional coordinates and cells, and its keywords."""
        structure = graph.of_local(graph.structure)
        fractional = fractional_coordinates(graph.of_local(graph.positions), graph.cell, structure)
        # before the cast, so that structures far from the origin lose no digits in float32
        fractional = _near_origin(fractional, graph).to(weights)
        # a strain leaves fractional coordinates unchanged: it enters through the cell alone
        cell = graph.cell if strain is None else graph.cell + torch.matmul(graph.cell, strain)
        options = {
            "structure": structure,
            "pbc": graph.pbc if graph.on_host is None else graph.on_host.pbc,
            "mesh_shapes": graph.mesh_shapes,
            "exchange": graph.exchange,
            "tables": graph.tables,
            # a strain is zero: its numbers are those of the cell
            "cell_on_host": None if graph.on_host is None else graph.on_host.cell,
            "structure_on_host": None if graph.on_host is None else graph.on_host.structure,
        }
        return (weights, fractional, cell.to(weights)), options

    def forward(self, latent: LatentWeights, sums: FieldAndEnergy) -> LongRangeOutput:
        """Compute the contributions of latent weights and their convolution `sums` to the energies."""
        weights = latent.values
        electrostatic = atomic = charges = hidden = field = None
        if self.settings.electrostatics:
            # the layer's energy is 1/2 sum q u in e^2/Angstrom
            electrostatic = COULOMB_CONSTANT * sums.energy[:, 0]
            charges = weights[:, 0]
            # detached: a share for output, not a path of gradients
            atomic = 0.5 * COULOMB_CONSTANT * charges.detach() * sums.potential[:, 0]
            if sums.gradient is not None:
                field = -COULOMB_CONSTANT * sums.gradient[:, :, 0]  # E = -grad u
        if self.settings.n_channels or latent.oriented is not None:
            n_scalars, n_charges = self.settings.n_channels, int(self.settings.electrostatics)
            scalars = sums.field[:, :n_scalars]
            # u and f * u, the arguments of g: (n_local, 2 * n_channels)
            arguments = [scalars, weights[:, n_charges : n_charges + n_scalars] * scalars]
            if latent.oriented is not None:
                tensors = sums.field[:, n_scalars:].unflatten(1, (-1, N_COMPONENTS))
                arguments.append(latent.oriented.invariants(tensors))
            mixed = self.mix(torch.cat(arguments, dim=-1))
            hidden = self.to_hidden(nn.functional.silu(mixed))
        return LongRangeOutput(hidden, electrostatic, atomic, charges, field)

    @torch.no_grad()
    def _start_weights(self, elements: tuple[str, ...]) -> None:
        """Initialize latent charges from electronegativities and the other weights near one."""
        layer = self.weights.last
        layer.weight.mul_(0.1)  # so that the bias of the element dominates before training
        bias = self.weights.element_bias.weight
        layer.weight[: self.n_charges] = 0.0  # charges start independent of the surroundings
        if self.transfers is not None:
            bias[:, : self.n_charges] = self.transfers.starting_amounts(elements)
        elif self.n_charges:
            bias[:, 0] = starting_charges(elements)
        bias[:, self.n_charges :] = 1.0
        if self.response is not None:  # the starting polarizability, and no dipoles
            first = self.n_charges + self.settings.n_channels
            bias[:, first : first + self.n_responses] = 0.0
            layer.weight[first : first + self.n_responses] = 0.0


def _near_origin(fractional: Tensor, graph: Graph) -> Tensor:
    """Move atoms near the origin: by whole cells along periodic directions, by their mean along open ones.

    Return (n_local, 3). Autograd differentiates the mean, so that the mesh follows the structure without steps. Along
    open directions the energy therefore does not depend on the position of the structure, and forces sum to zero.
    """
    structure = graph.of_local(graph.structure)
    # floor has no derivative: whole cells are subtracted as constants
    periodic = fractional - torch.floor(fractional.detach())
    if graph.fully_periodic:
        return periodic
    # counts and sums in one message between processes
    ones = torch.ones_like(fractional[:, :1])
    sums = sum_by_structure(torch.cat([ones, fractional], dim=1), structure, graph.n_structures)
    sums = total(sums, graph.exchange)
    mean = sums[:, 1:] / sums[:, :1]
    return torch.where(graph.pbc[structure], periodic, fractional - mean[structure])


def _neutralized(charges: Tensor, graph: Graph) -> Tensor:
    """Shift charges evenly so that those of each structure sum to its total charge."""
    structure = graph.of_local(graph.structure)
    sums = sum_by_structure(torch.stack([torch.ones_like(charges), charges], dim=1), structure, graph.n_structures)
    counts, totals = total(sums, graph.exchange).unbind(dim=1)
    return charges - ((totals - graph.charge) / counts)[structure].to(charges)
