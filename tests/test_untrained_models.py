"""Networks before training: formula, initial sizes and signs."""

from __future__ import annotations

import pytest
import torch

from lrc_ase.models.electronegativity import starting_charges
from lrc_ase.models.readout import ReadOut, random_linear


def test_latent_charges_start_with_the_signs_of_paulings_electronegativities():
    """Half an elementary charge per unit; Na 0.93, Cl 3.16, H 2.20, O 3.44 (CRC Handbook); 1.9 for a noble gas."""
    assert starting_charges(("Na", "Cl")).tolist() == pytest.approx([1.115 / 2, -1.115 / 2])
    assert starting_charges(("H", "O")).tolist() == pytest.approx([0.31, -0.31])
    assert starting_charges(("Ar", "O")).tolist() == pytest.approx([0.385, -0.385])
    assert starting_charges(("Fe",)).tolist() == [0.0]


def test_layers_start_with_variance_one_over_their_inputs_and_without_biases():
    layer = random_linear(400, 500, torch.Generator().manual_seed(0))
    assert float(layer.weight.detach().std()) == pytest.approx(1 / 20, rel=0.02)
    assert float(layer.weight.detach().mean()) == pytest.approx(0, abs=1e-3)
    assert not layer.bias.detach().any()
    readout = ReadOut(3, 100, (200,), torch.Generator().manual_seed(0))
    assert float(readout.element_shift.weight.detach().std()) == pytest.approx(0.5, rel=0.02)
    assert not readout.element_bias.weight.detach().any()


def test_read_out_is_its_formula():
    generator = torch.Generator().manual_seed(1)
    readout = ReadOut(3, 2, (5, 4), generator, n_outputs=2).double()
    with torch.no_grad():
        readout.element_bias.weight.copy_(torch.tensor([[0.5, -1.0], [2.0, 3.0]]))
    features, addition = (torch.randn(2, size, dtype=torch.float64, generator=generator) for size in (3, 5))
    species = torch.tensor([1, 0])

    def silu(x):
        return x / (1 + torch.exp(-x))

    hidden = features @ readout.first.weight.T + readout.first.bias + readout.element_shift.weight[species] + addition
    (middle,) = readout.middle
    hidden = silu(silu(hidden) @ middle.weight.T + middle.bias)
    expected = hidden @ readout.last.weight.T + readout.last.bias + readout.element_bias.weight[species]
    torch.testing.assert_close(readout(features, species, addition, squeeze=False), expected)
    torch.testing.assert_close(readout(features, species, addition), expected[:, 0])
