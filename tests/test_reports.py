"""Plots show what was computed, in the units that their labels name; text from files stays text; files hold what they
declare."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from evaluations import FRAMES, evaluation
from matplotlib.figure import Figure

from lrc_ase.cli.console import console
from lrc_ase.cli.printed_tables import print_table
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.evaluation.pair_errors import PairErrors, pair_errors
from lrc_ase.learning.state import IterationRecord
from lrc_ase.report.error_plots import plot_hardest_frames, plot_pair_errors
from lrc_ase.report.learning_curve import plot_learning_curve
from lrc_ase.report.learning_plots import plot_time
from lrc_ase.report.page import Picture, Report, Section, Table, write_report
from lrc_ase.report.parity import plot_parity, plot_parity_by_element
from lrc_ase.report.potential_plots import plot_charges
from lrc_ase.report.projection import project
from lrc_ase.report.style import plot_text
from lrc_ase.report.uncertainty_plot import plot_uncertainty

HOSTILE = r"_m$x_{$^\frac [/b][red] <img src=x>"


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Figures as they are saved; each is rendered, so that its text is laid out."""
    figures = []
    monkeypatch.chdir(tmp_path)  # where the empty files go
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **_: (figure.draw_without_rendering(), figures.append(figure))
    )
    return figures


def texts(figure):
    """Every text of a figure as it is seen."""
    actual = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return [text.replace(r"\$", "$") for text in actual if text]


def points(axes):
    """Marked points of the longest line of a panel, (2, n_points)."""
    return max((np.array(line.get_data(), dtype=float) for line in axes.get_lines()), key=lambda pair: pair.shape[1])


def test_parity_shows_predictions_over_references_in_the_units_of_its_labels(drawn):
    shown = evaluation()
    plot_parity({"a": shown}, "parity.png")
    panels = drawn[0].axes
    assert [axes.get_xlabel().splitlines()[1] for axes in panels] == ["meV/atom", "meV/Å", "meV/Å³"]
    assert [axes.get_ylabel().splitlines()[1] for axes in panels] == ["meV/atom", "meV/Å", "meV/Å³"]
    per_atom = 1000 * shown.reference_energy / 3
    assert points(panels[0])[0] == pytest.approx(per_atom - per_atom.mean())
    assert points(panels[0])[1] == pytest.approx(1000 * shown.energy / 3 - per_atom.mean())
    assert points(panels[1]) == pytest.approx(1000 * np.array([shown.reference_forces.ravel(), shown.forces.ravel()]))
    assert points(panels[2]) == pytest.approx(1000 * np.array([shown.reference_stress.ravel(), shown.stress.ravel()]))
    rmse = [re.fullmatch(r"RMSE (\S+) (\S+)", text).groups() for axes in panels for text in [axes.texts[0].get_text()]]
    assert [unit for _, unit in rmse] == ["meV/atom", "meV/Å", "meV/Å³"]
    for (value, _), key in zip(rmse, ("energy_rmse", "forces_rmse", "stress_rmse"), strict=True):
        assert float(value) == pytest.approx(shown.metrics[key], rel=0.01)


def test_parity_shows_dipoles_and_born_charges_with_r2(drawn):
    shown = evaluation(labels=("energy", "forces", "dipole", "born_effective_charges"))
    plot_parity({"a": shown}, "parity.png")
    panels = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_xlabel().splitlines() for axes in panels[2:]] == [
        ["Dipole component, reference", "e Å"],
        ["Born effective charge, reference", "e"],
    ]
    for axes, label in zip(panels[2:], ("dipole", "born_effective_charges"), strict=True):
        comparison = shown.electric[label]
        assert points(axes) == pytest.approx(np.array([comparison.reference.ravel(), comparison.predicted.ravel()]))
        assert axes.texts[0].get_text().splitlines()[1] == f"R² {shown.metrics[f'{label}_r2']:.3f}"


@pytest.mark.parametrize("labels", [("energy",), ("forces",), ("energy", "forces"), ("dipole",)])
def test_parity_leaves_out_what_has_no_labels(drawn, labels):
    plot_parity({"a": evaluation(labels=labels)}, "parity.png")
    assert len(drawn[0].axes) == len(labels)


def test_parity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="hold no labels: there is nothing to compare"):
        plot_parity({"a": evaluation(labels=())}, "parity.png")


