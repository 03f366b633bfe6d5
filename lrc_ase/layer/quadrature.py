"""Radial quadrature: points and weights, and the waves that a radial transform integrates against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lrc_ase.layer.special import bessel_j

__all__ = ["composite_rule", "graded_rule", "radial_wave"]

_N_POINTS = 16
"""Gauss-Legendre points per panel; 6 radians of phase on either side of its middle are integrated to 1e-14."""
_PHASE = 12.0
"""Largest phase that a wave may turn through within a panel, radians."""
_N_HALVINGS = 12
"""Panels towards zero, each half of the one before."""


def composite_rule(edges: Sequence[float], wavelength_factor: float, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return Gauss-Legendre points and weights between successive `edges`, in the type and on the device of `like`.

    `wavelength_factor` is the fastest oscillation of the integrand in radians per unit; panels are divided for it.
    """
    pieces = [edges[0]]
    for start, stop in pairwise(edges):
        # 16 points per panel are exact to 1e-14 as long as the integrand turns through no more than `_PHASE`
        n_panels = max(1, math.ceil((stop - start) * wavelength_factor / _PHASE))
        pieces += [start + (stop - start) * (index + 1) / n_panels for index in range(n_panels)]
    points, weights = _gauss_legendre()
    borders = np.array(pieces)
    halves, middles = 0.5 * np.diff(borders)[:, None], 0.5 * (borders[1:] + borders[:-1])[:, None]
    nodes, measure = (middles + halves * points).ravel(), (halves * weights).ravel()
    return torch.from_numpy(nodes).to(like), torch.from_numpy(measure).to(like)


def graded_rule(
    end: float, wavelength_factor: float, breakpoints: Sequence[float] = (), *, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a rule from 0 to `end`, refined towards zero for integrands that vary on ever smaller scales there.

    Other arguments as in `composite_rule`.
    """
    # halved from one panel on: each halving covers the same share of the scales below it
    first = min(end, _PHASE / max(wavelength_factor, 1e-9))
    edges = {0.0, end, *(first * 2.0**-index for index in range(_N_HALVINGS))}
    return composite_rule(sorted(edges | {point for point in breakpoints if point < end}), wavelength_factor, like=like)


def radial_wave(dimension: int, phase_squared: Tensor) -> Tensor:
    r"""Average :math:`e^{ik\cdot x}` over directions: :math:`\cos`, :math:`J_0` or :math:`\sin(kr)/kr` of kr.

    Takes :math:`(kr)^2`, any shape. Not differentiable in two dimensions, where no use needs it.
    """
    # one in place of zero: 0 / 0 would be NaN, and its derivative too, whatever `torch.where` selects
    zero = phase_squared == 0
    phase = torch.where(zero, 1.0, phase_squared).sqrt()
    if dimension == 1:
        values = torch.cos(phase)
    elif dimension == 2:
        values = bessel_j(0, phase)
    else:
        values = torch.sin(phase) / phase
    return torch.where(zero, 1.0, values)


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_N_POINTS)
