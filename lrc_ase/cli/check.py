"""``lrc-ase check``: physics checks of a potential."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    PotentialArgument,
    ThreadsOption,
    calculator,
    console,
    naming_options,
    one_line_errors,
    read_structure,
    say,
    set_threads,
)
from lrc_ase.files.counted import counted

if TYPE_CHECKING:
    from ase import Atoms

    from lrc_ase.checks import CheckReport, CheckResult
    from lrc_ase.checks.plan import DynamicsPlan

__all__ = ["check"]

Show = Callable[[str, str, "CheckResult | None", str], None]

USAGE_ERROR = 2
LONGEST_SILENCE = 60.0
"""Longest time between two lines of progress in a log file, seconds."""


@one_line_errors
def check(
    potential: PotentialArgument,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            "-s",
            help="Structure to run on, in any format of ASE; several may be given. If not given, those of a shipped "
            "potential.",
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Checks for a liquid, a crystal or a molecule; all finds out what each system is.")
    ] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="Short runs: minutes, with wide error bars.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a check to run; several may be given. All if not given.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(help="Labelled frames that the potential was not trained on, for its errors.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Potential, GFN2-xTB, or calculator of ASE as module:Class or teacher.py, whose numbers stand beside "
            "those of checks with few evaluations."
        ),
    ] = None,
    reference_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Keyword argument of the reference's class; several may be given."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", "-t", help="Temperature, K; that of the structure's file, or 300, if not given."),
    ] = None,
    timestep: Annotated[float | None, typer.Option(help="Time step, fs; 0.5 with hydrogen, else 1.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of displacements, momenta and thermostats.", min=0)] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the page, the results and the runs.")
    ] = Path("check"),
    resume: Annotated[bool, typer.Option("--resume", help="Keep results in the folder, and go on.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results in the folder.")] = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Check the physics of a potential: derivatives, conservation, invariances, short distances, crystals, liquids.

    Writes results.json and summary.json after each check, and report.html at the end. The exit status is 0 if nothing
    failed, 1 if a check failed, and 2 if the checks could not be made.

    Example: lrc-ase check run --system start.cif --quick
    """
    set_threads(threads)
    with _usage_errors(debug):
        from lrc_ase.checks import CheckSettings
        from lrc_ase.checks.suite import RESULTS, chosen_checks
        from lrc_ase.dataset import read_frames

        settings = CheckSettings(quick=quick, temperature=temperature, timestep=timestep, seed=seed)
        chosen_checks(suite, only)
        if resume and overwrite:
            raise ValueError("--resume and --overwrite exclude each other")
        if (output / RESULTS).exists() and not (resume or overwrite):
            raise FileExistsError(f"{output} holds results: --resume goes on, --overwrite replaces them")
        calculators = {dtype: calculator(potential, device, dtype) for dtype in ("float64", "float32")}
        systems = _systems(potential, system)
        for atoms in systems:
            calculators["float64"].get_potential_energy(atoms)
        other = _reference(reference, reference_option or [], device)
        frames = read_frames(labels) if labels else []
        output.mkdir(parents=True, exist_ok=True)
    from lrc_ase.checks import check as check_calculator
    from lrc_ase.report.check_report import report_checks

    begin = time.perf_counter()
    with _usage_errors(debug), _progress() as (show, show_plan):
        report = check_calculator(
            calculators["float64"],
            systems,
            suite=suite,
            only=only,
            single=calculators["float32"],
            reference=other,
            labels=frames,
            settings=settings,
            folder=output,
            resume=resume,
            name=potential,
            report=show,
            announce=lambda plan: show_plan(_plan_text(plan, quick)),
        )
    page = report_checks(report, output)
    _print_end(report, time.perf_counter() - begin)
    for path in (page, output / RESULTS, output / "summary.json"):
        print(f"  {path}")
    if report.has_failed:
        raise typer.Exit(1)


