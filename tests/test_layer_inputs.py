"""Arguments that the layer refuses: types, shapes, kernels and options."""

import pytest
import torch

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Coulomb, Multiplier

CELL = torch.tensor([[[12.0, 0, 0], [4, 10, 0], [-3, 2, 9]]], dtype=torch.float64)
FLAT_CELL = torch.tensor([[[9.0, 0], [3, 8]]], dtype=torch.float64)


def points(n_channels=2):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(20, n_channels, dtype=torch.float64, generator=generator)
    return weights, torch.rand(20, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fast"}, "`method` must be 'mesh', 'ewald' or 'direct', got 'fast'"),
        ({}, "give either `smearing`"),
        ({"mesh_shape": (8, 8, 8)}, "`window` must be given"),
        ({"smearing": 1.0, "accuracy": 1e-12}, "`accuracy` must lie between"),
        ({"smearing": -1.0}, "`smearing` must be a positive length"),
        (
            {"mesh_shape": (8, 8, 8), "window": "bspline"},
            r"`window` must be a window of .*bspline_window\(6\), got 'bspl",
        ),
        ({"multiplier": torch.exp, "smearing": 1.0}, "`multiplier` must be a kernel of lrc_ase.layer.kernels"),
        ({"multiplier": Multiplier(), "smearing": 1.0}, "`multiplier` must have `n_channels`.*Multiplier sets none"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LongRangeConvolution(options.pop("multiplier", Coulomb()), **options)


def test_a_table_without_an_axis_of_channels_is_refused():
    """It would be broadcast against the mesh, to a field that is wrong."""

    class Forgetful(Coulomb):
        def fourier(self, squared, dimension):
            return super().fourier(squared, dimension)[..., 0]

    weights, fractional = points()
    with pytest.raises(ValueError, match=r"Forgetful must return a table with channels last, .*, 1\), got"):
        LongRangeConvolution(Forgetful(), smearing=1.0)(weights[:, :1], fractional, CELL)


def test_bad_inputs_are_refused():
    weights, fractional = points()
    layer = LongRangeConvolution(Coulomb(2), smearing=1.0)
    with pytest.raises(ValueError, match=r"`weights` must have shape \(20, 2\), got \(20, 1\)"):
        layer(weights[:, :1], fractional, CELL)
    with pytest.raises(ValueError, match=r"`fractional` must have shape \(n_atoms, d\), got \(60,\)"):
        layer(weights, fractional.flatten(), CELL)
    with pytest.raises(ValueError, match="`cell` must have shape"):
        layer(weights, fractional, CELL[0])
    structure = torch.zeros(20, dtype=torch.int64)
    for wrong in (structure[:19], structure.int(), structure[None]):
        with pytest.raises(ValueError, match=r"`structure` must hold one whole number \(int64\) for each of 20 atoms"):
            layer(weights, fractional, CELL, structure=wrong)
    for index in (1, -1):  # the mesh of another structure lies in memory that belongs to somebody else
        with pytest.raises(ValueError, match=rf"`structure` must hold indices from 0 to 0, .*got {min(index, 0)} to"):
            layer(weights, fractional, CELL, structure=structure.clone().index_fill_(0, torch.tensor([7]), index))
    with pytest.raises(TypeError, match="`structure` must be a tensor, got list"):
        layer(weights, fractional, CELL, structure=structure.tolist())
    with pytest.raises(ValueError, match="`mesh_shapes` must hold one mesh for each of 1 structures, got 2"):
        layer(weights, fractional, CELL, mesh_shapes=[(16, 16, 16)] * 2)
    with pytest.raises(TypeError, match=r"`weights` must be a tensor, got ndarray: `torch.as_tensor` converts it"):
        layer(weights.numpy(), fractional, CELL)
    with pytest.raises(TypeError, match="`pbc` must be a tensor, got list"):
        layer(weights, fractional, CELL, pbc=[True, True, False])
    with pytest.raises(ValueError, match=r"`pbc` must have shape \(n_structures, 3\), \(1, 3\), got \(3,\)"):
        layer(weights, fractional, CELL, pbc=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="open space"):
        LongRangeConvolution(Coulomb(2), method="direct")(weights, fractional, CELL)
    with pytest.raises(ValueError, match="no closed form at the origin in 2 dimensions"):
        LongRangeConvolution(Coulomb(), smearing=1.0)(weights[:, :1], fractional[:, :2], FLAT_CELL)
