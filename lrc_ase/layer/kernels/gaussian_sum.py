"""Sums of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrc_ase.layer.kernels.keops import lazy
from lrc_ase.layer.kernels.multiplier import Multiplier, check_smearing, rows_of_channels

__all__ = ["GaussianSum"]


class GaussianSum(Multiplier):
    r"""A sum of Gaussians per channel, :math:`\phi(r) = \sum_l a_l\, e^{-r^2 / 2\sigma_l^2}`, in any dimension.

    :math:`\hat\phi(k) = \sum_l a_l (2\pi\sigma_l^2)^{d/2} e^{-\sigma_l^2 k^2/2}`. With widths that grow geometrically
    such sums come close to any kernel that decays, inverse powers among them (SOG-Net: Ji, Liang and Xu,
    arXiv:2502.04668). Widths and amplitudes are trainable. The excess :math:`\sigma_l^2 - s^2` is stored as a
    logarithm. No Gaussian can thus become narrower than the smearing, from which the mesh follows.

    Parameters
    ----------
    widths
        Initial :math:`\sigma_l` in Angstrom, one row per channel, rows of equal length, all above `smearing`.
    amplitudes
        Initial :math:`a_l`, in rows as `widths`; ones by default.
    smearing
        Lower bound s of the widths in Angstrom, fixed.
    """

    radial_in_every_dimension = True
    accuracy_factor = 0.1

    def __init__(
        self,
        widths: Sequence[Sequence[float]],
        amplitudes: Sequence[Sequence[float]] | None = None,
        *,
        smearing: float = 1.0,
    ) -> None:
        super().__init__()
        check_smearing(smearing)
        widths = rows_of_channels("widths", widths)
        n_gaussians = len(widths[0]) if len(widths) else 0
        if n_gaussians == 0 or any(len(row) != n_gaussians for row in widths):
            raise ValueError(f"`widths` must hold one row per channel, all of the same length, got {widths}")
        # strictly above: the logarithm of the excess must be finite
        if not all(smearing < width < math.inf for row in widths for width in row):
            raise ValueError(f"`widths` must all be finite and above `smearing` ({smearing}), got {widths}")
        if amplitudes is None:
            amplitudes = [[1.0] * n_gaussians] * len(widths)
        amplitudes = rows_of_channels("amplitudes", amplitudes)
        if [len(row) for row in amplitudes] != [n_gaussians] * len(widths):
            raise ValueError(f"`amplitudes` must have {len(widths)} rows of {n_gaussians}, got {amplitudes}")
        self.n_channels = len(widths)
        self.smearing = float(smearing)
        excess = torch.tensor(widths, dtype=torch.float64) ** 2 - smearing**2
        self.log_excess = nn.Parameter(excess.log())
        self.amplitudes = nn.Parameter(torch.tensor(amplitudes, dtype=torch.float64))

    @property
    def widths(self) -> Tensor:
        r"""Return :math:`\sigma_l`, Angstrom, (n_channels, n_gaussians)."""
        return self._variances.sqrt()

    @property
    def _variances(self) -> Tensor:
        return self.log_excess.exp() + self.smearing**2

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        volumes = self.amplitudes * (2 * math.pi * self._variances) ** (dimension / 2)  # (n_channels, n_gaussians)
        # the transform of exp(-r^2 / 2 sigma^2) is (2 pi sigma^2)^(d/2) exp(-sigma^2 k^2 / 2)
        table = squared.new_zeros(*squared.shape, self.n_channels).to(volumes)
        # one Gaussian after the other: all at once would take n_gaussians meshes of memory
        for width, amplitude in zip(self._variances.T, volumes.T, strict=True):
            table = table + amplitude * torch.exp(-0.5 * width * squared[..., None])
        return table

    def radial(self, distances: Tensor) -> Tensor:
        exponents = -0.5 * distances[..., None, None] ** 2 / self._variances  # (*distances, n_channels, n_gaussians)
        return (self.amplitudes * torch.exp(exponents)).sum(dim=-1)

    def keops_radial(self, squared: Any) -> Any:
        kernel = None  # a sum of formulas, which KeOps fuses: LazyTensors have no axis for the Gaussians
        for width, amplitude in zip(self._variances.T, self.amplitudes.T, strict=True):
            term = lazy(amplitude, squared) * (lazy(-0.5 / width, squared) * squared).exp()
            kernel = term if kernel is None else kernel + term
        return kernel

    def at_origin(self, dimension: int) -> Tensor:
        return self.amplitudes.sum(dim=-1)
