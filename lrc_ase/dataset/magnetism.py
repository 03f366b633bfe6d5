"""Magnetic moments and spin multiplicities of frames, which no potential reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from ase import Atoms

from lrc_ase.dataset.label_values import Remark
from lrc_ase.files.counted import counted

__all__ = ["magnetism_remark", "total_moment", "warn_of_multiplicities"]

_SMALLEST = 0.1
"""Bohr magnetons: smaller moments are left over in calculations of structures that are not magnetic."""
_MULTIPLICITIES = ("spin", "multiplicity", "spinmultiplicity", "totalspin", "mult")
"""Entries of `Atoms.info` that hold a spin state, without case and underscores."""


def _moments(atoms: Atoms) -> np.ndarray | None:
    """Return the magnetic moments along the axis of spin, (n_atoms,) in Bohr magnetons; None if there are none.

    Of noncollinear moments the norm is taken. Initial moments do not count: `ase.build.bulk` sets them for iron and
    nickel, whatever computes the labels.
    """
    results = {} if atoms.calc is None else atoms.calc.results
    computed = results.get("magmoms", atoms.arrays.get("magmoms"))
    if computed is None:
        return None
    moments = np.asarray(computed, dtype=np.float64)
    return np.linalg.norm(moments, axis=1) if moments.ndim == 2 else moments


def total_moment(atoms: Atoms) -> float | None:
    """Return the total magnetic moment along the axis of spin, Bohr magnetons; None without one."""
    total = None if atoms.calc is None else atoms.calc.results.get("magmom")
    if total is not None and np.ndim(total) == 0:
        return float(total)
    moments = _moments(atoms)
    return None if moments is None else float(moments.sum())


def magnetism_remark(atoms: Atoms) -> Remark | None:
    """Return a remark on a frame with magnetic moments, None for others."""
    moments, total = _moments(atoms), total_moment(atoms)
    sizes = np.abs([0.0 if total is None else total, *([] if moments is None else moments)])
    if not np.nanmax(sizes) > _SMALLEST:
        return None
    return Remark(
        "magnetic moments are not read: a potential has one energy for a structure and its charge, so keep frames of "
        "one magnetic state"
    )


def warn_of_multiplicities(frames: Iterable[Atoms]) -> list[str]:
    """Return a sentence for each entry of `Atoms.info` that names several spin states."""
    states: dict[str, Counter[str]] = {}
    for atoms in frames:
        for name, value in atoms.info.items():
            if str(name).lower().replace("_", "") in _MULTIPLICITIES and np.ndim(value) == 0:
                states.setdefault(str(name), Counter())[str(value)] += 1
    return [
        f"info entry '{name}' names {len(counts)} spin states ("
        + ", ".join(f"{value} in {counted(count, 'frame')}" for value, count in counts.most_common(4))
        + "), which a potential cannot tell apart: keep frames of one of them"
        for name, counts in states.items()
        if len(counts) > 1
    ]
