"""The exponential kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrc_ase.layer.kernels.keops import lazy
from lrc_ase.layer.kernels.multiplier import Multiplier, check_smearing, positive_numbers, same_length

__all__ = ["Exponential"]


class Exponential(Multiplier):
    r"""The exponential kernel :math:`\beta e^{-\mu r}` (paper's eq. 3) in d = 1, 2, 3 dimensions.

    :math:`\hat\phi = 2\beta\mu/(k^2+\mu^2)`, :math:`2\pi\beta\mu/(k^2+\mu^2)^{3/2}`,
    :math:`8\pi\beta\mu/(k^2+\mu^2)^2`, times :math:`e^{-s^2k^2/2}` with a smearing s, without which a mesh converges
    slowly at the cusp. In real space (d = 3) with :math:`w_\pm = (\mu s \pm r / s)/\sqrt 2`,

    .. math:: \phi(r) = \frac{\beta}{2r} e^{\mu^2 s^2/2}
              \left[(r - \mu s^2) e^{-\mu r}\,\mathrm{erfc}\,w_- + (r + \mu s^2) e^{\mu r}\,\mathrm{erfc}\,w_+\right],

    minus the derivative of the smeared Yukawa kernel by its screening. Both parameters are trainable; `decay` is mu in
    1/Angstrom.
    """

    def __init__(
        self, decay: Sequence[float], amplitude: Sequence[float] | None = None, *, smearing: float = 0.0
    ) -> None:
        super().__init__()
        # the logarithm is trained: a step of the optimizer cannot make a decay negative
        self.log_decay = nn.Parameter(positive_numbers("decay", decay).log())
        self.n_channels = len(decay)
        self.amplitude = nn.Parameter(same_length("amplitude", amplitude, "decay", self.n_channels))
        check_smearing(smearing)
        self.smearing = float(smearing)
        self.radial_in_every_dimension = self.smearing == 0

    @property
    def decay(self) -> Tensor:
        r"""Return :math:`\mu` of each channel, 1/Angstrom."""
        return self.log_decay.exp()

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        squared = squared[..., None]
        prefactor = {1: 2.0, 2: 2 * math.pi, 3: 8 * math.pi}[dimension]
        table = prefactor * self.amplitude * self.decay / (squared + self.decay**2) ** ((dimension + 1) / 2)
        return table * torch.exp(-0.5 * self.smearing**2 * squared)  # the smearing Gaussian, of variance s^2

    def radial(self, distances: Tensor) -> Tensor:
        r = distances[..., None]
        if self.smearing == 0:
            return self.amplitude * torch.exp(-self.decay * r)
        # exp(mu r) erfc(w+) is infinity times zero for large r; exp(-r^2 / 2 s^2) erfcx(w+) is the same and finite
        scaled, damping = r / self.smearing, self.decay * self.smearing
        outward = torch.exp(0.5 * damping**2 - self.decay * r) * torch.erfc((damping - scaled) / math.sqrt(2))
        inward = torch.exp(-0.5 * scaled**2) * torch.special.erfcx((damping + scaled) / math.sqrt(2))
        shift = damping * self.smearing  # mu s^2, from the derivative of exp(mu^2 s^2 / 2) by mu
        return self.amplitude * ((r - shift) * outward + (r + shift) * inward) / (2 * r)

    def keops_radial(self, squared: Any) -> Any:
        if self.smearing > 0:
            return None
        return lazy(self.amplitude, squared) * (-lazy(self.decay, squared) * squared.sqrt()).exp()

    def at_origin(self, dimension: int) -> Tensor:
        # phi(0) in closed form: the formula of `radial` is 0 / 0 there
        damping = self.decay * self.smearing
        tail = torch.special.erfcx(damping / math.sqrt(2))
        if dimension == 1:
            return self.amplitude * tail
        if dimension == 2:
            return self.amplitude * (1 - math.sqrt(math.pi / 2) * damping * tail)
        return self.amplitude * ((1 + damping**2) * tail - math.sqrt(2 / math.pi) * damping)
