"""``lrc-ase paper``: the experiments of the paper, and ours beside them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from lrc_ase.cli.console import DebugOption, ThreadsOption, one_line_errors, set_threads

__all__ = ["paper"]

Recipe = Literal["ours", "paper"]
_PAUSE = 10.0  # seconds between lines of progress


@one_line_errors
def paper(
    name: Annotated[
        str,
        typer.Argument(
            help="table1, table2 and table4 (both with table 5), table3, table6, figure7, figure7-right, figure8-left, "
            "figure8-right, all; or report, which only writes what is finished.",
            show_default=False,
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer snapshots; everything within half an hour.")] = False,
    recipe: Annotated[Recipe, typer.Option(help="Ours, or the paper's own networks.")] = "ours",
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder; finished work in it is kept.")] = Path(
        "lrc-ase-paper"
    ),
    page: Annotated[
        Path | None, typer.Option(help="Write the page of all results here too, such as docs/notebook/paper.md.")
    ] = None,
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Reproduce the tables and figures of doi:10.48550/arXiv.2010.05295.

    Each leaves a CSV table, a Markdown table and a plot in the run folder. Run the same command again to continue
    an interrupted run.

    Example: lrc-ase paper table1 --quick
    """
    # imported here: the oracles and matplotlib are of no use to other commands
    from lrc_ase.paper import PaperRun, run_experiment, write_page

    set_threads(threads)
    run = PaperRun(output, report=_Narrator())
    run_experiment(run, name, quick=quick, recipe=recipe)
    arguments = [name, *(["--quick"] if quick else []), *([f"--recipe {recipe}"] if recipe == "paper" else [])]
    for path in (output / "paper.md", *([page] if page else [])):
        write_page(run, path, f"lrc-ase paper {' '.join(arguments)}")
        print(f"  {path}")


class _Narrator:
    """Printer of reports: the first, each that ends a piece of work, and of the others one every `_PAUSE` seconds."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.last = -_PAUSE

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if ", the paper's" in text or now - self.last > _PAUSE:
            self.last = now
            print(f"{(now - self.begin) / 60:6.1f} min  {text}", flush=True)
