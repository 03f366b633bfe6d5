r"""Forces of many points by a split of the smoothed kernel: near pairs in real space, the rest wave by wave.

.. math:: \psi_\sigma = e^{\mu^2\sigma^2/2} \Big[\int_{\sigma^2/2}^{\eta} + \int_{\eta}^{\infty}\Big]\; dt

(`lrc_ase.potentials.heat`). The early part falls like a Gaussian and is read off a table; the late part has few waves,
whose structure factors are products along the axes, so that a snapshot costs some milliseconds.
`lrc_ase.potentials.pairs` is the check: the same forces, pair by pair.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from lrc_ase.potentials.heat import gaussian_integral, late_fourier
from lrc_ase.potentials.kernels import Array, Kernel, Mixture
from lrc_ase.potentials.lattice import as_cell

__all__ = ["SplitForces"]

_DROPPED = 34.0  # e^-34 = 2e-15 of the kernel is left out in either space
_PAIRS_REACH = 3.0  # Angstrom; about where near pairs and waves cost the same at two points per unit area
_NODES = 6000
_NEAREST = 1e-4  # Angstrom, the table's first distance


class SplitForces:
    r"""Forces :math:`F_j = -\partial_{x_j} \sum_{i<j} G_\sigma(x_i - x_j)` on a rectangular torus, as `pair_sums` has.

    Parameters
    ----------
    lengths : (d,) sides in Angstrom.
    kernel : screened Coulomb kernels, for which the smoothing has a closed form.
    smoothing : standard deviation of the Gaussian in Angstrom, at least 1e-3.

    Raises ValueError for another kernel, a smoothing that is too small and a malformed box.

    >>> from lrc_ase.potentials.kernels import ScreenedCoulomb
    >>> SplitForces([4.0], ScreenedCoulomb(mu=1.0), smoothing=0.01)([[0.0], [1.0]]).round(4).tolist()
    [[-0.162], [0.162]]
    """

    def __init__(self, lengths: list[float], kernel: Kernel | Mixture, *, smoothing: float) -> None:
        self.lengths = np.diag(as_cell(lengths))
        dimension = len(self.lengths)
        if not smoothing >= 10 * _NEAREST:
            raise ValueError(f"`smoothing` must be at least {10 * _NEAREST:g} Angstrom, got {smoothing!r}")
        for _, term in kernel.terms:
            if term.fourier_form(dimension)[1] != 1.0:
                raise ValueError(f"`kernel` must be made of screened Coulomb kernels, got {term!r}")
        self.reach = min(_PAIRS_REACH, 0.499 * self.lengths.min())
        early, late = 0.5 * smoothing**2, max(self.reach**2 / (4.0 * _DROPPED), 0.5 * smoothing**2)
        scales = [(weight * math.exp(term.mu**2 * early), term) for weight, term in kernel.terms]
        distances = np.geomspace(_NEAREST, self.reach, _NODES)
        slopes = sum(
            scale * gaussian_integral(term, distances, dimension, lower=early, upper=late)[1] for scale, term in scales
        )
        self._slope_over_distance = CubicSpline(np.log(distances), slopes)
        counts = np.ceil(math.sqrt(_DROPPED / late) * self.lengths / (2.0 * math.pi)).astype(int)
        self._waves = [
            2.0 * math.pi / length * np.arange(-count, count + 1)
            for count, length in zip(counts, self.lengths, strict=True)
        ]
        squared = np.add.reduce(np.meshgrid(*(waves**2 for waves in self._waves), indexing="ij"))
        transform = sum(scale * late_fourier(term, squared, dimension, late)[0] for scale, term in scales)
        self._transform = np.asarray(transform) / np.prod(self.lengths)

    def __call__(self, positions: Array | list[list[float]]) -> Array:
        """Compute the forces (n_points, d) in eV/Angstrom at `positions` (n_points, d) in Angstrom."""
        positions = np.asarray(positions, dtype=float)
        return self._near(positions) + self._far(positions)

    def _near(self, positions: Array) -> Array:
        wrapped = np.minimum(positions % self.lengths, np.nextafter(self.lengths, 0.0))
        i, j = cKDTree(wrapped, boxsize=self.lengths).query_pairs(self.reach, output_type="ndarray").T
        vectors = wrapped[i] - wrapped[j]
        vectors -= self.lengths * np.round(vectors / self.lengths)
        distance = np.maximum(np.sqrt(np.einsum("na,na->n", vectors, vectors)), _NEAREST)
        gradient = self._slope_over_distance(np.log(distance))[:, None] * vectors
        n_points = len(positions)
        columns = [np.bincount(j, column, n_points) - np.bincount(i, column, n_points) for column in gradient.T]
        return np.stack(columns, axis=1)

    def _far(self, positions: Array) -> Array:
        phases = [np.exp(1j * np.outer(x, waves)) for x, waves in zip(positions.T, self._waves, strict=True)]
        axes = "abc"[: len(phases)]
        each = ",".join(f"j{axis}" for axis in axes)
        structure = np.einsum(f"{each}->{axes}", *phases, optimize=True).conj()  # sum_j exp(-ik.x_j)
        forces = np.empty_like(positions)
        for axis, waves in enumerate(self._waves):
            shape = [1] * len(phases)
            shape[axis] = -1
            slope = 1j * waves.reshape(shape) * self._transform * structure
            # the energy is half of sum_k T |S|^2, whose derivative has both factors
            forces[:, axis] = -np.einsum(f"{each},{axes}->j", *phases, slope, optimize=True).real
        return forces
