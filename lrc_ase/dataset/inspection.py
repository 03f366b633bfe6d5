"""Report on labelled frames before anything is trained on them: statistics, checks, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from lrc_ase.dataset.check import Check
from lrc_ase.dataset.consecutive import consecutive_runs
from lrc_ase.dataset.energy_scale import isolated_atoms
from lrc_ase.dataset.labelled_graphs import elements_of
from lrc_ase.dataset.labels import ELECTRIC_LABELS, Label, LabelledFrame
from lrc_ase.dataset.lazy import sample
from lrc_ase.dataset.magnetism import total_moment, warn_of_multiplicities
from lrc_ase.dataset.outliers import check_outliers, force_noise, net_forces
from lrc_ase.dataset.reading import CONVERSION, is_of_cp2k
from lrc_ase.dataset.remarks import counted_remarks
from lrc_ase.dataset.repeats import warn_of_repeats
from lrc_ase.dataset.statistics import set_statistics
from lrc_ase.dataset.theory_levels import warn_of_levels
from lrc_ase.dataset.units import check_units
from lrc_ase.files.counted import counted
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.domain import summarize
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = ["DataReport", "inspect_frames"]

_SHOWN = 4
"""Compositions, frames and pairs named before a list ends in their number."""
_INSPECTED = 10_000
"""Frames of a set that are looked at."""
_MEASURED = 200
"""Frames of a set in which distances are measured."""
_LARGEST_SEQUENCE = 2000
"""Frames of a set in which consecutive ones are looked for."""
_SEARCH_RADIUS = 3.5
"""Angstrom."""


@dataclass(frozen=True)
class DataReport:
    """Statistics of sets of frames, checks of their labels and structures, and warnings."""

    sets: tuple[str, ...]
    """Names of the sets, the columns of the table."""
    rows: Mapping[str, tuple[str, ...]]
    """Text for each set, by property."""
    warnings: tuple[str, ...]
    """One sentence each."""
    notes: tuple[str, ...] = ()
    """Remarks on the reading of labels, one sentence each."""
    checked: tuple[str, ...] = ()
    """Checks that came to a verdict, with the samples they rest on; one line for each set."""
    unchecked: tuple[str, ...] = ()
    """Checks without a verdict, with the reason; one line for each check of a set."""
    numbers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Counts and distributions of each set, see `lrc_ase.dataset.statistics.set_statistics`."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values: texts and numbers of each set, checks, notes, warnings, verdict."""
        sets = {name: {row: texts[i] for row, texts in self.rows.items()} for i, name in enumerate(self.sets)}
        lists = {name: list(getattr(self, name)) for name in ("checked", "unchecked", "notes", "warnings")}
        return {"sets": sets, "numbers": dict(self.numbers), **lists, "verdict": self.verdict}

    @property
    def verdict(self) -> str:
        """Return one sentence that claims no more than was checked."""
        if self.warnings:
            return f"{counted(len(self.warnings), 'warning')}."
        if self.unchecked:
            return "The checks that could be made found nothing wrong."
        return "The checks found nothing wrong."


def _isolated(frames: Sequence[LabelledFrame]) -> str:
    """Write the energies of isolated atoms, of which training takes `references: isolated-atoms`."""
    energies = sorted(isolated_atoms({"": frames}).items())
    return ", ".join(f"{chemical_symbols[number]} {energy:.4f}" for number, energy in energies) or "none"


def _signed(charge: float) -> str:
    """Write a charge with its sign, and zero without one."""
    return f"{charge:+g}" if charge else "0"


