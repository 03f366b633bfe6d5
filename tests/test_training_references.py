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
