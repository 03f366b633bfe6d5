"""Observables of a structure or a trajectory: thermodynamic state, radial distribution, energy drift."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from matscipy.neighbours import neighbour_list

__all__ = [
    "EnergyDrift",
    "ReferenceRDF",
    "ThermodynamicState",
    "energy_drift",
    "radial_distribution",
    "read_reference_rdf",
    "thermodynamic_state",
]


@dataclass(frozen=True)
class ThermodynamicState:
    """Thermodynamic quantities of one structure; NaN where a quantity does not exist."""

    potential: float
    """Potential energy, eV."""
    kinetic: float
    """Kinetic energy, eV."""
    temperature: float
    """2 E_kin / (degrees of freedom k_B) with ASE's count of degrees of freedom, K."""
    pressure: float
    """-(1/3) tr(stress) with the kinetic part, GPa; NaN without a volume or without a stress."""
    volume: float
    """Volume of the cell, Angstrom^3; NaN without one."""

    @property
    def total(self) -> float:
        """Return potential plus kinetic energy, eV."""
        return self.potential + self.kinetic


def thermodynamic_state(atoms: Atoms) -> ThermodynamicState:
    """Compute energies, temperature, pressure and volume of `atoms` with its calculator."""
    volume = pressure = float("nan")
    if atoms.cell.rank == 3:
        volume = float(atoms.get_volume())
        try:
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True, apply_constraint=False)
            pressure = float(-np.trace(stress) / 3 / units.GPa)
        except PropertyNotImplementedError:
            pass  # the calculator, or an open boundary, has none: NaN says so
    return ThermodynamicState(
        potential=float(atoms.get_potential_energy()),
        kinetic=float(atoms.get_kinetic_energy()),
        temperature=float(atoms.get_temperature()),
        pressure=pressure,
        volume=volume,
    )


def radial_distribution(
    frames: Iterable[Atoms], pair: tuple[str, str], *, cutoff: float, n_bins: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    r"""Compute the partial radial distribution of a pair of elements.

    .. math:: g_{ab}(r) = \frac{V}{N_a N_b} \, \frac{\langle n_{ab}(r) \rangle}{4\pi r^2 \Delta r}

    Pairs are counted through periodic boundaries, so `cutoff` may exceed half the cell; g tends to 1 in a liquid.

    Parameters
    ----------
    frames
        Periodic structures to average over.
    pair
        Two chemical symbols, equal or not.
    cutoff
        Largest distance, Angstrom.

    Returns
    -------
    Bin centres in Angstrom and g, both (n_bins,).

    Raises
    ------
    ValueError
        No frames, a frame that is not periodic in three directions, or an element that a frame lacks.
    """
    edges = np.linspace(0.0, cutoff, n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    total = np.zeros(n_bins)
    n_frames = 0
    for frame in frames:
        if not frame.pbc.all():
            raise ValueError("`frames` must be periodic in three directions, as g(r) needs a density")
        symbols = np.array(frame.get_chemical_symbols())
        n_first, n_second = (int(np.count_nonzero(symbols == symbol)) for symbol in pair)
        if n_first == 0 or n_second == 0:
            raise ValueError(f"`pair` must name elements of the frames, got {pair} and {frame.get_chemical_formula()}")
        first, second, distances = neighbour_list("ijd", frame, cutoff)
        of_pair = (symbols[first] == pair[0]) & (symbols[second] == pair[1])
        counts, _ = np.histogram(distances[of_pair], bins=edges)
        # an atom is no partner of itself
        n_partners = n_second - (pair[0] == pair[1])
        # normalized by frame, as volume and numbers of atoms may differ between frames
        total += counts / shells * frame.get_volume() / (n_first * max(n_partners, 1))
        n_frames += 1
    if n_frames == 0:
        raise ValueError("`frames` must hold at least one structure, got none")
    return 0.5 * (edges[1:] + edges[:-1]), total / n_frames


@dataclass(frozen=True)
class ReferenceRDF:
    """Table of radial distributions from another source."""

    r: np.ndarray
    """Distances, Angstrom, (n_bins,)."""
    g: dict[str, np.ndarray]
    """g(r) by pair, ``NaCl``, each (n_bins,)."""
    conditions: dict[str, str]
    """Values of the comment lines ``# name: value`` by name."""


def read_reference_rdf(path: str | Path) -> ReferenceRDF:
    """Read a CSV table of radial distributions: distance first, then one column per pair (``g_NaCl`` or ``Na-Cl``).

    Lines that begin with ``#`` are comments, of which ``# name: value`` are kept; the first other line names the
    columns.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    conditions = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in comments) if value}
    rows = list(csv.reader(line for line in lines if line.strip() and not line.startswith("#")))
    if len(rows) < 2:
        raise ValueError(f"{path}: expected a line of column names and lines of numbers, found {len(rows)} lines")
    names = [name.strip().removeprefix("g_").replace("-", "") for name in rows[0]]
    values = np.array(rows[1:], dtype=float)
    return ReferenceRDF(values[:, 0], dict(zip(names[1:], values.T[1:], strict=True)), conditions)


@dataclass(frozen=True)
class EnergyDrift:
    """Deviation of the total energy from a constant in a run at constant energy."""

    slope: float
    """Slope of a straight line through the total energy, eV per atom and ps."""
    drift: float
    """Slope times the length of the run, eV per atom."""
    max_deviation: float
    """Largest distance of the total energy from its first value, eV per atom."""


def energy_drift(times: np.ndarray, total_energies: np.ndarray, n_atoms: int) -> EnergyDrift:
    """Fit a straight line to the total energy of a run at constant energy, and return its drift.

    `times` in ps and `total_energies` in eV, both (n_samples,).
    """
    if len(times) < 2:
        raise ValueError(f"`times` must hold at least two samples, got {len(times)}")
    times = np.asarray(times, dtype=float)
    deviations = (np.asarray(total_energies, dtype=float) - total_energies[0]) / n_atoms
    slope = float(np.polyfit(times - times[0], deviations, 1)[0])
    return EnergyDrift(slope, slope * float(times[-1] - times[0]), float(np.abs(deviations).max()))
