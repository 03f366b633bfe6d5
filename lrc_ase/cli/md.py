"""``lrc-ase md``: molecular dynamics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    parse_repeat,
    progress_bar,
    set_field,
    set_threads,
    starting_structure,
)
from lrc_ase.files.counted import counted

if TYPE_CHECKING:
    from lrc_ase.simulation import MDFiles, MDSettings, MDState, MDSummary

__all__ = ["md"]

LONGEST_SILENCE = 60.0
"""Longest time between two lines of progress in a log file, seconds."""
LINES = 20
"""Number of lines of progress that a fast run prints to a log file."""


@one_line_errors
def md(
    potential: PotentialArgument,
    structure: StartArgument = None,
    ensemble: Annotated[
        str, typer.Option("--ensemble", "-e", help="Ensemble: nve (velocity Verlet), nvt (Langevin) or npt (MTK).")
    ] = "nvt",
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            "-t",
            help="Target temperature, K; required for nvt and npt. With nve: temperature of the first velocities; the "
            "structure's velocities are used without it.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", "-n", help="Total number of steps, including those before --resume.", min=0)
    ] = 1000,
    timestep: Annotated[float, typer.Option(help="Length of a step, fs.")] = 1.0,
    pressure: Annotated[float, typer.Option(help="Target pressure of npt, GPa.")] = 0.0,
    npt_mode: Annotated[
        str,
        typer.Option(help="Cell of npt: isotropic (scaled as a whole) or flexible (lengths and angles, for crystals)."),
    ] = "isotropic",
    friction: Annotated[float, typer.Option(help="Friction of nvt, 1/fs.")] = 0.01,
    thermostat_time: Annotated[float, typer.Option(help="Period of the thermostat of npt, fs.")] = 100.0,
    barostat_time: Annotated[float, typer.Option(help="Period of the barostat of npt, fs.")] = 1000.0,
    seed: Annotated[int, typer.Option(help="Seed of the first velocities and of nvt's noise.", min=0)] = 0,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Trajectory, in the format of its suffix; log, plot and restart file lie beside it."
        ),
    ] = Path("md.traj"),
    repeat: Annotated[
        str | None, typer.Option(help="Repeat the structure along its cell vectors, such as 2,1,1.")
    ] = None,
    log_every: Annotated[int, typer.Option(help="Steps between rows of the log.", min=1)] = 10,
    write_every: Annotated[int, typer.Option(help="Steps between frames of the trajectory.", min=1)] = 100,
    current_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between rows of the polarization current, for `lrc-ase spectrum`; about 2 fs. None is written "
            "without it.",
            min=1,
        ),
    ] = None,
    restart_every: Annotated[int, typer.Option(help="Steps between restart files.", min=1)] = 100,
    max_temperature: Annotated[float, typer.Option(help="Stop above this temperature, K.")] = 20000.0,
    field: FieldOption = None,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Continue when a structure lies far outside the training set.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the existing run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the existing run.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float64",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Run molecular dynamics.

    Writes the trajectory, a log (CSV), a plot of the log and a restart file. After Ctrl-C or a kill, the same command
    with --resume continues the run exactly.

    Example: lrc-ase md run start.cif --temperature 300 --steps 10000 -o md.traj
    """
    from lrc_ase.simulation import MDFiles, MDSettings, run_md
    from lrc_ase.simulation.output import check_trajectory_output

    set_threads(threads)
    settings = MDSettings(
        cast(Any, ensemble.lower()),
        steps,
        timestep=timestep,
        temperature=temperature,
        pressure=pressure,
        npt_mode=cast(Any, npt_mode.lower()),
        friction=friction,
        thermostat_time=thermostat_time,
        barostat_time=barostat_time,
        seed=seed,
        log_every=log_every,
        write_every=write_every,
        current_every=current_every,
        restart_every=restart_every,
        max_temperature=max_temperature,
        extrapolate=extrapolate,
    )
    files = MDFiles.beside(output)
    atoms = starting_structure(structure, potential, parse_repeat(repeat))
    field_of_run = set_field(atoms, field)
    check_trajectory_output(output, atoms)  # before the potential is loaded, which may take long
    atoms.calc = calculator(potential, device, dtype)
    with _progress(settings, len(atoms), field_of_run) as show, _after_a_stop(files, settings):
        summary = run_md(atoms, settings, output, resume=resume, overwrite=overwrite, report=show)
    _print_summary(summary, settings, len(atoms), field_of_run)
    _plot(files, settings)
    for path in (files.trajectory, files.log, files.plot, files.current, files.restart):
        if path.exists():
            print(f"  {path}")


