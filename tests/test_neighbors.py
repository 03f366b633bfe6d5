import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.neighborlist import primitive_neighbor_list
from structures import ELEMENTS, rattled_crystal, salt_water_slab, water

from lrc_ase.structures.graph import collate
from lrc_ase.structures.neighbors import NeighborList, complete_cell, neighbor_graph


def pair_distances(graph):
    shifts = graph.shifts @ graph.cell[0]
    vectors = graph.positions[graph.neighbors] - graph.positions[:, None] + shifts
    return vectors.norm(dim=-1)[graph.neighbor_mask]


def flattened(atoms):
    """The cell as deep as it is wide, sheared by more than half a vector."""
    atoms = atoms.copy()
    cell = atoms.cell.array.copy()
    cell[1] += 0.8 * cell[0]
    atoms.set_cell(cell)
    return atoms


def left_handed(atoms):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


def far_away(atoms):
    atoms = atoms.copy()
    atoms.positions += [1000.0, -3000.0, 77.0]
    return atoms


def test_a_cell_that_is_nearly_empty_is_named_once():
    """Two atoms in a box of 200 Angstrom need 14 million mesh points, or none in open space."""
    atoms = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.5]], cell=[200.0] * 3, pbc=True)
    neighbors = NeighborList(ELEMENTS, 5.0, mesh_shape_for=lambda cell, held: (240, 240, 240))
    with pytest.warns(UserWarning, match="nearly empty: its mesh has 240 x 240 x 240 points for 2 atoms.*pbc to False"):
        neighbors.graph(atoms)
    atoms.positions[1, 2] += 0.6
    neighbors.graph(atoms)
    dense = NeighborList(ELEMENTS, 5.0, mesh_shape_for=lambda cell, held: (100, 100, 100))
    dense.graph(atoms)


