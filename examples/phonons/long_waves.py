"""Optical vibrations of rock salt at long waves, from forces on displaced layers alone: no Born charges enter.

    python examples/phonons/long_waves.py nacl                 # a potential: a name, a file, a run's folder
    python examples/phonons/long_waves.py xtb --waves 2 4 6    # GFN1-xTB, needs tblite: 20 minutes on one core

A wave u cos(q x) of each kind of ion, of wavelength n a in a cell of n x 2 x 2 cubes, gives the matrix of force
constants between Na and Cl at q: longitudinal for displacements along x, transverse along y. Charges in the
longitudinal wave give the screened charge per displacement, Z*/eps_inf; with the splitting Z*^2 / (eps_inf eps0 V mu)
both factors follow. Prints a CSV table; gfn1_xtb.csv is the one of GFN1-xTB.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator

import lrc_ase

DISPLACEMENT = 0.02  # Angstrom
INVCM = units._hbar * np.sqrt(units._e / units._amu) * 1e10 / units._e / units.invcm
"""cm^-1 of the root of 1 eV/Angstrom^2/u."""
MASSES = np.array([22.98976928, 35.45])


def calculator_of(name: str) -> Calculator:
    """Return GFN1-xTB for "xtb", else a potential of this library."""
    if name == "xtb":
        from tblite.ase import TBLite

        return TBLite(method="GFN1-xTB", verbosity=0, accuracy=0.1)
    return lrc_ase.load(name)


def displaced(crystal: Atoms, wave: np.ndarray, symbol: str, axis: int) -> Atoms:
    """Return the crystal with one kind of ion moved along `axis` by the wave."""
    moved = crystal.copy()
    ions = crystal.symbols == symbol
    moved.positions[ions, axis] += DISPLACEMENT * wave[ions]
    return moved


def optical(calculator: Calculator, length: float, n_cells: int) -> tuple[float, float, float]:
    """Return longitudinal and transverse frequency (cm^-1) and mean screened charge (e) at the wavelength n a."""
    crystal = bulk("NaCl", "rocksalt", a=length, cubic=True).repeat((n_cells, 2, 2))
    q = 2 * np.pi / (n_cells * length)
    wave = np.cos(q * crystal.positions[:, 0])
    kinds = ("Na", "Cl")
    frequencies, charges = [], []
    for axis in (0, 1):
        matrix = np.zeros((2, 2))
        for column, kind in enumerate(kinds):
            moved = displaced(crystal, wave, kind, axis)
            moved.calc = calculator
            forces = moved.get_forces()[:, axis]
            for row, other in enumerate(kinds):
                ions = crystal.symbols == other
                matrix[row, column] = -(forces @ (wave * ions)) / (wave[ions] @ wave[ions]) / DISPLACEMENT
            if axis == 0:
                # a polarization Z u cos(qx) per volume of a pair has the charge density -dP/dx = Z u q sin(qx)
                density = moved.get_charges() @ np.exp(-1j * q * moved.positions[:, 0])
                charges.append(abs(2 * density.imag) / (DISPLACEMENT * q * len(crystal) / 2))
        dynamical = (matrix + matrix.T) / 2 / np.sqrt(np.outer(MASSES, MASSES))
        frequencies.append(INVCM * np.sqrt(np.linalg.eigvalsh(dynamical)[-1]))
    return frequencies[0], frequencies[1], float(np.mean(charges))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("calculator")
    parser.add_argument("--waves", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--length", type=float, default=5.433, help="lattice constant, Angstrom")
    arguments = parser.parse_args()
    calculator = calculator_of(arguments.calculator)
    print("# wave vector in 2 pi/a along x, frequencies in cm^-1, screened charge Z*/eps_inf in e")
    print("wave_vector,longitudinal,transverse,screened_charge")
    for n_cells in arguments.waves:
        values = optical(calculator, arguments.length, n_cells)
        print(f"{1 / n_cells:.6f}," + ",".join(f"{value:.4f}" for value in values))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
