"""Results of a run: a CSV table, a Markdown table and a plot per experiment, and one page of all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lrc_ase.files.atomic import write_atomically
from lrc_ase.paper.experiments import TABLES, Cell, Table
from lrc_ase.paper.figures import plot_curve, plot_table, plot_timing
from lrc_ase.paper.run_folder import PaperRun
from lrc_ase.paper.screenings import GRID
from lrc_ase.paper.tables import Recipe, result_name
from lrc_ase.paper.timing import TIMING
from lrc_ase.paper.two_scale import CURVES, Curve, curve_points

__all__ = ["write_page", "write_reports"]

_RECIPES: tuple[Recipe, ...] = ("ours", "paper")
_SIZES = {"full": False, "quick": True}
_TARGET = {"full": 0.5, "quick": 1.0}
"""Target for our full-range error, as a fraction of the paper's."""
_LARGEST_DEVIATION = 0.03
_AS_GOOD, _FEWER, _SEEDS = 1.25, 10, 3
"""How near to the best error, with how many times fewer large snapshots, judged on how many seeds."""


def write_reports(run: PaperRun, folder: Path) -> list[str]:
    """Write CSV, Markdown and PNG files of everything finished into `folder`; return the sections of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    results = run.results()
    sections = []
    for table in TABLES.values():
        for size in _SIZES:
            rows = list(_rows(results, table, size))
            if rows:
                sections.append(_table_section(table, size, rows, folder))
    for curve in CURVES.values():
        for recipe in _RECIPES:
            for size, quick in _SIZES.items():
                points = curve_points(run, curve, quick=quick, recipe=recipe)
                if any(points.values()):
                    sections.append(_curve_section(curve, recipe, size, points, folder))
    for size in _SIZES:
        times = results.get(f"{TIMING}-{size}")
        if times is not None:
            sections.append(_timing_section(times, size, folder))
    return sections


def write_page(run: PaperRun, path: Path, command: str) -> None:
    """Write the page with all tables and figures; the files of the figures go into a folder beside it."""
    folder = path.with_suffix("")
    sections = [section.replace("](", f"]({folder.name}/") for section in write_reports(run, folder)]
    machines = sorted({_machine(result["machine"]) for result in run.results().values()})
    head = (
        "# The paper, reproduced\n\n"
        f"Written by `{command}`; do not edit. `lrc-ase paper NAME` runs an experiment at full size, with `--quick` at "
        f"reduced size; experiments that are not listed were not run. Hardware: {'; '.join(machines)}.\n\n"
        "Numbers are relative l2 errors of the forces on fresh snapshots. The paper is *Efficient long-range "
        "convolutions for point clouds* (doi:10.48550/arXiv.2010.05295). There are two recipes:\n\n"
        "- `paper`: the paper's networks, trained by its schedule of Adam at full size, and by some thousand steps of "
        "SOAP at reduced size.\n"
        "- `ours`: the paper's descriptor and its two screened-Coulomb channels with a linear read-out, trained by "
        "variable projection in float64. A band limit keeps the range of what the modes miss below the cutoff.\n\n"
        "No row is given its mu. Lambda starts at 3 and 0.7 in the networks. In `ours` it is searched "
        f"between {GRID[0]:g} and {GRID[-1]:g}, on the same grid for every row, with polynomials in place of the "
        "descriptor.\n\n"
        "The target at full size is a full-range error of at most half of the paper's, at reduced size at most the "
        "paper's. The smaller lambda must lie within 3%.\n\n"
    )
    write_atomically(path, (head + "\n".join(sections)).encode())


def _rows(results: dict[str, dict[str, Any]], table: Table, size: str) -> Iterator[dict[str, Any]]:
    """Yield the finished cells of a table, with the numbers of the paper."""
    for recipe in _RECIPES:
        for cell in table.cells:
            result = results.get(result_name(cell, quick=_SIZES[size], recipe=recipe))
            if result is not None:
                yield {
                    "row": cell.row,
                    "model": cell.model,
                    "recipe": recipe,
                    "size": size,
                    "n_train": result["n_train"],
                    "n_test": result["n_test"],
                    "paper_error": cell.paper_error,
                    "error": result["error"],
                    "screening": result["screening"],
                    "paper_screening": cell.paper_screening,
                    "verdict": _verdict(cell, recipe, size, result),
                    "seconds": result["seconds"],
                }


def _verdict(cell: Cell, recipe: Recipe, size: str, result: dict[str, Any]) -> str:
    """Return "met" or "MISSED", with details; empty for a cell without a target."""
    if recipe != "ours" or cell.n_modes is None:
        return ""
    met = result["error"] <= _TARGET[size] * cell.paper_error
    verdict = "met" if met else "MISSED"
    if cell.true_screening is not None:
        deviation = min(result["screening"]) / cell.true_screening - 1
        near = abs(deviation) <= _LARGEST_DEVIATION
        verdict += f", lambda off by {100 * deviation:+.2g}%" + ("" if near else " (MISSED)")
    return verdict


def _table_section(table: Table, size: str, rows: Sequence[dict[str, Any]], folder: Path) -> str:
    name = f"{table.name}-{size}"
    flat = [row | {key: _numbers(row[key]) for key in ("screening", "paper_screening")} for row in rows]
    _write_csv(flat, folder / f"{name}.csv")
    columns = [table.rows, "model", "recipe", "snapshots", "paper", "here", "lambda, paper", "lambda, here", "target"]
    lines = [
        [
            row["row"],
            row["model"],
            row["recipe"],
            str(row["n_train"]),
            f"{row['paper_error']:.5f}",
            _short(row["error"]),
            row["paper_screening"],
            row["screening"],
            row["verdict"],
        ]
        for row in flat
    ]
    markdown = _markdown(columns, lines)
    write_atomically(folder / f"{name}.md", markdown.encode())
    plot_table(rows, f"{table.title} ({size})", table.rows, folder / f"{name}.png")
    n_test = rows[0]["n_test"]
    fewer = min(row["n_train"] for row in rows) < table.paper_snapshots
    reduced = f" The paper trained on {table.paper_snapshots} snapshots." if fewer else ""
    text = f"Tested on {n_test} fresh snapshots; {sum(row['seconds'] for row in rows) / 60:.0f} min.{reduced}"
    return f"## {table.title} ({size})\n\n{text}\n\n{markdown}\n![{table.title}]({name}.png)\n"


def _curve_section(
    curve: Curve, recipe: Recipe, size: str, points: dict[str, dict[int, list[float]]], folder: Path
) -> str:
    name, title = f"{curve.name}-{recipe}-{size}", f"{curve.title} (recipe {recipe}, {size})"
    flat = [
        {"strategy": strategy, "n_large": n_large, "seeds": len(errors), "errors": _numbers(errors)}
        for strategy, by_number in points.items()
        for n_large, errors in sorted(by_number.items())
    ]
    _write_csv(flat, folder / f"{name}.csv")
    markdown = _markdown(
        ["strategy", "large snapshots", "seeds", "errors"], [[str(value) for value in row.values()] for row in flat]
    )
    write_atomically(folder / f"{name}.md", markdown.encode())
    plot_curve(points, title, folder / f"{name}.png")
    amount = curve.size(recipe, quick=_SIZES[size])
    unit = "iterations" if recipe == "ours" else "steps in all"
    text = (
        f"{amount.n_small} small snapshots for the first scale, {amount.n_steps} {unit}; "
        f"tested on {amount.n_test} fresh large "
        f"snapshots. {_saving(points)}"
    )
    return f"## {title}\n\n{text}\n\n{markdown}\n![{title}]({name}.png)\n"


def _saving(points: dict[str, dict[int, list[float]]]) -> str:
    """Return a sentence on the numbers of large snapshots that reach the best one-scale error within a quarter."""
    if not all(points.values()):
        return "One strategy is not finished."
    means = {
        name: {n: math.exp(sum(map(math.log, errors)) / len(errors)) for n, errors in by_number.items()}
        for name, by_number in points.items()
    }
    n_seeds = min(len(errors) for by_number in points.values() for errors in by_number.values())
    goal = _AS_GOOD * min(means["one-scale"].values())
    needed = {
        name: min((n for n, error in by_number.items() if error <= goal), default=None)
        for name, by_number in means.items()
    }
    one, two = needed["one-scale"], needed["two-scale"]
    if n_seeds < _SEEDS:
        verdict = f"not judged on {n_seeds} of {_SEEDS} seeds"
    else:
        verdict = "met" if one is not None and two is not None and one >= _FEWER * two else "MISSED"
        if two == 0 and verdict == "met":
            verdict += " (none is needed)"
    counts = ", ".join(f"{name} {'more than were tried' if n is None else n}" for name, n in needed.items())
    return (
        f"Large snapshots needed for an error of {goal:.1e}, a quarter above the best of one-scale training: {counts}. "
        f"Target, ten times fewer with two scales: {verdict}."
    )


def _timing_section(times: dict[str, Any], size: str, folder: Path) -> str:
    name, title = f"{TIMING}-{size}", "Figure 7 (right): the layer against the direct sum, one dimension"
    flat = [
        {"points": n, "layer_seconds": seconds, "direct_seconds": times["direct"].get(n, "")}
        for n, seconds in times["layer"].items()
    ]
    _write_csv(flat, folder / f"{name}.csv")
    lines = [[n, _short(seconds), _short(times["direct"].get(n))] for n, seconds in times["layer"].items()]
    markdown = _markdown(["points", "layer, s", "direct, s"], lines)
    write_atomically(folder / f"{name}.md", markdown.encode())
    plot_timing(times, title, folder / f"{name}.png")
    return f"## {title} ({size})\n\n{markdown}\n![{title}]({name}.png)\n"


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(columns)
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, rule, *lines))


def _numbers(values: Sequence[float] | None) -> str:
    return "" if values is None else ", ".join(f"{value:.4g}" for value in values)


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.5f}" if value >= 1e-4 else f"{value:.1e}"


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores"