STRUCTURES = {
    "small triclinic": rattled_crystal(),
    "sheared": flattened(rattled_crystal(repeat=(2, 1, 1))),
    "left-handed": left_handed(rattled_crystal()),
    "far away": far_away(rattled_crystal()),
    "molecule": water(),
    "slab": salt_water_slab(),
    "slab with vacuum": fcc111("Al", (2, 2, 3), vacuum=10.0),
    "wire": Atoms("Na2", positions=[[0, 0, 0], [0.5, 0.5, 2]], cell=[0, 0, 4], pbc=(False, False, True)),
    "one atom": Atoms("Na", positions=[[1, 2, 3]]),
    "one periodic atom": bulk("Na", "bcc", a=4.0),
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("cutoff", [3.0, 7.5])
def test_pairs_are_those_of_ase(name, cutoff):
    atoms = STRUCTURES[name]
    elements = (*ELEMENTS, "Al")
    graph = neighbor_graph(atoms, elements, cutoff)
    cell = complete_cell(atoms.cell.array, atoms.pbc)
    reference = primitive_neighbor_list("d", atoms.pbc, cell, atoms.positions, cutoff)
    actual = np.sort(pair_distances(graph).numpy())
    np.testing.assert_allclose(actual, np.sort(reference), rtol=0, atol=1e-9)
    assert [elements[index] for index in graph.species] == atoms.get_chemical_symbols()


def test_cell_is_completed_perpendicular_to_what_is_periodic():
    cell = complete_cell(np.array([[3.0, 0, 0], [1.0, 2.0, 0], [5.0, 5.0, 5.0]]), (True, True, False))
    np.testing.assert_allclose(cell[2], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(complete_cell(np.zeros((3, 3)), (False,) * 3), np.eye(3))
    assert np.linalg.det(complete_cell(np.diag([0.0, 0, 4.0]), (False, False, True))) == pytest.approx(4)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "`atoms` is empty"),
        (Atoms("Na", positions=[[np.nan, 0, 0]]), r"positions are not finite .* for atoms \[0\]"),
        (Atoms("NaXe", positions=[[0, 0, 0], [2, 0, 0]]), "unknown element Xe: this model knows H, O, Na, Cl"),
        (Atoms("Na", pbc=True), "pbc is True along cell vector 0, which is zero"),
        (Atoms("Na", cell=[[1, 1, 0], [2, 2, 0], [0, 0, 3]], pbc=True), "linearly dependent"),
        (
            Atoms("Na", cell=[[np.nan, 1, 0], [2, 2, 0], [0, 0, 3]], pbc=True),
            "the cell holds values that are not finite",
        ),
        (Atoms("Na2", positions=[[1, 1, 1], [1, 1, 1]]), "atoms 0 and 1 are at the same position"),
        (Atoms("Na2", positions=[[0, 1, 1], [4, 1, 1]], cell=[4, 5, 6], pbc=True), "are at the same position"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_impossible_structures_are_refused(atoms, message):
    with pytest.raises(ValueError, match=message):
        neighbor_graph(atoms, ELEMENTS, 4.0)


def test_list_is_searched_again_after_half_the_skin():
    atoms = rattled_crystal(repeat=(2, 2, 2))
    neighbors = NeighborList(ELEMENTS, 4.0, skin=1.0)
    neighbors.graph(atoms)
    atoms.positions[3] += [0.49, 0, 0]
    graph = neighbors.graph(atoms)
    assert neighbors.n_searches == 1
    np.testing.assert_array_equal(graph.positions.numpy(), atoms.positions)
    near = pair_distances(graph)
    fresh = pair_distances(neighbor_graph(atoms, ELEMENTS, 4.0))
    np.testing.assert_allclose(np.sort(near[near < 4.0]), np.sort(fresh), atol=1e-9)
    atoms.positions[3] += [0.02, 0, 0]
    neighbors.graph(atoms)
    assert neighbors.n_searches == 2


@pytest.mark.parametrize("change", ["cell", "numbers", "pbc", "charge", "length"])
def test_anything_but_positions_starts_a_new_search(change):
    atoms = salt_water_slab() if change == "cell" else rattled_crystal()
    neighbors = NeighborList(ELEMENTS, 4.0)
    neighbors.graph(atoms)
    if change == "cell":
        atoms.set_cell(atoms.cell.array * 1.0001)
    elif change == "numbers":
        atoms.symbols[0] = "Cl"
    elif change == "pbc":
        atoms.pbc = (True, True, False)
    elif change == "charge":
        atoms.info["charge"] = 1.0
    else:
        del atoms[0]
    neighbors.graph(atoms)
    assert neighbors.n_searches == 2


@pytest.mark.parametrize("mean_strain", [-3e-3, 0.0, 3e-3], ids=["shrinking", "trembling", "growing"])
def test_lists_hold_all_pairs_while_a_cell_changes(mean_strain):
    """As under a barostat, in a slanted cell: no neighbor is missing, and most steps need no search."""
    atoms, random = rattled_crystal(), np.random.default_rng(0)
    neighbors, n_steps = NeighborList(ELEMENTS, 4.0, skin=0.5), 40
    for _ in range(n_steps):
        strain = mean_strain * np.eye(3) + random.normal(scale=1e-3, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += random.normal(scale=0.01, size=(len(atoms), 3))
        graph = neighbors.graph(atoms)
        np.testing.assert_array_equal(graph.cell[0].numpy(), atoms.cell.array)
        np.testing.assert_array_equal(graph.positions.numpy(), atoms.positions)
        distances, fresh = pair_distances(graph), pair_distances(neighbor_graph(atoms, ELEMENTS, 4.0))
        np.testing.assert_allclose(np.sort(distances[distances < 4.0]), np.sort(fresh), atol=1e-9)
    assert neighbors.n_searches <= n_steps / 3
    assert neighbors.n_searches >= (2 if mean_strain else 1)


def test_a_changed_cell_is_the_same_tensor_until_the_next_change():
    atoms = rattled_crystal()
    neighbors = NeighborList(ELEMENTS, 4.0)
    neighbors.graph(atoms)
    atoms.set_cell(atoms.cell.array * 1.001, scale_atoms=True)
    first = neighbors.graph(atoms)
    atoms.rattle(0.01)
    second = neighbors.graph(atoms)
    assert neighbors.n_searches == 1
    assert second.cell is first.cell
    assert second.neighbors is first.neighbors


def meshes_offered(*structures):
    """Mesh that the list offers to hold for the last of the structures."""
    offered = []

    def mesh_shape_for(cell, held):
        offered.append(held)
        return (len(offered),) * 3

    neighbors = NeighborList(ELEMENTS, 4.0, mesh_shape_for=mesh_shape_for)
    for atoms in structures:
        neighbors.graph(atoms)
    return offered[-1]


def test_mesh_is_held_while_a_structure_moves():
    atoms, strained, moved = rattled_crystal(), rattled_crystal(), rattled_crystal()
    strained.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    moved.positions[3] += [0.4, 0.4, 0.4]
    assert meshes_offered(atoms, strained) == (1, 1, 1)
    assert meshes_offered(atoms, moved) == (1, 1, 1)
    assert meshes_offered(atoms, moved, strained) == (2, 2, 2)


@pytest.mark.parametrize("change", ["cell", "numbers", "length", "positions", "boundary between"])
def test_mesh_is_not_held_for_another_structure(change):
    """Energies of a data set must not depend on its order."""
    atoms, other = rattled_crystal(), rattled_crystal()
    between = []
    if change == "cell":
        other.set_cell(atoms.cell.array * 1.03, scale_atoms=True)
    elif change == "numbers":
        other.symbols[0] = "Cl"
    elif change == "length":
        del other[0]
    elif change == "positions":
        other.positions[0] += [1.0, 0.5, 0.0]
    else:
        between = [salt_water_slab()]
    assert meshes_offered(atoms, *between, other) is None


def test_positions_that_become_nan_are_reported():
    atoms = rattled_crystal()
    neighbors = NeighborList(ELEMENTS, 4.0)
    neighbors.graph(atoms)
    atoms.positions[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"not finite .* \[2\]"):
        neighbors.graph(atoms)


def test_skin_must_not_be_negative():
    with pytest.raises(ValueError, match="`skin` must be zero or a positive length"):
        NeighborList(ELEMENTS, 4.0, skin=-0.1)


def test_collated_graphs_keep_their_pairs():
    graphs = [neighbor_graph(atoms, ELEMENTS, 4.0) for atoms in (rattled_crystal(), water(), salt_water_slab())]
    batch = collate(graphs)
    assert batch.n_structures == 3
    first = 0
    for index, graph in enumerate(graphs):
        rows = slice(first, first + graph.n_atoms)
        assert (batch.structure[rows] == index).all()
        width = graph.neighbors.shape[1]
        assert torch.equal(batch.neighbors[rows, :width], graph.neighbors + first)
        assert torch.equal(batch.neighbor_mask[rows].sum(1), graph.neighbor_mask.sum(1))
        first += graph.n_atoms
    with pytest.raises(ValueError, match="at least one graph"):
        collate([])
