r"""Field of latent weights, with derivatives by weights, positions and strain written out.

The first n weights q have the energy :math:`E = \tfrac12 \sum_i q_i u_i`, the others, f, a field v that the read-out
takes. With :math:`g = \partial E_{tot} / \partial v`, K the convolution and k the unit of E:

.. math:: \frac{\partial}{\partial q_i} = k u_i, \quad \frac{\partial}{\partial f_i} = (K^T g)_i, \quad
          \frac{\partial}{\partial x_i} = k q_i \nabla u_i + g_i \nabla v_i + f_i \nabla (K^T g)_i

(`lrc_ase.layer.mesh.evaluation`): one convolution for values and energies, another one for the pull.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lrc_ase.layer.memory import check_mesh_memory
from lrc_ase.layer.mesh import Stencil
from lrc_ase.layer.mesh.convolver import Convolved, Convolver
from lrc_ase.layer.mesh.filtering import correlate_spectra, density_spectrum
from lrc_ase.layer.mesh.spreading import spread_level
from lrc_ase.layer.mesh.stencil import Sites
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["FieldValues", "LayerField", "MeshField"]


class FieldValues(NamedTuple):
    """Potential at the charges and field at the other weights."""

    energy: Tensor
    """Electrostatic energy, eV, a scalar in float64."""
    potential: Tensor
    """u of the charges, (n_atoms, n_energies), e/Angstrom."""
    field: Tensor
    """v of the other weights, (n_atoms, n_channels)."""


class MeshField:
    """Field on the mesh of a structure with three periodic directions."""

    def __init__(self, part: LongRangePart, graph: Graph, dtype: torch.dtype) -> None:
        layer = part.convolution
        assert layer.window is not None
        cell = graph.cell.to(dtype)
        held = None if graph.mesh_shapes is None else graph.mesh_shapes[0]
        mesh_shape = held or layer.mesh_shape_for(cell[0].numpy())
        check_mesh_memory(mesh_shape, 1, layer.multiplier.n_channels, dtype, cell.device)
        tables = MultiplierTables() if graph.tables is None else graph.tables
        self._table = tables.kept(layer.multiplier, layer.window, cell, mesh_shape)
        # sums over waves hold the term i = j
        self._self = -tables.at_origin(layer.multiplier, 3, dtype, cell.device) if layer.remove_self else None
        self._stencil = Stencil(layer.window, mesh_shape, graph.structure, 1)
        self._inverse = torch.linalg.inv(graph.cell)[0]
        self._n_energies = int(part.settings.electrostatics)
        self._convolver: Convolver | None = None
        self._potential: Convolved | None = None
        self._adjoint: Convolved | None = None
        self._weights = self._by_field = torch.empty(0)

    def __call__(self, weights: Tensor, positions: Tensor) -> FieldValues:
        """Convolve weights (n_atoms, n_weights), charges first, at positions (n_atoms, 3)."""
        n = self._n_energies
        fractional = positions @ self._inverse
        fractional = (fractional - fractional.floor()).to(weights.dtype)
        # spectra for the virial alone, which makes them anew
        self._convolver = Convolver(self._table.table, Sites(fractional, self._stencil), 1, keeps_spectra=False)
        self._weights, self._potential = weights, self._convolver(weights[:, None])
        values = self._potential.values
        if self._self is not None:
            values = torch.addcmul(values, self._self, weights)
        potential, field = values[:, :n], values[:, n:]
        energy = 0.5 * COULOMB_CONSTANT * (weights[:, :n] * potential).sum(dtype=torch.float64)
        return FieldValues(energy, potential, field)

    def pull(self, by_field: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by weights (n_atoms, n_weights) and positions (n_atoms, 3), given that by the field."""
        n, convolver, potential = self._n_energies, self._convolver, self._potential
        assert convolver is not None
        assert potential is not None
        # k q for charges, dE/dv for the others: what multiplies the gradient of each potential
        factors = torch.cat([COULOMB_CONSTANT * self._weights[:, :n], by_field], dim=1)
        by_fractional = convolver.slopes(factors, potential)
        by_weights = torch.empty_like(self._weights)
        torch.mul(potential.values[:, :n], COULOMB_CONSTANT, out=by_weights[:, :n])
        self._by_field, self._adjoint = by_field, None
        if by_field.shape[1]:
            of_field = slice(n, None)
            self._adjoint = convolver.of_channels(of_field)(by_field[:, None])
            by_weights[:, of_field] = self._adjoint.values
            by_fractional = by_fractional + convolver.slopes(self._weights[:, of_field], self._adjoint)
        if self._self is not None:
            by_weights.addcmul_(self._self, factors)
        return by_weights, by_fractional.double() @ self._inverse.T

    def virial(self) -> Tensor:
        """Return the gradient by a strain at fixed weights and fractional coordinates, (3, 3), after a pull."""
        n, convolver, n_weights = self._n_energies, self._convolver, self._weights.shape[1]
        assert convolver is not None
        # the densities of the step once more: it filters them in place, as most steps ask for no stress
        densities = torch.cat([self._weights, self._by_field], dim=1)
        spectra = density_spectrum(spread_level(densities[:, None], convolver.sites, 0))
        charges, others, of_field = spectra[:, :n], spectra[:, n:n_weights], spectra[:, n_weights:]
        mesh_shape = self._stencil.mesh_shape
        of_energy = 0.5 * COULOMB_CONSTANT * correlate_spectra(charges, charges, mesh_shape, is_matrix=False)
        of_rest = correlate_spectra(of_field, others, mesh_shape, is_matrix=False)
        return self._table.by_strain(torch.cat([of_energy, of_rest], dim=1))[0].double()


class LayerField:
    """Field where a direction is open, of the layer itself: its boundaries have many forms, and it differentiates."""

    def __init__(self, part: LongRangePart, graph: Graph) -> None:
        self._part, self._graph = part, graph
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, weights: Tensor, positions: Tensor) -> FieldValues:
        """Convolve weights as `MeshField` does."""
        weights, positions = weights.detach().requires_grad_(), positions.detach().requires_grad_()
        with torch.enable_grad():
            sums = self._part.field(weights, replace(self._graph, positions=positions), None)
            energy = COULOMB_CONSTANT * sums.energy.sum()
        self._inputs, self._outputs = (weights, positions), (energy, sums.field)
        return FieldValues(energy.detach(), sums.potential.detach(), sums.field.detach())

    def pull(self, by_field: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients as `MeshField.pull` does."""
        energy, field = self._outputs
        pairs = [(energy, torch.ones_like(energy)), (field, by_field)]
        outputs, cotangents = zip(
            *((one, along) for one, along in pairs if one.requires_grad and one.numel()), strict=True
        )
        by_weights, by_positions = torch.autograd.grad(outputs, self._inputs, cotangents, materialize_grads=True)
        return by_weights, by_positions

    def virial(self) -> Tensor:
        """Raise an error: a stress needs three periodic directions."""
        raise ValueError("the stress needs three periodic directions")
