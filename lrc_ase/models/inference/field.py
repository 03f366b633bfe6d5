r"""Field of latent weights, with derivatives by weights, positions and strain written out.

The first n weights q have the energy :math:`E = \tfrac12 \sum_i q_i u_i`, the others, f, a field v that the read-out
takes. With :math:`g = \partial E_{tot} / \partial v`, K the convolution and k the unit of E:

.. math:: \frac{\partial}{\partial q_i} = k u_i, \quad \frac{\partial}{\partial f_i} = (K^T g)_i, \quad
          \frac{\partial}{\partial x_i} = k q_i \nabla u_i + g_i \nabla v_i + f_i \nabla (K^T g)_i

(`lrc_ase.layer.mesh.evaluation`): one convolution for values and energies, another one for the pull.

Dipoles also need the gradient :math:`s_i = \nabla u_i` of the charges' potential. With :math:`c = \partial E_{tot} /
\partial s` and the potential w of dipoles c, a further convolution in the pull, these add

.. math:: \frac{\partial}{\partial q_i} = w_i, \quad
          \frac{\partial}{\partial x_i} = q_i \nabla w_i + (c_i \cdot \nabla) \nabla u_i

(`lrc_ase.layer.mesh.gradient_evaluation`), and :math:`-\sum_i c_i s_i^T` to the virial, as a strain at fixed fractional
coordinates turns a gradient s into :math:`(1 + \epsilon)^{-1} s`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.layer.constants import constant
from lrc_ase.layer.memory import check_mesh_memory
from lrc_ase.layer.mesh import Stencil
from lrc_ase.layer.mesh.convolver import Convolved, Convolver
from lrc_ase.layer.mesh.filtering import correlate_spectra, density_spectrum
from lrc_ase.layer.mesh.spreading import gather_level
from lrc_ase.layer.mesh.stencil import Sites
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["FieldValues", "LayerField", "MeshField", "electrostatic_energy"]


_SECOND = (4, 5, 6, 5, 7, 8, 6, 8, 9)
"""Places of the matrix of second derivatives, row by row, in `multi_indices(3, 2)`."""


class FieldValues(NamedTuple):
    """Potential at the charges and field at the other weights."""

    energy: float
    """Electrostatic energy, eV."""
    potential: np.ndarray
    """u of the charges, (n_atoms, n_energies), e/Angstrom."""
    field: np.ndarray
    """v of the other weights, (n_atoms, n_channels)."""
    gradient: np.ndarray | None = None
    """Gradient of the charges' potential, (n_atoms, 3), e/Angstrom^2; None in a model without dipoles."""


