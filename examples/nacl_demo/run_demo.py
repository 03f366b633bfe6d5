"""The main job from end to end, on NaCl: train, evaluate, relax, molecular dynamics, report. See README.md."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read, write
from commands import Command, console, epochs_done, rows_of, run, steps_done
from plots import plot_energy_conservation, plot_rdf
from rich.table import Table as ConsoleTable

from lrc_ase.report.learning_curve import plot_learning_curve
from lrc_ase.report.page import Picture, Report, Section, Table, write_report
from lrc_ase.simulation import EnergyDrift, energy_drift, radial_distribution, read_reference_rdf
from lrc_ase.training import load_configuration

HERE = Path(__file__).resolve().parent
N_TRAINING = 30  # of the large cells; as in the configurations
PAIRS = (("Na", "Na"), ("Na", "Cl"), ("Cl", "Cl"))
EQUILIBRATION_STEPS = 800
NVE_STEPS = 10000
LANGEVIN_TIMESTEP = 2.0  # fs
DRIFT_GOAL = 1e-4  # eV/atom over 10 ps
CLOSING_SECONDS = 20  # plots and report


@dataclass
class Demo:
    """Where things are, and what was found."""

    data: Path
    output: Path
    minutes: float
    started: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, str]] = field(default_factory=list)
    """The summary: what, and how much."""

    @property
    def logs(self) -> Path:
        """Folder of what the commands print."""
        return self.output / "logs"

    @property
    def seconds_left(self) -> float:
        """Time that the demo may still take."""
        return 60 * self.minutes - (time.monotonic() - self.started)


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--data", type=Path, default=HERE.parent / "nacl", help="folder of the NaCl frames")
    parser.add_argument("--minutes", type=float, default=8.5, help="the dynamics is shortened beyond this")
    arguments = parser.parse_args()
    if arguments.output.exists():
        shutil.rmtree(arguments.output)
    arguments.output.mkdir(parents=True)
    demo = Demo(arguments.data, arguments.output, arguments.minutes)
    train(demo)
    errors = evaluate(demo)
    relax(demo)
    simulate(demo)
    report(demo, errors)


def train(demo: Demo) -> None:
    """Train the full-range model and, beside it, the short-range one."""
    console.rule("Training")
    commands = []
    for name in ("full-range", "short-range"):
        configuration = HERE / f"{name.replace('-', '_')}.yaml"
        n_epochs = sum(stage.epochs for stage in load_configuration(configuration).stages)
        folder = demo.output / f"run-{name}"
        progress = epochs_done(folder / "metrics.csv", n_epochs)
        commands.append(Command(f"train-{name}", ["train", configuration, "-o", folder], progress))
    run(commands, demo.logs)
    for name in ("full-range", "short-range"):
        shutil.copy(demo.output / f"run-{name}" / "potential.safetensors", demo.output / f"{name}.safetensors")
    runs = {name: demo.output / f"run-{name}" / "metrics.csv" for name in ("full-range", "short-range")}
    plot_learning_curve(runs, demo.output / "learning-curve.png")
    demo.rows.append(("training, both models", f"{time.monotonic() - demo.started:.0f} s"))


def evaluate(demo: Demo) -> dict[str, dict[str, float]]:
    """Compare both models on the large cells that neither has seen; returns the errors of each."""
    console.rule("Held-out large cells")
    potentials = [demo.output / f"{name}.safetensors" for name in ("full-range", "short-range")]
    arguments = ["evaluate", *potentials, f"{demo.data / 'large.extxyz'}@{N_TRAINING}:"]
    arguments += ["--plot", demo.output / "parity.png", "--report", demo.output / "evaluation"]
    run([Command("evaluate", arguments)], demo.logs)
    console.print((demo.logs / "evaluate.txt").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    errors = {
        name: json.loads((demo.output / "evaluation" / name / "errors.json").read_text(encoding="utf-8"))["all"]
        for name in ("full-range", "short-range")
    }
    for name, of_model in errors.items():
        text = f"{of_model['forces_rmse']:.1f} meV/\N{ANGSTROM SIGN}, {of_model['energy_rmse']:.2f} meV/atom"
        demo.rows.append((f"held-out error (RMSE), {name}", text))
    ratio = errors["full-range"]["forces_rmse"] / errors["short-range"]["forces_rmse"]
    demo.rows.append(("force error, full-range / short-range", f"{ratio:.2f}"))
    return errors


def relax(demo: Demo) -> None:
    """Relax a crystal that is strained and rattled, positions and cell."""
    console.rule("Relaxation of a strained crystal")
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True) * 2
    strain = np.array([[0.03, 0.02, 0.0], [0.02, -0.02, 0.01], [0.0, 0.01, 0.02]])
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    crystal.rattle(0.08, seed=0)
    write(demo.output / "strained.extxyz", crystal)
    arguments = ["relax", demo.output / "full-range.safetensors", demo.output / "strained.extxyz", "--cell"]
    arguments += ["--fmax", 0.002]
    run([Command("relax", [*arguments, "-o", demo.output / "relaxed.extxyz"])], demo.logs)
    console.print((demo.logs / "relax.txt").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    relaxed = read(demo.output / "relaxed.extxyz")
    lengths, angles = relaxed.cell.lengths() / 2, relaxed.cell.angles()
    spread = f"+-{np.ptp(lengths) / 2:.4f} \N{ANGSTROM SIGN}, angles {angles.min():.2f} to {angles.max():.2f}"
    demo.rows.append(("relaxed lattice constant", f"{lengths.mean():.4f} {spread}"))


def simulate(demo: Demo) -> None:
    """Langevin dynamics of the melt; then velocity Verlet and more Langevin dynamics from its end."""
    console.rule("Molecular dynamics of the melt")
    reference = read_reference_rdf(demo.data / "reference_rdf.csv")
    temperature = float(reference.conditions["temperature_K"])
    start = melt_at(demo, float(reference.conditions["density_g_cm3"]), temperature)
    write(demo.output / "melt.extxyz", start)
    potential = demo.output / "full-range.safetensors"
    langevin = ["--ensemble", "nvt", "--temperature", temperature, "--timestep", LANGEVIN_TIMESTEP]

    def md(name: str, structure: Path, n_steps: int, options: list[str | float]) -> Command:
        arguments = ["md", potential, structure, *options, "--steps", n_steps]
        arguments += ["--write-every", 20, "-o", demo.output / f"{name}.traj"]
        return Command(name, arguments, steps_done(demo.output / f"{name}.csv", n_steps))

    began = time.monotonic()
    run([md("equilibration", demo.output / "melt.extxyz", EQUILIBRATION_STEPS, [*langevin, "--seed", 1])], demo.logs)
    seconds_per_step = (time.monotonic() - began) / EQUILIBRATION_STEPS
    # two runs side by side each take a little longer than one alone
    affordable = int((demo.seconds_left - CLOSING_SECONDS) / (1.2 * seconds_per_step))
    n_steps = max(min(NVE_STEPS, 100 * (affordable // 100)), 500)
    if n_steps < NVE_STEPS:
        console.print(f"{1000 * seconds_per_step:.0f} ms per step here: {n_steps} steps instead of {NVE_STEPS}")
    end = demo.output / "equilibration.traj"
    nve = ["--ensemble", "nve", "--timestep", 1.0, "--dtype", "float64"]
    run([md("nve", end, n_steps, nve), md("langevin", end, n_steps // 2, [*langevin, "--seed", 2])], demo.logs)

    atoms = read(demo.output / "nve.traj")
    drift = conservation(demo, len(atoms))
    demo.rows += [
        ("molecular dynamics", f"{len(atoms)} ions, {1000 * seconds_per_step:.1f} ms per step on one core"),
        ("velocity Verlet, float64", f"{n_steps / 1000:.1f} ps, 1 fs per step"),
        ("total energy, drift by a straight line", f"{drift.drift:+.1e} eV/atom (goal {DRIFT_GOAL:.0e} in 10 ps)"),
        ("total energy, largest deviation", f"{drift.max_deviation:.1e} eV/atom"),
    ]
    distributions(demo)


def melt_at(demo: Demo, density: float, temperature: float) -> Atoms:
    """Held-out melt nearest to the conditions of the reference, scaled to its density (g/cm^3)."""
    melts = [atoms for atoms in read(demo.data / "large.extxyz", f"{N_TRAINING}:") if atoms.info["state"] == "melt"]
    nearest = min(
        melts,
        key=lambda atoms: (
            abs(atoms.info["density"] - density),
            abs(atoms.info["temperature"] - temperature),
        ),
    )
    start = Atoms(nearest.numbers, positions=nearest.positions, cell=nearest.cell, pbc=True)
    gram_per_cm3 = units.kg / 1e3 / (units.m / 1e2) ** 3
    volume = start.get_masses().sum() / (density * gram_per_cm3)
    start.set_cell(start.cell.array * (volume / start.get_volume()) ** (1 / 3), scale_atoms=True)
    return start


def conservation(demo: Demo, n_atoms: int) -> EnergyDrift:
    """Plot the total energy of the run at constant energy; returns its drift."""
    rows = rows_of(demo.output / "nve.csv")
    times, total, kinetic = (
        np.array([float(row[name]) for row in rows]) for name in ("time_ps", "total_eV", "kinetic_eV")
    )
    title = f"Velocity Verlet of {n_atoms} ions, float64, 1 fs"
    plot_energy_conservation(times, total, kinetic, n_atoms, demo.output / "energy-conservation.png", title=title)
    return energy_drift(times, total, n_atoms)


def distributions(demo: Demo) -> None:
    """Plot the radial distributions of the Langevin run beside the reference's."""
    reference = read_reference_rdf(demo.data / "reference_rdf.csv")
    width = reference.r[1] - reference.r[0]
    cutoff = float(reference.r[-1] + width / 2)
    frames = read(demo.output / "langevin.traj", ":")
    curves, expected, worst = {}, {}, 0.0
    for pair in PAIRS:
        r, g = radial_distribution(frames, pair, cutoff=cutoff, n_bins=len(reference.r))
        curves["-".join(pair)] = (r, g)
        expected["-".join(pair)] = (reference.r, reference.g["".join(pair)])
        worst = max(worst, float(np.sqrt(np.mean((g - reference.g["".join(pair)]) ** 2))))
    conditions = (
        f"{float(reference.conditions['temperature_K']):.0f} K, "
        f"{float(reference.conditions['density_g_cm3']):.2f} g/cm\N{SUPERSCRIPT THREE}"
    )
    plot_rdf(curves, demo.output / "rdf.png", reference=expected, title=f"Molten NaCl, {conditions}")
    peak = curves["Na-Cl"][0][int(curves["Na-Cl"][1].argmax())]
    peak_reference = reference.r[int(reference.g["NaCl"].argmax())]
    demo.rows += [
        ("g(r), RMS difference to the reference", f"{worst:.3f} (worst pair)"),
        ("first Na-Cl peak, reference", f"{peak:.2f}, {peak_reference:.2f} \N{ANGSTROM SIGN}"),
    ]


