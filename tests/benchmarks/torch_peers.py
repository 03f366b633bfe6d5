"""Programs of the comparison that compute with tensors of torch; `peers` holds the others."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
import torch
from problem import SCREENING, SMEARING, Problem
from torch import Tensor

from lrc_ase import Coulomb, LongRangeConvolution, Yukawa
from lrc_ase.layer.tables import MultiplierTables

__all__ = ["Layer", "Nvalchemi", "NvalchemiFused", "TorchPeer", "TorchPme"]


class TorchPeer:
    """Jobs of anything that gives u from tensors of positions and weights."""

    trainable: tuple[Tensor, ...] = ()

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.dtype = getattr(torch, problem.precision)
        self.positions = torch.from_numpy(problem.positions).requires_grad_()
        self.fixed_positions = self.positions.detach()
        self.weights = torch.from_numpy(problem.weights)
        self.trained_weights = self.weights.clone().requires_grad_()
        self.cotangent = torch.from_numpy(problem.cotangent)
        self.force_targets = torch.from_numpy(problem.force_targets)
        self.cell = problem.length * torch.eye(3, dtype=self.dtype)

    def convolve(self, positions: Tensor, weights: Tensor) -> Tensor:
        """Field u, (n_atoms, n_channels)."""
        raise TypeError(f"{type(self).__name__} does not say how it computes the field")

    def field_and_energy(self, positions: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Field and the energy 1/2 sum f.u."""
        field = self.convolve(positions, weights)
        return field, 0.5 * (weights * field).sum()

    def field(self) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return (self.convolve(self.fixed_positions, self.weights).numpy(),)

    def forces(self) -> tuple[np.ndarray, ...]:
        field, energy = self.field_and_energy(self.positions, self.weights)
        (slope,) = torch.autograd.grad(energy, self.positions)
        return field.detach().numpy(), -slope.numpy()

    def gradient(self) -> tuple[np.ndarray, ...]:
        field = self.convolve(self.positions, self.weights)
        (slope,) = torch.autograd.grad(field, self.positions, self.cotangent)
        return field.detach().numpy(), slope.numpy()

    def training(self) -> tuple[np.ndarray, ...]:
        for parameter in self.trainable:
            parameter.requires_grad_(True)
        _, energy = self.field_and_energy(self.positions, self.trained_weights)
        (slope,) = torch.autograd.grad(energy, self.positions, create_graph=True)
        loss = ((slope + self.force_targets) ** 2).sum()
        by_weights, *by_kernel = torch.autograd.grad(loss, [self.trained_weights, *self.trainable])
        for parameter in self.trainable:
            parameter.requires_grad_(False)
        return by_weights.numpy(), np.array([float(slope.sum()) for slope in by_kernel])


class Layer(TorchPeer):
    """This project's layer."""

    def __init__(self, problem: Problem, accuracy: float) -> None:
        super().__init__(problem)
        kernel: Yukawa | Coulomb = Coulomb(smearing=SMEARING)
        if problem.screening > 0:
            kernel = Yukawa([problem.screening] * problem.n_channels, smearing=SMEARING)
            self.trainable = (kernel.amplitude, kernel.log_screening)
        kernel.requires_grad_(False)
        self.layer = LongRangeConvolution(kernel, smearing=SMEARING, accuracy=accuracy)
        self.tables = MultiplierTables()

    def convolve(self, positions: Tensor, weights: Tensor) -> Tensor:
        return self.layer(weights, positions / self.problem.length, self.cell[None], tables=self.tables)

    def field_and_energy(self, positions: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        arguments = weights, positions / self.problem.length, self.cell[None]
        sums = self.layer.field_and_energy(*arguments, n_energies=weights.shape[1], tables=self.tables)
        return sums.potential, sums.energy.sum()


class ScreenedTable:
    """The multiplier as a function of its two parameters, for peers that let us give one."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.amplitude = torch.ones((), dtype=dtype)
        self.log_screening = torch.tensor(SCREENING, dtype=dtype).log()

    def __call__(self, k_squared: Tensor) -> Tensor:
        screened = k_squared + (2 * self.log_screening).exp()
        return 4 * math.pi * self.amplitude * torch.exp(-0.5 * SMEARING**2 * k_squared) / screened


class TorchPme(TorchPeer):
    """torch-pme's P3M calculator with a potential of our own and an empty neighbor list: its mesh part alone."""

    def __init__(self, problem: Problem, nodes: int, spacing: float) -> None:
        from torchpme import P3MCalculator
        from torchpme.potentials import Potential

        super().__init__(problem)
        table = ScreenedTable(self.dtype)
        self.trainable = (table.amplitude, table.log_screening)
        at_origin = torch.tensor(problem.kernel_at_origin, dtype=self.dtype)

        class Screened(Potential):
            def from_dist(self, dist: Tensor, pair_mask: Tensor | None = None) -> Tensor:
                return torch.zeros_like(dist)

            lr_from_dist = from_dist

            def lr_from_k_sq(self, k_sq: Tensor) -> Tensor:
                return table(k_sq)

            def self_contribution(self) -> Tensor:
                return at_origin

            def background_correction(self) -> Tensor:
                return torch.zeros_like(at_origin)

        # it takes the power of two above 2 L / mesh_spacing + 1
        needed = problem.length / spacing
        power = 2 ** math.ceil(math.log2(needed))
        self.calculator = P3MCalculator(
            Screened(smearing=SMEARING), mesh_spacing=2 * problem.length / (power - 1.5), interpolation_nodes=nodes
        ).to(self.dtype)
        self.no_pairs = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=self.dtype)

    def convolve(self, positions: Tensor, weights: Tensor) -> Tensor:
        return 2 * self.calculator(weights, self.cell, positions, *self.no_pairs)


