"""Networks before training: formula, initial sizes and signs."""

from __future__ import annotations

import pytest
import torch
from structures import settings

from lrc_ase.models.descriptors import PonitaDescriptor
from lrc_ase.models.descriptors.sphere import SphereDescriptor
from lrc_ase.models.descriptors.sphere.message_block import MessageBlock
from lrc_ase.models.electronegativity import starting_charges
from lrc_ase.models.model import build_model
from lrc_ase.models.orientations import Orientations
from lrc_ase.models.readout import ReadOut, random_linear
from lrc_ase.models.settings import PonitaSettings, SphereSettings


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


def test_parts_start_with_numbers_of_the_size_that_keeps_their_sums_of_order_one():
    """Standard deviations, each of a thousand numbers and more."""
    generator = torch.Generator().manual_seed(0)
    oriented = Orientations(4, cutoff=4.5, n_tensors=300, generator=generator)
    block = MessageBlock(400, n_features=4, n_vectors=100, n_radial=16, n_elements=3, generator=generator)
    chosen = SphereSettings(degrees=(3, 3), n_radial=6, n_channels=32)
    sphere = SphereDescriptor(chosen, n_elements=4, cutoff=4.5, average_neighbors=20, generator=generator)
    chosen = PonitaSettings(n_basis=25, n_channels=100, widening=4, n_layers=1, degree=1)
    ponita = PonitaDescriptor(chosen, n_elements=10, cutoff=4.5, average_neighbors=20, generator=generator)
    model = build_model(settings(hidden=(1500,)), generator=generator)
    sizes = {
        "excess charge": (model.long_range.excess_to_hidden, 5.0),
        "excess charge of weights": (model.long_range.excess_to_weights, 5.0),
        "tensors": (oriented.tensors, 1 / 4),  # sums over 4 powers of 4 elements
        "vectors of messages": (block.vector_mixing, 5 / 10),  # 100 components of 0.2
        "radial functions of messages": (block.radial_mixing, 1 / 4),
        "elements of messages": (block.network.element_bias.weight, 1.0),
        "density": (sphere.mixing, 1 / (24 * 16) ** 0.5),  # 6 functions of 4 elements, 16 harmonics
        "elements": (ponita.species, 1.0),
        "basis": (ponita.pair_basis.second.weight, 3 / 5),
        "pair kernel": (ponita.blocks[0].pair_kernel.weight, 2 / 5),
        "sphere kernel": (ponita.blocks[0].sphere_kernel.weight[:, :-1], 6 / 26**0.5),
        "expansion": (ponita.blocks[0].expand.weight, 1 / 10),
        "contraction": (ponita.blocks[0].contract.weight, 1 / 20),
    }
    for name, (parameter, expected) in sizes.items():
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.06), name


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