def inspect_frames(sets: Mapping[str, Sequence[LabelledFrame]]) -> DataReport:
    """Describe sets of frames, and check labels and structures for mistakes.

    The report holds counts, compositions, distances and the distribution of forces. Checks look for outliers,
    duplicates, net forces and units other than eV and Angstrom. The report names the checks that could not be made.

    At most 10,000 frames of a set are inspected, and distances measured in up to 200. Sets without frames are left out.
    """
    filled = {name: sample(frames, _INSPECTED) for name, frames in sets.items() if len(frames)}
    if not filled:
        raise ValueError("`sets` must hold at least one frame, got none")
    describe: dict[str, Callable[[Sequence[LabelledFrame]], str]] = {
        "atoms per frame": lambda frames: _range([len(frame.atoms) for frame in frames], "d"),
        "compositions": lambda frames: _counts(frame.atoms.get_chemical_formula("metal") for frame in frames),
        "boundaries": lambda frames: _counts(_boundary(frame) for frame in frames),
        "isolated atoms (eV)": _isolated,
        "total charges (e)": lambda frames: _counts(_signed(total_charge(frame.atoms)) for frame in frames),
        "with energy": lambda frames: _share(np.isfinite(frame.energy) for frame in frames),
        "with forces": lambda frames: _share(np.isfinite(frame.forces).any() for frame in frames),
        "with stress": lambda frames: _share(np.isfinite(frame.stress).all() for frame in frames),
        "force components without label": lambda frames: str(sum(int(np.isnan(f.forces).sum()) for f in frames)),
        "energy per atom (eV)": lambda frames: _range([f.energy / len(f.atoms) for f in frames if len(f.atoms)], ".4f"),
        "force: RMS of components (eV/Angstrom)": _rms,
        "force: median, 99%, largest (eV/Angstrom)": _force_quantiles,
        "net force: median, largest (eV/Angstrom)": _net_forces,
        "noise of forces by net forces (meV/Angstrom)": _noise,
        "shortest distances (Angstrom)": _shortest,
        "consecutive frames": _consecutive,
    }
    describe |= {
        f"with {label.replace('_', ' ').replace('born', 'Born')}": partial(_share_with, label)
        for label in ELECTRIC_LABELS
        if any(frame.has(label) for frames in filled.values() for frame in frames)
    }
    if any(total_moment(frame.atoms) for frames in filled.values() for frame in frames):
        describe["total magnetic moment (Bohr magnetons)"] = _total_moments
    rows = {"frames": tuple(_count(len(sets[name]), len(frames)) for name, frames in filled.items())}
    rows |= {name: tuple(text(frames) for frames in filled.values()) for name, text in describe.items()}
    remarks = {name: counted_remarks(frames) for name, frames in filled.items()}
    doubts = [f"{name}: {remark.text}" for name, each in remarks.items() for remark in each if remark.is_warning]
    notes = [f"{name}: {remark.text}" for name, each in remarks.items() for remark in each if not remark.is_warning]
    isolated = isolated_atoms(filled)
    checks = {name: [*check_units(frames, isolated), *check_outliers(frames)] for name, frames in filled.items()}
    warnings = [f"{name}: {text}" for name, frames in filled.items() for text in _missing_labels(frames)]
    warnings += [
        f"{name}: {text}"
        for name, frames in filled.items()
        for text in warn_of_multiplicities(frame.atoms for frame in frames)
    ]
    warnings += [f"{name}: {check.warning}" for name, each in checks.items() for check in each if check.warning]
    return DataReport(
        tuple(filled),
        rows,
        (*doubts, *warnings, *warn_of_levels(filled), *warn_of_repeats(filled)),
        tuple(notes),
        tuple(f"{name}: {text}" for name, each in checks.items() if (text := _made(each))),
        _not_made(checks),
        {name: set_statistics(frames) for name, frames in filled.items()},
    )


def _made(checks: Sequence[Check]) -> str:
    """Return the checks that came to a verdict, with their samples."""
    return ", ".join(f"{check.subject} ({check.basis})" for check in checks if check.basis)


def _not_made(checks: Mapping[str, Sequence[Check]]) -> tuple[str, ...]:
    """Return the checks that could not be made with their reasons, sets of one reason together."""
    sets: dict[str, list[str]] = {}
    for name, each in checks.items():
        for check in each:
            if not check.basis:
                sets.setdefault(f"{check.subject} ({check.obstacle})", []).append(name)
    return tuple(f"{', '.join(names)}: {text}" for text, names in sets.items())


def _missing_labels(frames: Sequence[LabelledFrame]) -> list[str]:
    """Return sentences about labels that some frames have and others lack, or about a set without labels."""
    energies = [bool(np.isfinite(frame.energy)) for frame in frames]
    # a single atom needs no force, which is zero by symmetry
    forces = [bool(np.isfinite(frame.forces).any()) for frame in frames if len(frame.atoms) > 1]
    if not any(energies) and not any(forces):
        remedy = f". If CP2K wrote them: {CONVERSION.format(path='FOLDER')}" if is_of_cp2k(frames[0].atoms) else ""
        return [f"no frame has an energy or forces under a known name: nothing about labels could be checked{remedy}"]
    n_empty = sum(not len(frame.atoms) for frame in frames)
    sentences = [f"{n_empty} of {len(frames)} frames hold no atoms"] if n_empty else []
    for label, present in (("energy", energies), ("forces", forces)):
        if any(present) and not all(present):
            n_absent = present.count(False)
            sentences.append(f"{n_absent} of {len(present)} frames {'have' if n_absent > 1 else 'has'} no {label}")
    return sentences


