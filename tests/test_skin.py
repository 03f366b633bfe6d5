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
