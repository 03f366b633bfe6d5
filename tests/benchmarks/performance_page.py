"""Make docs/notebook/performance.md and its figures from the tables of `report.py`; the prose is in performance.md.j2.

python tests/benchmarks/performance_page.py [--docs docs/notebook]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

import jinja2
from performance_figures import draw_crossover, draw_programs, draw_scaling

HERE = Path(__file__).resolve().parent
SIZES = (1000, 10_000, 100_000)
OURS = "lrc-ase"
PROGRAMS = (
    OURS,
    "finufft",
    "finufft packed",
    "ducc0",
    "ducc0 packed",
    "nvalchemi fused",
    "nvalchemi",
    "torch-pme",
)
Row = dict[str, Any]


class Times:
    """The measured rows, looked up by what they are about."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def find(self, program: str, job: str, n_atoms: int, **configuration: Any) -> Row | None:
        """The row that answers; None where it was not measured.

        Where a program was timed in several cells, the one with most programs: no choice by what was found.
        """
        wanted = {"threads": 1, "n_channels": 1, "precision": "float64", "accuracy": 1e-4, "screening": 0.3}
        wanted |= configuration | {"program": program, "job": job, "n_atoms": n_atoms}
        found = [row for row in self.rows if all(row[key] == value for key, value in wanted.items())]
        return max(found, key=lambda row: self.programs(row["cell"]), default=None)

    def programs(self, cell: int) -> int:
        """How many were timed in turns in a cell."""
        return len({row["program"] for row in self.rows if row["cell"] == cell})

    def seconds(self, *arguments: Any, **configuration: Any) -> float:
        row = self.find(*arguments, **configuration)
        return math.nan if row is None else row["seconds"]

    def alone(self, job: str, n_atoms: int, threads: int) -> float:
        """Seconds of ours in a cell of its own: the series from which exponents and gains by threads are formed."""
        rows = [row for row in self.rows if self.programs(row["cell"]) == 1 and row["program"] == OURS]
        return Times(rows).seconds(OURS, job, n_atoms, threads=threads)

    def ratio(self, program: str, job: str, n_atoms: int, **configuration: Any) -> float:
        """How many times longer than ours in the same cell."""
        row = self.find(program, job, n_atoms, **configuration)
        if row is None:
            return math.nan
        return row["seconds"] / self.seconds(OURS, job, n_atoms, **configuration, cell=row["cell"])

    def ratios(self, program: str, job: str, **configuration: Any) -> list[float]:
        """At every size that was measured."""
        every = (self.ratio(program, job, n_atoms, **configuration) for n_atoms in SIZES)
        return [ratio for ratio in every if not math.isnan(ratio)]


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV file, numbers as numbers; absent files are empty."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as stream:
        return [{key: _number(value) for key, value in row.items() if value != ""} for row in csv.DictReader(stream)]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def show_time(seconds: float) -> str:
    """Milliseconds with three digits."""
    return "" if math.isnan(seconds) else f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def show_ratio(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def comparison(times: Times, job: str, sizes: tuple[int, ...] = SIZES, **configuration: Any) -> str:
    """Programs against sizes: ms, and in brackets the ratio to ours."""
    lines = ["| |" + "".join(f" {n_atoms:,} atoms |" for n_atoms in sizes), "|---|" + "---:|" * len(sizes)]
    for program in PROGRAMS:
        cells = []
        for n_atoms in sizes:
            seconds = times.seconds(program, job, n_atoms, **configuration)
            ratio = times.ratio(program, job, n_atoms, **configuration)
            cells.append(show_time(seconds) + (f" ({show_ratio(ratio)})" if not math.isnan(ratio) else ""))
        if any(cells):
            name = f"**{program}**" if program == OURS else program
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def every_configuration(times: Times, job: str) -> str:
    """Ratios to ours of every program in every configuration, one line per configuration and size."""
    lines = ["| atoms | channels | numbers | threads | ms |" + "".join(f" {name} |" for name in PROGRAMS[1:])]
    lines.append("|---:|---:|---|---:|---:|" + "---:|" * (len(PROGRAMS) - 1))
    for n_atoms in SIZES:
        for n_channels in (1, 4):
            for precision in ("float64", "float32"):
                for threads in (1, 2):
                    own = {"n_channels": n_channels, "precision": precision, "threads": threads}
                    ours = times.seconds(OURS, job, n_atoms, **own)
                    ratios = [show_ratio(times.ratio(name, job, n_atoms, **own)) for name in PROGRAMS[1:]]
                    head = f"| {n_atoms:,} | {n_channels} | {precision} | {threads} | {show_time(ours)} | "
                    lines.append(head + " | ".join(ratios) + " |")
    return "\n".join(lines)


def errors(times: Times, n_atoms: int) -> str:
    """Measured errors behind the times."""
    kinds = (("field", "u"), ("forces", "forces"), ("gradient", "gradient"), ("training", "by weights"))
    lines = ["| | u | forces | gradient | training: by weights | by parameters | float32: u | u, asked 1e-6 |"]
    lines.append("|---|" + "---:|" * 7)
    lookups = [(job, f"error of {name}", {}) for job, name in kinds]
    lookups += [("training", "error of by parameters", {}), ("field", "error of u", {"precision": "float32"})]
    lookups += [("field", "error of u", {"accuracy": 1e-6})]
    for program in PROGRAMS:
        rows = [(times.find(program, job, n_atoms, **own), key) for job, key, own in lookups]
        cells = ["" if row is None or key not in row else f"{row[key]:.1e}" for row, key in rows]
        lines.append(f"| {program} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory_table(rows: list[Row]) -> str:
    lines = ["| | atoms | job | peak, MB | kB per atom |", "|---|---:|---|---:|---:|"]
    for row in rows:
        per_atom = row["bytes"] / row["n_atoms"] / 1e3
        lines.append(
            f"| {row['program']} | {row['n_atoms']:,} | {row['job']} | {row['bytes'] / 1e6:.0f} | {per_atom:.2f} |"
        )
    return "\n".join(lines)


def stage_table(rows: list[Row]) -> str:
    """Minimum of each part of a call in ms with one thread, and how many times faster with two."""
    sizes = sorted({row["n_atoms"] for row in rows})
    seconds = {(row["threads"], row["n_atoms"], row["stage"]): row["minimum"] for row in rows}
    lines = ["| |" + "".join(f" {n_atoms:,} atoms |" for n_atoms in sizes), "|---|" + "---:|" * len(sizes)]
    for stage in dict.fromkeys(row["stage"] for row in rows):
        cells = []
        for n_atoms in sizes:
            one, two = (seconds[threads, n_atoms, stage] for threads in (1, 2))
            cells.append(f"{show_time(one)} ({one / two:.2g})")
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def kernel_share(rows: list[Row], n_atoms: int) -> dict[str, float]:
    """ms of field and forces, and of the stages in it, one thread."""
    own = {row["stage"]: 1e3 * row["minimum"] for row in rows if (row["n_atoms"], row["threads"]) == (n_atoms, 1)}
    stages = ("sort", "spread", "filter", "gather with gradient")
    return {"whole": own["layer: field and forces"], "stages": sum(own[stage] for stage in stages)}


def exponent(scaling: Times, job: str, threads: int) -> float:
    """Of the cost in the number of atoms, from 10,000 to a million."""
    ends = [scaling.alone(job, n_atoms, threads) for n_atoms in (10_000, 1_000_000)]
    return math.log(ends[1] / ends[0]) / math.log(100)


def targets(times: Times, scaling: Times, memory: list[Row], first_call: list[Row]) -> str:
    """What the project asks of itself, and what was measured."""
    lines = ["| | target | measured, worst first | met |", "|---|---|---|---|"]

    def add(name: str, target: str, values: list[float], met: bool, unit: str = "") -> None:
        shown = ", ".join(f"{value:.3g}{unit}" for value in values if not math.isnan(value))
        lines.append(f"| {name} | {target} | {shown or 'not measured'} | {'yes' if met else 'no'} |")

    def faster(name: str, program: str, job: str, factor: float, **own: Any) -> None:
        ratios = sorted(times.ratios(program, job, **own))
        add(name, f"{factor:g} times faster", ratios, bool(ratios) and ratios[0] >= factor, "x")

    for program in ("torch-pme", "nvalchemi", "nvalchemi fused"):
        faster(f"forces, {program}", program, "forces", 20)
    for program in ("torch-pme", "nvalchemi"):
        faster(f"gradient, {program}", program, "gradient", 20)
    for program in ("finufft", "ducc0"):
        faster(f"forces, {program}", program, "forces", 1.8)
        faster(f"forces, {program} packed", f"{program} packed", "forces", 1.8)
    coulomb = {"precision": "float32", "threads": 2, "screening": 0.0}
    faster("forces in float32 on both cores, OpenMM", "openmm", "forces", 1.0, **coulomb)
    faster("training step, torch-pme", "torch-pme", "training", 10)
    exponents = [exponent(scaling, "forces", threads) for threads in (1, 2)]
    add("exponent of cost, 1e4 to 1e6 atoms, 1 and 2 threads", "at most 1.05", exponents, max(exponents) <= 1.05)
    million = [row["bytes"] / 2**30 for row in memory if row["program"] == OURS and row["n_atoms"] == 1_000_000]
    add("memory of a million atoms", "4 GiB", sorted(million, reverse=True), max(million, default=9) <= 4, " GiB")
    gains = [scaling.alone("forces", n, 1) / scaling.alone("forces", n, 2) for n in (100_000, 1_000_000)]
    add("second thread, forces, 1e5 and 1e6 atoms", "1.6 times", sorted(gains), min(gains) >= 1.6, "x")
    seconds = [row["first"] for row in first_call]
    add("first call, compiling and from the cache", "10 s", seconds, max(seconds, default=99) <= 10, " s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    notebook = HERE.parents[1] / "docs" / "notebook"
    parser.add_argument("--docs", type=Path, default=notebook, help="holds performance/*.csv")
    docs = parser.parse_args().docs
    folder = docs / "performance"
    tables = {name: read_table(folder / f"{name}.csv") for name in ("times", "scaling", "crossover")}
    times, scaling, crossover = (Times(rows) for rows in tables.values())
    memory, first_call = read_table(folder / "memory.csv"), read_table(folder / "first_call.csv")
    stages = read_table(folder / "stages.csv")
    figures = docs / "figures"
    figures.mkdir(exist_ok=True)
    draw_programs(times, figures / "performance_programs.png")
    draw_scaling(scaling, figures / "performance_scaling.png")
    draw_crossover(crossover, figures / "performance_crossover.png")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    page = environment.get_template("performance.md.j2").render(
        machine=json.loads((folder / "machine.json").read_text()),
        targets=targets(times, scaling, memory, first_call),
        table={job: comparison(times, job) for job in ("field", "forces", "gradient", "training")},
        finer=comparison(times, "forces", accuracy=1e-6),
        configurations=every_configuration(times, "forces"),
        errors=errors(times, 10_000),
        million=comparison(scaling, "forces", threads=2, sizes=(1_000_000,)),
        memory=memory_table(memory),
        stages=stage_table(stages),
        small=kernel_share(stages, 1000),
    )
    (docs / "performance.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
