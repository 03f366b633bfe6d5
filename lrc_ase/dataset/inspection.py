"""A look at labelled frames before anything is trained on them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrc_ase.dataset.labelled_graphs import elements_of
from lrc_ase.dataset.labels import LabelledFrame
from lrc_ase.dataset.lazy import sample
from lrc_ase.dataset.remarks import counted_remarks
from lrc_ase.dataset.units import suspicious_units
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
_SEARCH_RADIUS = 3.5
"""Angstrom."""


@dataclass(frozen=True)
class DataReport:
    """What sets of frames hold, and what about them looks wrong."""

    sets: tuple[str, ...]
    """Names of the sets, the columns of the table."""
    rows: Mapping[str, tuple[str, ...]]
    """Text for each set, by property."""
    warnings: tuple[str, ...]
    """One sentence each."""
    notes: tuple[str, ...] = ()
    """How labels were read where that is not obvious, one sentence each."""


def inspect_frames(sets: Mapping[str, Sequence[LabelledFrame]]) -> DataReport:
    """Counts, compositions, distances, distribution of forces, outliers, duplicates, units and net forces of sets.

    Of large sets 10,000 frames are looked at, and distances measured in up to 200. Sets without frames are left out.
    """
    filled = {name: sample(frames, _INSPECTED) for name, frames in sets.items() if len(frames)}
    if not filled:
        raise ValueError("`sets` must hold at least one frame, got none")
    describe: dict[str, Callable[[Sequence[LabelledFrame]], str]] = {
        "atoms per frame": lambda frames: _range([len(frame.atoms) for frame in frames], "d"),
        "compositions": lambda frames: _counts(frame.atoms.get_chemical_formula() for frame in frames),
        "boundaries": lambda frames: _counts(_boundary(frame) for frame in frames),
        "total charges (e)": lambda frames: _counts(f"{total_charge(frame.atoms):+g}" for frame in frames),
        "with energy": lambda frames: _share(np.isfinite(frame.energy) for frame in frames),
        "with forces": lambda frames: _share(np.isfinite(frame.forces).any() for frame in frames),
        "with stress": lambda frames: _share(np.isfinite(frame.stress).all() for frame in frames),
        "force components without label": lambda frames: str(sum(int(np.isnan(f.forces).sum()) for f in frames)),
        "energy per atom (eV)": lambda frames: _range([frame.energy / len(frame.atoms) for frame in frames], ".4f"),
        "force: RMS of components (eV/Angstrom)": lambda frames: f"{_rms(frames):.4g}",
        "force: median, 99%, largest (eV/Angstrom)": _force_quantiles,
        "net force: median, largest (eV/Angstrom)": _net_forces,
        "shortest distances (Angstrom)": _shortest,
    }
    rows = {"frames": tuple(_count(len(sets[name]), len(frames)) for name, frames in filled.items())}
    rows |= {name: tuple(text(frames) for frames in filled.values()) for name, text in describe.items()}
    remarks = {name: counted_remarks(frames) for name, frames in filled.items()}
    doubts = [f"{name}: {remark.text}" for name, each in remarks.items() for remark in each if remark.is_warning]
    notes = [f"{name}: {remark.text}" for name, each in remarks.items() for remark in each if not remark.is_warning]
    warnings = [f"{name}: {text}" for name, frames in filled.items() for text in _suspicious(frames)]
    return DataReport(tuple(filled), rows, (*doubts, *warnings, *_duplicates(filled)), tuple(notes))


def _suspicious(frames: Sequence[LabelledFrame]) -> list[str]:
    found = list(suspicious_units(frames))
    if outliers := _outliers(frames):
        found.append(f"forces far from the others, up to {outliers[0][1]:.3g} eV/Angstrom: {_names(outliers)}")
    if outliers := _energy_outliers(frames):
        found.append(f"energies per atom far from others of their composition: {_names(outliers)}")
    net, expected = _net(frames), _rms(frames)
    strong = [
        (frame.name, float(value))
        for frame, value in zip(frames, net, strict=True)
        if value > max(0.02 * expected * np.sqrt(3 * len(frame.atoms)), 1e-3)
    ]
    if strong:
        worst = max(value for _, value in strong)
        found.append(
            f"forces do not sum to zero in {len(strong)} of {len(frames)} frames, by up to {worst:.3g} eV/Angstrom: "
            "noise in the labels, an outer field, or forces of fixed atoms that were set to zero"
        )
    energies = np.array([frame.energy for frame in frames])
    if len(frames) > 2 and np.isfinite(energies).all() and np.ptp(energies) == 0:
        found.append("all energies are the same: they were filled in, not computed")
    return found


def _outliers(frames: Sequence[LabelledFrame]) -> list[tuple[str, float]]:
    """Frames whose largest force is far beyond that of the others, the largest first."""
    largest = np.array([_norms(frame).max(initial=0.0) for frame in frames])
    chosen = [index for index in np.argsort(-largest) if largest[index] > _far(largest)]
    return [(frames[index].name, float(largest[index])) for index in chosen]


def _energy_outliers(frames: Sequence[LabelledFrame]) -> list[tuple[str, float]]:
    """Frames whose energy per atom is far from the median of their composition, in units of its spread."""
    by_formula: dict[str, list[LabelledFrame]] = {}
    for frame in frames:
        if np.isfinite(frame.energy):
            by_formula.setdefault(frame.atoms.get_chemical_formula(), []).append(frame)
    found = []
    for group in by_formula.values():
        if len(group) < 10:
            continue
        energies = np.array([frame.energy / len(frame.atoms) for frame in group])
        gaps = np.abs(energies - np.median(energies))
        limit = _far(gaps)
        found += [(frame.name, float(gap)) for frame, gap in zip(group, gaps, strict=True) if gap > limit]
    return sorted(found, key=lambda pair: -pair[1])


def _far(values: np.ndarray) -> float:
    """Where values are no longer the tail of a wide distribution."""
    middle, high = np.quantile(values, [0.5, 0.95])
    return float(max(10 * middle, 3 * high, 1e-6))


def _duplicates(sets: Mapping[str, Sequence[LabelledFrame]]) -> list[str]:
    """Frames that occur more than once, in a set or in several."""
    places: dict[bytes, list[tuple[str, str]]] = {}
    for name, frames in sets.items():
        for frame in frames:
            digest = hashlib.sha256()
            for array in (frame.atoms.numbers, frame.atoms.positions, frame.atoms.cell.array):
                digest.update(np.ascontiguousarray(np.round(array, 6) + 0.0).tobytes())
            places.setdefault(digest.digest(), []).append((name, frame.name))
    warnings = []
    repeated: Counter[tuple[str, ...]] = Counter()
    example: dict[tuple[str, ...], str] = {}
    for found in places.values():
        if len(found) > 1:
            key = tuple(dict.fromkeys(name for name, _ in found))
            repeated[key] += len(found) - 1
            example.setdefault(key, f"{found[0][1]} and {found[1][1]}")
    for key, count in repeated.items():
        where = f"in {key[0]}" if len(key) == 1 else f"in both {' and '.join(key)}"
        warnings.append(f"{count} frames occur more than once {where}, for example {example[key]}")
    return warnings


def _count(n_frames: int, n_inspected: int) -> str:
    return str(n_frames) if n_frames == n_inspected else f"{n_frames} ({n_inspected} looked at)"


def _boundary(frame: LabelledFrame) -> str:
    return ("open", "wire", "slab", "periodic")[int(frame.atoms.pbc.sum())]


def _norms(frame: LabelledFrame) -> np.ndarray:
    """Force on each atom that has one, eV/Angstrom."""
    norms = np.linalg.norm(frame.forces, axis=1)
    return np.asarray(norms[np.isfinite(norms)])


def _rms(frames: Sequence[LabelledFrame]) -> float:
    components = np.concatenate([frame.forces.ravel() for frame in frames])
    components = components[np.isfinite(components)]
    return float(np.sqrt(np.mean(components**2))) if components.size else float("nan")


def _net(frames: Sequence[LabelledFrame]) -> np.ndarray:
    """Norm of the summed forces of each frame; NaN where one has no label."""
    return np.array([np.linalg.norm(frame.forces.sum(axis=0)) for frame in frames])


def _net_forces(frames: Sequence[LabelledFrame]) -> str:
    net = _net(frames)
    net = net[np.isfinite(net)]
    return f"{np.median(net):.2g}, {net.max():.2g}" if net.size else "-"


def _force_quantiles(frames: Sequence[LabelledFrame]) -> str:
    norms = np.concatenate([_norms(frame) for frame in frames])
    if not norms.size:
        return "-"
    return ", ".join(f"{value:.3g}" for value in np.quantile(norms, [0.5, 0.99, 1.0]))


def _shortest(frames: Sequence[LabelledFrame]) -> str:
    sample = frames[:: max(len(frames) // _MEASURED, 1)]
    elements = elements_of([frame.atoms for frame in sample])
    try:
        graphs = [neighbor_graph(frame.atoms, elements, _SEARCH_RADIUS) for frame in sample]
    except ValueError as error:
        return f"not measured: {error}"
    pairs = summarize(graphs, elements)["shortest_distances"]
    shown = sorted(pairs.items(), key=lambda item: item[1])
    text = ", ".join(f"{pair} {distance:.2f}" for pair, distance in shown[: 2 * _SHOWN])
    return text or f"none below {_SEARCH_RADIUS:g}"


def _range(values: Sequence[float], style: str) -> str:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    low, high = format(min(known), style), format(max(known), style)
    return low if low == high else f"{low} to {high}"


def _counts(values: object) -> str:
    counted = Counter(values)  # type: ignore[call-overload]
    shown = [f"{value} ({count})" for value, count in counted.most_common(_SHOWN)]
    rest = len(counted) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _share(flags: object) -> str:
    values = list(flags)  # type: ignore[call-overload]
    n_true = sum(bool(value) for value in values)
    return "all" if n_true == len(values) else "none" if n_true == 0 else str(n_true)


def _names(pairs: Sequence[tuple[str, float]]) -> str:
    rest = len(pairs) - _SHOWN
    return ", ".join(name for name, _ in pairs[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
