r"""Kernels cut off in the open directions of a structure, so that a padded periodic box shows no image.

With n open directions of wave number k_o, K the decay per length of the kernel across them
(:math:`K^2 = k_p^2 + \lambda^2`, k_p along the periodic directions), :math:`x = KR` and :math:`y = k_oR`, the transform
of :math:`\beta e^{-\lambda r}/r` cut off at a distance R in the open directions is :math:`4\pi\beta R^2 F_n`,

.. math::
    F_1 &= \frac{1 - e^{-x}(\cos y - (y/x)\sin y)}{x^2 + y^2}, \\
    F_2 &= \frac{1 + y J_1(y) K_0(x) - x J_0(y) K_1(x)}{x^2 + y^2}, \\
    F_3 &= \frac{1 - e^{-x}(\cos y + (x/y)\sin y)}{x^2 + y^2}.

A Gaussian of width s multiplies them afterwards, which is the same as smearing the cut-off kernel: it stays exact below
R - 7 s. Rozzi et al., Phys. Rev. B 73, 205119 (2006), doi:10.1103/PhysRevB.73.205119 (Coulomb); Vico, Greengard and
Ferrando, J. Comput. Phys. 323, 191 (2016), doi:10.1016/j.jcp.2016.07.028. Kernels without such a form are cut off by
quadrature, `truncate_numerically`. The waves in the open directions are constants: only k_p and the parameters of
kernels are differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lrc_ase.layer.quadrature import graded_rule, radial_wave
from lrc_ase.layer.special import bessel_j, modified_bessel

__all__ = ["truncate_numerically", "truncated_coulomb", "truncated_yukawa"]

_GAUSSIAN_END = 8.6
"""Wave numbers times smearing beyond which exp(-s^2 k^2 / 2) is below 1e-16."""
_RAMP_END = 7.0
"""Widths after which the edge of a numerical cut-off has reached zero, to 1e-12."""
_FEW_WAVES = 4096
"""Distinct open wave numbers up to which the quadrature is done at each; beyond, on a grid and interpolated."""
_OVERSAMPLING, _STENCIL = 8, 16
"""Grid points per half wave of the longest distance, points of the interpolation: error 1e-12."""


def truncated_yukawa(n_open: int, screened: Tensor, phase: Tensor) -> Tensor:
    """Compute F_n of :math:`x^2` (`screened`, positive) and :math:`y^2` (`phase`), broadcast; see the module."""
    cosine, sine = _cosine_and_sine(phase)  # cos y, sin y / y
    total = screened + phase
    if n_open == 2:
        j0, j1 = _bessel_j(phase)  # J0(y), J1(y) / y
        return (1 + phase * j1 * modified_bessel(0, screened) - j0 * modified_bessel(1, screened)) / total
    x = screened.sqrt()
    if n_open == 1:
        return (1 - torch.exp(-x) * (cosine - phase / x * sine)) / total
    # at y = 0 sin(y) / y is one, and for small x the closed form would lose all digits to cancellation
    at_zero = torch.where(x < 0.1, _series_at_zero(x), (-torch.expm1(-x) - x * torch.exp(-x)) / screened)
    return torch.where(phase == 0, at_zero, (1 - torch.exp(-x) * (cosine + x * sine)) / total)


def truncated_coulomb(n_open: int, in_periodic: Tensor, phase: Tensor, radius: Tensor) -> Tensor:
    r"""Compute F_n for :math:`\lambda = 0` of :math:`(k_pR)^2` and :math:`y^2`.

    At k_p = 0 by the convention of `Coulomb`: there the kernel is :math:`-2\pi|z|` for a slab,
    :math:`-2\ln(\rho/1\,\text{Angstrom})` for a wire, cut off at R:
    :math:`F_1 = (1 - \cos y - y\sin y)/y^2`, :math:`F_2 = (1 - J_0(y) - yJ_1(y)\ln R)/y^2`,
    :math:`F_3 = (1 - \cos y)/y^2`, with their limits -1/2, (1 - 2 ln R)/4, 1/2 at y = 0.
    """
    cosine, sine = _cosine_and_sine(phase)
    origin = phase == 0
    safe = torch.where(origin, 1.0, phase)
    if n_open == 3:
        # 1 - cos y = 2 sin^2(y / 2), which does not cancel for small y
        half = torch.where(origin, 1.0, torch.sin(0.5 * safe.sqrt()) / (0.5 * safe.sqrt()))
        return (0.5 * half**2).expand(torch.broadcast_shapes(in_periodic.shape, phase.shape))
    if n_open == 2:
        j0, j1 = _bessel_j(phase)
        limit = 0.25 * (1 - 2 * torch.log(radius))
        along = torch.where(origin, limit, (1 - j0 - phase * j1 * torch.log(radius)) / safe)
    else:
        along = torch.where(origin, -0.5, (1 - cosine - phase * sine) / safe)
    # k_p = 0 alone has no screening of its own; all other waves see lambda = k_p
    zero = in_periodic == 0
    return torch.where(zero, along, truncated_yukawa(n_open, torch.where(zero, 1.0, in_periodic), phase))


def truncate_numerically(
    fourier: Callable[[Tensor], Tensor],
    periodic_squared: Tensor,
    open_squared: Tensor,
    truncation: Tensor,
    n_open: int,
    smearing: float,
    breakpoints: Sequence[float] = (),
) -> Tensor:
    r"""Transform a smeared kernel times a smooth step of the distance in the open directions, by quadrature.

    From the transform :math:`\hat\phi(k^2)` to the kernel at distance :math:`\rho` across the periodic directions and
    back, with w the radial wave (cos, J_0 or sinc) and the step :math:`\frac12\mathrm{erfc}((\rho - R)/\sqrt 2 s)`,

    .. math:: \tilde\phi(k_p, \rho) = c_n \int \hat\phi(k_p^2 + \kappa^2)\, w(\kappa\rho)\,\kappa^{n-1} d\kappa, \quad
              \hat\phi_R(k_p, k_o) = S_n \int \tilde\phi(k_p, \rho)\, \tfrac12 \mathrm{erfc}(\cdot)\,
              w(k_o\rho)\,\rho^{n-1} d\rho.

    Exact to about 1e-10 of the largest value below R - 7 s, whatever the range of the kernel. Rules are refined towards
    :math:`\kappa = 0`, where transforms of long-ranged kernels are sharp.

    Parameters
    ----------
    fourier
        From :math:`k^2` (any shape) to (*shape, n_channels).
    periodic_squared, open_squared
        :math:`k_p^2` and :math:`k_o^2`, (n_structures, ...), broadcastable to the half mesh.
    truncation
        R, (n_structures, 1, ...), Angstrom.
    smearing
        Width s in Angstrom, of the kernel and of the step.
    breakpoints
        Where derivatives of the transform jump, 1/Angstrom.

    Returns
    -------
    Tensor
        (n_structures, *half mesh, n_channels).
    """
    tables = []
    for periodic, open_part, radius in zip(periodic_squared, open_squared, truncation, strict=True):
        table = _truncate_one(fourier, periodic, open_part, float(radius), n_open, smearing, breakpoints)
        tables.append(_to_mesh(table, periodic.shape, open_part.shape))
    return torch.stack(tables)


def _truncate_one(
    fourier: Callable[[Tensor], Tensor],
    periodic: Tensor,
    open_part: Tensor,
    radius: float,
    n_open: int,
    smearing: float,
    breakpoints: Sequence[float],
) -> Tensor:
    """Transform the kernel of one structure, (n_periodic waves, n_open waves, n_channels)."""
    surface = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}[n_open]
    end = radius + _RAMP_END * smearing
    # always float64: phases are many, and the rules are small
    exact = periodic.reshape(-1).double()
    kappa, measure = graded_rule(_GAUSSIAN_END / smearing, end, breakpoints, like=exact)
    highest = math.sqrt(float(open_part.max()))
    rho, shell = graded_rule(end, highest + _GAUSSIAN_END / smearing, like=exact)
    wave = radial_wave(n_open, (rho[:, None] * kappa) ** 2)  # (n_rho, n_kappa)
    # c_n = S_n / (2 pi)^n: the inverse transform integrates over shells of radius kappa
    inverse = wave * (measure * kappa ** (n_open - 1) * surface / (2 * math.pi) ** n_open)
    step = 0.5 * torch.erfc((rho - radius) / (math.sqrt(2) * smearing)) * shell * surface * rho ** (n_open - 1)
    spectrum = fourier(exact[:, None] + kappa**2)  # (n_periodic, n_kappa, n_channels)
    across = torch.einsum("rk,pkc->prc", inverse.to(spectrum), spectrum) * step.to(spectrum)[:, None]
    # meshes repeat their open wave numbers many times: the transform is done once for each
    distinct, which = torch.unique(open_part.reshape(-1).double().sqrt(), return_inverse=True)

    def transform(k: Tensor) -> Tensor:
        """Transform back to open wave numbers k (n_waves,), (n_periodic, n_waves, n_channels)."""
        forward = radial_wave(n_open, (k[:, None] * rho) ** 2)
        return torch.einsum("or,prc->poc", forward.to(across), across)

    few = len(distinct) <= _FEW_WAVES
    return (transform(distinct) if few else _interpolated(transform, distinct, end))[:, which]


def _interpolated(transform: Callable[[Tensor], Tensor], k: Tensor, end: float) -> Tensor:
    """Interpolate the `transform` of a function of range `end` by Lagrange polynomials on a grid of k."""
    # of finite range, so band-limited in k: a grid finer than pi / `end` determines it between the points
    spacing = math.pi / (_OVERSAMPLING * end)
    n_grid = math.ceil(float(k.max()) / spacing) + _STENCIL
    values = transform(spacing * torch.arange(n_grid, dtype=k.dtype, device=k.device))
    scaled = k / spacing
    first = torch.floor(scaled) - (_STENCIL // 2 - 1)
    result = values.new_zeros(values.shape[0], len(k), values.shape[2])
    for j in range(_STENCIL):
        factors = [(scaled - first - m) / (j - m) for m in range(_STENCIL) if m != j]
        weight = torch.stack(factors).prod(dim=0).to(values)
        nearest = (first + j).abs().to(torch.int64)  # an even function of k
        result = result + weight[:, None] * values[:, nearest]
    return result


def _to_mesh(table: Tensor, periodic: torch.Size, open_part: torch.Size) -> Tensor:
    """Bring (n_periodic waves, n_open waves, n_channels) to the axes of the half mesh in order, channels last."""
    d = len(periodic)
    order = [axis for axis in range(d) if periodic[axis] > 1] + [axis for axis in range(d) if periodic[axis] == 1]
    shape = [max(periodic[axis], open_part[axis]) for axis in order]
    return table.reshape(*shape, -1).permute(*[order.index(axis) for axis in range(d)], d)


def _series_at_zero(x: Tensor) -> Tensor:
    """Compute (1 - (1 + x) exp(-x)) / x^2 for small x, the sum of (-x)^m (m + 1) / (m + 2)!."""
    return sum(((-x) ** m * ((m + 1) / math.factorial(m + 2)) for m in range(1, 9)), torch.full_like(x, 0.5))


def _cosine_and_sine(phase: Tensor) -> tuple[Tensor, Tensor]:
    """Compute cos y and sin(y) / y of y^2."""
    return radial_wave(1, phase), radial_wave(3, phase)


def _bessel_j(phase: Tensor) -> tuple[Tensor, Tensor]:
    """Compute J0(y) and J1(y) / y of y^2."""
    zero = phase == 0
    y = torch.where(zero, 1.0, phase).sqrt()
    return radial_wave(2, phase), torch.where(zero, 0.5, bessel_j(1, y) / y)
