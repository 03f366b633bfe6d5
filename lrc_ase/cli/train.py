"""``lrc-ase train``: from frames to a potential."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

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
from lrc_ase.files.pretrained import absolute_potential
from lrc_ase.report.run_report import report_run
from lrc_ase.training import TrainingConfiguration, default_configuration, load_configuration, parse_configuration
from lrc_ase.training import train as train_potential

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
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    stress_key: StressKeyOption = None,
    virial_key: VirialKeyOption = None,
    charge_key: ChargeKeyOption = None,
    skip_unlabelled: SkipUnlabelledOption = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("lrc-ase-run"),
    short_range: Annotated[bool, typer.Option("--short-range", help="Leave the long-range part out.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every stage.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, split and shuffling.", min=0)] = None,
    device: Annotated[str | None, typer.Option(help="Device of torch: cpu, cuda, cuda:1.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch on the CPU.", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors.")] = False,
    debug: DebugOption = False,
) -> None:
    """Train a potential.

    The run folder then holds the potential, the configuration as resolved, a log, metrics, a checkpoint, plots and
    report.html. After Ctrl-C or a kill, --resume goes on from the checkpoint.
    """
    configuration = _configuration(files or [], small or [], large or [], validation or [], short_range, resume)
    named = label_keys(energy_key, forces_key, stress_key, virial_key, charge_key)
    keys = named.model_dump(exclude_none=True)
    if configuration is not None:
        changes: dict[str, Any] = {
            "seed": seed,
            "device": device,
            "dtype": dtype,
            "n_threads": threads,
            "ensemble": ensemble,
        }
        changes |= {
            "start": start and absolute_potential(start, os.curdir),
            "cache": cache and os.path.abspath(cache),
            "watch": watch and [os.path.abspath(p) for p in watch],
            "skip_unlabelled": skip_unlabelled or None,
        }
        configuration = _changed(configuration, {k: v for k, v in changes.items() if v is not None}, epochs, keys)
    elif (
        any(value is not None for value in (epochs, seed, device, dtype, threads, start, watch, ensemble, cache))
        or keys
        or skip_unlabelled
    ):
        raise ValueError("--resume alone takes everything from the run folder: leave the other options out")
    potential = train_potential(configuration, output, resume=resume, quiet=quiet)
    if os.environ.get("RANK", "0") != "0":  # of several processes the first one reports
        return
    report = report_run(output)
    if not quiet:
        print(f"  {potential}\n  {report}")


def _configuration(
    files: list[str], small: list[str], large: list[str], validation: list[str], short_range: bool, resume: bool
) -> TrainingConfiguration | None:
    """What the arguments ask for; None when the run folder is to say it."""
    yaml = [name for name in files if name.endswith((".yaml", ".yml"))]
    if yaml:
        if len(files) > 1 or small or large or validation or short_range:
            raise ValueError("a configuration file stands alone: name frames and validation in it")
        return load_configuration(yaml[0])
    if resume and not (files or small or large):
        return None
    return default_configuration(files, small=small, large=large, validation=validation, short_range=short_range)


def _changed(
    configuration: TrainingConfiguration, changes: dict[str, Any], epochs: int | None, keys: dict[str, str]
) -> TrainingConfiguration:
    """Return the configuration with the options of the command line; `keys` name labels in every data set."""
    content = configuration.model_dump(mode="json") | changes
    for data_set in content["data"].values():
        data_set["keys"] |= keys
    if epochs is not None:
        content["stages"] = [stage | {"epochs": epochs} for stage in content["stages"]]
    return parse_configuration(content, source="command line")
