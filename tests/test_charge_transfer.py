"""Latent charges as transfers between neighbors: conservation, polarization, states of charge, old potentials."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from structures import ELEMENTS, rattled_crystal, salt_water_slab, settings, shaken_model, water

from lrc_ase import LongRangeSettings, LRCCalculator, build_model
from lrc_ase.files.potential_file import load_potential
from lrc_ase.models.charges import NeighborElements, summed_at
from lrc_ase.models.compositions import counts_of, element_charge_space, independent_compositions
from lrc_ase.models.derivatives import born_effective_charges, evaluate
from lrc_ase.models.polarization import polarization
from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import neighbor_graph

OLD_NACL = Path(__file__).parent / "old_potentials" / "nacl-0.1.safetensors"


def graph_of(atoms, charge=0.0):
    atoms = atoms.copy()
    atoms.info["charge"] = charge
    return neighbor_graph(atoms, ELEMENTS, 4.5)


def wire():
    atoms = rattled_crystal(seed=2)
    atoms.pbc = (True, False, False)
    return atoms


FRAMES = {"crystal": rattled_crystal, "slab": salt_water_slab, "wire": wire, "molecule": water}


def far_apart(*parts):
    together = Atoms()
    for index, part in enumerate(parts):
        part = part.copy()
        part.translate([100.0 * index, 3.0 * index, 0])
        together += part
    return together


def test_every_fragment_keeps_its_charge_and_energies_add_up():
    """Two molecules and an ion pair 100 Angstrom apart: charges and energies of each alone, but for dipoles' r^-3."""
    first, second, ions = water(), molecule("H2O2"), Atoms("NaCl", positions=[[0, 0, 0], [2.4, 0.3, 0]])
    model = shaken_model(settings(long_range=LongRangeSettings(compositions={"H": 0, "O": 0, "NaCl": 0})))
    parts = [first, second, ions]
    together = evaluate(model, graph_of(far_apart(*parts)))
    alone = [evaluate(model, graph_of(part)) for part in parts]
    for actual, expected in zip(together.charges.split([len(part) for part in parts]), alone, strict=True):
        assert abs(float(actual.sum())) < 1e-12
        torch.testing.assert_close(actual, expected.charges, rtol=0, atol=1e-12)
        assert actual.abs().max() > 0.1
    # two dipoles of 10 e Angstrom would have 1.4e-3 eV at this distance
    assert abs(float(together.energy - sum(each.energy for each in alone))) < 1e-3


