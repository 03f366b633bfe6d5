"""``lrc-ase data``: report on files of frames, before anything is trained on them."""

from __future__ import annotations

import os
import textwrap
from typing import Annotated

import typer

from lrc_ase.cli.console import DebugOption, JsonOption, console, one_line_errors, say
from lrc_ase.cli.label_options import with_label_options
from lrc_ase.cli.printed_tables import print_table
from lrc_ase.dataset import LabelKeys, inspect_frames, label_frame, read_frames
from lrc_ase.files.strict_json import json_text
from lrc_ase.report.tables import data_table

__all__ = ["data"]


@one_line_errors
@with_label_options()
def data(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FRAMES...",
            help="Frames in any format of ASE, with wildcards and '@' slices; a column of the table for each.",
            show_default=False,
        ),
    ],
    keys: LabelKeys,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Report labels, compositions, distances and forces of frames, and warn about suspicious ones.

    Warns of outliers, duplicates, units that are not eV and Angstrom, and forces that do not sum to zero, and
    reports what could not be checked. Frames without labels are accepted.

    Example: lrc-ase data "run*/vasprun.xml"
    """
    short = [os.path.basename(path) for path in files]
    names = short if len(set(short)) == len(files) else files
    frames = {
        name: [label_frame(atoms, keys, required=()) for atoms in read_frames(path)]
        for name, path in zip(names, files, strict=True)
    }
    report = inspect_frames(frames)
    if as_json:
        print(json_text(report.to_json()), end="")
        return
    print_table(data_table(report, "Frames"))
    for line in report.checked:
        _say_wrapped(f"Checked: {line}")
    for line in report.unchecked:
        _say_wrapped(f"Not checked: {line}")
    for note in report.notes:
        _say_wrapped(f"Note: {note}")
    for warning in report.warnings:
        _say_wrapped(f"Warning: {warning}")
    print(report.verdict)


def _say_wrapped(text: str) -> None:
    """Print a line of the report: folded between words on a terminal, in one piece into a pipe or file."""
    if console.is_terminal:
        text = textwrap.fill(
            text, console.width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    say(text)
