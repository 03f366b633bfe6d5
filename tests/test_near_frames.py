"""No single pair of frames decides whether energies fit forces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ase.io import read

from lrc_ase.dataset import inspect_frames, label_frame

DATA = Path(__file__).resolve().parents[1] / "examples" / "ion_water" / "train.extxyz"


@pytest.mark.parametrize("n_frames", [30, 60, 90, 240])
def test_a_pair_whose_error_is_small_by_chance_raises_no_warning(n_frames):
    """Of the first 60 frames six pairs are near; one of them had almost all the weight, and a slope of -1."""
    frames = [label_frame(atoms) for atoms in read(DATA, f":{n_frames}")]
    assert inspect_frames({"set": frames}).warnings == ()


def test_gradients_in_place_of_forces_are_still_seen():
    frames = [label_frame(atoms) for atoms in read(DATA, ":")]
    gradients = [replace(frame, forces=-frame.forces) for frame in frames]
    assert any("the forces are gradients" in text for text in inspect_frames({"set": gradients}).warnings)
