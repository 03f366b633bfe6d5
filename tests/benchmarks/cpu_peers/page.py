"""Make docs/notebook/cpu_peers.md and its figures from the results of `run.py`; the prose is in page.md.j2.

python tests/benchmarks/cpu_peers/page.py [--docs docs/notebook]
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import jinja2
from figures import draw_pareto, draw_times
from programs import INSTALL, PROGRAMS, Program

HERE = Path(__file__).resolve().parent
OURS = "lrc-ase"
COLD, HOT, LIQUID = "acetylacetone 300 K", "acetylacetone 600 K", "liquid water"


class Results:
    """Times by program and system, errors by model and data set."""

    def __init__(self, folder: Path) -> None:
        self.machine = json.loads((folder / "machine.json").read_text())
        self.rows = read_table(folder / "times.csv")
        self.errors = {(row["name"], row["set"]): row for row in read_table(folder / "accuracy.csv")}
        self.seconds = {
            (row["program"], row["system"]): float(row["cpu_seconds"]) for row in self.rows if row.get("cpu_seconds")
        }
        self.failures = {row["program"]: row["error"] for row in self.rows if row["error"]}
        measured = {name for name, _ in self.seconds}
        self.programs = [program for program in PROGRAMS if program.name in measured]

    def milliseconds(self, program: str, system: str) -> str:
        """Return the time of a step for a table, empty where it was not measured."""
        seconds = self.seconds.get((program, system))
        return "" if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 0.9995 else f"{1e3 * seconds:.0f}"

    def per_atom(self, program: str, system: str, n_atoms: int) -> float | None:
        """Return microseconds per atom and step."""
        seconds = self.seconds.get((program, system))
        return None if seconds is None else 1e6 * seconds / n_atoms

    def error(self, name: str, data: str, key: str = "forces") -> str:
        """Return an error for a table, empty where none is known."""
        return self.errors.get((name, data), {}).get(key, "")

    def source(self, name: str, data: str) -> str:
        """Return where an error was published, as a link."""
        source = self.error(name, data, "source")
        if source.startswith("accuracy.md"):
            return f"[accuracy]({source})"
        return f"fitted by `{source}`" if source.endswith(".py") else source

    def points(self, system: str, n_atoms: int, data: str) -> list[tuple[str, float, float]]:
        """Return name, microseconds per atom and force error of every model that has both."""
        points = []
        for program in self.programs:
            time = self.per_atom(program.name, system, n_atoms)
            for model, suffix in self.models_of(program):
                error = self.error(model, data)
                if time is not None and error:
                    points.append((program.name + suffix, time, float(error)))
        return points

    def models_of(self, program: Program) -> list[tuple[str, str]]:
        """Return the rows of errors that belong to a program, with what to add to its name."""
        models = [(program.same_as, "")] if program.same_as else []
        if program.same_as == "lrc-ase accurate":
            models.append(("lrc-ase accurate, pretrained", ", pretrained"))
        return models


def pareto(points: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Return the points that no other one beats in both time and error, from fast to slow.

    >>> pareto([("slow", 2.0, 1.0), ("worse", 3.0, 1.5), ("fast", 1.0, 2.0)])
    [('fast', 1.0, 2.0), ('slow', 2.0, 1.0)]
    """
    front: list[tuple[str, float, float]] = []
    for point in sorted(points, key=lambda each: (each[1], each[2])):
        if not front or point[2] < front[-1][2]:
            front.append(point)
    return front


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    """Write the page and draw its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=HERE.parents[2] / "docs" / "notebook")
    arguments = parser.parse_args()
    results = Results(arguments.docs / "cpu_peers")
    figures = arguments.docs / "figures"
    draw_times(results, figures / "cpu_peers_times.png")
    panels = {
        "molecule, error at 300 K": results.points("acetylacetone", 15, COLD),
        "molecule, error at 600 K": results.points("acetylacetone", 15, HOT),
        "time of 192 atoms of water, error at 300 K": results.points("water 192", 192, COLD),
    }
    draw_pareto({title: (points, pareto(points)) for title, points in panels.items()}, figures / "cpu_peers_pareto.png")
    template = jinja2.Template((HERE / "page.md.j2").read_text(encoding="utf-8"), trim_blocks=True, lstrip_blocks=True)
    fronts = {title: pareto(points) for title, points in panels.items()}
    page = template.render(results=results, install=INSTALL, fronts=fronts, cold=COLD, hot=HOT, liquid=LIQUID)
    (arguments.docs / "cpu_peers.md").write_text(page + "\n", encoding="utf-8")
    for title, front in fronts.items():
        print(f"{title}: {', '.join(name for name, _, _ in front)}")


if __name__ == "__main__":
    main()
