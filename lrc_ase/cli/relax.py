"""``lrc-ase relax``: nearest minimum of the energy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import ase.io
import typer
from ase import Atoms

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    DtypeOption,
    PotentialArgument,
    StructureArgument,
    ThreadsOption,
    calculator,
    one_line_errors,
    progress_bar,
    read_structure,
    refuse_existing,
    set_threads,
)
from lrc_ase.simulation import Relaxation, RelaxSettings
from lrc_ase.simulation import relax as relax_atoms

__all__ = ["relax"]


@one_line_errors
def relax(
    potential: PotentialArgument,
    structure: StructureArgument,
    cell: Annotated[bool, typer.Option("--cell/--no-cell", help="Relax the cell too.")] = False,
    fmax: Annotated[float, typer.Option(help="Largest force that may remain, eV/Angstrom.")] = 0.01,
    pressure: Annotated[float, typer.Option(help="GPa, with --cell.")] = 0.0,
    steps: Annotated[int, typer.Option("--steps", "-n", help="Steps at most.", min=0)] = 1000,
    optimizer: Annotated[str, typer.Option(help="lbfgs, bfgs or fire.")] = "lbfgs",
    output: Annotated[Path, typer.Option("--output", "-o", help="Relaxed structure, in any format of ASE.")] = Path(
        "relaxed.extxyz"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float64",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Relax positions, and with --cell the cell, to the nearest minimum of the energy."""
    set_threads(threads)
    kind = cast(Literal["lbfgs", "bfgs", "fire"], optimizer)
    settings = RelaxSettings(fmax=fmax, cell=cell, pressure=pressure, optimizer=kind, max_steps=steps)
    refuse_existing(output, overwrite=overwrite)
    atoms = read_structure(structure)
    atoms.calc = calculator(potential, device, dtype)
    first: list[Relaxation] = []
    with progress_bar() as bar:
        task = bar.add_task("relax", total=steps, status="")

        def show(state: Relaxation, _: Atoms) -> None:
            first.extend([state] if not first else [])
            bar.update(task, completed=state.steps, status=f"fmax {state.fmax:.4f} eV/Angstrom")

        try:
            final = relax_atoms(atoms, settings, report=show)
        finally:  # also when interrupted or not converged: the structure so far is worth keeping
            if first:
                ase.io.write(output, atoms)
    print(
        f"{final.steps} steps: largest force {first[0].fmax:.4f} -> {final.fmax:.4f} eV/Angstrom, "
        f"energy {first[0].energy:.6f} -> {final.energy:.6f} eV"
    )
    if cell:
        lengths = ", ".join(f"{value:.4f}" for value in atoms.cell.lengths())
        angles = ", ".join(f"{value:.2f}" for value in atoms.cell.angles())
        print(f"cell {lengths} Angstrom; {angles} degrees; pressure {final.pressure:.4f} GPa")
    print(f"  {output}")
