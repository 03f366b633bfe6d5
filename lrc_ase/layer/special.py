r"""Special functions that torch lacks or cannot differentiate: families closed under differentiation.

.. math:: M_\nu(p) = x^\nu K_\nu(x),\ x = \sqrt p, \quad M_\nu' = -\tfrac12 M_{\nu-1}; \qquad
          E_n(x) = \int_1^\infty e^{-xt} t^{-n}\,dt, \quad E_n' = -E_{n-1}.

Abramowitz and Stegun, 9.6.28 and 5.1.26; DLMF sections 10.29 and 8.19.
"""

from __future__ import annotations

import math
from typing import Any

import scipy.special
import torch
from torch import Tensor

__all__ = ["bessel_j", "exponential_integral", "modified_bessel"]

_SERIES_BELOW = 2.0
_SERIES_TERMS = 32
_FRACTION_TERMS = 60


def bessel_j(order: int, y: Tensor) -> Tensor:
    r"""Compute :math:`J_0(y)` or :math:`J_1(y)` of constants y >= 0, any shape, by SciPy; not differentiable."""
    # torch's own are wrong by 4e-7 around y = 5 in float64 (torch 2.13)
    function = scipy.special.j0 if order == 0 else scipy.special.j1
    return torch.as_tensor(function(y.detach().cpu().double().numpy())).to(y)


def modified_bessel(order: int, squared: Tensor) -> Tensor:
    r"""Compute :math:`M_\nu(p) = p^{\nu/2} K_\nu(\sqrt p)` for a whole order :math:`\nu \le 1` and p > 0, any shape.

    :math:`M_0 = K_0`, :math:`M_1 = x K_1` (1 at x = 0). Differentiable to any order.
    """
    return _ModifiedBessel.apply(order, squared)


def exponential_integral(order: float, x: Tensor) -> Tensor:
    """Compute the exponential integral E_n(x) for any real order n and x >= 0, any shape; 0 where it is infinite.

    Differentiable to any order; derivatives that are infinite at x = 0 are given as 0 there.
    """
    return _ExponentialIntegral.apply(float(order), x)


class _ModifiedBessel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: int, squared: Tensor) -> Tensor:
        # a function of p = x^2 and not of x: its derivative is of the same family, and no power of 1/x appears
        ctx.order = order
        ctx.save_for_backward(squared)
        x = squared.sqrt()
        k1 = torch.special.modified_bessel_k1(x)
        if order == 1:
            return x * k1
        below, value = k1, torch.special.modified_bessel_k0(x)
        for nu in range(-order):  # upward in |nu|, which is stable: K_(nu+1) = K_(nu-1) + (2 nu / x) K_nu
            below, value = value, below + 2 * nu / x * value
        return value * x**order

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (squared,) = ctx.saved_tensors
        return None, -0.5 * grad * _ModifiedBessel.apply(ctx.order - 1, squared)


class _ExponentialIntegral(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: float, x: Tensor) -> Tensor:
        ctx.order = order
        ctx.save_for_backward(x)
        zero = x == 0
        values = _positive_arguments(order, torch.where(zero, 1.0, x))
        return torch.where(zero, 1 / (order - 1) if order > 1 else 0.0, values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        return None, -grad * _ExponentialIntegral.apply(ctx.order - 1, x)


def _positive_arguments(order: float, x: Tensor) -> Tensor:
    # upward in |n|: every term is positive, so nothing cancels
    if order <= 0:
        return (torch.exp(-x) - order * _positive_arguments(order + 1, x)) / x
    # odd powers in odd dimensions: E_(1/2) is an error function, and the recursion upward in n is short
    if order % 1 == 0.5:
        value = math.sqrt(math.pi) * torch.special.erfcx(x.sqrt()) / x.sqrt()
        for step in range(round(order - 0.5)):
            value = (1 - x * value) / (step + 0.5)
        return torch.exp(-x) * value
    # both are evaluated everywhere, each where it converges: `torch.where` selects
    near, far = x.clamp(max=_SERIES_BELOW), x.clamp(min=_SERIES_BELOW)
    return torch.where(x < _SERIES_BELOW, _series(order, near), _continued_fraction(order, far))


def _series(order: float, x: Tensor) -> Tensor:
    """Sum the power series, DLMF 8.19.8 for whole orders, 8.19.10 for others."""
    whole = order % 1 == 0
    if whole:
        n = int(order)
        total = (-x) ** (n - 1) / math.factorial(n - 1) * (float(scipy.special.digamma(n)) - torch.log(x))
    else:
        total = math.gamma(1 - order) * x ** (order - 1)
    power = torch.ones_like(x)
    for m in range(_SERIES_TERMS):
        if not (whole and m == int(order) - 1):
            total = total - power / (m - order + 1)
        power = -power * x / (m + 1)
    return total


def _continued_fraction(order: float, x: Tensor) -> Tensor:
    """Evaluate the continued fraction DLMF 8.19.17 in its even form, from the far end."""
    tail = x + order + 2 * _FRACTION_TERMS
    for m in range(_FRACTION_TERMS, 0, -1):
        tail = x + order + 2 * (m - 1) - m * (order + m - 1) / tail
    return torch.exp(-x) / tail
