"""The table at the end of a training: its numbers are those of an evaluation, its sentence that of the ratio."""

from __future__ import annotations

import math
import re

import ase.io
import pytest
from training_frames import TINY_MODEL, metal_frames

from lrc_ase.evaluation import evaluate_frames
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.files.potential_file import load_potential
from lrc_ase.training import train
from lrc_ase.training.final_errors import table_of_errors, verdict

TINY = {"model": TINY_MODEL, "n_threads": 1, "stages.optimizer": "adamw", "dtype": "float64"}


def test_errors_of_all_parts_are_told_and_kept(tmp_path, capsys):
    frames = metal_frames(9)
    ase.io.write(tmp_path / "one.traj", frames[5:7])
    (tmp_path / "other").mkdir()
    ase.io.write(tmp_path / "other" / "one.traj", frames[7:])
    test = [tmp_path / "one.traj", tmp_path / "other" / "one.traj"]
    path = train(frames[:4], tmp_path / "run", validation=frames[4], test=test, epochs=2, settings=TINY)
    potential = load_potential(path)
    errors = potential.description["errors"]
    # files of one name are told apart by their folders
    assert list(errors) == ["training", "validation", f"test {tmp_path.name}/one.traj", "test other/one.traj"]
    parts = [frames[:4], frames[4:5], frames[5:7], frames[7:]]
    for told, part in zip(errors.values(), parts, strict=True):
        metrics = evaluate_frames(potential, part).metrics
        assert told["n_frames"] == len(part)
        for key in ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "stress_mae", "stress_rmse"):
            assert told[key] == pytest.approx(metrics[key], rel=1e-6), key
    printed, log = capsys.readouterr().out, (tmp_path / "run" / "log.txt").read_text()
    for text in (printed, log):
        assert table_of_errors(errors) in text
        assert verdict(errors) in text


def test_the_table_has_units_and_fits_into_80_columns():
    numbers = {"n_frames": 12345.0} | {
        f"{label}_{kind}": 1234.5 for label in ("energy", "forces", "stress") for kind in ("mae", "rmse")
    }
    names = ["training", "validation", "watched", "test a-file-with-a-rather-long-name.extxyz"]
    table = table_of_errors(dict.fromkeys(names, numbers))
    assert max(map(len, table.splitlines())) <= 80
    assert len(table.splitlines()) == 3 + len(names)
    assert "\N{HORIZONTAL ELLIPSIS}" not in table
    for text in ("meV/atom", ERROR_UNITS["forces"].symbol, "12345", "validation"):
        assert text in table
    small = table_of_errors({"training": dict.fromkeys(numbers, 1.0), "validation": numbers}).splitlines()
    ends = [[match.end() for match in re.finditer(r"[\d.]+", line)] for line in small[-2:]]
    assert len(ends[0]) == 7
    assert ends[0] == ends[1]  # numbers end in one column
    without_stress = {key: value for key, value in numbers.items() if not key.startswith("stress")}
    assert "Stress" not in table_of_errors({"training": without_stress | {"stress_rmse": math.nan}})


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        (
            {"training": 10, "validation": 20},
            "The model overfits: the force error on the validation frames is 2.0 times",
        ),
        ({"training": 10, "validation": 11, "test x": 90}, "No sign of overfitting: .* validation frames is 1.1 times"),
        ({"training": 10, "test x": 30}, "The model overfits: the force error on the test x frames is 3.0 times"),
        ({"training": 10}, "Overfitting cannot be judged: no frames were kept apart"),
    ],
)
def test_the_sentence_compares_with_frames_not_trained_on(errors, sentence):
    full = {name: {"n_frames": 50.0, "forces_rmse": float(value)} for name, value in errors.items()}
    assert re.match(sentence, verdict(full))
