r"""Trainable radial Fourier multipliers :math:`\hat\phi_\theta(k)`, one kernel per channel.

Each is a module that turns wave numbers into a table with channels last, and, where it is known in closed form, gives
the same kernel in real space. Parameters are few and start as float64; positive ones are stored as logarithms.
Conventions: :math:`\hat\phi(k) = \int \phi(x) e^{-ik\cdot x} dx`; 4 pi beta / k^2 is the Coulomb kernel beta / r.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Coulomb", "Exponential", "Multiplier", "Stack", "WaveNumbers", "Yukawa"]


@dataclass(frozen=True)
class WaveNumbers:
    """Where a multiplier is evaluated, any shape; 1/Angstrom."""

    squared: Tensor
    """:math:`|k|^2`."""
    dimension: int
    normal: Tensor | None = None
    """Component along the one open direction of a slab; None when every direction is periodic."""
    truncation: Tensor | None = None
    """Range R beyond which a slab's kernel is cut off, Angstrom, broadcastable to `squared`."""


class Multiplier(nn.Module):
    """Base: `n_channels` kernels, applied channel by channel."""

    n_channels: int

    def forward(self, waves: WaveNumbers) -> Tensor:
        """Table of the multiplier, (*waves, n_channels). Waves where the kernel is infinite get zero."""
        raise TypeError(f"{type(self).__name__} does not define a Fourier multiplier")

    def radial(self, distances: Tensor) -> Tensor:
        """The kernel in real space in three dimensions, (*distances, n_channels)."""
        raise ValueError(f"{type(self).__name__} has no closed form in real space: use method='mesh' or 'ewald'")

    def at_origin(self, dimension: int) -> Tensor:
        """Value of the kernel at distance zero (the self term), (n_channels,)."""
        raise ValueError(
            f"{type(self).__name__} has no closed form at the origin in {dimension} dimensions: use remove_self=False"
        )


