import pytest
import torch

from lrc_ase.structures.skin import Skin


def quantities():
    return torch.zeros(3, 3, dtype=torch.float64), [torch.arange(3), torch.eye(3)]


@pytest.mark.parametrize(("moved", "holds"), [(0.0, True), (0.49, True), (0.51, False), (float("nan"), False)])
def test_a_list_holds_until_an_atom_has_moved_half_the_skin(moved, holds):
    positions, unmoving = quantities()
    skin = Skin(1.0)
    assert not skin.holds(positions, unmoving)
    skin.searched(positions, unmoving)
    positions[1, 2] += moved  # in place: the skin has copies
    assert skin.holds(positions, unmoving) is holds
    assert skin.n_searches == 1


@pytest.mark.parametrize(
    ("factor", "moved", "holds"),
    [
        (1.0, 0.49, True),
        (1.0, 0.51, False),
        # two atoms at 4.0 + 1.0 come as near as 0.9 * 5.0 = 4.5: 0.25 are left for each
        (0.9, 0.24, True),
        (0.9, 0.26, False),
        (0.79, 0.0, False),
        # growing cells take no atom closer
        (1.2, 0.49, True),
        (1.2, 0.51, False),
        (float("nan"), 0.0, False),
        (0.0, 0.0, False),
    ],
)
def test_a_list_holds_while_the_skin_covers_the_strain(factor, moved, holds):
    generator = torch.Generator().manual_seed(0)
    positions, unmoving = 3 * torch.rand(3, 3, dtype=torch.float64, generator=generator), [torch.arange(3)]
    cell = torch.tensor([[5.0, 0, 0], [1, 5, 0], [0, 2, 4]], dtype=torch.float64)
    skin = Skin(1.0, 4.0)
    skin.searched(positions, unmoving, cell)
    strain = torch.diag(torch.tensor([1.0, 1.0, factor], dtype=torch.float64))
    positions = positions @ strain
    positions[1, 0] += moved
    assert skin.holds(positions, unmoving, cell @ strain) is holds


def test_a_list_of_one_boundary_does_not_hold_in_another():
    positions, unmoving = quantities()
    skin = Skin(1.0, 4.0)
    skin.searched(positions, unmoving)
    assert not skin.holds(positions, unmoving, torch.eye(3))
    skin.searched(positions, unmoving, torch.eye(3))
    assert not skin.holds(positions, unmoving)


@pytest.mark.parametrize("change", ["value", "length", "atoms", "fewer"])
def test_a_list_holds_for_nothing_else(change):
    positions, unmoving = quantities()
    skin = Skin(1.0)
    skin.searched(positions, unmoving)
    if change == "value":
        unmoving[0][0] = 5
    elif change == "length":
        unmoving[1] = torch.eye(2)
    elif change == "atoms":
        positions = positions[:2]
    else:
        unmoving.pop()
    assert not skin.holds(positions, unmoving)


def test_a_process_without_atoms_keeps_its_list():
    positions, unmoving = torch.zeros(0, 3), [torch.zeros(0)]
    skin = Skin(0.0)
    skin.searched(positions, unmoving)
    assert skin.holds(positions, unmoving)


@pytest.mark.parametrize("width", [-0.1, float("nan")])
def test_widths_that_are_none_are_refused(width):
    with pytest.raises(ValueError, match="`skin` must be zero or a positive length in Angstrom, got"):
        Skin(width)
