"""A kernel without its highest waves, such that what is missing is of short range."""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.layer.kernels.multiplier import Multiplier

__all__ = ["BandLimited"]


class BandLimited(Multiplier):
    r"""Another kernel times a Kaiser-Bessel window, :math:`\hat\phi(k)\,I_0(c\sqrt{1-k^2/K^2})/I_0(c)`, c = K R.

    Above `highest` (K) the multiplier is zero, so that a sum over few waves is exact. The window is the transform of a
    bump w of range `reach` (R), up to :math:`e^{-c}`. A sharp cut at K would leave waves of all ranges.

    For kernels such as Yukawa's, w * phi is a multiple of phi where r > R. Beyond R the kernel therefore keeps its
    shape, up to a factor in the amplitude. What is cut off lies within R, where a short-range model can learn it.

    Parameters
    ----------
    kernel
        The multiplier that is cut.
    highest
        Wave number K, 1/Angstrom.
    reach
        Range R of what the cut takes away: the cutoff of the short-range model, Angstrom.
    """

    def __init__(self, kernel: Multiplier, *, highest: float, reach: float) -> None:
        super().__init__()
        if not (highest > 0 and reach > 0):
            raise ValueError(f"`highest` and `reach` must be positive, got {highest} and {reach}")
        if kernel.is_matrix:
            raise ValueError("`kernel` must map channels one to one, got a Matrix; cut the kernels in it instead")
        self.kernel = kernel
        self.highest, self.reach = float(highest), float(reach)
        self.n_channels = kernel.n_channels

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        return self._window(squared)[..., None] * self.kernel.fourier(squared, dimension)

    def _window(self, squared: Tensor) -> Tensor:
        c = torch.as_tensor(self.highest * self.reach, dtype=squared.dtype, device=squared.device)
        inside = 1 - squared / self.highest**2
        # outside, one in place of a negative number: the root's slope must stay finite
        argument = c * torch.sqrt(torch.where(inside > 0, inside, torch.ones_like(inside)))
        # i0e(x) = exp(-x) I0(x): I0 itself overflows from c = 700 on
        window = torch.exp(argument - c) * torch.special.i0e(argument) / torch.special.i0e(c)
        return torch.where(inside > 0, window, torch.zeros_like(window))
