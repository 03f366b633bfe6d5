"""Check, before anything is computed, that frames have labels to compare predictions with."""

from __future__ import annotations

from collections.abc import Sequence

from lrc_ase.dataset import SOURCE_KEY, Atoms, Label, LabelKeys, label_frame
from lrc_ase.dataset.remarks import counted_remarks
from lrc_ase.evaluation.electric import COMPARED

__all__ = ["check_comparable"]


def check_comparable(frames: Sequence[Atoms], keys: LabelKeys | None = None) -> list[str]:
    """Check that frames have labels, and return sentences about how these labels were read.

    Raises
    ------
    ValueError
        No frame has a label, or none has one under a key that the user named.
    """
    keys = keys or LabelKeys()
    labelled = [
        label_frame(atoms, keys, required=(), name=atoms.info.get(SOURCE_KEY, f"frame {index}"))
        for index, atoms in enumerate(frames)
    ]
    labels: tuple[Label, ...] = ("energy", "forces", "stress", *COMPARED)
    known = {label: any(frame.has(label) for frame in labelled) for label in labels}
    which = f"the frame {labelled[0].name}" if len(labelled) == 1 else f"any of the {len(labelled)} frames"
    for name, is_known in known.items():
        # a virial is read as a stress, so that its key stands for the same label
        key = keys.stress or keys.virial if name == "stress" else getattr(keys, name)
        # remarks say that dipoles of periodic frames are left out
        periodic = name == "dipole" and any(frame.atoms.pbc.any() for frame in labelled)
        if key is not None and not is_known and not periodic:
            raise ValueError(f"no {name} under the key '{key}' in {which}; {_entries(frames)}")
    if not any(known.values()):
        raise ValueError(
            f"nothing to compare with: no energy, forces, stress, dipole or Born effective charges in {which}; "
            f"{_entries(frames)}. Name the right entries with --energy-key, --forces-key and so on"
        )
    return [remark.text for remark in counted_remarks(labelled)]


def _entries(frames: Sequence[Atoms]) -> str:
    """Return a phrase that lists the results, info entries and arrays of the first frame."""
    atoms = frames[0]
    results = {} if atoms.calc is None else atoms.calc.results
    names = sorted({*results, *atoms.info, *atoms.arrays} - {SOURCE_KEY, "numbers", "positions"})
    return f"the first one holds {names}" if names else "the first one holds nothing but the structure"
