"""Errors at the end of a training, on training, validation, test and watched frames, and a verdict on overfitting."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from lrc_ase.dataset import LabelledGraph, sample
from lrc_ase.evaluation.error_tables import ELECTRIC_COLUMNS, ERROR_COLUMNS, error_cells, overfitting_remark
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.training.configuration import StageConfiguration
from lrc_ase.training.processes import Processes
from lrc_ase.training.steps import mean_errors

__all__ = ["errors_of_parts", "table_of_errors", "verdict"]

_LARGEST = 500
"""Largest number of frames of a part that are evaluated, evenly spread over the part."""
_WIDTH, _LONGEST_NAME = 80, 24
TRAINING, VALIDATION = "training", "validation"


def errors_of_parts(
    model: ShortRangeModel,
    parts: Mapping[str, Sequence[LabelledGraph]],
    stage: StageConfiguration,
    force_scale: float,
    processes: Processes,
) -> dict[str, dict[str, float]]:
    """Return the errors of a finished model and `n_frames` for each part that is not empty."""
    errors = {}
    for name, graphs in parts.items():
        if not graphs:
            continue
        few = sample(graphs, _LARGEST)
        mean = mean_errors(model, few, stage.loss, force_scale, batch_size=stage.frames_per_step, processes=processes)
        del mean["loss"]
        errors[name] = {"n_frames": float(len(few)), **mean}
    return errors


def table_of_errors(errors: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of the errors of parts, at most 80 columns wide, with units in the heading.

    Dipoles and Born effective charges, where there are any, have a second table below.
    """
    cells = [error_cells(errors, columns) for columns in (ERROR_COLUMNS, ELECTRIC_COLUMNS)]
    return "\n".join(_text(*each) for each in cells if len(each[0]) > 1)


def _text(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index else "left", no_wrap=True)
    for name, *numbers in rows:
        shown = (
            name
            if len(name) <= _LONGEST_NAME
            else f"{name[: _LONGEST_NAME // 2 - 2]}...{name[-_LONGEST_NAME // 2 + 1 :]}"
        )
        table.add_row(shown, *numbers)
    text = io.StringIO()
    Console(file=text, width=_WIDTH, color_system=None, markup=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())


def verdict(errors: Mapping[str, Mapping[str, float]]) -> str:
    """Return a sentence on overfitting from the validation frames, else from the first part that was not trained on."""
    unseen = next((name for name in (VALIDATION, *errors) if name in errors and name != TRAINING), None)
    if unseen is None:
        return overfitting_remark(errors[TRAINING], None)
    return overfitting_remark(errors[TRAINING], errors[unseen], unseen_name=unseen)
