r"""The convolution by nonuniform FFTs: finufft and ducc0, and the exact answers from ducc0 at twelve digits.

With rho = type 1 of f, a table T of the multiplier over the volume, and type 2 back to the atoms, u = [T rho] and its
gradient [i k T rho] are four transforms back, batched in one plan. These libraries transform complex numbers, so
`packed` puts two real fields into each transform (u + i d_x u, d_y u + i d_z u; two channels; f + i c): what a careful
author would write on top of them, where the plain way is what their documentation shows.
"""

from __future__ import annotations

from typing import Any, Protocol

import ducc0
import finufft
import numpy as np
import torch
from problem import Problem

__all__ = ["Ducc0", "Finufft", "NufftJobs"]


class Transforms(Protocol):
    """Sums over points and over waves -(n - 1)/2 ... (n - 1)/2 per direction, stored as FFTs do, zero first."""

    def set_points(self, positions: np.ndarray) -> None: ...

    def to_waves(self, strengths: np.ndarray) -> np.ndarray:
        """(n, n_atoms) -> (n, n_modes, n_modes, n_modes), sum of f exp(-ikx)."""
        ...

    def to_points(self, waves: np.ndarray) -> np.ndarray:
        """The sum over waves exp(+ikx), (n, n_modes, n_modes, n_modes) -> (n, n_atoms)."""
        ...


class Finufft:
    """Plans are kept; new positions are sorted anew by every plan, as in dynamics."""

    def __init__(self, n_modes: int, length: float, accuracy: float, precision: str, threads: int) -> None:
        self.n_modes, self.scale = n_modes, 2 * np.pi / length
        self.options = {"eps": accuracy, "dtype": _complex(precision), "nthreads": threads, "modeord": 1}
        self.plans: dict[tuple[int, int], finufft.Plan] = {}

    def set_points(self, positions: np.ndarray) -> None:
        self.points = [np.ascontiguousarray(column) for column in (positions * positions.dtype.type(self.scale)).T]
        self.sorted: set[tuple[int, int]] = set()

    def to_waves(self, strengths: np.ndarray) -> np.ndarray:
        return self._execute(1, strengths)

    def to_points(self, waves: np.ndarray) -> np.ndarray:
        return self._execute(2, waves)

    def _execute(self, kind: int, values: np.ndarray) -> np.ndarray:
        key = (kind, len(values))
        if key not in self.plans:
            sign = -1 if kind == 1 else 1
            self.plans[key] = finufft.Plan(kind, (self.n_modes,) * 3, len(values), isign=sign, **self.options)
        plan = self.plans[key]
        if key not in self.sorted:
            plan.setpts(*self.points)
            self.sorted.add(key)
        found = plan.execute(values)
        return found.reshape(len(values), *found.shape[-3:] if kind == 1 else found.shape[-1:])


class Ducc0:
    """One plan per configuration of the points serves both directions."""

    def __init__(self, n_modes: int, length: float, accuracy: float, precision: str, threads: int) -> None:
        self.n_modes, self.dtype = n_modes, _complex(precision)
        self.options: dict[str, Any] = {"epsilon": accuracy, "nthreads": threads, "periodicity": length}

    def set_points(self, positions: np.ndarray) -> None:
        shape = (self.n_modes,) * 3
        self.plan = ducc0.nufft.plan(nu2u=False, coord=positions, grid_shape=shape, fft_order=True, **self.options)

    def to_waves(self, strengths: np.ndarray) -> np.ndarray:
        out = np.empty((len(strengths), *(self.n_modes,) * 3), self.dtype)
        for own, strength in zip(out, strengths, strict=True):
            self.plan.nu2u(forward=True, points=strength, out=own)
        return out

    def to_points(self, waves: np.ndarray) -> np.ndarray:
        return np.stack([self.plan.u2nu(forward=False, grid=wave) for wave in waves])


