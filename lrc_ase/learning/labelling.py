"""The label phase of an iteration: by the teacher, or by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress

from lrc_ase.dataset import SOURCE_KEY, Atoms, LabelKeys, label_frame, labelled_atoms, read_frames
from lrc_ase.files.atomic import write_atomically
from lrc_ase.learning.label_store import LabelStore, exact_extxyz
from lrc_ase.learning.teacher_pool import Failure, TeacherPool

__all__ = [
    "FRAME_KEY",
    "LabelsNeeded",
    "Outcome",
    "failure_lines",
    "label_by_hand",
    "label_by_teacher",
    "request",
    "under_usual_names",
]

FRAME_KEY = "learn_frame"
"""Entry of `Atoms.info` that holds the name of a frame, such as ``3-07``: the eighth frame of iteration 3."""
_SAME = 1e-3
"""Difference of positions and cell vectors up to which a frame labelled by hand is the one that was asked for,
Angstrom; files of other programs have few decimals."""


class LabelsNeeded(Exception):
    """Exception of a loop without a teacher that waits for labels; the message says how to go on."""


@dataclass
class Outcome:
    """Result of a label phase."""

    labelled: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Reasons by name of frame."""
    skipped: int = 0
    """Frames that were not calculated as the time was over."""
    teacher_seconds: float = 0.0
    """Sum of the time of the calculations."""
    seconds: float = 0.0


def request(path: Path, frames: Sequence[Atoms], iteration: int) -> None:
    """Write frames that are to be labelled, with all bits of their positions, and give them names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, atoms in enumerate(frames):
        atoms.calc = None
        kept = {key: atoms.info[key] for key in atoms.info if key != SOURCE_KEY}
        atoms.info = {**kept, FRAME_KEY: f"{iteration}-{number:02d}"}
    write_atomically(path, "".join(map(exact_extxyz, frames)).encode())


def label_by_teacher(
    frames: Sequence[Atoms],
    store: LabelStore,
    open_pool: Callable[[], TeacherPool],
    *,
    failed: Path,
    out_of_time: Callable[[], bool],
    report: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Label the frames that are neither in the store nor among those that failed before, in `failed`.

    `open_pool` returns the teacher's processes; it is called if there is anything to label.
    Each label is on disk before the next one is taken. Calculations that would begin after `out_of_time` are
    skipped.
    """
    began = time.monotonic()
    outcome = Outcome(failures=json.loads(failed.read_text(encoding="utf-8")) if failed.exists() else {})
    waiting = [atoms for atoms in frames if atoms not in store and atoms.info[FRAME_KEY] not in outcome.failures]
    done = len(frames) - len(waiting)
    if waiting:
        asked: list[Atoms] = []

        def in_time() -> Iterator[Atoms]:
            for atoms in waiting:
                if out_of_time():
                    return
                asked.append(atoms)
                yield atoms

        for result in open_pool().label(in_time()):
            atoms = waiting[result.index]
            if isinstance(result, Failure):
                outcome.failures[atoms.info[FRAME_KEY]] = result.reason
                write_atomically(failed, json.dumps(outcome.failures, indent=1).encode())
            else:
                store.add(result.atoms, teacher_seconds=round(result.seconds, 4))
            done += 1
            if report is not None:
                report(done, len(frames))
        outcome.skipped = len(waiting) - len(asked)
    _count(outcome, frames, store)
    outcome.seconds = time.monotonic() - began
    return outcome


def failure_lines(failures: Mapping[str, str]) -> list[str]:
    """Return a sentence for each reason, with the names of the frames.

    >>> failure_lines({"0-00": "no SCF", "0-01": "killed", "0-02": "no SCF"})
    ['no label for 0-00, 0-02: no SCF', 'no label for 0-01: killed']
    """
    names: dict[str, list[str]] = {}
    for name, reason in failures.items():
        names.setdefault(reason, []).append(name)
    return [f"no label for {', '.join(frames)}: {reason}" for reason, frames in names.items()]


