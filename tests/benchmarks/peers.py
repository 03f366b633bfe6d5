"""The programs compared, each behind the same four jobs of `problem`.

`make_peer(name, problem)` makes everything that stays the same from step to step (plans, tables, contexts); its methods
`field`, `forces`, `gradient` and `training`, where it has them, take positions as they come and return numpy arrays.
Window, mesh and tolerances are those that `calibrate.py` found cheapest for the accuracy asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import torch
from direct_sums import DenseSum, KeopsSum, LayerSum
from nufft_peers import Ducc0, Finufft, NufftJobs
from problem import JOBS, SCREENING, SMEARING, Problem, relative_error
from torch import Tensor

from lrc_ase import Coulomb, LongRangeConvolution, Yukawa
from lrc_ase.layer.tables import MultiplierTables

__all__ = ["MAKERS", "SETTINGS", "errors_of", "jobs_of", "make_peer"]

ARRAYS = {
    "field": ("u",),
    "forces": ("u", "forces"),
    "gradient": ("u", "gradient"),
    "training": ("by weights", "by parameters"),
}
COULOMB_CONSTANT = 138.935456
"""OpenMM's, kJ/mol nm."""

SETTINGS: dict[str, dict[float, dict[str, Any]]] = {
    "lrc-ase": {1e-4: {"accuracy": 1e-3}, 1e-6: {"accuracy": 1e-5}},
    "torch-pme": {1e-4: {"nodes": 5, "spacing": 0.79}, 1e-6: {"nodes": 5, "spacing": 0.395}},
    "nvalchemi": {1e-4: {"order": 5, "spacing": 0.7}, 1e-6: {"order": 6, "spacing": 0.4}},
    "finufft": {1e-4: {"spacing": 0.91, "tolerance": 3e-4}, 1e-6: {"spacing": 0.68, "tolerance": 1e-5}},
    "ducc0": {1e-4: {"spacing": 0.91, "tolerance": 3e-4}, 1e-6: {"spacing": 0.68, "tolerance": 1e-5}},
    "openmm": {1e-4: {"spacing": 0.7}},
}
"""By accuracy of u: mesh spacing in Angstrom, points of the window, tolerance of a nonuniform FFT.

torch-pme makes a power of two of the mesh; the next finer one would cost eight times the FFT, so at half of all sizes
its error is up to 3 times the one asked for, in its favor.
"""


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
        fields, forces = [], torch.zeros_like(self.fixed_positions)
        with torch.no_grad():
            for column in self.weights.T.contiguous():
                mesh = self.potential(self.fixed_positions, column, self.table)
                field, own = self.spline.spline_gather_with_force(
                    self.fixed_positions, column, mesh, self.cell, self.order, cell_inv_t=self.inverse
                )
                fields.append(field)
                forces += own
        field = torch.stack(fields, dim=1) - self.problem.kernel_at_origin * self.weights
        return field.numpy(), forces.numpy()


class OpenMM:
    """The reciprocal part of OpenMM's PME on its CPU platform: float32, order 5, Coulomb alone.

    Positions are handed over once, outside of the time; results stay in OpenMM's own arrays while timed.
    """

    jobs = ("forces",)

    def __init__(self, problem: Problem, spacing: float) -> None:
        import openmm

        if problem.screening != 0 or problem.n_channels != 1 or problem.precision != "float32":
            raise ValueError(f"OpenMM sums Coulomb interactions of one channel in float32, got {problem}")
        system, force = openmm.System(), openmm.NonbondedForce()
        edge = problem.length / 10  # nm
        system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
        for weight in problem.weights[:, 0]:
            system.addParticle(1.0)
            force.addParticle(float(weight), 0.1, 0.0)
        n_mesh = scipy.fft.next_fast_len(math.ceil(problem.length / spacing), real=True)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(0.3)  # the pair part, of another group, is never computed
        force.setPMEParameters(10 / (math.sqrt(2) * SMEARING), n_mesh, n_mesh, n_mesh)
        force.setReciprocalSpaceForceGroup(1)
        system.addForce(force)
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), platform, {"Threads": str(problem.threads)}
        )
        self.context.setPositions(problem.positions / 10)

    def forces(self) -> Any:
        return self.context.getState(energy=True, forces=True, groups={1})

    @staticmethod
    def arrays(state: Any) -> tuple[np.ndarray | None, ...]:
        """No field, and forces per squared Angstrom from kJ/mol/nm."""
        import openmm

        unit = openmm.unit.kilojoule_per_mole / openmm.unit.nanometer
        return None, state.getForces(asNumpy=True).value_in_unit(unit) / (100 * COULOMB_CONSTANT)


def arrays(peer: Any, result: Any) -> tuple[np.ndarray | None, ...]:
    """What a job gave, as arrays; outside of the time."""
    return peer.arrays(result) if hasattr(peer, "arrays") else result


def jobs_of(name: str) -> tuple[str, ...]:
    """Jobs that a program can do."""
    if name.endswith(" packed"):
        return JOBS[:3]  # its training step would be that of the plain way
    return getattr(MAKERS[name], "jobs", JOBS)


def _nufft(library: type[Finufft] | type[Ducc0], *, packed: bool) -> Callable[..., NufftJobs]:
    def make(problem: Problem, spacing: float, tolerance: float) -> NufftJobs:
        # odd, so that every wave has its opposite
        n_modes = 2 * math.ceil((problem.length / spacing - 1) / 2) + 1
        transforms = library(n_modes, problem.length, tolerance, problem.precision, problem.threads)
        return NufftJobs(problem, transforms, n_modes, packed=packed)

    return make


MAKERS: dict[str, Callable[..., Any]] = {
    "lrc-ase": Layer,
    "torch-pme": TorchPme,
    "nvalchemi": Nvalchemi,
    "nvalchemi fused": NvalchemiFused,
    "finufft": _nufft(Finufft, packed=False),
    "finufft packed": _nufft(Finufft, packed=True),
    "ducc0": _nufft(Ducc0, packed=False),
    "ducc0 packed": _nufft(Ducc0, packed=True),
    "openmm": OpenMM,
    "direct torch": DenseSum,
    "direct KeOps": KeopsSum,
    "direct lrc-ase": LayerSum,
}


def make_peer(name: str, problem: Problem, **settings: Any) -> Any:
    """A program made ready for a problem; settings replace those of `SETTINGS`."""
    known = SETTINGS.get(name.split()[0], {}).get(problem.accuracy, {})
    return MAKERS[name](problem, **(known | settings))


def errors_of(peer: Any, job: str, exact: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative l2 error of each array that a job gives, by its name in `ARRAYS`."""
    found = arrays(peer, getattr(peer, job)())
    return {
        name: relative_error(array, exact[f"{job}_{slot}"])
        for slot, (name, array) in enumerate(zip(ARRAYS[job], found, strict=True))
        if array is not None
    }
