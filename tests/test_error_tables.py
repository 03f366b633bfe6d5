"""Units and columns of errors, the sentence on overfitting, and text from files that must not act."""

from __future__ import annotations

import math
import re

import pytest

from lrc_ase.evaluation.error_tables import (
    ELECTRIC_COLUMNS,
    ERROR_COLUMNS,
    ERROR_UNITS,
    error_cells,
    overfitting_remark,
)
from lrc_ase.files.printable import printable


def test_units_are_thousandths_of_those_of_ase_or_its_own():
    assert {name: (unit.per_ase_unit, unit.ascii) for name, unit in ERROR_UNITS.items()} == {
        "energy": (1000.0, "meV/atom"),
        "forces": (1000.0, "meV/Angstrom"),
        "stress": (1000.0, "meV/Angstrom^3"),
        "dipole": (1.0, "e Angstrom"),
        "born_effective_charges": (1.0, "e"),
    }


def test_every_column_but_the_count_names_its_unit():
    for column in ERROR_COLUMNS[1:]:
        quantity = column.key.partition("_")[0]
        assert column.title.splitlines()[2] == ERROR_UNITS[quantity].symbol


def test_columns_on_dipoles_and_born_charges_name_their_units():
    for column in ELECTRIC_COLUMNS:
        quantity, _, mean = column.key.rpartition("_")
        if mean in ("mae", "rmse"):
            assert column.title.splitlines()[2] == ERROR_UNITS[quantity].symbol
    _, rows = error_cells({"a": {"dipole_rmse": 0.25, "dipole_r2": 0.98765, "n_dipoles": 4.0}}, ELECTRIC_COLUMNS)
    assert rows == [["a", "4", "0.25", "0.9877"]]


def test_columns_without_values_are_left_out_and_absent_values_are_dashes():
    titles, rows = error_cells(
        {
            "a": {"n_frames": 2.0, "energy_rmse": 1.5, "forces_rmse": math.nan},
            "b": {"n_frames": 3.0, "energy_rmse": math.nan, "forces_rmse": math.nan},
        }
    )
    assert titles == ["", "Frames", "Energy\nRMSE\nmeV/atom"]
    assert rows == [["a", "2", "1.5"], ["b", "3", "-"]]


@pytest.mark.parametrize(
    ("training", "unseen", "expected"),
    [
        (
            {"forces_rmse": 10.0},
            {"n_frames": 50, "forces_rmse": 14.0},
            "No sign of overfitting: the force error on the",
        ),
        ({"forces_rmse": 10.0}, {"n_frames": 50, "forces_rmse": 15.0}, "overfits: the force error on the validation"),
        (
            {"forces_rmse": 10.0},
            {"n_frames": 50, "forces_rmse": 14.8},
            r"overfits: .* 1.5 times .*\. More frames help, .* \(--pretrain\)\.",
        ),
        (
            {"forces_rmse": 10.0, "forces_mae": 5.0},
            {"n_frames": 50, "forces_rmse": 20.0, "forces_mae": 6.0},
            r"^A few frames are hard: .* is 2.0 times .* root mean square, but 1.2 times as mean absolute error\.",
        ),
        (
            {"forces_rmse": 10.0, "forces_mae": 5.0},
            {"n_frames": 50, "forces_rmse": 20.0, "forces_mae": 8.0},
            "^The model overfits: the force error",
        ),
        ({"forces_rmse": 10.0}, {"n_frames": 1, "forces_rmse": 20.0}, r"2.0 times .* \(1 validation frame: an uncert"),
        ({"energy_rmse": 1.0}, {"n_frames": 50, "energy_rmse": 4.0}, "the energy error .* is 4.0 times"),
        ({"forces_rmse": 10.0}, {"n_frames": 50, "forces_rmse": math.nan}, "cannot be judged: .* no label in common"),
        ({"forces_rmse": 10.0}, {"n_frames": 0}, "cannot be judged: no frames were kept apart"),
        ({"forces_rmse": 10.0}, None, "cannot be judged: no frames were kept apart"),
    ],
)
def test_overfitting_is_told_from_the_ratio_of_errors(training, unseen, expected):
    assert re.search(expected, overfitting_remark(training, unseen))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202eevil", r"\u202eevil"),
        ("a\nb\tc\x9b", r"a\nb\tc\x9b"),
        ("\udcff", r"\udcff"),
        ("größe_10%.xyz", "größe_10%.xyz"),
    ],
)
def test_control_characters_are_shown_not_obeyed(text, shown):
    assert printable(text) == shown