def test_isolated_ions_have_the_charges_that_compositions_fix():
    long_range = LongRangeSettings(compositions={"Na": 1, "Cl": -1})
    model = build_model(settings(elements=("Na", "Cl"), long_range=long_range)).double()
    for symbol, charge in [("Na", 1.0), ("Cl", -1.0)]:
        atoms = Atoms(symbol, info={"charge": charge})
        actual = evaluate(model, neighbor_graph(atoms, ("Na", "Cl"), 4.5)).charges
        assert float(actual[0]) == pytest.approx(charge, abs=1e-12)
    # both in one box without a bond: no charge moves over
    pair = Atoms("NaCl", positions=[[0, 0, 0], [50.0, 0, 0]])
    actual = evaluate(model, neighbor_graph(pair, ("Na", "Cl"), 4.5)).charges
    torch.testing.assert_close(actual, torch.tensor([1.0, -1.0]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("compositions", "ions", "amount"), [({"NaCl": 0}, 0.5575, 0.0), ({"Na": 0, "Cl": 0}, 0.0, 0.5575)]
)
def test_charges_start_from_electronegativities_once(compositions, ions, amount):
    """Half an e per unit of 3.16 - 0.93 (Pauling): in element charges where these are free, or else in transfers."""
    chosen = settings(elements=("Na", "Cl"), long_range=LongRangeSettings(compositions=compositions))
    part = build_model(chosen).long_range
    lone = Atoms("NaCl", positions=[[0, 0, 0], [50.0, 0, 0]])
    graph = neighbor_graph(lone, ("Na", "Cl"), 4.5)
    charges = part.transfers.excess(torch.zeros(2, part.weights.first.in_features), graph).element_charges.detach()
    torch.testing.assert_close(charges, torch.tensor([ions, -ions]).double(), rtol=0, atol=1e-6)
    amounts = part.weights.element_bias.weight[:, 0].detach()
    torch.testing.assert_close(amounts, torch.tensor([amount, -amount]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FRAMES)
def test_transfers_move_charge_from_neighbor_to_atom(name):
    """The definition, pair by pair, in NumPy."""
    model, graph = shaken_model(), graph_of(FRAMES[name]())
    part = model.long_range.transfers
    local = model.local(graph, None)
    features, vectors = local.features, local.vectors
    amounts = model.long_range.weights(features, graph.species, squeeze=False)[:, : part.n_amounts]
    excess = part.excess(features, graph)
    assert excess.charges is None
    expected = excess.element_charges.detach().numpy().copy()
    dipoles = np.zeros((graph.n_atoms, 3))
    profile = np.logaddexp(0, part.profile.detach().numpy())
    for i in range(graph.n_atoms):
        inside = []
        for column in range(graph.neighbors.shape[1]):
            r, k = vectors[i, column].detach().numpy(), int(graph.neighbors[i, column])
            if graph.neighbor_mask[i, column] and np.linalg.norm(r) < 4.5:
                functions = (1 - (np.linalg.norm(r) / 4.5) ** 2) ** np.array([4, 8, 16, 32])
                inside.append((k, r, profile[:, graph.species[k]] @ functions))
        total = 1 + sum(weights for _, _, weights in inside)
        for k, r, weights in inside:
            taken = amounts[i].detach().numpy() @ (weights / total)
            expected[i] += taken
            expected[k] -= taken
            dipoles[i] -= taken * r
    actual = part(vectors, graph, amounts, excess)
    np.testing.assert_allclose(actual.values.detach(), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(actual.transfer_dipoles.detach(), dipoles, rtol=0, atol=1e-13)


@pytest.mark.parametrize("charge", [0.0, 1.0])
def test_polarization_of_a_molecule_is_the_dipole_of_its_charges(charge):
    graph = graph_of(water(), charge)
    output = shaken_model()(graph)
    expected = output.charges @ graph.positions
    torch.testing.assert_close(polarization(output, graph)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FRAMES)
def test_born_charges_are_the_derivative_of_the_polarization(name):
    model, atoms = shaken_model(), FRAMES[name]()
    actual = born_effective_charges(model, graph_of(atoms)).numpy()
    np.testing.assert_allclose(actual.sum(axis=0), 0, atol=1e-12)
    atom, step = 1, 1e-4
    for axis in range(3):
        sides = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            graph = graph_of(moved)
            sides.append(polarization(model(graph), graph)[0].detach().numpy())
        np.testing.assert_allclose(actual[atom, :, axis], (sides[0] - sides[1]) / (2 * step), rtol=0, atol=1e-7)


def test_polarization_changes_by_whole_quanta_of_element_charges_between_images():
    model, atoms = shaken_model(), rattled_crystal()
    before = polarization(model(graph_of(atoms)), graph_of(atoms))[0]
    atoms.positions[3] += atoms.cell.array[0]
    graph = graph_of(atoms)
    after = polarization(model(graph), graph)[0]
    nu = model.long_range.transfers.excess(model.local(graph, None).features, graph).element_charges[3]
    expected = nu * torch.from_numpy(atoms.cell.array[0])
    torch.testing.assert_close(after - before, expected, rtol=0, atol=1e-11)
    actual, expected = born_effective_charges(model, graph), born_effective_charges(model, graph_of(rattled_crystal()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def test_polarization_of_a_batch_is_that_of_its_structures():
    model, graphs = shaken_model(), [graph_of(make()) for make in FRAMES.values()]
    batch = collate(graphs)
    actual = polarization(model(batch), batch)
    for row, graph in zip(actual, graphs, strict=True):
        torch.testing.assert_close(row, polarization(model(graph), graph)[0], rtol=0, atol=1e-11)
    assert len(actual) == len(graphs)


def test_states_of_charge_differ_in_more_than_their_charges():
    """The excess enters the read-out; without an excess nothing does."""
    model = shaken_model()
    energies = {charge: evaluate(model, graph_of(water(), charge)) for charge in (-1.0, 0.0, 1.0)}
    for charge, actual in energies.items():
        assert float(actual.charges.sum()) == pytest.approx(charge, abs=1e-12)
    with torch.no_grad():
        model.long_range.excess_to_hidden.zero_()
    for charge, actual in energies.items():
        changed = float(evaluate(model, graph_of(water(), charge)).energy - actual.energy)
        assert (changed == 0) if charge == 0 else (abs(changed) > 1e-4)


def test_excess_is_divided_by_positive_shares():
    model = shaken_model()
    graph = graph_of(rattled_crystal(), 2.0)
    excess = model(graph).pathless_charges.detach()
    assert float(excess.sum()) == pytest.approx(2.0, abs=1e-12)
    assert (excess > 0).all()
    assert excess.std() > 1e-4
    assert model(graph_of(rattled_crystal())).pathless_charges is None


def test_float32_keeps_element_charges_in_double_precision():
    """Rounding of the sum over 4096 ions would otherwise be left over and shared."""
    model = shaken_model(dtype=torch.float32)
    atoms = rattled_crystal(repeat=(8, 8, 8))
    graph = graph_of(atoms)
    excess = model.long_range.transfers.excess(torch.zeros(len(atoms), model.descriptor.n_features), graph)
    assert excess.charges is None
    assert abs(float(excess.element_charges.detach().sum())) < 1e-9


def test_old_potentials_shift_their_charges_evenly():
    """A file of format 1: all charges react to those of a fragment far away."""
    model = load_potential(OLD_NACL, dtype=torch.float64).model
    assert model.settings.long_range.charges == "shifted"
    small, other = Atoms("NaCl", positions=[[0, 0, 0], [2.4, 0, 0]]), Atoms("Na2Cl2", positions=np.eye(4, 3) * 2.4)
    together = evaluate(model, neighbor_graph(far_apart(small, other), ("Na", "Cl"), 5.0)).charges
    alone = evaluate(model, neighbor_graph(small, ("Na", "Cl"), 5.0)).charges
    shift = together[:2] - alone
    assert shift.abs().max() > 1e-5
    torch.testing.assert_close(shift[0], shift[1], rtol=1e-9, atol=1e-12)


def test_old_potentials_give_the_numbers_of_their_release():
    """Literals from lrc-ase 0.2.0 (commit 6b022a2) for the potential that was shipped with it as `nacl`."""
    positions = [[0, 0, 0], [2.7, 0.1, 0], [0.2, 2.9, 0], [0.1, 0, 2.6]]
    atoms = Atoms("NaClNaCl", positions=positions, cell=[5.6] * 3, pbc=True, calculator=LRCCalculator(OLD_NACL))
    assert atoms.get_potential_energy() == pytest.approx(-252.3333660483812, abs=1e-9)
    np.testing.assert_allclose(
        atoms.get_forces()[0], [-0.14995393689930667, 0.5656684785103248, -0.1373030338580894], rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        atoms.get_charges(),
        [0.53456016192098, -0.55797782711379, 0.5813438195476708, -0.5579261543548607],
        rtol=0,
        atol=1e-10,
    )
    np.testing.assert_allclose(
        atoms.calc.get_born_effective_charges()[0],
        [
            [0.5345424176024378, -0.00031570267236813264, -0.0002843321404878802],
            [0.00018828786125635387, 0.5344057807137177, -4.831524014142818e-05],
            [0.00010670079226706852, -0.0004922256318375188, 0.5347252982472636],
        ],
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("compositions", "expected"),
    [
        ([((4, 4), 0), ((32, 32), 0)], {"NaCl": 0}),
        ([((4, 4), 0), ((5, 4), 1)], {"NaCl": 0, "Na5Cl4": 1}),  # whole numbers: ions
        ([((10, 2), 0), ((10, 3), 1)], {"Na5Cl": 0}),  # C10H2 and C10H3+: 1 e on H and -0.2 e on C are no ions
        ([((3, 0), 1), ((3, 0), -1)], {}),
        ([((1, 0), 1), ((0, 1), -1)], {"Na": 1, "Cl": -1}),
        ([((1, 2), 0), ((2, 1), 0), ((1, 1), 1)], {"NaCl2": 0, "Na2Cl": 0}),
    ],
)
def test_compositions_that_determine_charges(compositions, expected):
    actual = independent_compositions(compositions, ("Na", "Cl"))
    assert actual == expected


def test_element_charges_fulfil_their_compositions():
    elements = ("H", "O", "Na", "Cl")
    compositions = {"NaCl": 0, "H2O": 0, "H3O": 1}
    least, projector = element_charge_space(compositions, elements)
    free = projector @ np.array([0.3, -0.2, 0.9, -1.1])
    for charges in (least, least + free):
        for formula, charge in compositions.items():
            sums = sum(number * charges[elements.index(symbol)] for symbol, number in counts_of(formula).items())
            assert sums == pytest.approx(charge, abs=1e-13)
    np.testing.assert_allclose(least[:2], [1, -2], atol=1e-13)
    # what is free of charge in water and salt: sodium against chlorine
    np.testing.assert_allclose(free, [0, 0, 1.0, -1.0], atol=1e-13)
    assert np.linalg.matrix_rank(projector) == 1


@pytest.mark.parametrize("formula", ["", "nacl", "Na-Cl", "2H"])
def test_a_text_that_is_no_formula_is_refused(formula):
    with pytest.raises(ValueError, match="is no chemical formula such as 'NaCl'"):
        LongRangeSettings(compositions={formula: 0})


def test_impossible_compositions_are_refused():
    with pytest.raises(ValueError, match="'Xx' is no chemical symbol"):
        LongRangeSettings(compositions={"Xx2": 0})
    with pytest.raises(ValueError, match="the charge of NaCl must be a number of e, got 1e"):
        LongRangeSettings(compositions={"NaCl": 1e12})


def test_sums_of_gpus_are_those_of_the_cpu():
    """Products with zeros and ones, and sums in a fixed order, with their first and second derivatives."""
    generator = torch.Generator().manual_seed(0)
    elements = torch.randint(3, (5, 7), generator=generator)
    places = torch.randint(5, (5, 7), generator=generator)
    values = torch.randn(4, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    of_elements = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    results = []
    for on_gpu in (False, True):
        neighbors = NeighborElements(elements, 3, by_products=on_gpu)
        sums, picked = neighbors.sum(values), neighbors.pick(of_elements)
        at_places = summed_at(places, values[0], 5, in_order=on_gpu)
        total = (sums**3).sum() + (picked**3 * values).sum() + (at_places**3).sum()
        first = torch.autograd.grad(total, (values, of_elements), create_graph=True)
        second = torch.autograd.grad(sum((each**2).sum() for each in first), (values, of_elements))
        results.append((sums, picked, at_places, *first, *second))
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert sums.detach()[2, 1, 2].item() == pytest.approx(
        values.detach()[2, 1, elements[1] == 2].sum().item(), abs=1e-12
    )
