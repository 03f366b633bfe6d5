r"""Least squares with some parameters linear: they are solved for, the others descend (variable projection).

.. math:: \min_\theta \min_c \frac1n \lVert B(\theta)\,c - y\rVert^2 + \epsilon^2 \lVert c\rVert^2

The inner problem has a closed solution, and at that solution the outer gradient is the partial derivative by theta
alone. What is left for L-BFGS is small and well scaled: forces without noise are fitted to six digits where gradient
descent on all parameters stops at three.

Source: Golub, Pereyra, SIAM J. Numer. Anal. 10, 413 (1973), doi:10.1137/0710036.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor, nn

__all__ = ["RIDGES", "descend", "solve_blocks"]

RIDGES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Damping of the linear coefficients in the steps of a descent, for columns and targets of order one."""
_PATIENCE, _LITTLE = 15, 0.998
"""A step ends when so many iterations lowered the loss to no less than this part; networks rest on plateaus for ten."""


def solve_blocks(blocks: Iterable[tuple[Tensor, Tensor]], *, ridge: float) -> Tensor:
    """Solve for the linear coefficients (n_columns,), reading rows block by block.

    Each block is a pair of columns (n_rows, n_columns) and targets (n_rows,). Only a triangle of the QR factorization
    is kept, so that there is no limit on the number of rows and no squared condition number.
    """
    triangle: Tensor | None = None
    n_rows = 0
    for columns, target in blocks:
        rows = torch.cat([columns, target[:, None]], dim=1).detach()
        stacked = rows if triangle is None else torch.cat([triangle, rows])
        triangle = torch.linalg.qr(stacked, mode="r").R
        n_rows += len(target)
    if triangle is None:
        raise ValueError("`blocks` must hold at least one block of rows, got none")
    n_columns = triangle.shape[1] - 1
    damping = ridge * math.sqrt(n_rows) * torch.eye(n_columns, dtype=triangle.dtype, device=triangle.device)
    damped = torch.cat([triangle[:, :-1], damping])
    target = torch.cat([triangle[:, -1:], triangle.new_zeros(n_columns, 1)])
    return torch.linalg.lstsq(damped, target).solution[:, 0]


def descend(
    columns: Callable[[], Tensor],
    target: Tensor,
    parameters: Sequence[nn.Parameter],
    *,
    n_iterations: int,
    ridges: Sequence[float] = RIDGES,
    report: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Minimize over `parameters` in place and return the linear coefficients, (n_columns,).

    Parameters
    ----------
    columns
        Evaluates B (n_rows, n_columns) at the present parameters, differentiably.
    target
        y, (n_rows,), of order one.
    n_iterations
        Most iterations of L-BFGS, shared evenly between the `ridges`.
    ridges
        Damping epsilon of the coefficients, step by step.
    report
        Called with the number of the iteration and the root of the loss after each.
    """
    losses: list[float] = []
    step_start = 0

    def objective(values: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
        _assign(parameters, values)
        current = columns()
        coefficients = solve_blocks([(current, target)], ridge=ridge)
        # the coefficients are constants here: at their optimum the loss does not depend on them to first order
        residual = current @ coefficients - target
        loss = residual.square().mean() + ridge**2 * coefficients.square().sum()
        for parameter in parameters:
            parameter.grad = None
        loss.backward(inputs=list(parameters))
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        return float(loss.detach()), torch.cat([part.reshape(-1) for part in gradient]).numpy()

    def finish_iteration(intermediate_result: OptimizeResult) -> None:
        losses.append(intermediate_result.fun)
        if report is not None:
            report(len(losses), math.sqrt(losses[-1]))
        if len(losses) - step_start > _PATIENCE and losses[-1] > _LITTLE * losses[-1 - _PATIENCE]:
            raise StopIteration

    values = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).numpy()
    at_each = math.ceil(n_iterations / len(ridges))
    options = {"maxiter": at_each, "maxfun": 3 * at_each, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-14}
    for ridge in ridges:
        step_start = len(losses)
        minimum = minimize(
            objective, values, args=(ridge,), jac=True, method="L-BFGS-B", callback=finish_iteration, options=options
        )
        values = minimum.x
    _assign(parameters, values)
    for parameter in parameters:
        parameter.grad = None
    return solve_blocks([(columns(), target)], ridge=ridges[-1])


@torch.no_grad()
def _assign(parameters: Sequence[nn.Parameter], values: np.ndarray) -> None:
    start = 0
    for parameter in parameters:
        part = values[start : start + parameter.numel()]
        parameter.copy_(torch.from_numpy(part).reshape(parameter.shape))
        start += parameter.numel()
