"""Running the cells of the tables, by either recipe."""

from __future__ import annotations

from typing import Any, Literal

from lrc_ase.paper.experiments import TABLES, Cell, Table
from lrc_ase.paper.model import highest_wave
from lrc_ase.paper.networks import paper_schedule, quick_schedule, train_networks
from lrc_ase.paper.recipes import force_error, train_ours
from lrc_ase.paper.run_folder import PaperRun

__all__ = ["Recipe", "result_name", "run_cell", "run_table"]

Recipe = Literal["ours", "paper"]


def run_table(run: PaperRun, name: str, *, quick: bool, recipe: Recipe = "ours") -> Table:
    """Run the missing cells of table `name` and return the table."""
    table = TABLES[name]
    for cell in table.cells:
        run_cell(run, cell, quick=quick, recipe=recipe)
    return table


def run_cell(run: PaperRun, cell: Cell, *, quick: bool, recipe: Recipe) -> dict[str, Any]:
    """Train and test one cell, unless it is finished."""
    name = result_name(cell, quick=quick, recipe=recipe)
    size = cell.size(quick=quick)

    def work() -> dict[str, Any]:
        n_train = size.n_train if recipe == "ours" else size.n_train_networks or size.n_train
        training = run.training_snapshots(cell.problem, n_train)
        test = run.test_snapshots(cell.problem, size.n_test)

        def report(text: str) -> None:
            run.report(f"{name}: {text}")

        if recipe == "ours":
            highest = None if cell.n_modes is None else highest_wave(cell.problem, cell.n_modes)
            model = train_ours(training, highest=highest, seed=0, n_iterations=size.n_iterations, report=report)
        else:
            schedule = quick_schedule(cell.problem.n_points) if quick else paper_schedule(n_train)
            model = train_networks(training, n_modes=cell.n_modes, seed=0, schedule=schedule, report=report)
        return {
            "error": force_error(model, test),
            "screening": model.screening,
            "n_train": n_train,
            "n_test": size.n_test,
        }

    result = run.once(name, work)
    run.report(f"{name}: error {result['error']:.2e}, the paper's {cell.paper_error:g}")
    return result


def result_name(cell: Cell, *, quick: bool, recipe: Recipe) -> str:
    """Return the name of a cell's result in the run folder."""
    row = cell.row.removesuffix("^2")
    return f"{cell.table}-{cell.model}-{row}-{recipe}-{'quick' if quick else 'full'}"