class NufftJobs:
    """The jobs of the comparison on top of a pair of transforms.

    Positions are the same at every call here, but not in dynamics: points are set, and sorted, anew each time.
    """

    def __init__(self, problem: Problem, transforms: Transforms, n_modes: int, *, packed: bool = False) -> None:
        self.problem, self.transforms, self.dtype = problem, transforms, _complex(problem.precision)
        self.pairs_channels = packed and problem.n_channels % 2 == 0
        self.pairs_slopes = packed and problem.n_channels == 1
        self.pairs_cotangent = packed
        k = 2 * np.pi / problem.length * np.fft.fftfreq(n_modes, 1 / n_modes)
        x, y, z = k[:, None, None], k[:, None], k
        k_squared = x**2 + y**2 + z**2
        table = problem.multiplier(k_squared)
        self.tables = self._complex_tables(table, [1, 1j * x, 1j * y, 1j * z])
        self.paired_tables = self._complex_tables(table, [1 - x, 1j * y - z]) if self.pairs_slopes else None
        # d log T / d log(lambda)
        self.by_screening = torch.from_numpy(
            -2 * problem.screening**2 / (k_squared + max(problem.screening, 1e-9) ** 2)
        )

    def field(self) -> tuple[np.ndarray, ...]:
        self.transforms.set_points(self.problem.positions)
        return (self._without_self(self._channels(self._convolve(self._strengths(), self.tables[:1])[:, 0])),)

    def forces(self) -> tuple[np.ndarray, ...]:
        weights = self.problem.weights
        self.transforms.set_points(self.problem.positions)
        if self.paired_tables is not None:
            first, second = self._convolve(self._strengths(), self.paired_tables)[0]
            forces = -weights * np.stack([first.imag, second.real, second.imag], axis=1)
            return self._without_self(first.real[:, None]), forces
        found = self._convolve(self._strengths(), self.tables)
        columns = [-(weights * self._channels(found[:, axis])).sum(axis=1) for axis in (1, 2, 3)]
        return self._without_self(self._channels(found[:, 0])), np.stack(columns, axis=1)

    def gradient(self) -> tuple[np.ndarray, ...]:
        weights, cotangent = self.problem.weights.T, self.problem.cotangent.T  # (n_channels, n_atoms)
        self.transforms.set_points(self.problem.positions)
        if self.pairs_cotangent:
            found = self._convolve((weights + 1j * cotangent).astype(self.dtype, order="C"), self.tables)
            field, slopes = found[:, 0].real, found[:, 1:].real
            cotangent_slopes = found[:, 1:].imag
        else:
            waves = self._waves(np.concatenate([weights, cotangent]).astype(self.dtype, order="C"))
            spectra = torch.cat(
                [(waves[:, None] * self.tables[1:]).flatten(0, 1), waves[: len(weights)] * self.tables[0]]
            )
            found = self.transforms.to_points(spectra.numpy()).real
            slopes, cotangent_slopes = found[: 6 * len(weights)].reshape(2, len(weights), 3, -1)
            field = found[6 * len(weights) :]
        gradient = (cotangent[:, None] * slopes + weights[:, None] * cotangent_slopes).sum(axis=0)
        return self._without_self(field.T), gradient.T

    def training(self) -> tuple[np.ndarray, ...]:
        r"""By hand: with g = 2 (F - F_target), p = f g, the loss changes as :math:`-\sum_j p_j\cdot\nabla u_j`.

        Its gradient by f is :math:`-g\cdot\nabla u - v` with :math:`\hat v = -T\, ik\cdot\hat p`, that by a parameter
        of the table :math:`-\sum_k (\partial \log T)\, \overline{\hat v}\, \hat f`.
        """
        weights = self.problem.weights.T
        self.transforms.set_points(self.problem.positions)
        waves = self._waves(weights.astype(self.dtype, order="C"))
        spectra = (waves[:, None] * self.tables[1:]).flatten(0, 1)
        slopes = self.transforms.to_points(spectra.numpy()).real.reshape(len(weights), 3, -1)
        pull = -2 * ((weights[:, None] * slopes).sum(axis=0) + self.problem.force_targets.T)  # g, (3, n_atoms)
        dipoles = self._waves((weights[:, None] * pull).reshape(-1, pull.shape[1]).astype(self.dtype, order="C"))
        spread = -(dipoles.unflatten(0, (-1, 3)) * self.tables[1:]).sum(dim=1)
        by_weights = -(pull * slopes).sum(axis=1) - self.transforms.to_points(spread.numpy()).real
        by_table = -(spread.conj() * waves).real.sum(dim=0)
        return by_weights.T, np.array([float(by_table.sum()), float((by_table * self.by_screening).sum())])

    def _complex_tables(self, table: np.ndarray, factors: list) -> torch.Tensor:
        return torch.from_numpy(np.stack([(factor * table).astype(self.dtype) for factor in factors]))

    def _strengths(self) -> np.ndarray:
        """Weights as complex numbers, (n_transforms, n_atoms)."""
        weights = self.problem.weights
        if self.pairs_channels:
            return (weights[:, ::2] + 1j * weights[:, 1::2]).T.astype(self.dtype, order="C")
        return weights.T.astype(self.dtype, order="C")

    def _channels(self, values: np.ndarray) -> np.ndarray:
        """Back from (n_transforms, n_atoms) to real (n_atoms, n_channels)."""
        if self.pairs_channels:
            return np.stack([values.real, values.imag], axis=1).reshape(self.problem.n_channels, -1).T
        return values.real.T

    def _waves(self, strengths: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.transforms.to_waves(strengths))

    def _convolve(self, strengths: np.ndarray, tables: torch.Tensor) -> np.ndarray:
        """(n_transforms, n_atoms) -> (n_transforms, n_tables, n_atoms)."""
        spectra = (self._waves(strengths)[:, None] * tables).flatten(0, 1)
        return self.transforms.to_points(spectra.numpy()).reshape(len(strengths), len(tables), -1)

    def _without_self(self, field: np.ndarray) -> np.ndarray:
        return field - self.problem.kernel_at_origin * self.problem.weights


def _complex(precision: str) -> str:
    return "complex64" if precision == "float32" else "complex128"