class Nvalchemi(TorchPeer):
    """nvalchemi-toolkit-ops: its B-spline operators around torch's FFT and our multiplier, every step by autograd."""

    def __init__(self, problem: Problem, order: int, spacing: float) -> None:
        from nvalchemiops.torch import spline

        super().__init__(problem)
        self.spline, self.order = spline, order
        n_mesh = scipy.fft.next_fast_len(math.ceil(problem.length / spacing), real=True)
        self.shape = (n_mesh,) * 3
        self.inverse = torch.linalg.inv(self.cell).T.contiguous()[None]
        self.screened = ScreenedTable(self.dtype)
        self.trainable = (self.screened.amplitude, self.screened.log_screening)
        waves = torch.fft.fftfreq(n_mesh, 1 / n_mesh, dtype=torch.float64)
        half = torch.fft.rfftfreq(n_mesh, 1 / n_mesh, dtype=torch.float64)
        squares = waves[:, None, None] ** 2 + waves[:, None] ** 2 + half**2
        self.k_squared = ((2 * math.pi / problem.length) ** 2 * squares).to(self.dtype)
        sinc = torch.sinc(waves / n_mesh)
        moduli = sinc[:, None, None] * sinc[:, None] * torch.sinc(half / n_mesh)
        # Fourier transforms of torch are not scaled: once the number of mesh points
        self.factor = (moduli ** (-2 * order) / problem.length**3).to(self.dtype)
        self.table = self.screened(self.k_squared) * self.factor

    def potential(self, positions: Tensor, weights: Tensor, table: Tensor) -> Tensor:
        density = self.spline.spline_spread(
            positions, weights, self.cell, self.shape, self.order, cell_inv_t=self.inverse
        )
        return torch.fft.irfftn(torch.fft.rfftn(density) * table, s=self.shape, norm="forward")

    def convolve(self, positions: Tensor, weights: Tensor) -> Tensor:
        table = self.screened(self.k_squared) * self.factor if self.screened.amplitude.requires_grad else self.table
        columns = []
        for column in weights.unbind(1):
            mesh = self.potential(positions, column.contiguous(), table)
            columns.append(self.spline.spline_gather(positions, mesh, self.cell, self.order, cell_inv_t=self.inverse))
        return torch.stack(columns, dim=1) - self.problem.kernel_at_origin * weights


class NvalchemiFused(Nvalchemi):
    """The same by its fused gather of value and slope, without autograd: its way for dynamics, and its fastest."""

    jobs = ("field", "forces")

    def field(self) -> tuple[np.ndarray, ...]:
        return self.forces()[:1]

    def forces(self) -> tuple[np.ndarray, ...]:
        field, forces = self.field_and_forces()
        return field.numpy(), forces.numpy()

    def field_and_forces(self) -> tuple[Tensor, Tensor]:
        fields, forces = [], torch.zeros_like(self.fixed_positions)
        with torch.no_grad():
            for column in self.weights.T.contiguous():
                mesh = self.potential(self.fixed_positions, column, self.table)
                field, of_column = self.spline.spline_gather_with_force(
                    self.fixed_positions, column, mesh, self.cell, self.order, cell_inv_t=self.inverse
                )
                fields.append(field)
                forces += of_column
        return torch.stack(fields, dim=1) - self.problem.kernel_at_origin * self.weights, forces