def label_by_hand(
    frames: Sequence[Atoms],
    store: LabelStore,
    *,
    target: Path,
    folder: Path,
    labels: Sequence[str],
    keys: LabelKeys,
) -> Outcome:
    """Take the labels of frames from files of the user; without such files write the frames to `target`.

    Frames are recognised by their name in `Atoms.info`, or by elements, positions and cell where a program dropped it.

    Raises
    ------
    LabelsNeeded
        Frames wait for labels, and no file holds labels of any.
    ValueError
        None of the labelled frames was asked for, one has other positions than those asked for, or lacks labels.
    """
    outcome = Outcome()
    waiting = {atoms.info[FRAME_KEY]: atoms for atoms in frames if atoms not in store}
    if waiting and not labels:
        write_atomically(target, "".join(map(exact_extxyz, waiting.values())).encode())
        raise LabelsNeeded(
            f"{len(waiting)} frames wait for labels in {target}: compute energy, forces and (if periodic) stress of "
            "each without moving atoms, write them to a file of any format of ASE, and go on with\n"
            f"  lrc-ase learn {quote(str(folder))} --resume --labels labelled.extxyz"
        )
    if waiting:
        answers, n_waiting = read_frames(list(labels)), len(waiting)
        for atoms in answers:
            name = _name_of(atoms, waiting)
            if name is None:
                continue
            answer = under_usual_names(atoms, keys)
            asked = waiting.pop(name)
            # a file of few decimals must not change what was asked for
            answer.positions[:], answer.cell[:] = asked.positions, asked.cell
            answer.info = dict(asked.info)
            store.add(answer)
        if len(waiting) == n_waiting:
            raise ValueError(
                f"none of the {len(answers)} frames in {', '.join(labels)} is one of the {n_waiting} that were asked "
                f"for in {target}: label exactly those structures"
            )
        outcome.failures = {name: f"not in {', '.join(labels)}" for name in waiting}
    _count(outcome, frames, store)
    return outcome


def under_usual_names(atoms: Atoms, keys: LabelKeys) -> Atoms:
    """Return a copy of a frame of the user with its labels under the names and in the shapes of ASE.

    ValueError for a frame without energy or forces, or with a label that cannot be used.
    """
    labelled = labelled_atoms(label_frame(atoms, keys, name=atoms.info[SOURCE_KEY]))
    if "stress" in labelled.calc.results:
        labelled.calc.results["stress"] = full_3x3_to_voigt_6_stress(
            np.reshape(labelled.calc.results["stress"], (3, 3))
        )
    return labelled


def _name_of(atoms: Atoms, waiting: dict[str, Atoms]) -> str | None:
    """Return the name of the waiting frame that `atoms` is, None if it is none of them."""
    name = str(atoms.info.get(FRAME_KEY, ""))
    if name in waiting:
        if not _is_same(atoms, waiting[name]):
            raise ValueError(
                f"{atoms.info[SOURCE_KEY]}: the frame {name} does not have the atoms, positions and cell that were "
                "asked for: label it without moving atoms or changing their order"
            )
        return name
    return next((key for key, asked in waiting.items() if _is_same(atoms, asked)), None)


def _is_same(first: Atoms, second: Atoms) -> bool:
    """Return True if two structures agree to the precision of common file formats."""
    if not np.array_equal(first.numbers, second.numbers):
        return False
    periodic = second.pbc
    if not np.allclose(first.cell.array[periodic], second.cell.array[periodic], atol=_SAME, rtol=0):
        return False
    shift = first.positions - second.positions
    if periodic.any():  # programs wrap atoms into the cell
        shift -= np.round(shift @ np.linalg.pinv(second.cell.array) * periodic) @ second.cell.array
    return bool(np.abs(shift).max(initial=0.0) <= _SAME)


def _count(outcome: Outcome, frames: Sequence[Atoms], store: LabelStore) -> None:
    """Set the number of labels and the teacher's time from the store, which holds those of earlier sessions too."""
    stored = [label for atoms in frames if (label := store.get(atoms)) is not None]
    outcome.labelled = len(stored)
    outcome.teacher_seconds = sum(float(label.info.get("teacher_seconds", 0.0)) for label in stored)