def test_one_frame_and_elements_without_labels_are_drawn(drawn):
    plot_parity({"a": evaluation(n_frames=1), "b": evaluation(n_frames=1, labels=("energy",))}, "parity.png")
    assert "no labels" in texts(drawn[0])
    plot_parity_by_element({"a": evaluation(n_frames=1), "b": evaluation(n_frames=1, labels=())}, "elements.png")
    assert texts(drawn[1]).count("no labels") == 2


def test_many_sets_share_a_color_and_no_atom_is_lost(drawn):
    sets = [f"set {index}" for index in range(20)]
    shown = evaluation(sets=sets, n_frames=20)
    plot_parity_by_element({"a": shown}, "elements.png")
    for axes, count in zip(drawn[0].axes, (40, 20), strict=True):  # Cl, Na
        lines = [line for line in axes.get_lines() if line.get_marker() == "."]
        assert len(lines) == 6
        assert sum(len(line.get_xdata()) for line in lines) == 3 * count
        assert any(text.get_text().startswith("other sets: ") for text in axes.get_legend().get_texts())


def test_long_names_do_not_overlap(drawn):
    shown = evaluation(sets=["folder/" + 80 * "s", "b", "b", "c"])
    named = {f"{letter}{90 * 'n'}": shown for letter in "pq"}
    plot_parity(named, "parity.png")
    plot_parity_by_element(named, "elements.png")
    plot_uncertainty({name: evaluation(std=True) for name in named}, "uncertainty.png")
    for figure in drawn:
        boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.title.get_text()]
        assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]
        for axes in figure.axes:
            legend = axes.get_legend()
            assert legend is None or legend.get_window_extent().width < axes.bbox.width


def write_metrics(path, stages, **columns):
    """Write metrics.csv of stages (name and epochs); a column is a function of the number of the epoch."""
    names = [name for name, n_epochs in stages for _ in range(n_epochs)]
    table = {
        f"{part}_{kind}_rmse": [""] * len(names) for part in ("train", "validation") for kind in ("energy", "forces")
    }
    table |= {key: [value(index) for index in range(len(names))] for key, value in columns.items()}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", *table])
        writer.writerows(zip(names, *table.values(), strict=True))
    return path


def test_learning_curve_breaks_between_stages_and_shows_stress(drawn, tmp_path):
    table = write_metrics(
        tmp_path / "metrics.csv",
        [("first", 3), ("second", 4)],
        validation_forces_rmse=lambda index: 10.0 + index,
        validation_stress_rmse=lambda index: 0.0 if index == 2 else 2.0,
    )
    plot_learning_curve(table, "curve.png")
    forces, stress = drawn[0].axes
    assert [axes.get_ylabel().splitlines()[1] for axes in (forces, stress)] == ["meV/Å", "meV/Å³"]
    curves = [line.get_xydata().tolist() for line in forces.get_lines() if len(line.get_xdata()) > 2]
    assert curves == [[[1, 10], [2, 11], [3, 12]], [[4, 13], [5, 14], [6, 15], [7, 16]]]
    assert [text.get_text() for text in forces.get_legend().get_texts()] == ["validation"]
    # zero has no place on a logarithmic axis
    assert [line.get_xdata().tolist() for line in stress.get_lines() if line.get_label() == "validation"] == [[1, 2]]


def test_learning_curve_shows_dipoles_and_born_charges(drawn, tmp_path):
    columns = {f"validation_{label}_rmse": lambda index: 1.0 + index for label in ("dipole", "born_effective_charges")}
    plot_learning_curve(write_metrics(tmp_path / "metrics.csv", [("one", 4)], **columns), "curve.png")
    assert [axes.get_ylabel().splitlines() for axes in drawn[0].axes] == [
        ["Dipole error (RMSE)", "e Å"],
        ["Born charge error (RMSE)", "e"],
    ]


def test_names_of_stages_do_not_overlap(drawn, tmp_path):
    stages = [(f"stage-with-a-long-name-{index}", n_epochs) for index, n_epochs in enumerate((1, 1, 60, 2, 1))]
    plot_learning_curve(write_metrics(tmp_path / "m.csv", stages, train_forces_rmse=lambda index: 5.0), "curve.png")
    figure = drawn[0]
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 5
    assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]
    assert all(box.y1 <= figure.bbox.y1 for box in boxes)


def test_a_table_without_errors_is_drawn(drawn, tmp_path):
    plot_learning_curve(write_metrics(tmp_path / "metrics.csv", [("only", 1)]), "curve.png")
    assert "the table holds no errors" in texts(drawn[0])


