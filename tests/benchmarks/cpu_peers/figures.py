"""Figures of docs/notebook/cpu_peers.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lrc_ase.report.style import COLORS, REFERENCE_COLOR, new_figure, save_figure, set_log_scale

if TYPE_CHECKING:
    from page import Results

Point = tuple[str, float, float]
SYSTEMS = {"acetylacetone": 15, "water 192": 192, "water 1536": 1536}
MARKERS = ("o", "s", "D")


def draw_times(results: Results, path: Path) -> None:
    """Draw the time per atom and step of every program, one marker per system."""
    names = [program.name for program in results.programs]
    names.sort(key=lambda name: slowness(results, name), reverse=True)
    figure = new_figure(8, 0.28 * len(names) + 1.2)
    axes = figure.subplots()
    values: list[float] = []
    for (system, n_atoms), marker, color in zip(SYSTEMS.items(), MARKERS, COLORS, strict=False):
        times = [(results.per_atom(name, system, n_atoms), row) for row, name in enumerate(names)]
        shown = [(time, row) for time, row in times if time is not None]
        axes.plot(*zip(*shown, strict=True), marker, color=color, ms=6, label=system)
        values += [time for time, _ in shown]
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        if label.get_text().startswith("lrc-ase"):
            label.set_fontweight("bold")
    set_log_scale(axes, "x", values)
    axes.grid(alpha=0.3, which="both", axis="x")
    axes.grid(alpha=0.15, axis="y")
    axes.set_xlabel("microseconds per atom and step, one thread")
    axes.legend(frameon=False, loc="lower left")
    save_figure(figure, path)


def slowness(results: Results, name: str) -> tuple[int, float]:
    """Return a key that sorts by the time of 192 atoms, and puts programs without it behind."""
    large = results.per_atom(name, "water 192", 192)
    return (0, large) if large is not None else (1, results.per_atom(name, "acetylacetone", 15) or 0.0)


def draw_pareto(panels: dict[str, tuple[list[Point], list[Point]]], path: Path) -> None:
    """Draw force error against time, and the front, in one panel per entry."""
    figure = new_figure(12, 4.6)
    for axes, (title, (points, front)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        set_log_scale(axes, "x", [0.5 * min(time for _, time, _ in points), 3 * max(time for _, time, _ in points)])
        set_log_scale(axes, "y", [0.8 * min(error for *_, error in points), 1.3 * max(error for *_, error in points)])
        _, times, errors = zip(*front, strict=True)
        axes.step(times, errors, where="post", color="0.6", linestyle="--", zorder=0, label="front")
        groups: dict[str, list[Point]] = {}
        for name, time, error in points:
            groups.setdefault(name.replace(", float32", "").replace(", float64", ""), []).append((name, time, error))
        middle = (axes.get_xlim()[0] * axes.get_xlim()[1]) ** 0.5
        for model, members in groups.items():
            color = COLORS[0] if model.startswith("lrc-ase") else REFERENCE_COLOR
            left, right = min(time for _, time, _ in members), max(time for _, time, _ in members)
            error = members[0][2]
            axes.plot([left, right], [error, error], color=color, lw=1.5)
            for name, time, _ in members:
                axes.plot(time, error, "s" if "float32" in name else "o", color=color, ms=6)
            is_left = left < middle
            axes.annotate(
                model.replace("lrc-ase", "").strip(), (right if is_left else left, error), color=color, fontsize=8,
                xytext=(6 if is_left else -6, 0), textcoords="offset points", va="center",
                ha="left" if is_left else "right",
            )  # fmt: skip
        axes.set(xlabel="microseconds per atom and step", title=title)
        axes.title.set_fontsize(10)
        axes.set_ylabel("force error of acetylacetone, meV/Å")
        axes.grid(alpha=0.3)
    save_figure(figure, path)
