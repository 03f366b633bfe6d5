"""Files for frames passed as `Atoms`: written to the run folder, so that a run can be resumed and reported on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrc_ase.dataset import Atoms, LabelKeys, LabelledFrame, label_frame, labelled_atoms, write_frames
from lrc_ase.dataset.frame_weights import WEIGHT_KEYS
from lrc_ase.dataset.remarks import counted_remarks
from lrc_ase.training.options import label_changes
from lrc_ase.training.run_folder import RunFolder

__all__ = ["FrameFiles", "FramesOrPaths"]

FramesOrPaths = str | os.PathLike[str] | Atoms | Sequence[str | os.PathLike[str] | Atoms]
"""One or several paths or `Atoms`."""
_LABEL_INFO = ("config_type",)
"""Entries of `Atoms.info` besides labels that a training uses."""


class FrameFiles:
    """Files of a run that hold frames from memory; they are removed if the run does not begin.

    A resumed run keeps the frames that it has: with `may_write` False `Atoms` are an error. Of several processes only
    the first one writes.
    """

    def __init__(
        self, folder: RunFolder, keys: LabelKeys | None = None, *, may_write: bool = True, is_first: bool = True
    ) -> None:
        self.folder = folder
        self.keys = keys
        self.may_write = may_write
        self.is_first = is_first
        self.written: list[str] = []
        self._in_memory: dict[str, bool] = {}
        """True for parts that were written from memory, False for parts in files of the user."""

    def __enter__(self) -> FrameFiles:
        return self

    def __exit__(self, *error: object) -> None:
        # without a configuration there is no run that could need the files
        if not self.folder.configuration.exists():
            for path in self.written:
                os.unlink(path)

    def paths(self, part: str, frames: FramesOrPaths) -> list[str]:
        """Return paths as they are; write `Atoms` to ``PART-frames.traj`` in the run folder and return its path.

        Raises
        ------
        TypeError
            Paths and `Atoms` are mixed, or an item is neither.
        ValueError
            A label cannot be used.
        """
        if isinstance(frames, Mapping):  # its keys would be taken for paths
            raise TypeError(f"the {part} frames are a mapping: `parse_configuration` makes a configuration of it")
        items = [frames] if isinstance(frames, (str, os.PathLike, Atoms)) else list(frames)
        if items:
            self._in_memory[part] = any(isinstance(item, Atoms) for item in items)
        if not self.may_write or not self._in_memory.get(part):
            return _paths_alone(items)
        atoms = [item for item in items if isinstance(item, Atoms)]
        if len(atoms) < len(items):
            strange = next(item for item in items if not isinstance(item, Atoms))
            raise TypeError(
                f"expected paths or ase.Atoms for the {part} frames, got {type(strange).__name__} among them"
            )
        path = self.folder.path / f"{part}-frames.traj"
        if not self.is_first:
            return [str(path)]
        labelled = [
            label_frame(each, self.keys, required=(), name=f"{part} frame {index}") for index, each in enumerate(atoms)
        ]
        for remark in counted_remarks(labelled):
            if remark.is_warning:
                warnings.warn(remark.text, stacklevel=2)
        write_frames(path, [_kept(*each) for each in zip(atoms, labelled, strict=True)])
        self.written.append(str(path))
        return [str(path)]

    def label_changes(self, *, watches: bool) -> dict[str, Any]:
        """Return dotted keys and values of a configuration that reads the labels of the user's files under `keys`.

        Labels of frames from memory were written under ASE's names. `watches` says that files are watched.

        Raises
        ------
        ValueError
            `keys` would have to hold for files and not for frames from memory that are read under the same keys.
        """
        if self.keys is None:
            return {}
        trained = {in_memory for part, in_memory in self._in_memory.items() if part != "test"} or {False}
        followed = {self._in_memory["test"]} if "test" in self._in_memory else set()
        followed |= {False} if watches else set()
        if len(trained) > 1 or len(followed) > 1:
            raise ValueError(
                "`keys` names the labels of files, those of frames in memory are written under ASE's names: give "
                "training and validation frames alike, and test and watched ones alike, all in memory or all as files"
            )
        changes = {} if True in trained else label_changes(self.keys)
        if followed and followed != trained:
            changes["watch_keys"] = {} if True in followed else self.keys.model_dump(exclude_none=True)
        return changes


def _paths_alone(items: Sequence[object]) -> list[str]:
    """Return paths as text; TypeError if an item is no path."""
    for item in items:
        if not isinstance(item, (str, os.PathLike)):
            raise TypeError(f"expected paths, got {type(item).__name__}: the run folder keeps the frames of its run")
    return [os.fspath(item) for item in items if isinstance(item, (str, os.PathLike))]


def _kept(atoms: Atoms, frame: LabelledFrame) -> Atoms:
    """Return a copy with labels under ASE's names, and with the entries and constraints that affect the labels."""
    kept = labelled_atoms(frame)
    kept.info |= {key: atoms.info[key] for key in _LABEL_INFO if key in atoms.info}
    if frame.weight != 1:
        kept.info[WEIGHT_KEYS[0]] = frame.weight
    kept.set_constraint(atoms.constraints)
    if "forces" in kept.calc.results:
        # forces that constraints hide are NaN now; as zeros beside their constraint they are read back the same way
        kept.calc.results["forces"] = np.nan_to_num(kept.calc.results["forces"])
    return kept
