"""Inverse powers of the distance, as in dispersion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrc_ase.layer.kernels.multiplier import Multiplier, WaveNumbers, check_smearing, numbers_of_channels, same_length
from lrc_ase.layer.special import exponential_integral

__all__ = ["InversePower"]


class InversePower(Multiplier):
    r"""Smeared inverse power :math:`\beta / r^p`, in any dimension: the reciprocal part of its Ewald sum.

    With :math:`r^{-p} = \Gamma(p/2)^{-1} \int_0^\infty t^{p/2-1} e^{-r^2t}\,dt` cut at :math:`t = 1/2s^2`, P the
    regularized lower incomplete gamma function and :math:`E_n` the exponential integral,

    .. math:: \phi(r) = \frac{\beta}{r^p} P\!\left(\frac p2, \frac{r^2}{2s^2}\right), \qquad
              \hat\phi(k) = \frac{\pi^{d/2}\beta}{\Gamma(p/2)} (2s^2)^{(d-p)/2}
              E_{1 + (p-d)/2}\!\left(\frac{s^2k^2}{2}\right).

    Beyond the smearing this is :math:`\beta/r^p` up to a relative error of :math:`Q(p/2, r^2/2s^2)`. For p = 6 the
    error is below 1e-4 from 5.3 s on and below 1e-10 from 7.7 s on. At the origin the kernel is
    :math:`\beta (2s^2)^{-p/2} / \Gamma(p/2 + 1)`. For p = 1 it is `Coulomb`.

    Sources: Williams, Acta Cryst. A27, 452 (1971), doi:10.1107/S0567739471000998; for p = 6 Essmann et al., J. Chem.
    Phys. 103, 8577 (1995), doi:10.1063/1.470117; for any p and d Osychenko, Astrakharchik and Boronat, arXiv:1107.5435.

    For p <= d the transform is infinite at k = 0, which is dropped as for Coulomb; such powers need all directions
    periodic, or none.

    Parameters
    ----------
    power
        The exponent p > 0 (6 for dispersion), the same for all channels, fixed.
    amplitude
        Initial :math:`\beta` of each channel, Angstrom^p times the unit of the field. Trainable, of either sign.
    smearing
        Width s in Angstrom, positive, fixed.
    """

    radial_in_every_dimension = True
    accuracy_factor = 0.1

    def __init__(self, power: float = 6.0, amplitude: Sequence[float] = (1.0,), *, smearing: float = 1.0) -> None:
        super().__init__()
        if not 0 < power < math.inf:
            raise ValueError(f"`power` must be a positive number, got {power}")
        check_smearing(smearing)
        if smearing == 0:
            raise ValueError("`smearing` must be positive for an inverse power, whose transform is infinite without it")
        amplitude = numbers_of_channels("amplitude", amplitude)
        if len(amplitude) == 0:
            raise ValueError("`amplitude` must hold one number per channel, got none")
        self.n_channels = len(amplitude)
        self.power, self.smearing = float(power), float(smearing)
        self.amplitude = nn.Parameter(same_length("amplitude", amplitude, "amplitude", self.n_channels))

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        prefactor = math.pi ** (dimension / 2) / math.gamma(self.power / 2)
        prefactor *= (2 * self.smearing**2) ** ((dimension - self.power) / 2)
        # E_n is finite at k = 0 for p > d, and zero by convention where it is infinite: the term that is dropped
        shape = exponential_integral(1 + (self.power - dimension) / 2, 0.5 * self.smearing**2 * squared)
        return prefactor * shape[..., None] * self.amplitude

    def truncated(self, waves: WaveNumbers) -> Tensor:
        # the quadrature runs through k = 0, where the transform of such powers is infinite
        if waves.n_open < waves.dimension and self.power <= waves.dimension:
            raise ValueError(
                f"1 / r^{self.power:g} cannot be summed with some directions open: give a `power` above "
                f"{waves.dimension}, use Coulomb for 1 / r, or make all directions periodic, or none"
            )
        return super().truncated(waves)

    def radial(self, distances: Tensor) -> Tensor:
        scaled = 0.5 * (distances / self.smearing) ** 2
        # torch differentiates P by r alone, which suffices: the power is fixed
        values = torch.special.gammainc(torch.full_like(scaled, self.power / 2), scaled) / distances**self.power
        return values[..., None] * self.amplitude

    def at_origin(self, dimension: int) -> Tensor:
        # P(a, x) = x^a / Gamma(a + 1) for small x: the power of r cancels
        return self.amplitude * (2 * self.smearing**2) ** (-self.power / 2) / math.gamma(self.power / 2 + 1)
