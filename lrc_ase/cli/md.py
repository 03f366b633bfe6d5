"""``lrc-ase md``: molecular dynamics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    DtypeOption,
    PotentialArgument,
    StructureArgument,
    ThreadsOption,
    calculator,
    one_line_errors,
    parse_repeat,
    progress_bar,
    read_structure,
    set_threads,
)
from lrc_ase.report.dynamics_plots import plot_log
from lrc_ase.simulation import MDFiles, MDSettings, MDState, run_md

__all__ = ["md"]


@one_line_errors
def md(
    potential: PotentialArgument,
    structure: StructureArgument,
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="nve (velocity Verlet), nvt (Langevin) or npt (MTK).")
    ] = "nvt",
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "-t", help="K. Left out with nve: the structure's own velocities."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", "-n", help="Steps in all, those before a restart counted.")] = 1000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 1.0,
    pressure: Annotated[float, typer.Option(help="GPa, npt.")] = 0.0,
    friction: Annotated[float, typer.Option(help="1/fs, nvt.")] = 0.01,
    thermostat_time: Annotated[float, typer.Option(help="fs, npt.")] = 100.0,
    barostat_time: Annotated[float, typer.Option(help="fs, npt.")] = 1000.0,
    seed: Annotated[int, typer.Option(help="Of the first velocities and the Langevin noise.", min=0)] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Trajectory, in any format of ASE that holds several frames.")
    ] = Path("md.traj"),
    repeat: Annotated[
        str | None, typer.Option(help="Repeat the structure along its cell vectors, such as 2,1,1.")
    ] = None,
    log_every: Annotated[int, typer.Option(help="Steps between rows of the log.")] = 10,
    write_every: Annotated[int, typer.Option(help="Steps between frames.")] = 100,
    restart_every: Annotated[int, typer.Option(help="Steps between restart files.")] = 100,
    max_temperature: Annotated[float, typer.Option(help="K; the run stops above it.")] = 20000.0,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Go on where a structure lies far outside the training set.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float64",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Run molecular dynamics.

    Writes the trajectory, beside it a CSV log, a plot of the log and a restart file. After Ctrl-C or a kill the same
    command with --resume goes on as if nothing had happened.
    """
    set_threads(threads)
    settings = MDSettings(
        cast(Literal["nve", "nvt", "npt"], ensemble),
        steps,
        timestep=timestep,
        temperature=temperature,
        pressure=pressure,
        friction=friction,
        thermostat_time=thermostat_time,
        barostat_time=barostat_time,
        seed=seed,
        log_every=log_every,
        write_every=write_every,
        restart_every=restart_every,
        max_temperature=max_temperature,
        extrapolate=extrapolate,
    )
    if not output.parent.is_dir():
        raise FileNotFoundError(f"the folder {output.parent} does not exist")
    files = MDFiles.beside(output)
    atoms = read_structure(structure, parse_repeat(repeat))
    atoms.calc = calculator(potential, device, dtype)
    with progress_bar() as bar:
        task = bar.add_task(ensemble, total=steps, status="")

        def show(state: MDState) -> None:
            status = f"{state.temperature:.0f} K, {state.ns_per_day:.3g} ns/day"
            bar.update(task, completed=state.step, status=status)

        try:
            summary = run_md(atoms, settings, output, resume=resume, overwrite=overwrite, report=show)
        except KeyboardInterrupt:
            bar.stop()
            print(f"Stopped; the state is kept in {files.restart}: --resume goes on with it.")
            raise
    plot_log(files.log, files.plot)
    final = summary.final
    done = summary.steps - summary.first_step
    per_day = 86.4 * timestep / summary.ms_per_step if done else 0.0
    print(
        f"{done} steps of {len(atoms)} atoms in {summary.seconds:.1f} s "
        f"({summary.ms_per_step:.2f} ms per step, {per_day:.3g} ns/day)\n"
        f"end: {final.temperature:.1f} K, potential {final.potential:.6f} eV, total {final.total:.6f} eV"
        + (f", pressure {final.pressure:.3f} GPa" if final.pressure == final.pressure else "")
    )
    for path in (files.trajectory, files.log, files.plot, files.restart):
        print(f"  {path}")
