"""Draw the figure of the README: an ion leaving a water molecule, and the time of an evaluation beside MACE.

    python docs/figures/first_screen.py [--run FOLDER] [--output FILE] [--epochs N]

Trains two potentials on `examples/ion_water`, with and without the long-range part (minutes on one core), or takes
those that an earlier call left in FOLDER. Times come from the table "Beside MACE" of docs/explanation/descriptors.md.
"""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path

import numpy as np
from ase.io import read

from lrc_ase import LRCCalculator
from lrc_ase.report.style import COLORS, REFERENCE_COLOR, new_figure
from lrc_ase.structures.domain import ExtrapolationWarning
from lrc_ase.training import train

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "ion_water"
CUTOFF = 5.0  # Angstrom, the default


def main() -> None:
    """Train what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("first-screen"), help="folder of the two trainings")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "figures" / "first_screen.svg")
    parser.add_argument("--epochs", type=int, default=150)
    arguments = parser.parse_args()
    charges = {"model.long_range.compositions": {"Na": 1, "Cl": -1, "H2O": 0}, "model.long_range.n_channels": 0}
    models = {"with long range": {"settings": charges}, "without": {"short_range": True}}
    curves = {}
    for name, model in models.items():
        run = arguments.run / name.replace(" ", "-")
        if not (run / "potential.safetensors").exists():
            train(DATA / "train.extxyz", run, epochs=arguments.epochs, n_threads=1, **model)
        curves[name] = energies(LRCCalculator(run))
    figure = new_figure(8.2, 3.0)
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
    draw_separation(left, curves)
    draw_times(right, *times_beside_mace())
    figure.savefig(arguments.output, metadata={"Date": None})


def energies(calculator: LRCCalculator) -> np.ndarray:
    """Return the energies of the scan, which training did not see, in eV relative to the last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        values = np.array([calculator.get_potential_energy(atoms) for atoms in read(DATA / "scan.extxyz", ":")])
    return values - values[-1]


def draw_separation(axes, curves: dict[str, np.ndarray]) -> None:
    """Draw the energy of Na+ and water over their distance."""
    frames = read(DATA / "scan.extxyz", ":")
    distances = np.array([atoms.get_distance(0, 1) for atoms in frames])
    reference = np.array([atoms.get_potential_energy() for atoms in frames])
    axes.plot(distances, reference - reference[-1], color=REFERENCE_COLOR, linewidth=4, alpha=0.3, label="GFN1-xTB")
    for (name, values), color in zip(curves.items(), COLORS, strict=False):
        axes.plot(distances, values, color=color, label=f"lrc-ase, {name}")
    axes.axvline(CUTOFF, color="0.7", linestyle=":")
    axes.text(CUTOFF + 0.1, -0.97, "cutoff", color="0.4", fontsize=8)
    axes.set(xlim=(2, 12), ylim=(-1.08, 0.06), xlabel="distance Na⁺ to O, Å", ylabel="energy, eV")
    axes.set_title("Na⁺ leaves a water molecule", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def times_beside_mace() -> tuple[float, float]:
    """Return the milliseconds of MACE and of the default model for energy and forces of 1536 atoms."""
    page = (ROOT / "docs" / "explanation" / "descriptors.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| energy and forces, 1536 atoms \| (\d+) ms,[^|]*\| (\d+) ms,", page, re.MULTILINE)
    return float(row[0]), float(row[1])


def draw_times(axes, mace: float, ours: float) -> None:
    """Draw two bars with their numbers."""
    bars = axes.barh(["MACE", "lrc-ase"], [mace, ours], color=[REFERENCE_COLOR, COLORS[0]], height=0.5)
    axes.bar_label(bars, labels=[f" {mace:.0f} ms", f" {ours:.0f} ms"], fontsize=9)
    axes.set(xlim=(0, 1.3 * mace), xlabel="time, ms")
    axes.set_title("energy and forces of 1536 atoms,\n2 CPU cores, float32", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