@contextmanager
def _progress(settings: MDSettings, n_atoms: int, field: str) -> Iterator[Callable[[MDState], None]]:
    """Yield a function that shows the state of a run: as a bar on a terminal, as lines in a file or pipe."""
    steps = f"{counted(settings.steps, 'step')} of {settings.timestep:g} fs"
    heading = f"{settings.ensemble}, {counted(n_atoms, 'atom')}, {steps}"
    if settings.temperature is not None:
        heading += f", {settings.temperature:g} K"
    if settings.ensemble == "npt":
        heading += f", {settings.pressure:g} GPa, {settings.npt_mode} cell"
    if field:
        heading += f", {field}"
    bar = progress_bar()
    if bar.disable:  # no terminal
        yield _Lines(settings, heading).show
    else:
        with bar:
            task = bar.add_task("compiling or loading", total=settings.steps, status="")

            def show(state: MDState) -> None:
                status = f"{state.temperature:.0f} K, {state.ns_per_day:.3g} ns/day"
                bar.update(task, description=settings.ensemble, completed=state.step, status=status)

            yield show


class _Lines:
    """Printer of progress for log files: about `LINES` lines in a run, and one a minute at least."""

    def __init__(self, settings: MDSettings, heading: str) -> None:
        self.settings, self.heading = settings, heading
        self.every = max(settings.steps // LINES, 1)
        self.started = self.printed = time.monotonic()
        self.first_step: int | None = None

    def show(self, state: MDState) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        if self.first_step is None:
            self.first_step, self.started = state.step - 1, now
            print(self.heading)
            print(f"{'step':>9} {'ps':>9} {'K':>8} {'potential, eV':>16} {'ns/day':>9} {'left':>9}")
        elif state.step % self.every and now - self.printed < LONGEST_SILENCE and state.step != state.steps:
            return
        self.printed = now
        done = state.step - self.first_step
        # the first step is not timed: it compiles or loads kernels
        left = (now - self.started) / (done - 1) * (state.steps - state.step) if done > 1 else float("nan")
        clock = f"{int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}" if math.isfinite(left) else "-"
        print(
            f"{state.step:9d} {state.step * self.settings.timestep * 1e-3:9.3f} {state.temperature:8.1f} "
            f"{state.potential:16.4f} {state.ns_per_day:9.3g} {clock:>9}",
            flush=True,
        )


@contextmanager
def _after_a_stop(files: MDFiles, settings: MDSettings) -> Iterator[None]:
    """Print the step from which an interrupted run can go on; plot the log of a run that stopped early."""
    from lrc_ase.simulation import SimulationStopped
    from lrc_ase.simulation.restart import read_restart

    before = _modified(files.restart)
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        kept = _modified(files.restart)
        # an OSError before the first step leaves files of another run, one later on (a full disk) those of this run
        if kept is not None and (isinstance(error, KeyboardInterrupt) or kept != before):
            with suppress(ValueError):  # a restart file of another version: nothing to go on from
                step = read_restart(files.restart).step
                print(f"Stopped; {files.restart} holds step {step}: --resume goes on from there.", flush=True)
            if kept != before:  # else the log may be that of another run
                _plot_what_there_is(files, settings)
        raise
    except SimulationStopped:
        _plot_what_there_is(files, settings)
        raise


def _modified(path: Path) -> int | None:
    """Return the time of the last change in ns, None without a file."""
    return path.stat().st_mtime_ns if path.exists() else None


def _plot_what_there_is(files: MDFiles, settings: MDSettings) -> None:
    """Draw the log of a run that stopped early, if there are rows to draw and room to write."""
    with suppress(OSError, ValueError):  # must not hide why the run stopped
        _plot(files, settings)


def _print_summary(summary: MDSummary, settings: MDSettings, n_atoms: int, field: str) -> None:
    """Print speed and final state of a run."""
    final = summary.final
    done = summary.steps - summary.first_step
    if summary.first_step and not done:
        made = counted(summary.steps, "step")
        print(f"Nothing to do: the run has made its {made}; a larger --steps makes it longer.")
        return
    per_day = 86.4 * settings.timestep / summary.ms_per_step if done else 0.0
    print(
        f"{counted(done, 'step')} of {counted(n_atoms, 'atom')} in {summary.seconds:.1f} s "
        f"({summary.ms_per_step:.2f} ms per step, {per_day:.3g} ns/day)\n"
        + (f"{field}\n" if field else "")
        + f"end: {final.temperature:.1f} K, potential {final.potential:.6f} eV, total {final.total:.6f} eV"
        + ("" if math.isnan(final.pressure) else f",\n     pressure {final.pressure:.3f} GPa")
    )


def _plot(files: MDFiles, settings: MDSettings) -> None:
    """Draw the log of a run with the targets of its thermostat and barostat."""
    from lrc_ase.report.log_plot import plot_log

    targets = {} if settings.ensemble == "nve" else {"temperature_K": cast(float, settings.temperature)}
    if settings.ensemble == "npt":
        targets["pressure_GPa"] = settings.pressure
    plot_log(files.log, files.plot, targets)
