"""Element references."""

from __future__ import annotations

import ase
import numpy as np
import pytest

from lrc_ase.dataset import LabelledFrame
from lrc_ase.training.references import fit_references, isolated_references

ELEMENTS = ("H", "O", "Na", "Cl")
TRUE = np.array([-13.25, -2043.5, -1295.125, -12518.75]) * 100


def frame(formula, energy=None):
    atoms = ase.Atoms(formula)
    counts = [atoms.get_chemical_symbols().count(element) for element in ELEMENTS]
    energy = float(counts @ TRUE) if energy is None else energy
    return LabelledFrame(atoms, energy, np.zeros((len(atoms), 3)), np.zeros((3, 3)), formula)


def test_independent_compositions_give_exact_references():
    references = fit_references([frame(formula) for formula in ("H2O", "NaCl", "HCl", "NaOH", "H2O2")], ELEMENTS)
    assert not references.rank_deficient
    # to 1e-9 eV, of energies of 1e6 eV
    assert np.abs(references.values.numpy() - TRUE).max() < 1e-7


def test_rank_deficient_compositions_give_the_minimum_norm_and_say_so():
    # electrolyte: H = 2 O and Na = Cl in every frame
    frames = [frame(f"(H2O){n_water}(NaCl){n_salt}") for n_water, n_salt in ((50, 1), (52, 2), (60, 5), (48, 8))]
    references = fit_references(frames, ELEMENTS)
    assert references.rank == 2
    assert references.rank_deficient
    hydrogen, oxygen, sodium, chlorine = references.values.tolist()
    water, salt = 2 * TRUE[0] + TRUE[1], TRUE[2] + TRUE[3]
    assert 2 * hydrogen + oxygen == pytest.approx(water, rel=1e-12)
    # of all solutions of 2 h + o = w and n + c = s, the shortest: (2, 1) w / 5 and (1, 1) s / 2
    assert (hydrogen, oxygen) == pytest.approx((2 * water / 5, water / 5), rel=1e-9)
    assert (sodium, chlorine) == pytest.approx((salt / 2, salt / 2), rel=1e-9)


def test_isolated_atoms_do_not_bend_the_fit():
    frames = [frame("H2O"), frame("H2O2"), frame("O", energy=0.0), frame("H", energy=0.0)]
    assert fit_references(frames, ("H", "O")).values.tolist() == pytest.approx(TRUE[:2].tolist(), rel=1e-10)


def test_isolated_atoms_give_references():
    frames = [frame("H2O"), frame("O", energy=-7.0), frame("H", energy=-3.0)]
    assert isolated_references(frames, ("H", "O")).values.tolist() == [-3.0, -7.0]
    with pytest.raises(ValueError, match=r"need a one-atom frame with energy for \['Na'\]"):
        isolated_references(frames, ("H", "O", "Na"))


def test_frames_without_energies_have_references_of_zero():
    assert fit_references([frame("H2O", energy=np.nan)], ELEMENTS).values.tolist() == [0.0] * 4
    known = fit_references([frame("H2O", energy=np.nan)], ("H", "O"), {"H": -3.0})
    assert known.values.tolist() == [-3.0, 0.0]
    assert known.rank == 1


def test_every_frame_counts_by_its_energy_per_atom():
    """Least squares of two frames of one element, 1 and 3 eV per atom: the mean, 2 eV."""
    frames = [frame("O2", energy=2.0), frame("O200", energy=600.0)]
    assert fit_references(frames, ("O",)).values.tolist() == pytest.approx([2.0], rel=1e-12)


def test_known_elements_keep_their_energy():
    frames = [frame("H2O", energy=-20.0), frame("H4O2", energy=-40.0)]
    references = fit_references(frames, ("H", "O"), {"H": -3.0})
    assert references.values.tolist() == pytest.approx([-3.0, -14.0], rel=1e-12)
    assert references.rank == 2
    assert not references.rank_deficient
    assert fit_references(frames, ("H", "O"), {"H": -3.0, "O": 1.0}).values.tolist() == [-3.0, 1.0]


@pytest.mark.parametrize(
    ("cell", "pbc", "charge", "config_type", "is_isolated"),
    [
        (None, False, 0, None, True),
        ([3, 3, 3], False, 0, None, True),
        ([6.0, 7, 8], True, 0, None, True),
        ([5.9, 7, 8], True, 0, None, False),
        ([5.9, 7, 8], (False, True, True), 0, None, True),
        # the shortest lattice vector of this cell is the difference of two of its vectors, 5.1 Angstrom long
        ([[8, 0, 0], [7, 5, 0], [0, 0, 9]], True, 0, None, False),
        ([3, 3, 3], True, 0, "IsolatedAtom", True),
        ([3, 3, 3], True, 0, "isolated_atom", True),
        ([3, 3, 3], True, 0, "bulk", False),
        (None, False, 1, None, False),
    ],
)
def test_an_atom_is_isolated_by_its_images_or_its_name(cell, pbc, charge, config_type, is_isolated):
    atoms = ase.Atoms("O", cell=cell, pbc=pbc, info={"charge": charge})
    if config_type is not None:
        atoms.info["config_type"] = config_type
    frames = [LabelledFrame(atoms, -7.0, np.zeros((1, 3)), np.zeros((3, 3)), "atom")]
    if is_isolated:
        assert isolated_references(frames, ("O",)).values.tolist() == [-7.0]
    else:
        with pytest.raises(ValueError, match="a neutral atom without periodic images within 6 Angstrom"):
            isolated_references(frames, ("O",))


def test_two_energies_of_an_isolated_atom_agree_to_a_millielectronvolt():
    frames = [frame("O", energy=-7.0), frame("O", energy=-7.0009)]
    assert isolated_references(frames, ("O",)).values.tolist() == [-7.0]
    with pytest.raises(ValueError, match=r"two isolated atoms of O differ: -7\.0000 eV in O, -7\.0011 eV in O"):
        isolated_references([*frames, frame("O", energy=-7.0011)], ("O",))
