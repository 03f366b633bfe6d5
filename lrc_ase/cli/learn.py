"""``lrc-ase learn``: from structures and a reference method to a potential."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors, say
from lrc_ase.cli.learn_progress import LearnProgress
from lrc_ase.files.counted import counted
from lrc_ase.learning.active_learning import LearnSummary
from lrc_ase.learning.active_learning import learn as learn_potential
from lrc_ase.learning.labelling import LabelsNeeded
from lrc_ase.learning.settings import LearnSettings, parse_settings, read_content, settings_template
from lrc_ase.learning.state import LearnFolder
from lrc_ase.learning.teacher import parse_options
from lrc_ase.report.learning_report import report_learning
from lrc_ase.training.assignments import parse_assignment
from lrc_ase.training.interruption import TrainingInterrupted

__all__ = ["learn"]

WAITS_FOR_LABELS = 3
"""Exit status of a run without a teacher that has written frames to label."""
BY_HAND = "none"
"""Value of --teacher for labels by hand."""
_TEACHER, _EXPLORATION, _TRAINING, _LIMITS = "Teacher", "Exploration", "Training", "Limits"
Files = list[str] | None


@one_line_errors
def learn(
    files: Annotated[
        Files,
        typer.Argument(
            metavar="STRUCTURES... | SETTINGS.yaml | FOLDER",
            help="Structures to start from, in any format of ASE; or a YAML file; or, with --resume, the run folder.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Run folder.")] = Path(
        "lrc-ase-learn"
    ),
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD|MODULE:CLASS|FILE.py|none",
            help="Reference method: GFN1-xTB or GFN2-xTB (package tblite), any calculator of ASE, a file with a "
            "function calculator(), or none: frames are written to files and labelled by hand.",
            rich_help_panel=_TEACHER,
        ),
    ] = None,
    teacher_options: Annotated[
        Files, typer.Option(metavar="NAME=VALUE...", help="Options of the calculator.", rich_help_panel=_TEACHER)
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Structures labelled side by side.", min=1, rich_help_panel=_TEACHER)
    ] = None,
    teacher_threads: Annotated[
        int | None, typer.Option(help="Threads of each of them.", min=1, rich_help_panel=_TEACHER)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which a calculation is given up.", rich_help_panel=_TEACHER)
    ] = None,
    known: Annotated[
        Files, typer.Option(metavar="FRAMES", help="Labelled frames to begin with.", rich_help_panel=_TEACHER)
    ] = None,
    labels: Annotated[
        Files,
        typer.Option(
            metavar="FRAMES", help="With --resume: the labelled frames of to-label-N.extxyz.", rich_help_panel=_TEACHER
        ),
    ] = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature", "-t", metavar="K...", help="Temperatures: one, or a range.", rich_help_panel=_EXPLORATION
        ),
    ] = None,
    pressure: Annotated[
        float | None,
        typer.Option(metavar="GPA", help="Pressure; cells do not change without it.", rich_help_panel=_EXPLORATION),
    ] = None,
    length: Annotated[
        float | None, typer.Option(metavar="PS", help="Length of a walker's run.", rich_help_panel=_EXPLORATION)
    ] = None,
    timestep: Annotated[
        float | None,
        typer.Option(metavar="FS", help="Time step; by the lightest mass.", rich_help_panel=_EXPLORATION),
    ] = None,
    walkers: Annotated[int | None, typer.Option(help="Number of runs.", min=1, rich_help_panel=_EXPLORATION)] = None,
    model: Annotated[
        str | None, typer.Option(metavar="fast|accurate", help="Preset of the model.", rich_help_panel=_TRAINING)
    ] = None,
    short_range: Annotated[
        bool, typer.Option("--short-range", help="Leave the long-range part out.", rich_help_panel=_TRAINING)
    ] = False,
    ensemble: Annotated[
        int | None, typer.Option(help="Members that explore.", min=2, rich_help_panel=_TRAINING)
    ] = None,
    final_members: Annotated[
        int | None, typer.Option(help="Members of the final potential.", min=1, rich_help_panel=_TRAINING)
    ] = None,
    assignments: Annotated[
        Files,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of a training, such as model.cutoff=6; may be repeated; see `lrc-ase train --template`.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    teacher_calls: Annotated[
        int | None, typer.Option(help="Largest number of calculations.", min=1, rich_help_panel=_LIMITS)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall time after which nothing new is labelled.", rich_help_panel=_LIMITS)
    ] = None,
    target_error: Annotated[
        float | None,
        typer.Option(metavar="MEV/A", help="Force error that is good enough.", rich_help_panel=_LIMITS),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames labelled in an iteration.", min=1, rich_help_panel=_LIMITS)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of frames, walkers and trainings.", min=0)] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.", min=1)] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a YAML file with every key, its meaning and default, and exit.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: DebugOption = False,
) -> None:
    """Learn a potential from structures and a reference method.

    The teacher labels first frames, and an ensemble is trained on them. Walkers run molecular dynamics until the
    ensemble is unsure; the frames that they met are labelled, and the loop repeats. It ends when walkers meet nothing
    unknown, or at a limit. The run folder then holds the potential, all labels and report.html. After Ctrl-C or a kill,
    --resume continues.

    Example: lrc-ase learn start.cif --teacher GFN2-xTB --temperature 300 900
    """
    if template:
        print(settings_template(), end="")
        return
    changes: dict[str, Any] = {
        "teacher.calculator": teacher,
        "teacher.options": None if teacher_options is None else parse_options(teacher_options),
        "teacher.processes": processes,
        "teacher.threads": teacher_threads,
        "teacher.timeout": timeout,
        "known": None if known is None else [os.path.abspath(path) for path in known],
        "exploration.temperatures": temperature or None,
        "exploration.pressure": pressure,
        "exploration.length": length,
        "exploration.timestep": timestep,
        "exploration.walkers": walkers,
        "training.ensemble": ensemble,
        "training.final_members": final_members,
        "training.settings": _training_keys(model, assignments, short_range=short_range),
        "budget.teacher_calls": teacher_calls,
        "budget.minutes": minutes,
        "budget.target_error": target_error,
        "frames_per_iteration": frames,
        "seed": seed,
        "n_threads": threads,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    paths = files or []
    if resume and paths:
        output, paths = _folder_of(paths), []
    folder = LearnFolder(output)
    settings = _settings(paths, folder, changes, resume=resume)
    progress = LearnProgress(folder, settings, quiet=quiet)
    try:
        with progress:
            summary = learn_potential(settings, output, resume=resume, labels=labels or [], observer=progress)
    except LabelsNeeded as waiting:
        report_learning(output)
        say(str(waiting))
        raise typer.Exit(WAITS_FOR_LABELS) from None
    except (KeyboardInterrupt, TrainingInterrupted):  # the latter is about the folder of one training
        say(
            f"Stopped; all labels are in {folder.labels}: `lrc-ase learn {quote(str(output))} --resume` goes on.",
            to_stderr=True,
        )
        raise KeyboardInterrupt from None
    report = report_learning(output)
    if not quiet:
        _print_summary(summary)
        print(f"report: {report}")


def _training_keys(model: str | None, assignments: Files, *, short_range: bool) -> dict[str, Any] | None:
    """Return the keys of trainings from --model, --short-range and --set, None without any."""
    keys: dict[str, Any] = {} if model is None else {"model.preset": model}
    if short_range:
        keys["model.long_range"] = None
    return keys | dict(parse_assignment(text) for text in assignments or []) or None


def _folder_of(paths: list[str]) -> Path:
    """Return the run folder that stands beside --resume; ValueError for anything else."""
    if len(paths) > 1 or not Path(paths[0]).is_dir():
        raise ValueError(
            f"with --resume only the run folder can be named, got {' '.join(paths)}: structures and settings are in it"
        )
    return Path(paths[0])


def _settings(paths: list[str], folder: LearnFolder, changes: dict[str, Any], *, resume: bool) -> LearnSettings | None:
    """Return settings from a YAML file or structures, with the options on top; None for those of the run alone."""
    if resume:
        if not changes:
            return None
        if not folder.settings.exists():
            raise ValueError(f"{folder.path} holds no run of `lrc-ase learn` to resume")
        content, source = read_content(folder.settings), str(folder.settings)
    elif len(paths) == 1 and paths[0].endswith((".yaml", ".yml")):
        content, source = read_content(paths[0]), paths[0]
    elif not paths:
        raise ValueError("name structures to start from, or a YAML file of settings (--template prints one)")
    else:
        content, source = {"starts": [os.path.abspath(path) for path in paths]}, "options"
        if "teacher.calculator" not in changes:
            raise ValueError(
                "name the reference method: --teacher GFN2-xTB, MODULE:CLASS such as gpaw:GPAW, FILE.py, or none"
            )
    base = os.curdir if source == "options" else os.path.dirname(source)
    if changes.get("teacher.calculator") == BY_HAND:
        if others := sorted(key for key in changes if key.startswith("teacher.") and key != "teacher.calculator"):
            raise ValueError(f"--teacher none has no options, got {', '.join(others)}")
        del changes["teacher.calculator"]
        content["teacher"] = None
    elif str(changes.get("teacher.calculator", "")).endswith(".py"):
        changes["teacher.calculator"] = os.path.abspath(changes["teacher.calculator"])
    return parse_settings(_assigned(content, changes, source), folder=base, source=source)


def _assigned(content: Any, changes: dict[str, Any], source: str) -> dict[str, Any]:
    """Return nested settings with values at dotted keys replaced.

    ValueError for a YAML file that holds something else where a section of keys is expected.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected keys such as 'starts' and 'teacher', got {type(content).__name__}")
    for key, value in changes.items():
        *sections, name = key.split(".")
        inside = content
        for section in sections:
            below = inside.get(section)
            inside[section] = {"calculator": below} if isinstance(below, str) else (below or {})
            inside = inside[section]
            if not isinstance(inside, dict):
                raise ValueError(f"{source}: expected keys below '{section}', got {type(inside).__name__}")
        both_nested = key == "training.settings" and isinstance(inside.get(name), dict)
        inside[name] = {**inside[name], **value} if both_nested else value
    return content


def _print_summary(summary: LearnSummary) -> None:
    """Print how the loop ended, the errors and the time."""
    say(f"{'converged' if summary.converged else 'NOT converged'}: {summary.end}")
    if summary.fresh is not None:
        say(
            f"force error on fresh labels, before they were trained on: {summary.fresh.forces_rmse:.1f} meV/Angstrom "
            f"({counted(summary.fresh.n_frames, 'frame')})"
        )
    if summary.held_out is not None:
        say(
            f"force error of the final potential on held-out frames: {summary.held_out.forces_rmse:.1f} meV/Angstrom "
            f"({counted(summary.held_out.n_frames, 'frame')}, which chose its best epoch)"
        )
    overhead = summary.seconds - sum(record.label_seconds for record in summary.records)
    say(
        f"{summary.teacher_calls} teacher calls, {summary.teacher_seconds:.0f} s in all; everything else took "
        f"{overhead:.0f} s"
    )
    say(f"potential: {summary.potential}")
