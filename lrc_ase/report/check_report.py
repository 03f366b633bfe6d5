"""Page on the checks of a potential: verdicts first, then the numbers and plots of each system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lrc_ase.checks.results import Figure
from lrc_ase.checks.suite import CheckReport, SystemResults, unused_name
from lrc_ase.files.atomic import write_atomically
from lrc_ase.report.page import Picture, Report, Section, Table, write_report
from lrc_ase.report.style import REFERENCE_COLOR, colors, new_figure, plot_text, save_figure, set_log_scale

__all__ = ["CHECK_PAGE", "draw_figure", "markdown_table", "report_checks", "verdict_table"]

CHECK_PAGE = "report.html"
CARD_TABLES = "summary.md"
"""File with verdicts and numbers as Markdown."""
_ANGSTROM = "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}"
_SPACE = "\N{NO-BREAK SPACE}"
_INDENT = 4 * _SPACE
_MANY_CURVES = 8
"""Number of curves above which the legend stands beside the plot."""


def report_checks(report: CheckReport, folder: str | Path) -> Path:
    """Draw all figures, write the page and the tables for a card to a folder; return the path of the page."""
    folder = Path(folder)
    counts = [f"{report.count(verdict)} {verdict}" for verdict in ("passed", "failed", "informative", "not applicable")]
    sentences = [
        f"{', '.join(counts)}. A check fails if one of its numbers lies beyond its limit by more than two standard "
        "errors. Informative checks have no limit."
    ]
    sections = [Section("Verdicts", sentences, [verdict_table(system) for system in report.systems])]
    prefixes: list[str] = []
    for system in report.systems:  # names that differ in case or punctuation alone must not share a picture
        prefixes.append(unused_name(_file_name(system.name), prefixes))
        sections.append(_section(system, folder, prefixes[-1]))
    settings = "\n".join(f"{name}: {value}" for name, value in report.settings.items())
    page = folder / CHECK_PAGE
    write_report(Report(f"Checks of {report.potential}", sections, settings), page)
    write_atomically(folder / CARD_TABLES, markdown_table(report).encode())
    return page


def markdown_table(report: CheckReport) -> str:
    """Return verdicts and numbers as tables of Markdown, for the card of a potential."""
    lines = []
    for system in report.systems:
        lines += [f"{_with_units(f'{system.name}: {system.description}')}", ""]
        lines += ["| check | verdict | numbers |", "|---|---|---|"]
        for result in system.results:
            if result.verdict == "not applicable":
                continue
            numbers = [f"{quantity.name} {quantity.value_text}" for quantity in result.quantities]
            lines.append(f"| {result.name} | {result.verdict} | {_with_units('; '.join(numbers)) or result.sentence} |")
        lines.append("")
    return "\n".join(lines)


def verdict_table(system: SystemResults) -> Table:
    """Return the table of verdicts of a system."""
    rows = []
    for result in system.results:
        main = "; ".join(f"{each.name} {each.value_text}" for each in result.quantities if each.is_main)
        # the sentence of a failed check begins with the numbers beyond their limits
        text = (
            f"{main[:1].upper()}{main[1:]}. {result.sentence}"
            if main and result.verdict != "failed"
            else result.sentence
        )
        rows.append([result.name, result.verdict.replace(" ", _SPACE), _with_units(text)])
    title = f"{system.name}: {system.description}"
    return Table(title, ["Check", "Verdict", "Finding"], rows, ends_in_text=True, marks=_MARKS)


_MARKS: Mapping[str, Literal["good", "bad"]] = {
    "passed": "good",
    "failed": "bad",
    "within": "good",
    "beyond": "bad",
}


def _section(system: SystemResults, folder: Path, prefix: str) -> Section:
    """Return the section on a system: all numbers in one table, then the plots, in files that begin with `prefix`."""
    has_reference = any(quantity.reference is not None for each in system.results for quantity in each.quantities)
    columns = ["", "Value", *(["Reference"] if has_reference else []), "Limit", ""]
    rows = []
    for result in system.results:
        if result.quantities:
            rows.append([result.name, *("" for _ in columns[1:])])
        for quantity in result.quantities:
            reference = ["-" if quantity.reference is None else f"{quantity.reference:.4g}"] if has_reference else []
            judged = ("within" if quantity.is_within else "beyond") if quantity.is_limited else "-"
            name, value = _INDENT + _with_units(quantity.name), _with_units(quantity.value_text)
            rows.append([name, value, *reference, quantity.limit_text or "-", judged])
    tables = [Table("Numbers", columns, rows, marks=_MARKS)] if rows else []
    pictures = []
    for result in system.results:
        for figure in result.figures:
            path = folder / f"{prefix}-{_file_name(figure.title)}.png"
            draw_figure(figure, path)
            pictures.append(Picture(path, figure.title, _with_units(figure.caption)))
    return Section(f"{system.name}", [system.description], tables, pictures)


def draw_figure(figure: Figure, path: str | Path) -> None:
    """Draw the curves of a figure; those of a reference calculator are dashed, in the color of their partner."""
    many = len(figure.curves) > _MANY_CURVES
    drawn = new_figure(8.0 if not many else 9.5, 4.6)
    axis = drawn.subplots()
    names = [curve.name.removesuffix(", reference") for curve in figure.curves]
    color_of = dict(zip(dict.fromkeys(names), colors(len(set(names))), strict=True))
    for name, curve in zip(names, figure.curves, strict=True):
        is_reference = curve.name != name
        points = curve.style == "points"
        axis.plot(
            curve.x,
            curve.y,
            color=color_of[name],
            ls="" if points else "--" if is_reference else "-",
            marker=("x" if is_reference else "o") if points else "",
            ms=4,
            lw=1.6,
            label=plot_text(curve.name),
        )
    if figure.log_x:
        set_log_scale(axis, "x", [x for curve in figure.curves for x in curve.x])
    if figure.log_y:
        set_log_scale(axis, "y", [y for curve in figure.curves for y in curve.y])
    elif figure.y_range is not None:
        axis.set_ylim(*figure.y_range)
    if not figure.log_y and (figure.y_range is None or figure.y_range[0] < 0 < figure.y_range[1]):
        axis.axhline(0, color=REFERENCE_COLOR, lw=0.6)
    axis.set_xlabel(_with_units(figure.x_label))
    axis.set_ylabel(_with_units(figure.y_label))
    axis.grid(alpha=0.3)
    if len(figure.curves) > 1:
        if many:
            axis.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
        else:
            axis.legend(frameon=False, fontsize="small")
    axis.set_title(plot_text(figure.title, 90), fontsize="medium")
    save_figure(drawn, path)


def _with_units(text: str) -> str:
    """Return text with the symbols that a page can show.

    >>> _with_units("1.2 +- 0.1 eV/Angstrom^3")
    '1.2 \N{PLUS-MINUS SIGN} 0.1 eV/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}\N{SUPERSCRIPT THREE}'
    """
    text = text.replace("Angstrom", _ANGSTROM).replace("+-", "\N{PLUS-MINUS SIGN}")
    text = re.sub(r"\^-1\b", "\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ONE}", text)
    return text.replace("^2", "\N{SUPERSCRIPT TWO}").replace("^3", "\N{SUPERSCRIPT THREE}")


def _file_name(text: str) -> str:
    """Return text as part of the name of a file.

    >>> _file_name("Energies of two atoms")
    'energies-of-two-atoms'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "system"
