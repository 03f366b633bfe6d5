"""Check that it costs energy to cut a crystal."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from ase import Atoms, units
from ase.build import surface

from lrc_ase.checks.crystal_cells import cell_widths, relaxed_crystal
from lrc_ase.checks.results import CheckResult, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.files.counted import counted
from lrc_ase.simulation.relaxation import RelaxationNotConverged, RelaxSettings, relax

__all__ = ["surface_energies"]

PLANES = ((1, 0, 0), (1, 1, 0))
THICKNESS = 12.0
"""Smallest thickness of a slab, Angstrom."""
VACUUM = 10.0
"""Distance from each side of a slab to the end of the cell, Angstrom."""
FORCE = 0.02
LARGEST_SLAB = 400
"""Largest number of atoms of a slab."""
JOULE_PER_SQUARE_METER = units.m**2 / units.J


def surface_energies(subject: Subject, rng: np.random.Generator) -> CheckResult:
    r"""Compute the energy of slabs that are open along their normal.

    .. math:: \gamma = (E_\mathrm{slab} - N E_\mathrm{bulk}) / 2 A

    Planes are those of the conventional cell, cut where the cell begins: no other termination is tried.
    """
    crystal = relaxed_crystal(subject)
    bulk_energy = crystal.get_potential_energy() / len(crystal)
    quantities, sizes = [], []
    for plane in PLANES[: 1 if subject.settings.quick else None]:
        name = "".join(map(str, plane))
        layer = surface(crystal, plane, 1, periodic=True)
        layers = max(int(np.ceil(THICKNESS / cell_widths(layer)[2])), 1)
        slab = surface(crystal, plane, layers, vacuum=VACUUM, periodic=False)
        slab.pbc = (True, True, False)
        if len(slab) > LARGEST_SLAB:
            continue
        subject.progress(f"({name}) surface, {counted(len(slab), 'atom')}")
        slab.calc = crystal.calc
        cut = _surface_energy(slab, bulk_energy)
        with suppress(RelaxationNotConverged):  # the energy so far is an upper limit
            relax(slab, RelaxSettings(fmax=FORCE, max_steps=200))
        sizes.append(f"({name}) of {len(slab)} atoms")
        quantities += [
            Quantity(
                f"energy of the ({name}) surface",
                _surface_energy(slab, bulk_energy),
                "J/m^2",
                at_least=0.0,
                is_main=True,
            ),
            Quantity(f"energy of the ({name}) surface as cut", cut, "J/m^2"),
        ]
    if not quantities:
        raise NotApplicable(f"slabs of {THICKNESS:g} Angstrom would hold more than {LARGEST_SLAB} atoms")
    return CheckResult.judged("surface energy", f"Slabs {', '.join(sizes)}, relaxed.", quantities)


def _surface_energy(slab: Atoms, bulk_energy: float) -> float:
    """Return the energy per area of both sides of a slab, J/m^2; `bulk_energy` in eV per atom."""
    area = float(np.linalg.norm(np.cross(slab.cell[0], slab.cell[1])))
    return float((slab.get_potential_energy() - len(slab) * bulk_energy) / (2 * area) * JOULE_PER_SQUARE_METER)
