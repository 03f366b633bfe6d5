"""Checks of units and signs where atoms are held, and where a cell holds vacuum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, fcc111
from ase.units import GPa, Hartree
from rattled_frames import frame_of, rattled, scaled

from lrc_ase.dataset.near_frames import energies_against_forces
from lrc_ase.dataset.stress_scale import stresses_against_forces


@pytest.mark.parametrize(("factor", "message"), [(-1, "opposite sign"), (1 / GPa, "is in GPa")])
def test_slabs_in_a_box_tell_sign_and_unit_of_stresses(factor, message):
    slab = fcc111("Cu", (2, 2, 3), vacuum=5.0)  # a hexagonal cell
    slab.pbc = True
    slab.positions += 9.0  # across the boundary
    slab.wrap()
    frames = rattled(slab, 4, 0.05)
    assert stresses_against_forces(frames) == replace(stresses_against_forces(frames), basis="4 frames", warning=None)
    assert message in str(stresses_against_forces(scaled(frames, stress=factor)).warning)


def test_frames_with_held_atoms_tell_the_unit_of_energies():
    """A slab whose lowest layer does not move and has no labels, as in molecular dynamics with FixAtoms."""
    slab = fcc111("Cu", (2, 2, 3), vacuum=5.0)
    held = slab.get_tags() == 3
    frames = rattled(slab, 8, 0.05)
    for frame in frames:
        frame.atoms.positions[held] = slab.positions[held]
    frames = [frame_of(frame.atoms, frame.name) for frame in frames]
    frames = [replace(frame, forces=np.where(held[:, None], np.nan, frame.forces)) for frame in frames]
    assert energies_against_forces(frames) == replace(energies_against_forces(frames), basis="28 pairs of near frames")
    check = energies_against_forces(scaled(frames, energy=1 / Hartree))
    assert "the energies are in Hartree but the forces in eV/Angstrom" in str(check.warning)


def test_pairs_in_which_an_atom_without_label_moves_are_no_evidence():
    frames = rattled(bulk("Cu", cubic=True), 8, 0.03)
    frames = [
        replace(frame, forces=np.where(np.arange(len(frame.atoms))[:, None], frame.forces, np.nan)) for frame in frames
    ]
    assert energies_against_forces(frames).obstacle.startswith("0 pairs of frames")
