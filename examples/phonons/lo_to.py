"""Phonon bands of rock salt with and without the non-analytic correction, beside long waves of GFN1-xTB.

    python examples/phonons/lo_to.py nacl

Needs phonopy (`pip install ".[phonons]"`). Writes lo_to.png and BORN, phonopy's file of Born charges and permittivity.
"""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from matplotlib.figure import Figure
from phonopy.file_IO import write_BORN

import lrc_ase
from lrc_ase.engines.phonopy import phonons

SUPERCELL = 2  # cubes of 8 atoms along each direction
N_POINTS = 51
INVCM_PER_THZ = 33.35641
# in units of 2 pi / a, the reciprocal axes of the cube
PATH = {"X": (1.0, 0.0, 0.0), "\N{GREEK CAPITAL LETTER GAMMA}": (0.0, 0.0, 0.0), "L": (0.5, 0.5, 0.5)}


def reference() -> np.ndarray:
    """Return wave vector (2 pi/a), longitudinal and transverse frequency (cm^-1) of GFN1-xTB, (n_waves, 3)."""
    with open(Path(__file__).parent / "gfn1_xtb.csv") as file:
        rows = list(csv.reader(line for line in file if not line.startswith("#")))
    return np.array(rows[1:], dtype=float)[:, :3]


def extrapolated(waves: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the frequency at q = 0 of a line through the squares over q^2 at the two longest waves."""
    (first, second), (low, high) = waves[-2:] ** 2, frequencies[-2:] ** 2
    return float(np.sqrt(high - second * (low - high) / (first - second)))


calculator = lrc_ase.load(sys.argv[1])
crystal = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
crystal.calc = calculator
BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=1e-3, steps=50)
length = float(crystal.cell.lengths().mean())
crystal = bulk("NaCl", "rocksalt", a=length, cubic=True)
phonon = phonons(crystal, calculator, (SUPERCELL,) * 3)
params = phonon.nac_params
write_BORN(phonon.primitive, params["born"], params["dielectric"])
born, dielectric = params["born"][0].trace() / 3, params["dielectric"].trace() / 3
print(f"a = {length:.4f} Angstrom, Born effective charge of Na {born:+.3f} e, electronic permittivity {dielectric:.3f}")

# wave vectors of the primitive cell: its reciprocal vectors are those of the cube times the primitive matrix
to_primitive = np.asarray(phonon.primitive_matrix).T
bands, distance, ticks = [], [0.0], [0.0]
corners = [np.array(point) for point in PATH.values()]
points = []
for start, end in itertools.pairwise(corners):
    part = np.linspace(start, end, N_POINTS)
    points.append(part)
    ticks.append(ticks[-1] + float(np.linalg.norm(end - start)))
figure = Figure(figsize=(7.0, 4.6), dpi=150, layout="constrained")
axis = figure.subplots()
for correction, style in ((None, {"color": "0.6", "lw": 1.2, "ls": "--"}), (params, {"color": "#0b5fa5", "lw": 1.6})):
    phonon.nac_params = correction
    phonon.run_band_structure([part @ to_primitive.T for part in points], is_legacy_plot=False)
    for first, last, frequencies in zip(ticks, ticks[1:], phonon.band_structure.frequencies, strict=False):
        lines = axis.plot(np.linspace(first, last, N_POINTS), INVCM_PER_THZ * frequencies, **style)
    lines[0].set_label("with Born charges (LO-TO splitting)" if correction else "without")
gamma = ticks[1]
waves, longitudinal, transverse = reference().T
axis.plot(gamma - waves, longitudinal, "o", color="#c8501e", mfc="none", label="GFN1-xTB, long waves: LO")
axis.plot(gamma - waves, transverse, "s", color="#2a8f4f", mfc="none", label="TO")
axis.set_xticks(ticks, list(PATH))
axis.set_xlim(0, ticks[-1])
axis.set_ylim(bottom=0)
axis.set_ylabel("Frequency (cm$^{-1}$)")
axis.grid(alpha=0.3)
axis.legend(frameon=False, fontsize="small")
figure.savefig("lo_to.png")

phonon.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 0])
optical = INVCM_PER_THZ * np.sort(phonon.qpoints.frequencies[0])[3:]
lo, to = extrapolated(waves, longitudinal), extrapolated(waves, transverse)
print(f"{'':10} {'TO':>8} {'LO':>8} {'LO - TO':>8}   cm^-1")
print(f"{'potential':10} {optical[0]:8.1f} {optical[2]:8.1f} {optical[2] - optical[0]:8.1f}")
print(f"{'GFN1-xTB':10} {to:8.1f} {lo:8.1f} {lo - to:8.1f}")
print("lo_to.png, BORN")
