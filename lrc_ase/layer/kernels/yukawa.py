"""The screened Coulomb kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrc_ase.layer.kernels.keops import lazy
from lrc_ase.layer.kernels.multiplier import Multiplier, WaveNumbers, check_smearing, positive_numbers, same_length
from lrc_ase.layer.special import exponential_integral
from lrc_ase.layer.truncation import truncated_yukawa

__all__ = ["Yukawa"]


class Yukawa(Multiplier):
    r"""Smeared screened Coulomb kernel, :math:`\hat\phi = 4\pi\beta\, e^{-s^2k^2/2} / (k^2 + \lambda^2)`.

    With s = 0 the paper's eq. 23. In real space (d = 3), with :math:`w_\pm = (\lambda s \pm r / s)/\sqrt 2`,

    .. math:: \phi(r) = \frac{\beta}{2r} e^{\lambda^2 s^2/2}
              \left[e^{-\lambda r}\,\mathrm{erfc}\,w_- - e^{\lambda r}\,\mathrm{erfc}\,w_+\right].

    At the origin, with :math:`z = \lambda s/\sqrt 2`: :math:`\beta[\sqrt{2/\pi}/s - \lambda\,\mathrm{erfcx}\,z]` in
    three dimensions, :math:`\beta e^{z^2} E_1(z^2)` in two, :math:`(2\pi\beta/\lambda)\,\mathrm{erfcx}\,z` in one.

    Parameters
    ----------
    screening
        Initial :math:`\lambda` of each channel, 1/Angstrom, all positive. Trainable.
    amplitude
        Initial :math:`\beta` of each channel, 1 for all by default. Trainable, of either sign.
    smearing
        Width s of the Gaussian in Angstrom, fixed.
    """

    def __init__(
        self, screening: Sequence[float], amplitude: Sequence[float] | None = None, *, smearing: float = 1.0
    ) -> None:
        super().__init__()
        remedy = "; for an unscreened kernel use Coulomb"
        # the logarithm is trained: a step of the optimizer cannot make a screening negative
        self.log_screening = nn.Parameter(positive_numbers("screening", screening, remedy).log())
        self.n_channels = len(screening)
        self.amplitude = nn.Parameter(same_length("amplitude", amplitude, "screening", self.n_channels))
        check_smearing(smearing)
        self.smearing = float(smearing)

    @property
    def screening(self) -> Tensor:
        r"""Return :math:`\lambda` of each channel, 1/Angstrom."""
        return self.log_screening.exp()

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        squared = squared[..., None]
        smeared = torch.exp(-0.5 * self.smearing**2 * squared)
        return 4 * math.pi * self.amplitude * smeared / (squared + self.screening**2)

    def truncated(self, waves: WaveNumbers) -> Tensor:
        periodic, open_part, radius = (part[..., None] for part in waves.split())
        smeared = torch.exp(-0.5 * self.smearing**2 * waves.squared[..., None])
        # `truncated_yukawa` works with lengths in units of the truncation R
        screened = (periodic + self.screening**2) * radius**2
        factor = truncated_yukawa(waves.n_open, screened, open_part * radius**2)
        return 4 * math.pi * self.amplitude * smeared * radius**2 * factor

    def radial(self, distances: Tensor) -> Tensor:
        r = distances[..., None]
        if self.smearing == 0:
            return self.amplitude * torch.exp(-self.screening * r) / r
        # exp(lambda r) erfc(w+) is infinity times zero for large r; exp(-r^2 / 2 s^2) erfcx(w+) is the same and finite
        scaled, damping = r / self.smearing, self.screening * self.smearing
        outward = torch.exp(0.5 * damping**2 - self.screening * r) * torch.erfc((damping - scaled) / math.sqrt(2))
        inward = torch.exp(-0.5 * scaled**2) * torch.special.erfcx((damping + scaled) / math.sqrt(2))
        return self.amplitude * (outward - inward) / (2 * r)

    def radial_slope(self, distances: Tensor, n: int) -> Tensor:
        r, screening, amplitude = distances[..., None], self.screening[:n], self.amplitude[:n]
        if self.smearing == 0:
            return -amplitude * torch.exp(-screening * r) * (screening + 1 / r) / r**2
        # `radial` differentiated; both of its terms have the derivative of erfc in common
        scaled, damping = r / self.smearing, screening * self.smearing
        gaussian = torch.exp(-0.5 * scaled**2)
        outward = torch.exp(0.5 * damping**2 - screening * r) * torch.erfc((damping - scaled) / math.sqrt(2))
        inward = gaussian * torch.special.erfcx((damping + scaled) / math.sqrt(2))
        slope = 2 * math.sqrt(2 / math.pi) / self.smearing * gaussian - screening * (outward + inward)
        return amplitude * (slope - (outward - inward) / r) / (2 * r**2)

    def keops_radial(self, squared: Any) -> Any:
        if self.smearing > 0:
            return None
        # KeOps passes squared distances: r and 1 / r are roots of them
        return lazy(self.amplitude, squared) * (-lazy(self.screening, squared) * squared.sqrt()).exp() * squared.rsqrt()

    def at_origin(self, dimension: int) -> Tensor:
        # phi(0) in closed form: the formula of `radial` is 0 / 0 there
        damping = self.screening * self.smearing
        if dimension == 1:
            return 2 * math.pi * self.amplitude / self.screening * torch.special.erfcx(damping / math.sqrt(2))
        if self.smearing == 0:  # log (d = 2) and 1 / r (d = 3) are infinite at the origin: the base class raises
            return super().at_origin(dimension)
        if dimension == 2:
            return self.amplitude * torch.exp(0.5 * damping**2) * exponential_integral(1.0, 0.5 * damping**2)
        tail = self.screening * torch.special.erfcx(damping / math.sqrt(2))
        return self.amplitude * (math.sqrt(2 / math.pi) / self.smearing - tail)