def report(demo: Demo, errors: dict[str, dict[str, float]]) -> None:
    """Write the page and print the table."""
    demo.rows.append(("all", f"{time.monotonic() - demo.started:.0f} s"))
    n_frames = errors["full-range"]["n_frames"]
    output = demo.output
    pictures = [
        Picture(output / "learning-curve.png", "Learning curves of both models"),
        Picture(output / "parity.png", f"Prediction over reference on {n_frames:.0f} held-out large cells"),
        Picture(output / "energy-conservation.png", "Energy conservation"),
        Picture(output / "rdf.png", "Radial distributions of the melt"),
    ]
    sentence = "Trained on GFN1-xTB energies and forces of crystalline and molten NaCl by two-scale training."
    summary = Section("Summary", [sentence], [Table("Results", ["", "Result"], demo.rows)], pictures)
    configuration = (output / "run-full-range" / "configuration.yaml").read_text(encoding="utf-8")
    title = "Full-range potential of NaCl, from frames to molecular dynamics"
    write_report(Report(title, [summary], configuration), output / "report.html")
    table = ConsoleTable(title="Summary", show_header=False)
    for row in demo.rows:
        table.add_row(*row)
    console.print(table)
    console.print(
        f"In {demo.output}/: report.html, full-range.safetensors, nve.traj (open with `ase gui`), *.png", soft_wrap=True
    )


if __name__ == "__main__":
    main()