@contextmanager
def _usage_errors(debug: bool) -> Iterator[None]:
    """Turn errors into one line and the exit status 2, which tells them from a failed check."""
    try:
        yield
    except Exception as error:
        from ase.calculators.calculator import CalculatorError

        if debug or not isinstance(error, (ValueError, OSError, CalculatorError)):
            raise
        say(f"Error: {naming_options(str(error), check)}", to_stderr=True)
        raise typer.Exit(USAGE_ERROR) from None


def _reference(name: str | None, options: list[str], device: str) -> Any:
    """Return the reference calculator: a potential, or a calculator of ASE named as for `lrc-ase learn`."""
    from lrc_ase.files.pretrained import is_potential

    if name is None or is_potential(name):
        if options:
            raise ValueError("--reference-option belongs to a --reference that is a calculator of ASE, not a potential")
        return None if name is None else calculator(name, device, "float64")
    from lrc_ase.learning.teacher import TeacherSettings, make_calculator, names_teacher, parse_options

    if not names_teacher(name):
        raise ValueError(
            f"--reference {name} is no potential, and no calculator of ASE named as GFN2-xTB, module:Class or by a "
            "file .py"
        )
    return make_calculator(TeacherSettings(calculator=name, options=parse_options(options)))


def _systems(potential: str, paths: list[str] | None) -> list[Atoms]:
    """Read the systems of the command line, named after their files, or those of a shipped potential."""
    import ase.io

    from lrc_ase.files.pretrained import start_file

    if paths:
        systems = [read_structure(path) for path in paths]
        for path, atoms in zip(paths, systems, strict=True):
            atoms.info["name"] = Path(path.rpartition("@")[0] or path).stem
        return systems
    start = start_file(potential)
    if start is None:
        raise ValueError(
            f"{potential} brings no structure along: give --system, such as a crystal (.cif) or a snapshot of a "
            "liquid (.extxyz)"
        )
    return list(ase.io.iread(start))


@contextmanager
def _progress() -> Iterator[tuple[Show, Callable[[str], None]]]:
    """Yield functions that show each check, and a line of its own.

    A check is a line with its verdict, and what runs meanwhile on a terminal.
    """
    heading, printed = "", time.monotonic()

    def show(system: str, check: str, result: CheckResult | None, message: str) -> None:
        nonlocal heading, printed
        if system != heading:
            heading = system
            status.stop()
            say(system)
            status.start()
        if result is None:
            status.update(f"  {check}{': ' if message else ''}{message}")
            if message and not console.is_terminal and time.monotonic() - printed > LONGEST_SILENCE:
                printed = time.monotonic()
                print(f"  ...            {check}: {message}", flush=True)
            return
        printed = time.monotonic()
        status.stop()
        say(f"  {result.verdict:14} {result.name:24} {result.seconds:7.1f} s")
        if result.verdict == "failed":
            say(textwrap.fill(result.sentence, 79, initial_indent=6 * " ", subsequent_indent=6 * " "))
        status.start()

    def show_line(text: str) -> None:
        status.stop()
        say(f"  {text}")
        status.start()

    status = console.status("checks")
    with status:
        yield show, show_line


def _plan_text(plan: DynamicsPlan, quick: bool) -> str:
    """Return the length of the runs of a system and their time in words."""
    minutes = max(round(plan.seconds / 60), 1)
    duration = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    hint = "" if quick or minutes < 10 else "; --quick runs far less"
    return f"{counted(plan.n_steps, 'step')} of {counted(plan.n_atoms, 'atom')} ahead, about {duration}{hint}"


def _print_end(report: CheckReport, seconds: float) -> None:
    """Print the number of checks by verdict."""
    counts = [f"{report.count(verdict)} {verdict}" for verdict in ("passed", "failed", "informative", "not applicable")]
    print(f"{', '.join(counts)}; {seconds / 60:.1f} minutes")
