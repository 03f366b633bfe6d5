"""The unscreened Coulomb kernel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.kernels.multiplier import Multiplier, WaveNumbers, check_smearing
from lrc_ase.layer.truncation import truncated_coulomb

__all__ = ["Coulomb"]


class Coulomb(Multiplier):
    r"""Smeared Coulomb kernel, :math:`\hat\phi = 4\pi\, e^{-s^2k^2/2} / k^2`, in real space erf(r / (sqrt(2) s)) / r.

    No parameter is trainable. In periodic directions the sum diverges with the total charge. A convention for each
    boundary fixes the constant:

    - Three periodic directions: the wave k = 0 is dropped. This means conducting surroundings, and a uniform background
      that neutralizes a charged cell.
    - Slab: the layer average of the potential of a sheet is :math:`-2\pi |z|` per charge and area.
    - Wire: the average along the wire is :math:`-2\ln(\rho / 1\,\mathrm{Angstrom})` per charge and length, as against a
      return conductor at a distance of 1 Angstrom. The energy of a charged wire and its stress depend on this choice.
      Neutral wires, and energy differences at constant charge and length, do not.
    - No periodic direction: 1 / r, nothing dropped.
    """

    def __init__(self, n_channels: int = 1, *, smearing: float = 1.0) -> None:
        super().__init__()
        check_smearing(smearing)
        if n_channels < 1:
            raise ValueError(f"`n_channels` must be a positive whole number, got {n_channels}")
        self.n_channels = n_channels
        self.smearing = float(smearing)

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        # a harmless number in place of zero: 1 / 0 would give NaN derivatives, whatever `torch.where` selects
        zero = squared == 0
        safe = torch.where(zero, 1.0, squared)
        table = 4 * math.pi * torch.exp(-0.5 * self.smearing**2 * squared) / safe
        return self._every_channel(torch.where(zero, 0.0, table))

    def truncated(self, waves: WaveNumbers) -> Tensor:
        periodic, open_part, radius = waves.split()
        # in units of the truncation R, where 1 / k^2 is R^2 times a function of k R: it stays finite at k = 0
        factor = truncated_coulomb(waves.n_open, periodic * radius**2, open_part * radius**2, radius)
        table = 4 * math.pi * torch.exp(-0.5 * self.smearing**2 * waves.squared) * radius**2 * factor
        return self._every_channel(table)

    def radial(self, distances: Tensor) -> Tensor:
        values = 1 / distances
        if self.smearing > 0:
            values = values * torch.erf(distances / (math.sqrt(2) * self.smearing))
        return self._every_channel(values)

    def radial_slope(self, distances: Tensor, n: int) -> Tensor:
        # erf(z) / r differentiated, with z = r / (sqrt 2 s); -1 / r^3 without smearing
        scaled = distances / (math.sqrt(2) * self.smearing) if self.smearing > 0 else None
        falling = distances.reciprocal()
        if scaled is not None:
            gaussian = math.sqrt(2 / math.pi) / self.smearing * torch.exp(-scaled.square())
            falling = torch.erf(scaled) * falling - gaussian
        return (-falling / distances.square())[..., None].expand(*distances.shape, n)

    def keops_radial(self, squared: Any) -> Any:
        # the same for every channel, so KeOps broadcasts it
        return None if self.smearing > 0 else squared.rsqrt()

    def at_origin(self, dimension: int) -> Tensor:
        if dimension != 3 or self.smearing == 0:
            return super().at_origin(dimension)
        # the limit of `radial`: erf(z) = 2 z / sqrt(pi) for small z
        return torch.tensor(math.sqrt(2 / math.pi) / self.smearing, dtype=torch.float64).expand(self.n_channels)

    def _every_channel(self, values: Tensor) -> Tensor:
        return values[..., None].expand(*values.shape, self.n_channels)  # a view: nothing is copied
