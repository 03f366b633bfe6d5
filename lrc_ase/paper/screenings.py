r"""Search for the screenings of the two channels, before any network is trained.

Only the layer acts beyond the cutoff, and only its :math:`\lambda` is not linear. With polynomials of :math:`\log r`
instead of the descriptor the forces are

.. math:: F_j = \sum_{i,\, r_{ij} < R} \sum_a c_a T_a(\log r_{ij})\, n_{ij} - \partial_{x_j} \sum_b c_b U_{\lambda_b}

with Chebyshev polynomials T and the energies U of the channels. After solving for c, this is a least-squares problem in
two unknowns. The result depends neither on half-trained networks nor on a random start: minimizations start from each
value of a grid with its best partner, and the best minimum is returned.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from lrc_ase.paper.columns import ForceColumns
from lrc_ase.paper.model import exact_convolution
from lrc_ase.paper.problems import Snapshots

__all__ = ["GRID", "find_screenings"]

GRID = tuple(float(value) for value in np.geomspace(0.05, 50.0, 14))
r"""Starting values of :math:`\lambda` in every experiment, 1/Angstrom; the ends are its bounds."""
_N_POLYNOMIALS = 40
_DAMPING = 1e-11
"""Damping of coefficients, for columns of order one: coefficients that the data do not determine stay small."""


@torch.no_grad()
def find_screenings(snapshots: Snapshots, *, highest: float) -> tuple[float, float]:
    """Return the screenings that fit the forces best with all waves below `highest`, 1/Angstrom, the larger first."""
    residual = _Residual(snapshots, highest)
    logs = np.log(GRID)
    # the best partner of each: the best pairs of all are neighbors of one another
    starts = [
        min((np.array([one, other]) for other in logs[:n]), key=lambda pair: float(np.linalg.norm(residual(pair))))
        for n, one in enumerate(logs)
        if n > 0
    ]
    bounds = (math.log(GRID[0]), math.log(GRID[-1]))
    inside = (bounds[0] + 1e-3, bounds[1] - 1e-3)  # strictly, as the solver wants it
    accuracy = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
    fits = [least_squares(residual, np.clip(x, *inside), bounds=bounds, max_nfev=60, **accuracy) for x in starts]
    smaller, larger = sorted(np.exp(min(fits, key=lambda fit: float(fit.cost)).x))
    return float(larger), float(smaller)


class _Residual:
    """Residual forces as a function of the logarithms of the screenings, with all linear coefficients fitted."""

    def __init__(self, snapshots: Snapshots, highest: float) -> None:
        self.problem, self.highest = snapshots.problem, highest
        n_modes = exact_convolution(self.problem, highest).mesh_shape
        assert n_modes is not None
        columns = ForceColumns(snapshots, n_modes=n_modes[0], scale=snapshots.force_scale)
        polynomials = _polynomial_forces(columns, self.problem.cutoff)
        damping = _DAMPING * math.sqrt(len(polynomials)) * torch.eye(_N_POLYNOMIALS, dtype=polynomials.dtype)
        basis = torch.linalg.qr(torch.cat([polynomials, damping])).Q[: len(polynomials)]
        self.k_squared = columns.k_squared
        # what polynomials cannot give, (n_points * d,) and (n_points * d, n_shells)
        self.target = columns.target - basis @ (basis.T @ columns.target)
        self.wave_forces = columns.wave_forces - basis @ (basis.T @ columns.wave_forces)

    def __call__(self, log_screenings: np.ndarray) -> np.ndarray:
        convolution = exact_convolution(self.problem, self.highest, screening=tuple(np.exp(log_screenings)))
        channels = self.wave_forces @ convolution.multiplier.fourier(self.k_squared, self.problem.dimension)
        channels = channels / channels.norm(dim=0)
        damped = torch.cat([channels, _DAMPING * torch.eye(2, dtype=channels.dtype)])
        target = torch.cat([self.target, self.target.new_zeros(2)])
        coefficients = torch.linalg.lstsq(damped, target[:, None]).solution[:, 0]
        return ((channels @ coefficients - self.target) / math.sqrt(len(self.target))).numpy()


def _polynomial_forces(columns: ForceColumns, cutoff: float) -> Tensor:
    """Compute the forces of each polynomial between all pairs, (n_points * d, n_polynomials)."""
    distance = columns.vectors.norm(dim=1, keepdim=True)
    nearest = float(distance.min())
    argument = 2 * torch.log(distance / nearest) / math.log(cutoff / nearest) - 1
    orders = torch.arange(_N_POLYNOMIALS, dtype=distance.dtype)
    values = torch.cos(orders * torch.acos(argument.clamp(-1, 1)))  # (n_pairs, n_polynomials)
    zeros = values.new_zeros(columns.n_points, _N_POLYNOMIALS)
    directions = (columns.vectors / distance).T[..., None]
    forces = [
        zeros.index_add(0, columns.second, values * direction).index_add(0, columns.first, -values * direction)
        for direction in directions
    ]
    return torch.stack(forces, dim=1).flatten(0, 1)