def test_pair_errors_lie_within_their_panels(drawn):
    distances = np.arange(0.5, 10.5)
    mean = np.where(distances < 1, -5000.0, 20.0)
    mean[3] = np.nan
    curve = PairErrors(distances, mean, np.full(10, 5.0), 100)
    plot_pair_errors({"a": {"Na-Cl": curve}}, 5.0, "pairs.png")
    (axes,) = (axes for axes in drawn[0].axes if axes.get_visible())
    low, high = axes.get_ylim()
    assert low < -5010
    assert high > 5010
    assert points(axes)[1] == pytest.approx(mean, nan_ok=True)
    assert "meV/Å" in drawn[0]._supylabel.get_text()


def test_ticks_of_pair_errors_reach_to_the_last_one(drawn):
    mean = np.full(10, 0.35)
    mean[3] = 8.0
    plot_pair_errors({"a": {"Na-Cl": PairErrors(np.arange(0.5, 10.5), mean, np.full(10, 0.1), 100)}}, 5.0, "pairs.png")
    (axes,) = (axes for axes in drawn[0].axes if axes.get_visible())
    assert axes.get_yticks().tolist() == [-1.0, -2.0, -5.0, 0.0, 1.0, 2.0, 5.0]


def test_the_final_training_is_no_iteration(drawn):
    records = [IterationRecord(iteration=number, train_seconds=60.0) for number in range(25)]
    plot_time(records, 120.0, "time.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert labels == [*(f"{number}" for number in range(0, 25, 2)), "final"]


def test_an_atom_and_its_image_are_no_pair():
    frames = [Atoms("NaCl", positions=[[0, 0, 0], [1.5, 1.5, 1.5]], cell=[3, 3, 3], pbc=True)]
    n_atoms = np.array([2])
    forces = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    energy, stress = np.zeros(1), np.zeros((1, 3, 3))
    shown = Evaluation(
        n_atoms, np.array(["Na", "Cl"]), ("all",), energy, energy, forces, np.zeros((2, 3)), stress, stress
    )
    assert list(pair_errors(frames, shown, largest_distance=5.0)) == ["Na-Cl"]


def test_a_slab_is_seen_from_its_side_and_a_flat_molecule_from_above():
    slab = fcc111("Cu", (3, 3, 5), vacuum=6.0)
    slab.pbc = True
    seen = project(slab)
    assert seen.view != "seen along z"
    assert np.ptp(seen.positions[:, 1]) > 8.0  # five layers, one above the other
    flat = project(molecule("C6H6"))
    assert flat.view == "seen from its flat side"
    assert not flat.hidden.any()


def test_projections_keep_handedness_and_hide_what_is_behind():
    chiral = Atoms("FClBrI", positions=[[3.0, 0, 0], [0, 2.0, 0], [0, 0, 1.0], [0.1, 0.2, 0.3]])
    seen = project(chiral)
    original, drawn_at = chiral.positions, np.column_stack([seen.positions, seen.depths])
    triple = [np.linalg.det(points[1:] - points[0]) for points in (original, drawn_at)]
    assert triple[0] == pytest.approx(triple[1])
    column = Atoms("Na3", positions=[[0, 0, 0], [0, 0, 3.0], [4.0, 0, 0]], cell=[30, 30, 30], pbc=True)
    assert project(column).view in ("seen along x", "seen along y")


def test_letters_stand_out_from_their_atoms(drawn):
    frames = [molecule("H2O")]
    errors = np.array([[1.0, 0, 0], [0.0, 0, 0], [np.nan] * 3])
    energy, stress = np.zeros(1), np.zeros((1, 3, 3))
    shown = Evaluation(
        np.array([3]), np.array(["O", "H", "H"]), ("all",), energy, energy, errors, np.zeros((3, 3)), stress, stress
    )
    plot_hardest_frames(frames, ["one"], shown, shown.hardest_frames(4), "hardest.png")
    axes = drawn[0].axes[0]
    letters = {text.get_text(): text.get_color() for text in axes.texts}
    assert letters["O"] == "white"  # on the darkest color
    assert letters["H"] == "black"
    (circles,) = axes.collections
    gray = [color for color in circles.get_facecolors().tolist() if color == [0.8, 0.8, 0.8, 1.0]]
    assert len(gray) == 1  # the atom without label


def test_drawings_of_slabs_show_little_vacuum_and_titles_side_by_side(drawn):
    slab = fcc111("Cu", (2, 2, 3), vacuum=12.0)
    slab.pbc = True
    n, zeros = len(slab), np.zeros(2)
    forces, stress = np.ones((2 * n, 3)), np.zeros((2, 3, 3))
    symbols = np.array(2 * slab.get_chemical_symbols())
    shown = Evaluation(np.array([n, n]), symbols, ("all",) * 2, zeros, zeros, forces, 0 * forces, stress, stress)
    plot_hardest_frames([slab, slab], ["a.traj@123456"] * 2, shown, shown.hardest_frames(2), "hardest.png")
    left, right = drawn[0].axes[:2]
    assert np.ptp(left.get_ylim()) < np.ptp(slab.positions[:, 2]) + 8.0  # of 24 Angstrom of vacuum
    drawn[0].draw_without_rendering()
    assert not left.title.get_window_extent().overlaps(right.title.get_window_extent())


def test_uncertainty_plot_shows_coverage_and_survives_zeros(drawn):
    shown = evaluation(std=True, n_frames=40)
    shown.forces_std[:5] = 0.0
    shown.forces[:2] = shown.reference_forces[:2]
    plot_uncertainty({HOSTILE: shown}, "uncertainty.png", title="where it comes from")
    left, right = drawn[0].axes
    label = left.get_legend().get_texts()[0].get_text()
    assert label == f"90% interval: {shown.uncertainty()['forces'].coverage:.0%} of 360 force components"
    assert right.get_xlabel() == "Deviation of a force component (meV/Å)"
    visible = [text.get_window_extent() for text in right.get_xticklabels() if text.get_text()]
    inside = [box for box in visible if right.bbox.x0 <= box.x0 <= right.bbox.x1]
    assert not [1 for i, one in enumerate(inside) for other in inside[:i] if one.overlaps(other)]
    assert "where it comes from" in texts(drawn[0])
    few = evaluation(std=True)
    few.energy_std[:] = np.nan
    plot_uncertainty({"few": few}, "uncertainty.png")
    assert "energies: too few to calibrate" in texts(drawn[1])


def test_latent_charges_are_not_called_physical(drawn):
    shown = evaluation()
    object.__setattr__(shown, "charges", np.tile([0.5, -0.25, -0.25], FRAMES))
    plot_charges({"a": shown}, "charges.png")
    assert drawn[0].axes[0].get_xlabel() == "Latent charge (e): a variable of the model, not the charge of an ion"
    assert "Na +0.500 ± 0.000" in texts(drawn[0])


def test_text_from_files_is_drawn_letter_by_letter(drawn, tmp_path):
    shown = evaluation(sets=[HOSTILE, "$a$", "b", "b"], std=True)
    named = {HOSTILE: shown, "cost$1$2": shown}
    frames = [molecule("H2O") for _ in range(FRAMES)]
    plot_parity(named, "a.png")
    plot_parity_by_element(named, "b.png")
    plot_uncertainty(named, "c.png")
    plot_pair_errors({name: pair_errors(frames, shown, largest_distance=4.0) for name in named}, 2.0, "d.png")
    plot_hardest_frames(frames, [HOSTILE] * FRAMES, shown, shown.hardest_frames(2), "e.png")
    stages = [(HOSTILE, 3), ("$b$", 3)]
    plot_learning_curve(write_metrics(tmp_path / "m.csv", stages, train_forces_rmse=lambda index: 1.0), "f.png")
    for figure in drawn:
        assert any("$" in text for text in texts(figure))
    legend = [text.get_text() for text in drawn[3].axes[0].get_legend().get_texts()]
    assert len(legend) == 2  # a name with a leading underscore is not left out


def test_control_characters_do_not_reach_plots():
    assert plot_text("a\x1b[2J\nb") == r"a\x1b[2J\nb"


def test_text_from_files_is_no_html_and_no_markup(tmp_path):
    picture = tmp_path / "a.png"
    figure = Figure(figsize=(1, 1))
    figure.savefig(picture)
    table = Table(HOSTILE, ["", HOSTILE], [[HOSTILE, "\x1b]0;x\x07"]])
    section = Section("Part", [HOSTILE], [table], [Picture(picture, HOSTILE, HOSTILE)])
    write_report(Report(HOSTILE, [section, Section("Nothing")], HOSTILE, {"a": HOSTILE}), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img src=x>" not in page
    assert page.count("&lt;img src=x&gt;") >= 9
    assert "\x1b" not in page
    assert "Nothing" not in page
    with console.capture() as shown:
        print_table(table)
    assert "[/b][red]" in shown.get().replace("\n", "")
    assert "\x1b]0" not in shown.get()