def electrostatic_energy(charges: np.ndarray, potential: np.ndarray) -> float:
    """Return the energy of charges in their potential, both (n_atoms, n_energies), eV."""
    return 0.5 * COULOMB_CONSTANT * float(np.einsum("ij,ij->", charges, potential, dtype=np.float64, casting="safe"))


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
        self._self: np.ndarray | None = None
        if layer.remove_self:
            self._self = -tables.at_origin(layer.multiplier, 3, dtype, cell.device).detach().numpy()
        self._stencil = Stencil(layer.window, mesh_shape, graph.of_local(graph.structure), 1, graph.exchange)
        self._inverse = torch.linalg.inv(graph.cell)[0]
        self._n_energies = int(part.settings.electrostatics)
        self._dipoles: _MeshDipoles | None = None
        if part.response is not None:
            # mesh coordinates are products of Cartesian ones with this matrix
            self._dipoles = _MeshDipoles((self._inverse * self._inverse.new_tensor(mesh_shape)).to(dtype))
        self._convolver: Convolver | None = None
        self._potential: Convolved | None = None
        self._adjoint: Convolved | None = None
        self._weights = self._by_field = torch.empty(0)

    def __call__(self, weights: np.ndarray, positions: np.ndarray) -> FieldValues:
        """Convolve weights (n_atoms, n_weights), charges first, at positions (n_atoms, 3)."""
        n = self._n_energies
        # torch's product: that of NumPy has threads of its own, which `torch.set_num_threads` does not know
        fractional = torch.mm(torch.from_numpy(positions), self._inverse)
        self._weights, dipoles = torch.from_numpy(weights), self._dipoles
        sites = Sites((fractional - fractional.floor()).to(self._weights.dtype), self._stencil)
        # spectra for the virial alone, which makes them anew
        self._convolver = Convolver(self._table.table, sites, 1, keeps_spectra=False)
        if dipoles is None:
            self._potential = self._convolver(self._weights[:, None])
        else:
            self._potential = dipoles(self._convolver, self._weights)
        values = self._potential.values.numpy()
        if self._self is not None:
            values = values + self._self * weights
        potential, field = values[:, :n], values[:, n:]
        energy = electrostatic_energy(weights[:, :n], potential)
        return FieldValues(energy, potential, field, None if dipoles is None else dipoles.gradient.numpy())

    def pull(self, by_field: np.ndarray, by_gradient: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients by weights (n_atoms, n_weights) and positions (n_atoms, 3).

        Given are those by the field and, in a model with dipoles, by the gradient of the charges' potential.
        """
        gradient = None if by_gradient is None else torch.from_numpy(by_gradient)
        by_weights, by_fractional = self._pull(torch.from_numpy(by_field), gradient)
        return by_weights.numpy(), torch.mm(by_fractional.double(), self._inverse.T).numpy()

    def _pull(self, by_field: Tensor, by_gradient: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gradients by weights and fractional coordinates."""
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
        if self._dipoles is not None:
            assert by_gradient is not None
            by_charges, by_fractional_too = self._dipoles.pull(by_gradient)
            by_weights[:, :1] += by_charges
            by_fractional = by_fractional + by_fractional_too
        if self._self is not None:
            by_weights.addcmul_(torch.from_numpy(self._self), factors)
        return by_weights, by_fractional

    def virial(self) -> np.ndarray:
        """Return the gradient by a strain at fixed weights and fractional coordinates, (3, 3), after a pull."""
        n, convolver, n_weights = self._n_energies, self._convolver, self._weights.shape[1]
        assert convolver is not None
        # the densities of the step once more: it filters them in place, as most steps ask for no stress
        densities = torch.cat([self._weights, self._by_field], dim=1)
        spectra = density_spectrum(convolver.spread(densities[:, None], 0))
        charges, others, of_field = spectra[:, :n], spectra[:, n:n_weights], spectra[:, n_weights:]
        mesh_shape = self._stencil.mesh_shape
        of_energy = 0.5 * COULOMB_CONSTANT * correlate_spectra(charges, charges, mesh_shape, is_matrix=False)
        of_rest = correlate_spectra(of_field, others, mesh_shape, is_matrix=False)
        if self._dipoles is not None:
            of_energy += correlate_spectra(self._dipoles.spectrum(), charges, mesh_shape, is_matrix=False)
        virial = convolver.share(self._table.by_strain(torch.cat([of_energy, of_rest], dim=1))[0].double())
        return (virial if self._dipoles is None else virial + self._dipoles.virial_of_gradient()).numpy()


class _MeshDipoles:
    """Gradient of the charges' potential at the atoms, for dipoles there. Charges are the first weight.

    `to_mesh` (3, 3) turns Cartesian coordinates into those of the mesh.
    """

    def __init__(self, to_mesh: Tensor) -> None:
        self._to_mesh, self._back = to_mesh, to_mesh.T.contiguous()
        self._convolver: Convolver
        self.gradient = self._second = self._weights = self._by_gradient = self._orders = torch.empty(0)

    def __call__(self, convolver: Convolver, weights: Tensor) -> Convolved:
        """Convolve weights (n_atoms, n_weights), and gather second derivatives of the charges' potential too."""
        self._convolver, self._weights, sites = convolver, weights, convolver.sites
        mesh, _ = convolver.potential(weights[:, None], 0)
        orders = gather_level(mesh[:, :1], sites, 2)
        self.gradient = torch.mm(orders[:, 1:4, 0], self._back)
        self._second = orders[..., 0].index_select(1, constant(tuple, _SECOND, like=sites.stencil.structure))
        orders = orders[:, :4]
        if weights.shape[1] > 1:
            orders = torch.cat([orders, gather_level(mesh[:, 1:], sites, 1)], dim=2)
        return Convolved(orders, None)

    def pull(self, by_gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by charges (n_atoms, 1) and fractional coordinates (n_atoms, 3).

        Given is that by `gradient`, (n_atoms, 3).
        """
        convolver, of_charges = self._convolver, slice(0, 1)
        dipoles = torch.mm(by_gradient, self._to_mesh)
        self._by_gradient, self._orders = by_gradient, nn.functional.pad(dipoles, (1, 0))[:, :, None]  # no monopoles
        adjoint = convolver.of_channels(of_charges)(self._orders)
        # charges move in the field of the dipoles, and dipoles in that of the charges
        by_fractional = torch.bmm(self._second.unflatten(1, (3, 3)), dipoles[:, :, None])[..., 0] * convolver.n_mesh
        return adjoint.values, by_fractional.add_(convolver.slopes(self._weights[:, of_charges], adjoint))

    def spectrum(self) -> Tensor:
        """Return the spectrum of the dipoles of the last pull, (1, 1, *half mesh)."""
        return density_spectrum(self._convolver.spread(self._orders, 1))

    def virial_of_gradient(self) -> Tensor:
        """Return the gradient by a strain at fixed potential on the mesh, (3, 3): Cartesian axes stretch."""
        return -self._by_gradient.T.double() @ self.gradient.double()


class LayerField:
    """Field where a direction is open, of the layer itself: its boundaries have many forms, and it differentiates."""

    def __init__(self, part: LongRangePart, graph: Graph) -> None:
        self._part, self._graph = part, graph
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, weights: np.ndarray, positions: np.ndarray) -> FieldValues:
        """Convolve weights as `MeshField` does."""
        inputs = torch.from_numpy(weights).requires_grad_(), torch.from_numpy(positions).requires_grad_()
        with torch.enable_grad():
            sums = self._part.field(inputs[0], replace(self._graph, positions=inputs[1]), None)
            energy = COULOMB_CONSTANT * sums.energy.sum()
        self._inputs, self._outputs = inputs, (energy, sums.field)
        gradient = None
        if sums.gradient is not None:
            self._outputs += (sums.gradient,)
            gradient = sums.gradient[:, :, 0].detach().numpy()
        return FieldValues(
            float(energy.detach()), sums.potential.detach().numpy(), sums.field.detach().numpy(), gradient
        )

    def pull(self, by_field: np.ndarray, by_gradient: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients as `MeshField.pull` does."""
        by_outputs = [torch.ones_like(self._outputs[0]), torch.from_numpy(by_field)]
        if by_gradient is not None:
            by_outputs.append(torch.from_numpy(by_gradient)[:, :, None])
        pairs = zip(self._outputs, by_outputs, strict=True)
        # fields without channels are left out, but not those of a process without atoms: it takes part in sums
        outputs, cotangents = zip(
            *((one, along) for one, along in pairs if one.requires_grad and 0 not in one.shape[1:]), strict=True
        )
        by_weights, by_positions = torch.autograd.grad(outputs, self._inputs, cotangents, materialize_grads=True)
        return by_weights.numpy(), by_positions.numpy()

    def virial(self) -> np.ndarray:
        """Raise an error: a stress needs three periodic directions."""
        raise ValueError("the stress needs three periodic directions")