def _total_moments(frames: Sequence[LabelledFrame]) -> str:
    """Return the range of the total magnetic moments."""
    moments = [total_moment(frame.atoms) for frame in frames]
    # rounded, so that a moment of -0.0001 is not written as -0
    return _range([round(each, 1) + 0.0 for each in moments if each is not None], "g")


def _consecutive(frames: Sequence[LabelledFrame]) -> str:
    """Return the number of consecutive frames and of the trajectories that they form."""
    runs = consecutive_runs(frames[:_LARGEST_SEQUENCE])
    if not runs:
        return "none"
    looked_at = f" of the first {_LARGEST_SEQUENCE}" if len(frames) > _LARGEST_SEQUENCE else ""
    return f"{sum(map(len, runs))}{looked_at} in {len(runs)} trajector{'ies' if len(runs) > 1 else 'y'}"


def _count(n_frames: int, n_inspected: int) -> str:
    return str(n_frames) if n_frames == n_inspected else f"{n_frames} ({n_inspected} looked at)"


def _boundary(frame: LabelledFrame) -> str:
    """Return a word for the number of periodic directions."""
    return ("open", "wire", "slab", "periodic")[int(frame.atoms.pbc.sum())]


def _norms(frame: LabelledFrame) -> np.ndarray:
    """Return the norm of the force on each atom that has a label, eV/Angstrom."""
    norms = np.linalg.norm(frame.forces, axis=1)
    return np.asarray(norms[np.isfinite(norms)])


def _rms(frames: Sequence[LabelledFrame]) -> str:
    """Return the root mean square of the force components, eV/Angstrom."""
    components = np.concatenate([frame.forces.ravel() for frame in frames])
    components = components[np.isfinite(components)]
    return f"{np.sqrt(np.mean(components**2)):.4g}" if components.size else "-"


def _noise(frames: Sequence[LabelledFrame]) -> str:
    """Return the noise of the force components that net forces reveal, meV/Angstrom."""
    noise = force_noise(frames)
    return f"{1e3 * noise:.3g}" if np.isfinite(noise) else "-"


def _net_forces(frames: Sequence[LabelledFrame]) -> str:
    """Return median and maximum of the net forces, eV/Angstrom."""
    net = net_forces(frames)
    net = net[np.isfinite(net)]
    return f"{np.median(net):.2g}, {net.max():.2g}" if net.size else "-"


def _force_quantiles(frames: Sequence[LabelledFrame]) -> str:
    """Return median, 99% quantile and maximum of the forces on atoms, eV/Angstrom."""
    norms = np.concatenate([_norms(frame) for frame in frames])
    if not norms.size:
        return "-"
    return ", ".join(f"{value:.3g}" for value in np.quantile(norms, [0.5, 0.99, 1.0]))


def _shortest(frames: Sequence[LabelledFrame]) -> str:
    """Return the shortest distances of pairs of elements, or why they cannot be measured."""
    measured = sample([frame for frame in frames if len(frame.atoms)], _MEASURED)
    elements = elements_of([frame.atoms for frame in measured])
    try:
        graphs = [neighbor_graph(frame.atoms, elements, _SEARCH_RADIUS) for frame in measured]
    except ValueError as error:
        return f"not measured: {error}"
    pairs = summarize(graphs, elements)["shortest_distances"]
    shown = sorted(pairs.items(), key=lambda item: item[1])
    text = ", ".join(f"{pair} {distance:.2f}" for pair, distance in shown[: 2 * _SHOWN])
    return text or f"none below {_SEARCH_RADIUS:g}"


def _range(values: Sequence[float], style: str) -> str:
    """Return minimum and maximum of the finite values."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    low, high = format(min(known), style), format(max(known), style)
    return low if low == high else f"{low} to {high}"


def _counts(values: Iterable[str]) -> str:
    """Return the most frequent values with their counts."""
    counted = Counter(values)
    shown = [f"{value} ({count})" for value, count in counted.most_common(_SHOWN)]
    rest = len(counted) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _share_with(label: Label, frames: Sequence[LabelledFrame]) -> str:
    """Return "all", "none", or the number of frames with a label."""
    return _share(frame.has(label) for frame in frames)


def _share(flags: Iterable[bool | np.bool_]) -> str:
    """Return "all", "none", or the number of true flags."""
    values = list(flags)
    n_true = sum(map(bool, values))
    return "all" if n_true == len(values) else "none" if n_true == 0 else str(n_true)