class Yukawa(Multiplier):
    r"""Smeared screened Coulomb kernel, :math:`\hat\phi = 4\pi\beta\, e^{-s^2k^2/2} / (k^2 + \lambda^2)`.

    With s = 0 the paper's eq. 23. In real space (d = 3), with :math:`w_\pm = (\lambda s \pm r / s)/\sqrt 2`,

    .. math:: \phi(r) = \frac{\beta}{2r} e^{\lambda^2 s^2/2}
              \left[e^{-\lambda r}\,\mathrm{erfc}\,w_- - e^{\lambda r}\,\mathrm{erfc}\,w_+\right].

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
        if len(screening) == 0 or min(screening) <= 0:
            raise ValueError(
                f"`screening` must hold one positive number per channel, got {list(screening)}; "
                "for an unscreened kernel use Coulomb"
            )
        amplitude = [1.0] * len(screening) if amplitude is None else amplitude
        if len(amplitude) != len(screening):
            raise ValueError(
                f"`amplitude` must have the length of `screening` ({len(screening)}), got {len(amplitude)}"
            )
        _check_smearing(smearing)
        self.n_channels = len(screening)
        self.log_screening = nn.Parameter(torch.tensor(screening, dtype=torch.float64).log())
        self.amplitude = nn.Parameter(torch.tensor(amplitude, dtype=torch.float64))
        self.smearing = float(smearing)

    @property
    def screening(self) -> Tensor:
        r""":math:`\lambda` of each channel, 1/Angstrom."""
        return self.log_screening.exp()

    def forward(self, waves: WaveNumbers) -> Tensor:
        squared = waves.squared[..., None]
        screened = squared + self.screening**2
        table = 4 * math.pi * self.amplitude * torch.exp(-0.5 * self.smearing**2 * squared) / screened
        if waves.normal is None or waves.truncation is None:
            return table
        normal, radius = waves.normal[..., None], waves.truncation[..., None]
        decay = (screened - normal**2).sqrt()
        phase = normal * radius
        return table * (1 - torch.exp(-decay * radius) * (torch.cos(phase) - normal / decay * torch.sin(phase)))

    def radial(self, distances: Tensor) -> Tensor:
        r = distances[..., None]
        if self.smearing == 0:
            return self.amplitude * torch.exp(-self.screening * r) / r
        scaled, damping = r / self.smearing, self.screening * self.smearing
        outward = torch.exp(0.5 * damping**2 - self.screening * r) * torch.erfc((damping - scaled) / math.sqrt(2))
        inward = torch.exp(-0.5 * scaled**2) * torch.special.erfcx((damping + scaled) / math.sqrt(2))
        return self.amplitude * (outward - inward) / (2 * r)

    def at_origin(self, dimension: int) -> Tensor:
        damping = self.screening * self.smearing
        if dimension == 1:
            return 2 * math.pi * self.amplitude / self.screening * torch.special.erfcx(damping / math.sqrt(2))
        if dimension == 3 and self.smearing > 0:
            tail = self.screening * torch.special.erfcx(damping / math.sqrt(2))
            return self.amplitude * (math.sqrt(2 / math.pi) / self.smearing - tail)
        return super().at_origin(dimension)


class Coulomb(Multiplier):
    r"""Smeared Coulomb kernel, :math:`\hat\phi = 4\pi\, e^{-s^2k^2/2} / k^2`, in real space erf(r / (sqrt(2) s)) / r.

    In three periodic directions k = 0 is dropped: conducting surroundings, and a uniform background that neutralises
    a charged cell. In a slab the constant that diverges with the charge is dropped: the layer average of the potential
    of a sheet is :math:`-2\pi |z|`. Nothing is trainable.
    """

    def __init__(self, n_channels: int = 1, *, smearing: float = 1.0) -> None:
        super().__init__()
        _check_smearing(smearing)
        self.n_channels = n_channels
        self.smearing = float(smearing)

    def forward(self, waves: WaveNumbers) -> Tensor:
        squared = waves.squared
        zero = squared == 0
        safe = torch.where(zero, torch.ones_like(squared), squared)
        table = 4 * math.pi * torch.exp(-0.5 * self.smearing**2 * squared) / safe
        table = torch.where(zero, torch.zeros_like(table), table)
        if waves.normal is not None and waves.truncation is not None:
            table = table * self._slab_factor(waves, safe)
            table = torch.where(zero, -2 * math.pi * waves.truncation**2, table)
        return table[..., None].expand(*table.shape, self.n_channels)

    @staticmethod
    def _slab_factor(waves: WaveNumbers, safe: Tensor) -> Tensor:
        assert waves.normal is not None
        assert waves.truncation is not None
        phase = waves.normal * waves.truncation
        in_plane = safe - waves.normal**2
        # waves along the normal: k_parallel is zero up to rounding
        along = in_plane < 1e-9 * safe
        decay = torch.where(along, torch.ones_like(in_plane), in_plane).sqrt()
        general = torch.cos(phase) - waves.normal / decay * torch.sin(phase)
        general = 1 - torch.exp(-decay * waves.truncation) * general
        return torch.where(along, 1 - torch.cos(phase) - phase * torch.sin(phase), general)

    def radial(self, distances: Tensor) -> Tensor:
        values = 1 / distances
        if self.smearing > 0:
            values = values * torch.erf(distances / (math.sqrt(2) * self.smearing))
        return values[..., None].expand(*values.shape, self.n_channels)

    def at_origin(self, dimension: int) -> Tensor:
        if dimension != 3 or self.smearing == 0:
            return super().at_origin(dimension)
        return torch.tensor(math.sqrt(2 / math.pi) / self.smearing, dtype=torch.float64).expand(self.n_channels)


class Exponential(Multiplier):
    r"""The exponential kernel :math:`\beta e^{-\mu r}` (paper's eq. 3) in d = 1, 2, 3 dimensions.

    :math:`\hat\phi = 2\beta\mu/(k^2+\mu^2)`, :math:`2\pi\beta\mu/(k^2+\mu^2)^{3/2}`,
    :math:`8\pi\beta\mu/(k^2+\mu^2)^2`. Both parameters are trainable; `decay` is mu in 1/Angstrom.
    """

    def __init__(self, decay: Sequence[float], amplitude: Sequence[float] | None = None) -> None:
        super().__init__()
        if len(decay) == 0 or min(decay) <= 0:
            raise ValueError(f"`decay` must hold one positive number per channel, got {list(decay)}")
        amplitude = [1.0] * len(decay) if amplitude is None else amplitude
        if len(amplitude) != len(decay):
            raise ValueError(f"`amplitude` must have the length of `decay` ({len(decay)}), got {len(amplitude)}")
        self.n_channels = len(decay)
        self.log_decay = nn.Parameter(torch.tensor(decay, dtype=torch.float64).log())
        self.amplitude = nn.Parameter(torch.tensor(amplitude, dtype=torch.float64))

    @property
    def decay(self) -> Tensor:
        r""":math:`\mu` of each channel, 1/Angstrom."""
        return self.log_decay.exp()

    def forward(self, waves: WaveNumbers) -> Tensor:
        if waves.normal is not None:
            raise ValueError("Exponential has no truncated form: every direction must be periodic")
        prefactor = {1: 2.0, 2: 2 * math.pi, 3: 8 * math.pi}[waves.dimension]
        screened = waves.squared[..., None] + self.decay**2
        return prefactor * self.amplitude * self.decay / screened ** ((waves.dimension + 1) / 2)

    def radial(self, distances: Tensor) -> Tensor:
        return self.amplitude * torch.exp(-self.decay * distances[..., None])

    def at_origin(self, dimension: int) -> Tensor:
        return self.amplitude


class Stack(Multiplier):
    """Several multipliers side by side: their channels in order, spread and gathered together."""

    def __init__(self, multipliers: Sequence[Multiplier]) -> None:
        super().__init__()
        if not multipliers:
            raise ValueError("`multipliers` must hold at least one multiplier, got none")
        self.multipliers = nn.ModuleList(multipliers)
        self.n_channels = sum(multiplier.n_channels for multiplier in multipliers)

    def forward(self, waves: WaveNumbers) -> Tensor:
        return torch.cat([multiplier(waves) for multiplier in self.multipliers], dim=-1)

    def radial(self, distances: Tensor) -> Tensor:
        return torch.cat([multiplier.radial(distances) for multiplier in self], dim=-1)

    def at_origin(self, dimension: int) -> Tensor:
        return torch.cat([multiplier.at_origin(dimension) for multiplier in self])

    def __iter__(self) -> Iterator[Multiplier]:
        return (multiplier for multiplier in self.multipliers if isinstance(multiplier, Multiplier))


def _check_smearing(smearing: float) -> None:
    if not smearing >= 0 or math.isinf(smearing):
        raise ValueError(f"`smearing` must be zero or a positive length in Angstrom, got {smearing}")
