"""Advice to users whose data another way of training would serve better."""

from __future__ import annotations

from collections.abc import Sequence

from lrc_ase.dataset.labels import LabelledFrame

__all__ = ["pretraining_advice"]

_FEW_FRAMES = 1000
"""Frames up to which pretraining was measured (docs/notebook/accuracy.md)."""
_LARGEST_MOLECULE = 60
"""Somewhat more atoms than in the largest molecules with which it was measured, dipeptides of 51 atoms."""
_NONMETALS = frozenset({1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53})
"""Atomic numbers of the elements of molecules; semi-empirical methods describe metals badly."""


def pretraining_advice(frames: Sequence[LabelledFrame]) -> str | None:
    """Return a sentence on pretraining for a few frames of molecules; None for other frames.

    Frames of `lrc-ase sample` and `lrc-ase learn` name their teacher: for them a cheap method is there already.
    """
    if len(frames) > _FEW_FRAMES or any("teacher" in frame.atoms.info for frame in frames):
        return None
    if not all(map(_is_molecule, frames)):
        return None
    return (
        "these are few frames of molecules. `lrc-ase train FRAMES --model accurate --pretrain GFN2-xTB` learns a cheap "
        "method first, which lowered errors of three such sets by a quarter to a half (docs/how-to/pretraining.md)"
    )


def _is_molecule(frame: LabelledFrame) -> bool:
    atoms = frame.atoms
    return not atoms.pbc.any() and 3 <= len(atoms) <= _LARGEST_MOLECULE and _NONMETALS.issuperset(atoms.numbers)
