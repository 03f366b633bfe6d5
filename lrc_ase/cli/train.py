"""``lrc-ase train``: from frames to a potential."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, get_args, get_origin

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors
from lrc_ase.cli.label_options import with_label_options
from lrc_ase.cli.pretraining import Pretraining
from lrc_ase.dataset import LabelKeys
from lrc_ase.report.run_report import report_run
from lrc_ase.training import train as train_potential
from lrc_ase.training.assignments import changed_configuration, parse_assignment
from lrc_ase.training.configuration_keys import template as configuration_template
from lrc_ase.training.data_arguments import as_configuration
from lrc_ase.training.options import Option, flag, label_changes, option_keys, with_options
from lrc_ase.training.run_folder import RunFolder

__all__ = ["train"]

Files = list[str] | None
_DATA, _MODEL, _PRETRAINING = "Data", "Model", "Pretraining"


def train(
    files: Annotated[
        Files,
        typer.Argument(
            metavar="FRAMES... | CONFIG.yaml",
            help="Labelled frames in any format of ASE, with wildcards and '@' slices, or one YAML file.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Run folder.")] = Path("lrc-ase-run"),
    template: Annotated[
        bool, typer.Option("--template", help="Print a YAML file with every key, its meaning and default, and exit.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in the folder, which may stand in place of the frames; longer if --epochs, "
            "--time-limit or --patience is given.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: DebugOption = False,
    assignments: Annotated[
        Files,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of a configuration, such as stages.learning_rate=0.001; may be repeated; "
            "--template shows all keys.",
        ),
    ] = None,
    validation: Annotated[
        Files,
        typer.Option(
            metavar="FRAMES",
            help="Frames to validate on; a part of the training frames if not given.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    test: Annotated[
        Files,
        typer.Option(
            metavar="FRAMES",
            help="Frames whose errors are reported at the end; they influence nothing.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    small: Annotated[
        Files,
        typer.Option(
            metavar="FRAMES",
            help="Two-scale training: frames of small cells, for the short-range part.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    large: Annotated[
        Files,
        typer.Option(
            metavar="FRAMES",
            help="Two-scale training: frames of large cells, for both parts.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    short_range: Annotated[
        bool, typer.Option("--short-range", help="Leave the long-range part out.", rich_help_panel=_MODEL)
    ] = False,
    pretraining: Annotated[
        str | None,
        typer.Option(
            "--pretrain",
            metavar="TEACHER|FRAMES",
            help="Learn a cheap method first, which samples around the frames: GFN2-xTB (package tblite), any "
            "calculator of ASE (module:Class, or a file with a function calculator()); or frames that it labelled.",
            rich_help_panel=_PRETRAINING,
        ),
    ] = None,
    teacher_options: Annotated[
        Files,
        typer.Option(metavar="NAME=VALUE...", help="Options of the calculator.", rich_help_panel=_PRETRAINING),
    ] = None,
    pretrain_frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames to sample; 1000 to 4000 by their size if not given.",
            min=1,
            rich_help_panel=_PRETRAINING,
        ),
    ] = None,
    pretrain_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Passes over these frames; as many as make 9000 steps if not given.",
            min=1,
            rich_help_panel=_PRETRAINING,
        ),
    ] = None,
    pretrain_dipoles: Annotated[
        bool,
        typer.Option(
            "--pretrain-dipoles",
            help="Learn its dipoles of molecules too and keep them, for infrared spectra.",
            rich_help_panel=_PRETRAINING,
        ),
    ] = False,
    keys: LabelKeys,
    **options: Any,
) -> None:
    """Train a potential on labelled frames.

    The run folder receives the potential, the complete configuration, a log, metrics, a checkpoint, plots and
    report.html. After Ctrl-C or a kill, --resume continues from the checkpoint.

    Example: lrc-ase train frames.extxyz --test test.extxyz -o run
    """
    if template:
        print(configuration_template(), end="")
        return
    if resume and files and len(files) == 1 and RunFolder(files[0]).configuration.is_file():
        output, files = Path(files[0]), None  # as in `lrc-ase learn RUN --resume`
    data: dict[str, Any] = {
        "small": small or [],
        "large": large or [],
        "validation": validation or [],
        "short_range": short_range,
    }
    settings = dict(parse_assignment(text) for text in assignments or [])
    if pretraining is not None:
        chosen = Pretraining(pretraining, teacher_options or (), pretrain_frames, pretrain_epochs, pretrain_dipoles)
        changes = option_keys(options) | settings | label_changes(keys)
        changes |= {"test": test} if test else {}
        configuration = changed_configuration(as_configuration(files or [], **data), changes)
        options["start"] = chosen.start(configuration, output, quiet=quiet, resume=resume)
        settings = chosen.keeping | settings
        resume = resume and RunFolder(output).configuration.exists()
    elif teacher_options or pretrain_frames is not None or pretrain_epochs is not None or pretrain_dipoles:
        raise ValueError(
            "--teacher-options, --pretrain-frames, --pretrain-epochs and --pretrain-dipoles belong to "
            "--pretrain TEACHER"
        )
    train_potential(
        files or [],
        output,
        **data,
        test=test,
        keys=keys,
        settings=settings,
        resume=resume,
        quiet=quiet,
        **options,
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes (torchrun) the first one writes the report
        return
    report = report_run(output)
    if not quiet:
        print(f"report: {report}\nuse it: lrc-ase md {quote(str(output))} start.cif --temperature 300")


def _annotation(name: str, kind: Any, option: Option) -> Any:
    """Return the annotation that makes Typer offer an option of `train_potential`."""
    members = get_args(kind)
    if any(get_origin(member) is Sequence for member in members):
        kind = list[str] | None
    elif str in members:  # Typer knows no `os.PathLike`
        kind = str | None
    value: dict[str, Any] = {"metavar": option.metavar} if option.metavar else {}
    shown = typer.Option(flag(name, option), help=option.help, rich_help_panel=option.panel, **value)
    return Annotated[kind, shown]


train.__signature__ = with_options(inspect.signature(train, eval_str=True), _annotation)  # type: ignore[attr-defined]
train = one_line_errors(with_label_options()(train))
