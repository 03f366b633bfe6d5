"""``lrc-ase relax``: nearest minimum of the energy."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    DtypeOption,
    FieldOption,
    PotentialArgument,
    StartArgument,
    ThreadsOption,
    calculator,
    one_line_errors,
    progress_bar,
    refuse_existing,
    say,
    set_field,
    set_threads,
    starting_structure,
)
from lrc_ase.files.counted import counted

if TYPE_CHECKING:
    from ase import Atoms

    from lrc_ase.simulation import Relaxation

__all__ = ["relax"]


@one_line_errors
def relax(
    potential: PotentialArgument,
    structure: StartArgument = None,
    cell: Annotated[bool, typer.Option("--cell/--no-cell", help="Relax the cell too.")] = False,
    fmax: Annotated[float, typer.Option(help="Largest force that may remain, eV/Angstrom.")] = 0.01,
    pressure: Annotated[float, typer.Option(help="Pressure on the cell, GPa; with --cell.")] = 0.0,
    steps: Annotated[int, typer.Option("--steps", "-n", help="Largest number of steps.", min=0)] = 1000,
    optimizer: Annotated[str, typer.Option(help="Optimizer: lbfgs, bfgs or fire.")] = "lbfgs",
    field: FieldOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Relaxed structure; the suffix selects the format.")
    ] = Path("relaxed.extxyz"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float64",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Relax positions, and with --cell the cell, to the nearest minimum of the energy.

    If the relaxation does not converge or is interrupted, the structure reached so far is written.

    Example: lrc-ase relax run start.cif --cell -o relaxed.cif
    """
    from lrc_ase.simulation import RelaxSettings
    from lrc_ase.simulation import relax as relax_atoms
    from lrc_ase.simulation.output import check_structure_output

    set_threads(threads)
    settings = RelaxSettings(
        fmax=fmax, cell=cell, pressure=pressure, optimizer=cast(Any, optimizer.lower()), max_steps=steps
    )
    refuse_existing(output, overwrite=overwrite)
    atoms = starting_structure(structure, potential)
    field_of_run = set_field(atoms, field)
    check_structure_output(output, atoms)
    atoms.calc = calculator(potential, device, dtype)
    first: list[Relaxation] = []
    kept: Path | None = None
    with progress_bar() as bar:
        task = bar.add_task("relax", total=steps, status="")

        def show(state: Relaxation, _: Atoms) -> None:
            if not first:
                first.append(state)
            bar.update(task, completed=state.steps, status=f"fmax {state.fmax:.4f} eV/Angstrom")

        try:
            final = relax_atoms(atoms, settings, report=show)
        finally:  # also when interrupted or not converged: the structure so far is worth keeping
            if first:
                kept = _keep(output, atoms)
    print(
        f"{counted(final.steps, 'step')}: largest force {first[0].fmax:.4f} -> {final.fmax:.4f} eV/Angstrom,\n"
        f"energy {first[0].energy:.6f} -> {final.energy:.6f} eV" + (f", {field_of_run}" if field_of_run else "")
    )
    if cell:
        lengths = ", ".join(f"{value:.4f}" for value in atoms.cell.lengths())
        angles = ", ".join(f"{value:.2f}" for value in atoms.cell.angles())
        print(f"cell {lengths} Angstrom; {angles} degrees; pressure {final.pressure:.4f} GPa")
    print(f"  {kept}")
    if kept != output:
        raise typer.Exit(1)


def _keep(output: Path, atoms: Atoms) -> Path | None:
    """Write the structure to `output` and return the path, None if nothing could be written.

    If `output` cannot be written, a rescue file in the same, the current or the temporary folder takes its place.
    Failures are printed and not raised, as they would hide an error of the relaxation itself.
    """
    from lrc_ase.simulation.output import write_structure

    rescue = f"{output.name}.rescued.extxyz"
    for path in (output, output.with_name(rescue), Path(rescue), Path(tempfile.gettempdir(), rescue)):
        try:
            write_structure(path, atoms)
        except Exception as error:  # errors of the disk, or anything that ASE's writer of this format raises
            say(f"Error: {path} could not be written: {error}", to_stderr=True)
        else:
            if path != output:
                say(f"The structure is kept in {path}", to_stderr=True)
            return path
    return None
