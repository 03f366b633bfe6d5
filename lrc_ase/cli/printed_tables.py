"""Tables on the terminal: names and values, and the tables of reports, with text from files made harmless."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE, SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lrc_ase.cli.console import console, say
from lrc_ase.files.printable import printable

if TYPE_CHECKING:
    from lrc_ase.report.page import Table as ReportTable

__all__ = ["print_table", "show_rows"]


def show_rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values that may come from files, without markup and escape codes.

    A terminal folds values at its width. In a pipe or a file every row is one line, with nothing cut off.
    """
    if not console.is_terminal:
        say("\n".join([printable(title), *(f"{printable(name)}: {printable(value)}" for name, value in rows)]))
        return
    table = Table(title=Text(printable(title)), title_justify="left", show_header=False, box=SIMPLE)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(printable(name)), Text(printable(value)))
    console.print(table)


def print_table(table: ReportTable) -> None:
    """Print a table of a report to the console; names from files are not read as markup or escape codes."""
    shown = Table(title=Text(printable(table.title)), box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(table.columns):
        heading = Text("\n".join(printable(line) for line in column.split("\n")))
        shown.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text("\n".join(printable(line) for line in cell.split("\n"))) for cell in row))
    console.print(shown)
