"""Least squares with linear parameters solved for: against NumPy, finite differences and a known fit."""

import numpy as np
import pytest
import torch
from torch import nn

from lrc_ase.paper.variable_projection import descend, solve_blocks


def test_blocks_give_the_solution_of_the_whole():
    rng = np.random.default_rng(0)
    columns, target = rng.normal(size=(50, 4)), rng.normal(size=50)
    expected = np.linalg.solve(columns.T @ columns + 50 * 0.1**2 * np.eye(4), columns.T @ target)
    blocks = [(torch.from_numpy(columns[a:b]), torch.from_numpy(target[a:b])) for a, b in ((0, 3), (3, 31), (31, 50))]
    np.testing.assert_allclose(solve_blocks(blocks, ridge=0.1), expected, rtol=1e-10)


def test_no_block_is_refused():
    with pytest.raises(ValueError, match="`blocks` must hold at least one block"):
        solve_blocks([], ridge=0.1)


def test_decay_rates_of_a_sum_of_exponentials_are_recovered():
    """y = 2 exp(-t) - exp(-3 t), from rates that are off by half; amplitudes are never guessed."""
    t = torch.linspace(0, 3, 60, dtype=torch.float64)
    target = 2 * torch.exp(-t) - torch.exp(-3 * t)
    rates = nn.Parameter(torch.tensor([0.5, 5.0], dtype=torch.float64))
    seen = []
    amplitudes = descend(
        lambda: torch.exp(-t[:, None] * rates),
        target,
        [rates],
        n_iterations=200,
        report=lambda iteration, error: seen.append((iteration, error)),
    )
    np.testing.assert_allclose(rates.detach(), [1, 3], rtol=1e-3)
    np.testing.assert_allclose(amplitudes.detach(), [2, -1], rtol=1e-3)
    assert [iteration for iteration, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1] < 1e-4 < seen[0][1]
