"""``lrc-ase train``: from frames to a potential."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lrc_ase.cli.console import DebugOption, one_line_errors
from lrc_ase.cli.label_options import (
    ChargeKeyOption,
    EnergyKeyOption,
    ForcesKeyOption,
    SkipUnlabelledOption,
    StressKeyOption,
    VirialKeyOption,
    label_keys,
)
from lrc_ase.report.run_report import report_run
from lrc_ase.training import TrainingConfiguration, changed_configuration, default_configuration, load_configuration
from lrc_ase.training import train as train_potential
from lrc_ase.training.configuration_keys import template as configuration_template
from lrc_ase.training.options import option_keys, parse_assignment

__all__ = ["train"]

Files = list[str] | None


@one_line_errors
def train(
    files: Annotated[
        Files,
        typer.Argument(
            metavar="[FRAMES... | CONFIGURATION.yaml]",
            help="Labelled frames in any format of ASE, with wildcards and '@' slices, or one YAML file.",
            show_default=False,
        ),
    ] = None,
    small: Annotated[
        Files, typer.Option(help="Two-scale training: frames of small cells, for the short-range part.")
    ] = None,
    large: Annotated[Files, typer.Option(help="Two-scale training: frames of large cells, for both parts.")] = None,
    validation: Annotated[
        Files, typer.Option(help="Frames to validate on; a part of the training frames if not given.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Potential (file, run folder, shipped name) to start from; unknown elements are added."
        ),
    ] = None,
    watch: Annotated[
        Files, typer.Option(help="Frames whose errors are followed but not trained on, such as old ones with --from.")
    ] = None,
    ensemble: Annotated[
        int | None, typer.Option(help="Members trained side by side; their spread is the uncertainty.", min=1)
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder in which large sets are kept on disk, prepared once for all runs.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("lrc-ase-run"),
    short_range: Annotated[bool, typer.Option("--short-range", help="Leave the long-range part out.")] = False,
    cutoff: Annotated[
        float | None, typer.Option(help="Range of the short-range part, Angstrom; 5 if not given.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the frames in every stage; with --resume, those of a longer run.", min=1),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Frames per step of the optimizer.", min=1)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without progress after which a stage ends.", min=1)
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Minutes after which a stage ends, its step size annealed to the end.")
    ] = None,
    test: Annotated[
        Files, typer.Option(help="Frames whose errors are in the table at the end; nothing is chosen by them.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, split and shuffling.", min=0)] = None,
    device: Annotated[str | None, typer.Option(help="Device of torch: cpu, cuda, cuda:1.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch on the CPU.", min=1)] = None,
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    stress_key: StressKeyOption = None,
    virial_key: VirialKeyOption = None,
    charge_key: ChargeKeyOption = None,
    skip_unlabelled: SkipUnlabelledOption = False,
    assignments: Annotated[
        Files,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of a configuration, such as stages.learning_rate=0.001; --template shows all.",
        ),
    ] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a YAML file with every key, its meaning and default, and exit.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in the folder; longer with --epochs, --time-limit, --patience."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
    debug: DebugOption = False,
) -> None:
    """Train a potential.

    The run folder then holds the potential, the configuration as resolved, a log, metrics, a checkpoint, plots and
    report.html. After Ctrl-C or a kill, --resume goes on from the checkpoint.
    """
    if template:
        print(configuration_template(), end="")
        return
    keys = label_keys(energy_key, forces_key, stress_key, virial_key, charge_key)
    changes = option_keys(
        cutoff=cutoff,
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        time_limit=time_limit,
        ensemble=ensemble,
        start=start,
        watch=watch,
        test=test,
        cache=cache,
        seed=seed,
        device=device,
        dtype=dtype,
        n_threads=threads,
        keys=keys,
        skip_unlabelled=skip_unlabelled or None,
    ) | dict(parse_assignment(text) for text in assignments or [])
    configuration = _configuration(files or [], small or [], large or [], validation or [], short_range, resume)
    if configuration is None:
        train_potential(None, output, resume=True, quiet=quiet, settings=changes)
    else:
        configuration = changed_configuration(configuration, changes)
        train_potential(configuration, output, resume=resume, quiet=quiet)
    if os.environ.get("RANK", "0") != "0":  # of several processes (torchrun) the first one writes the report
        return
    report = report_run(output)
    if not quiet:
        print(f"report: {report}")


def _configuration(
    files: list[str], small: list[str], large: list[str], validation: list[str], short_range: bool, resume: bool
) -> TrainingConfiguration | None:
    """Return the configuration that the files stand for; None if --resume takes that of the run folder."""
    yaml = [name for name in files if name.endswith((".yaml", ".yml"))]
    if yaml:
        if len(files) > 1 or small or large or validation or short_range:
            raise ValueError("a configuration file stands alone: name frames and validation in it")
        return load_configuration(yaml[0])
    if resume and not (files or small or large):
        return None
    return default_configuration(files, small=small, large=large, validation=validation, short_range=short_range)
