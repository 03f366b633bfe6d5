"""A free radial function, for kernels that nobody has named."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrc_ase.layer.kernels.multiplier import Multiplier, check_smearing, rows_of_channels
from lrc_ase.layer.quadrature import composite_rule, radial_wave

__all__ = ["RadialSpline"]


class RadialSpline(Multiplier):
    r"""A cubic spline in the wave number, :math:`\hat\phi(k) = e^{-s^2k^2/2} \sum_j c_j B(k/h - j)`, per channel.

    B is the cardinal cubic B-spline, with j = 0 ... n - 1 and knots at a distance of h = k_max / (n + 1). The
    coefficients continue evenly to negative k. The kernel is twice continuously differentiable everywhere, and zero
    from k_max on. In real space it covers scales from 1 / k_max to about pi / h; choose n = k_max * range / pi for a
    given range. The table of coefficients is trainable. Values in real space come from quadrature between the knots.

    Parameters
    ----------
    coefficients
        Initial c, one row per channel, four or more in each; Angstrom^d times the unit of the field.
    smearing
        Width s of the Gaussian in Angstrom, positive, fixed.
    k_max
        End of the spline in 1/Angstrom; by default 6 / s, where the Gaussian is 1.5e-8.
    """

    accuracy_factor = 0.1

    def __init__(
        self, coefficients: Sequence[Sequence[float]], *, smearing: float = 1.0, k_max: float | None = None
    ) -> None:
        super().__init__()
        check_smearing(smearing)
        if smearing == 0:
            raise ValueError("`smearing` must be positive for a free radial function")
        coefficients = rows_of_channels("coefficients", coefficients)
        lengths = {len(row) for row in coefficients}
        if len(lengths) != 1 or min(lengths) < 4:
            raise ValueError(
                f"`coefficients` must hold one row per channel, rows of the same length, 4 or more, got "
                f"{[len(row) for row in coefficients]}"
            )
        k_max = 6 / smearing if k_max is None else k_max
        if not 0 < k_max < math.inf:
            raise ValueError(f"`k_max` must be a positive wave number in 1/Angstrom, got {k_max}")
        self.smearing, self.k_max = float(smearing), float(k_max)
        self.coefficients = nn.Parameter(torch.tensor(coefficients, dtype=torch.float64))
        self.n_channels, self.n_coefficients = self.coefficients.shape
        self.knot_spacing = self.k_max / (self.n_coefficients + 1)
        self.breakpoints = tuple(self.knot_spacing * index for index in range(1, self.n_coefficients + 2))

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        zero = squared == 0
        # the root's derivative is infinite at zero, where an even function has none
        k = torch.where(zero, 0.0, torch.where(zero, 1.0, squared).sqrt())
        scaled = k / self.knot_spacing
        # detached: within an interval the spline is a polynomial in t, and its derivative is by t alone
        interval = scaled.detach().floor().clamp(max=self.n_coefficients + 1)
        t = scaled - interval
        first = interval.to(torch.int64)
        zeros = self.coefficients.new_zeros(4, self.n_channels)
        rows = torch.cat([self.coefficients.T[1:2], self.coefficients.T, zeros])  # even at k = 0, then zero
        # interval i lies under the B-splines of the knots i - 1 to i + 2: rows i to i + 3
        basis = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (1 + 3 * (t + t**2 - t**3)) / 6, t**3 / 6)
        inside = (k < self.k_max)[..., None]
        spline = sum(torch.where(inside, part[..., None], 0.0) * rows[first + j] for j, part in enumerate(basis))
        return torch.exp(-0.5 * self.smearing**2 * squared[..., None]) * spline

    def radial(self, distances: Tensor) -> Tensor:
        flat = distances.reshape(-1)
        farthest = float(flat.detach().max()) if len(flat) else 0.0
        # panels end at the knots, where third derivatives jump, and turn with the longest distance
        k, measure = composite_rule((0.0, *self.breakpoints), farthest, like=flat)
        density = self.fourier(k**2, 3) * (measure * k**2 / (2 * math.pi**2))[:, None]
        rows = max(1, _LARGEST_BLOCK // len(k))  # distances per block, to bound the memory
        parts = [radial_wave(3, (block[:, None] * k) ** 2) @ density for block in flat.split(rows)]
        values = torch.cat(parts) if parts else density.new_zeros(0, self.n_channels)
        return values.reshape(*distances.shape, self.n_channels)

    def at_origin(self, dimension: int) -> Tensor:
        k, measure = composite_rule((0.0, *self.breakpoints), 0.0, like=self.coefficients)
        # phi(0) = (2 pi)^-d times the integral of the transform over all waves, shell by shell
        surface = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}[dimension]
        weights = surface * measure * k ** (dimension - 1) / (2 * math.pi) ** dimension
        return (self.fourier(k**2, dimension) * weights[:, None]).sum(dim=0)


_LARGEST_BLOCK = 4_000_000
"""Distances times quadrature points evaluated at once."""
