"""When a cotangent is a multiple of the weights: compiled, and in torch's operations for GPUs and several processes."""

import math

import pytest
import torch

from lrc_ase.layer.mesh import Stencil
from lrc_ase.layer.mesh.proportionality import proportionality
from lrc_ase.layer.windows import semicircle_window


class Alone:
    """The exchange of a process that shares with nobody."""

    n_processes = 1

    def sum(self, values):
        return values

    def largest(self, values):
        return values


@pytest.fixture(params=[None, Alone()], ids=["compiled", "torch"])
def exchange(request):
    return request.param


def stencil_of(structure, exchange):
    return Stencil(semicircle_window(6, 2.1), (8, 8, 8), structure, int(structure.max()) + 1, exchange)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("factor", [0.5, 7.19982])
def test_many_atoms_are_recognized(exchange, dtype, factor):
    weights = torch.randn(300_000, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
    stencil = stencil_of(torch.zeros(len(weights), dtype=torch.int64), exchange)
    scale, others = proportionality(factor * weights, weights, stencil)
    assert others == []
    assert scale.dtype == dtype
    torch.testing.assert_close(scale, torch.full((1, 2), factor, dtype=dtype), rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("wrong", [1e-3, math.nan])
def test_one_atom_that_deviates_is_enough(exchange, wrong):
    structure = torch.arange(4).repeat_interleave(250)
    weights = torch.randn(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factors = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cotangent = factors[structure] * weights
    stencil = stencil_of(structure, exchange)
    scale, others = proportionality(cotangent, weights, stencil)
    assert others == []
    torch.testing.assert_close(scale, factors)
    cotangent[777, 1] += wrong
    assert proportionality(cotangent, weights, stencil)[1] == [1]


def test_no_atoms_and_no_weights(exchange):
    nobody = torch.zeros(0, 2, dtype=torch.float64)
    stencil = Stencil(semicircle_window(6, 2.1), (8, 8, 8), torch.zeros(0, dtype=torch.int64), 1, exchange)
    assert proportionality(nobody, nobody, stencil)[1] == []
    weights = torch.zeros(5, 2, dtype=torch.float64)
    cotangent = weights.clone()
    cotangent[2, 0] = 1.0
    scale, others = proportionality(cotangent, weights, stencil_of(torch.zeros(5, dtype=torch.int64), exchange))
    assert others == [0]
    assert (scale == 0).all()
