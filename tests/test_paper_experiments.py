"""The paper's experiments in miniature: the shape of each answer, and that finished work is kept."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lrc_ase.paper.run as paper_run
import lrc_ase.paper.tables as paper_tables
import lrc_ase.paper.timing as timing
from lrc_ase.cli import app
from lrc_ase.dataset import collate_labelled
from lrc_ase.models.derivatives import evaluate
from lrc_ase.paper import PaperRun, experiment_names, run_experiment, write_page
from lrc_ase.paper.columns import ForceColumns
from lrc_ase.paper.experiments import TABLES, Size
from lrc_ase.paper.force_batches import ForceBatches
from lrc_ase.paper.model import (
    STARTING_SCREENING,
    LinearReadOut,
    PointCloudModel,
    exact_convolution,
    highest_wave,
    paper_descriptor,
)
from lrc_ase.paper.networks import Stage, paper_schedule, train_networks
from lrc_ase.paper.problems import Snapshots, exponential_3d, labelled_graphs, screened_coulomb
from lrc_ase.paper.recipes import force_error, in_another_box, train_ours
from lrc_ase.paper.tables import run_cell
from lrc_ase.paper.two_scale import CURVES, CurveSize, curve_points, run_curve

pytestmark = pytest.mark.slow

TINY = Size(20, n_test=5, n_iterations=25)
PROBLEMS = {
    1: (screened_coulomb(1, 5.0, [0.5]), 21),
    2: (screened_coulomb(2, 4.0, [10.0, 1.0], [0.9, 0.1], smoothing=0.005), 11),
    3: (exponential_3d(5.0), 9),
}


def cell_of(table, row, model="full-range"):
    cell = next(cell for cell in TABLES[table].cells if cell.row == row and cell.model == model)
    return replace(cell, quick=TINY)


def drawn(problem, n_snapshots, seed=0):
    generator = np.random.default_rng(seed)
    positions, forces = zip(*(problem.draw(generator) for _ in range(n_snapshots)), strict=True)
    return Snapshots(problem, np.array(positions), np.array(forces))


def adam(n_steps):
    return Stage(n_steps, 8, rate=1e-3, last_rate=1e-3, optimizer="adam")


def small_curve(run, *, recipe):
    """Figure 7 with boxes of 5 and 30."""
    small, large = (screened_coulomb(1, length, [5.0, 0.5], [0.5, 0.5]) for length in (5.0, 30.0))
    numbers = {"one-scale": (1,), "two-scale": (0, 1) if recipe == "ours" else (1,)}
    size = CurveSize(60, numbers, n_test=4, n_steps=40 if recipe == "ours" else 200, seeds=(0,))
    curve = replace(CURVES["figure7"], small=small, large=large, n_modes=121, sizes={(recipe, "quick"): size})
    run_curve(run, curve, quick=True, recipe=recipe)
    return curve


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return PaperRun(tmp_path_factory.mktemp("paper"))


@pytest.mark.parametrize("dimension", PROBLEMS)
def test_snapshots_are_those_of_the_paper(dimension):
    problem, _ = PROBLEMS[dimension]
    snapshots = drawn(problem, 2)
    n_points = {1: 20, 2: 32, 3: 54}[dimension]
    assert snapshots.positions.shape == snapshots.forces.shape == (2, n_points, dimension)
    np.testing.assert_allclose(snapshots.forces.sum(axis=1), 0, atol=1e-10)
    graph = labelled_graphs(snapshots)[0].graph
    offsets = graph.positions[graph.neighbors] + problem.length * graph.shifts - graph.positions[:, None]
    distances = offsets.norm(dim=-1)[graph.neighbor_mask]
    assert distances.min() >= problem.minimum_separation
    assert distances.max() <= problem.cutoff
    points = snapshots.positions[0]
    apart = points[:, None] - points
    apart -= problem.length * np.round(apart / problem.length)
    within = np.linalg.norm(apart, axis=-1) < problem.cutoff
    assert int(graph.neighbor_mask.sum()) == within.sum() - n_points


@pytest.mark.parametrize("dimension", PROBLEMS)
def test_columns_are_the_forces_of_the_model(dimension):
    """The least-squares problem has the forces that autograd gives, the layer included."""
    problem, n_modes = PROBLEMS[dimension]
    snapshots = drawn(problem, 3)
    generator = torch.Generator().manual_seed(1)
    graphs = labelled_graphs(snapshots)
    descriptor = paper_descriptor(problem, [graphs[0].graph], generator).double()
    convolution = exact_convolution(problem, highest_wave(problem, n_modes))
    assert convolution.mesh_shape == (n_modes,) * dimension
    model = PointCloudModel(descriptor, LinearReadOut(descriptor.n_features, 2), convolution)
    with torch.no_grad():
        model.readout.coefficients.copy_(torch.randn(66, dtype=torch.float64, generator=generator))
        predicted = ForceColumns(snapshots, n_modes=n_modes, scale=1.0).of(model) @ model.readout.coefficients
    forces = evaluate(model, collate_labelled(graphs).graph).forces
    torch.testing.assert_close(predicted, forces.flatten(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("table", "row"), [("table1", "0.5"), ("table6", "5")])
def test_full_range_beats_short_range_and_the_paper(run, table, row):
    size = TINY if table == "table1" else Size(14, n_test=3, n_iterations=20)
    full, short = (
        run_cell(run, replace(cell_of(table, row, model), quick=size), quick=True, recipe="ours")
        for model in ("full-range", "short-range")
    )
    assert full["error"] < 0.2 * short["error"]
    assert full["error"] < TABLES[table].cells[5 if table == "table1" else 3].paper_error


@pytest.mark.parametrize(("table", "row", "true"), [("table2", "63", 0.5), ("table4", "21^2", 1.0)])
def test_the_smaller_screening_moves_to_that_of_the_data(run, table, row, true):
    cell = replace(cell_of(table, row), quick=Size(4 if table == "table2" else 20, n_test=2, n_iterations=15))
    result = run_cell(run, cell, quick=True, recipe="ours")
    start = min(STARTING_SCREENING)
    assert abs(min(result["screening"]) - true) < 0.5 * abs(start - true)


def test_table3_in_a_smaller_box(run):
    """Two dimensions, one kernel, as in table 3."""
    cell = replace(
        cell_of("table3", "1"),
        problem=screened_coulomb(2, 5.0, [1.0]),
        n_modes=11,
        quick=Size(8, n_test=3, n_iterations=20),
    )
    full = run_cell(run, cell, quick=True, recipe="ours")
    short = run_cell(run, replace(cell, n_modes=None), quick=True, recipe="ours")
    assert full["error"] < 0.2 * short["error"]


@pytest.mark.parametrize("dimension", PROBLEMS)
def test_batches_give_the_forces_of_the_networks(dimension):
    """The networks learn from the forces that autograd gives, for each snapshot."""
    problem, n_modes = PROBLEMS[dimension]
    snapshots = drawn(problem, 3)
    graphs = labelled_graphs(snapshots)
    for modes in (None, n_modes):
        model = train_networks(snapshots, n_modes=modes, seed=0, schedule=[adam(2)])
        batches = ForceBatches(snapshots, n_modes=modes, dtype=torch.float64)
        forces = batches.forces_of(model, torch.tensor([2, 0]))
        for actual, number in zip(forces, (2, 0), strict=True):
            expected = evaluate(model, graphs[number].graph).forces
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_the_networks_learn():
    problem, n_modes = PROBLEMS[1]
    snapshots = drawn(problem, 16)
    errors = [
        force_error(train_networks(snapshots, n_modes=n_modes, seed=0, schedule=[stage]), snapshots)
        for stage in (adam(1), adam(100), Stage(100, 8, rate=1e-2, last_rate=1e-3, optimizer="soap"))
    ]
    assert max(errors[1:]) < 0.3 * errors[0]


def test_the_schedule_of_the_paper():
    """Four stages of as many steps each; the last rates follow from 0.95 every ten epochs."""
    schedule = paper_schedule(1000)
    assert [(stage.n_steps, stage.batch_size) for stage in schedule] == [(25_000, size) for size in (8, 16, 32, 64)]
    assert schedule[1].last_rate == pytest.approx(1e-3 * 0.95**40)


def test_networks_with_the_layer_begin_as_those_without():
    problem, n_modes = PROBLEMS[1]
    snapshots = drawn(problem, 4)
    first = train_networks(snapshots, n_modes=None, seed=0, schedule=[adam(5)])
    second = train_networks(snapshots, n_modes=n_modes, seed=1, schedule=[], start=first)
    assert second.screening
    assert force_error(second, snapshots) == pytest.approx(force_error(first, snapshots), rel=1e-9)


def test_small_boxes_teach_what_a_large_one_needs(run):
    """Without any large snapshot the error is below that of the paper, 0.005 after hundreds of them."""
    points = curve_points(run, small_curve(run, recipe="ours"), quick=True)
    for (error,) in (points["one-scale"][1], points["two-scale"][0], points["two-scale"][1]):
        assert error < 0.0005


def test_two_scales_help_the_networks(run):
    """One large snapshot alone teaches the networks a part of what it teaches together with small ones."""
    points = curve_points(run, small_curve(run, recipe="paper"), quick=True, recipe="paper")
    (one,), (two,) = points["one-scale"][1], points["two-scale"][1]
    assert two < 0.8 * one


def test_a_model_in_its_own_box_is_the_same():
    problem, n_modes = PROBLEMS[2]
    snapshots = drawn(problem, 3)
    model = train_ours(snapshots, highest=highest_wave(problem, n_modes), seed=0, n_iterations=5)
    again = in_another_box(model, problem)
    assert force_error(again, snapshots) == force_error(model, snapshots)
    smaller = in_another_box(model, replace(problem, length=2.0))
    # waves of the half as long box: every other of the larger one's
    assert (model.n_modes, smaller.n_modes) == (11, 5)


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (
            {1: [0.5] * 3, 10: [0.1, 0.4, 0.4], 100: [0.11] * 3},
            {1: [0.2] * 3, 10: [0.13] * 3},
            "one-scale 100, two-scale 10. Target, .*: met.",
        ),
        (
            {1: [0.1] * 3, 10: [0.1] * 3},
            {0: [0.1] * 3, 10: [0.1] * 3},
            "one-scale 1, two-scale 0. Target, .*: met \\(none is needed\\).",
        ),
        ({1: [0.1] * 3, 10: [0.1] * 3}, {1: [0.1] * 3, 10: [0.1] * 3}, "one-scale 1, two-scale 1. Target, .*: MISSED."),
        ({1: [0.5] * 3, 10: [0.1] * 3}, {1: [0.3] * 3, 10: [0.25] * 3}, "more than were tried. Target, .*: MISSED."),
        ({1: [0.1], 10: [0.1]}, {0: [0.1], 10: [0.1]}, "ten times .*: not judged on 1 of 3 seeds."),
    ],
)
def test_page_says_whether_two_scales_save_snapshots(tmp_path, one, two, verdict):
    run = PaperRun(tmp_path)
    for strategy, errors in (("one-scale", one), ("two-scale", two)):
        for seed in range(3):
            errors_of_seed = {n: values[seed] for n, values in errors.items() if seed < len(values)}
            content = {
                "curve": "figure7",
                "strategy": strategy,
                "quick": True,
                "recipe": "paper",
                "errors": errors_of_seed,
            }
            run.once(f"figure7-{strategy}-{seed}-quick", lambda content=content: content)
    write_page(run, tmp_path / "page.md", "lrc-ase paper figure7 --quick")
    assert re.search(verdict, (tmp_path / "page.md").read_text(encoding="utf-8"))


def test_timing_covers_layer_and_direct_sum(run, monkeypatch):
    monkeypatch.setattr(timing, "_SIZES", {True: (20, 40)})
    monkeypatch.setattr(timing, "_SECONDS", 0.01)
    times = timing.run_timing(run, quick=True)
    assert times["layer"].keys() == times["direct"].keys() == {"20", "40"}
    assert all(0 < seconds < 10 for column in ("layer", "direct") for seconds in times[column].values())


def test_finished_cells_are_kept(run):
    cell = cell_of("table1", "0.5")
    first = run_cell(run, cell, quick=True, recipe="ours")
    # a size that would take an hour: it is not run
    again = run_cell(PaperRun(run.path), replace(cell, quick=Size(10**6)), quick=True, recipe="ours")
    assert again == first


def test_snapshots_go_on_where_they_stopped(tmp_path):
    problem, _ = PROBLEMS[1]
    few = PaperRun(tmp_path / "a").training_snapshots(problem, 2)
    more = PaperRun(tmp_path / "a").training_snapshots(problem, 5)
    whole = PaperRun(tmp_path / "b").training_snapshots(problem, 5)
    np.testing.assert_array_equal(more.positions, whole.positions)
    np.testing.assert_array_equal(more.forces[:2], few.forces)
    assert not np.array_equal(PaperRun(tmp_path / "a").test_snapshots(problem, 2).positions, few.positions)


def test_page_tells_the_paper_s_numbers_and_ours(run, tmp_path):
    error = run_cell(run, cell_of("table1", "0.5"), quick=True, recipe="ours")["error"]
    run_cell(run, cell_of("table1", "0.5", "short-range"), quick=True, recipe="ours")
    write_page(run, tmp_path / "docs" / "paper.md", "lrc-ase paper table1 --quick")
    text = (tmp_path / "docs" / "paper.md").read_text(encoding="utf-8")
    assert "Written by `lrc-ase paper table1 --quick`" in text
    assert "| 0.5 | full-range | ours | 20 | 0.00828 |" in text
    assert "The paper trained on 1000 snapshots." in text
    assert (tmp_path / "docs" / "paper" / "table1-quick.png").stat().st_size > 5000
    with open(tmp_path / "docs" / "paper" / "table1-quick.csv", newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["model"] == "full-range")
    assert float(row["error"]) == error
    assert row["verdict"] == "met"


def test_command_writes_the_page(run, tmp_path):
    arguments = ["paper", "report", "-o", str(run.path), "--page", str(tmp_path / "page.md")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# The paper")


@pytest.mark.parametrize("recipe", ["ours", "paper"])
def test_all_runs_each_experiment_once(monkeypatch, recipe):
    """The timing has no recipe of the paper."""
    calls = []
    monkeypatch.setattr(paper_run, "run_table", lambda run, name, **options: calls.append((name, options)))
    monkeypatch.setattr(paper_run, "run_curve", lambda run, curve, **options: calls.append((curve.name, options)))
    monkeypatch.setattr(paper_run, "run_timing", lambda run, **options: calls.append(("figure7-right", options)))
    run_experiment(None, "all", quick=True, recipe=recipe)
    assert [name for name, _ in calls] == experiment_names()[: None if recipe == "ours" else -1]
    both = {"quick": True, "recipe": recipe}
    assert all(options == ({"quick": True} if name == "figure7-right" else both) for name, options in calls)
    run_experiment(None, "figure7", quick=False)
    assert calls[-1] == ("figure7", {"quick": False, "recipe": "ours"})


def test_a_table_runs_all_its_cells(monkeypatch):
    cells = []
    monkeypatch.setattr(paper_tables, "run_cell", lambda run, cell, **options: cells.append(cell))
    table = paper_tables.run_table(None, "table4", quick=True)
    assert table is TABLES["table4"]
    assert cells == [*table.cells]


def test_unknown_experiments_are_refused(run):
    with pytest.raises(ValueError, match=r"`name` must be one of table1, .*, all or report, got 'table9'"):
        run_experiment(run, "table9", quick=True)
    with pytest.raises(
        ValueError, match="`recipe` paper is there for tables and curves, got the experiment 'figure7-right'"
    ):
        run_experiment(run, "figure7-right", quick=True, recipe="paper")
    assert {"table1", "table2", "table3", "table4", "table6", "figure7", "figure7-right"} <= set(experiment_names())
