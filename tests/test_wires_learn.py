"""Every setting of active learning changes what it should: one pair of values per field.

A field without an entry in `CASES` fails `test_every_field_has_a_case`. Settings of the teacher have their own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from learn_runs import EMT as TEACHER
from learn_runs import content, ensemble, positions

from lrc_ase.learning import active_learning, goals, loop, settings
from lrc_ase.learning.exploration import choose_frames, explore
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.labelling import LabelsNeeded
from lrc_ase.learning.progress import Observer
from lrc_ase.learning.settings import parse_settings, settings_template, with_keys
from lrc_ase.learning.starts import read_starts
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnFolder, LearnState, stored_frames
from lrc_ase.learning.training_steps import configuration_of
from lrc_ase.training.configuration_errors import ConfigurationError

CLASSES = [
    settings.FirstFramesSettings,
    settings.ExplorationSettings,
    settings.LearnTrainingSettings,
    settings.BudgetSettings,
    settings.LearnSettings,
]


@dataclass(frozen=True)
class Case:
    """Another value of one field, and what must differ."""

    key: str
    value: Any
    observe: Callable[[Path, dict[str, Any]], Any]
    base: dict[str, Any] = field(default_factory=dict)


def new_loop(folder: Path, values: dict[str, Any]) -> tuple[loop.Loop, LabelStore]:
    store = LabelStore(folder / "labels.extxyz")
    parsed = parse_settings(values)
    return loop.Loop(parsed, LearnFolder(folder), store, Observer(), []), store


def first_request(folder: Path, values: dict[str, Any]) -> Any:
    """Positions, cells and held-out flags of the first frames."""
    learning, store = new_loop(folder, values)
    learning._begin()
    store.close()
    frames = stored_frames(learning.folder.requested(0))
    return [(atoms.positions.tobytes(), atoms.cell.array.tobytes(), bool(atoms.info["held_out"])) for atoms in frames]


def exploration(folder: Path, values: dict[str, Any]) -> Any:
    """Snapshots, their number and the explored time."""
    parsed = parse_settings(values)
    result = explore(ensemble(), read_starts(parsed.starts), parsed, (), threshold=1e3, iteration=0)
    return positions(result.snapshots).tobytes(), len(result.snapshots), result.picoseconds, result.runs


def sensitive_exploration(folder: Path, values: dict[str, Any]) -> Any:
    """Number of alarms with a threshold that everything passes."""
    parsed = parse_settings(values)
    return explore(ensemble(), read_starts(parsed.starts), parsed, (), threshold=1e-9, iteration=0).alarms


def chosen(folder: Path, values: dict[str, Any]) -> Any:
    """Origins of the chosen frames."""
    parsed = parse_settings(values)
    exploration = explore(ensemble(), read_starts(parsed.starts), parsed, (), threshold=1e3, iteration=0)
    frames = choose_frames(ensemble(), exploration.snapshots, [], parsed, 4, np.random.default_rng(0))
    return [atoms.info["origin"] for atoms in frames]


def threshold(folder: Path, values: dict[str, Any]) -> float:
    """Deviation at which walkers stop, of a potential with an error of 10 meV/Angstrom."""
    learning, store = new_loop(folder, {**values, "budget": {"target_error": 1.0, **values.get("budget", {})}})
    learning.state = LearnState().recorded(held_out=FreshErrors(n_frames=1, forces_rmse=10.0))
    told: dict[str, Any] = {}

    def stand_in(*_: Any, **options: Any) -> None:
        told.update(options)
        raise KeyError

    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "load_potential", lambda path: ensemble())
    patch.setattr(loop, "explore", stand_in)
    with patch.context(), pytest.raises(KeyError):
        learning._explore()
    patch.undo()
    store.close()
    return told["threshold"]


def trainings(folder: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Arguments of the trainings of iterations 0 and 1 and of the final one."""
    learning, store = new_loop(folder, values)
    store.close()
    calls: list[dict[str, Any]] = []

    def stand_in(train: Any, held_out: Any, settings: Any, run: Any, **options: Any) -> Path:
        options.pop("on_epoch")
        calls.append({name: str(value) for name, value in options.items()})
        raise KeyError

    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "train_on", stand_in)
    patch.setattr(loop, "divided", lambda *_: ([bulk("Al")], [], []))
    patch.setattr(loop, "first_member", lambda source, target: target)
    with patch.context():
        for iteration, phase in ((0, "_train"), (1, "_train"), (1, "_final")):
            learning.state = LearnState(iteration=iteration)
            with pytest.raises(KeyError):
                getattr(learning, phase)()
    patch.undo()
    return calls


def warm_configuration(folder: Path, values: dict[str, Any]) -> Any:
    """Configuration of a training that starts from a potential."""
    for name in ("train", "held-out"):
        ase.io.write(folder / f"{name}.extxyz", bulk("Al"))
    parsed = parse_settings(values)
    return configuration_of(parsed, folder, epochs=3, members=2, start=folder / "nacl").model_dump()


def end(folder: Path, values: dict[str, Any]) -> Any:
    """Budget that ends after 100 calls, 10 minutes and 20 iterations."""
    learning, store = new_loop(folder, values)
    store.close()
    learning.state = LearnState(calls=100, iteration=20)
    learning.seconds_before = 600.0
    return learning._budget_end()


def converged(folder: Path, values: dict[str, Any]) -> Any:
    """Verdict on a complete exploration and a fresh error of 10 meV/Angstrom."""
    errors = FreshErrors(n_frames=4, forces_rmse=10.0, forces_predicted=10.0)
    records = (
        IterationRecord(iteration=0, complete=True, runs=1, picoseconds=1.0),
        IterationRecord(iteration=1, fresh={"all": errors}),
    )
    return goals.convergence(records, goals.target_error(parse_settings(values).budget, []))


def known_energies(folder: Path, values: dict[str, Any]) -> Any:
    """Energies of the known frames as they are read."""
    learning, store = new_loop(folder, values)
    store.close()
    return [atoms.get_potential_energy() for atoms in learning.known]


def ending(folder: Path, values: dict[str, Any]) -> str:
    """Name of the exception of a run whose teacher fails, or that has none."""
    with pytest.raises((LabelsNeeded, ValueError)) as caught:
        active_learning.learn(values, folder / "run")
    return type(caught.value).__name__


def threads_of_torch(folder: Path, values: dict[str, Any]) -> int:
    """Number of threads while the loop runs."""
    seen: list[int] = []
    patch = pytest.MonkeyPatch()
    patch.setattr(active_learning.Loop, "run", lambda self, resume: seen.append(torch.get_num_threads()))
    patch.setattr(active_learning, "_summary", lambda learning: None)
    active_learning.learn(values, folder / "run")
    patch.undo()
    return seen[0]


def second_request(folder: Path, values: dict[str, Any]) -> int:
    """Number of frames that the exploration of the first iteration asks for."""
    learning, store = new_loop(folder, values)
    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "load_potential", lambda path: ensemble())
    learning.state = LearnState().recorded(held_out=FreshErrors(n_frames=1, forces_rmse=1e6))
    learning.folder.iteration(0).mkdir()
    learning._explore()
    patch.undo()
    store.close()
    return len(stored_frames(learning.folder.requested(1)))


BROKEN = {"teacher": {"calculator": "nowhere_at_all:Best"}}
CASES = {
    "FirstFramesSettings.count": Case("first.count", 6, first_request),
    "FirstFramesSettings.rattle": Case("first.rattle", 0.1, first_request),
    "FirstFramesSettings.strain": Case("first.strain", 0.1, first_request),
    "ExplorationSettings.temperatures": Case("exploration.temperatures", [300.0, 900.0], exploration),
    "ExplorationSettings.pressure": Case("exploration.pressure", 50.0, exploration, {"exploration.length": 0.06}),
    "ExplorationSettings.length": Case("exploration.length", 0.03, exploration),
    "ExplorationSettings.timestep": Case("exploration.timestep", 1.0, exploration),
    "ExplorationSettings.friction": Case("exploration.friction", 0.1, exploration),
    "ExplorationSettings.walkers": Case("exploration.walkers", 3, exploration),
    "ExplorationSettings.snapshots": Case("exploration.snapshots", 2, exploration),
    "ExplorationSettings.check_every": Case("exploration.check_every", 3, exploration),
    "ExplorationSettings.dtype": Case("exploration.dtype", "float64", exploration),
    "ExplorationSettings.tolerance": Case("exploration.tolerance", 5.0, threshold),
    "ExplorationSettings.threshold": Case("exploration.threshold", 0.5, threshold),
    "ExplorationSettings.relative_threshold": Case(
        "exploration.relative_threshold", 1e6, sensitive_exploration, {"exploration.relative_threshold": 0.0}
    ),
    "LearnTrainingSettings.ensemble": Case("training.ensemble", 3, trainings),
    "LearnTrainingSettings.first_epochs": Case("training.first_epochs", 7, trainings),
    "LearnTrainingSettings.epochs": Case("training.epochs", 7, trainings),
    "LearnTrainingSettings.final_epochs": Case("training.final_epochs", 7, trainings),
    "LearnTrainingSettings.final_members": Case("training.final_members", 2, trainings),
    "LearnTrainingSettings.warm_learning_rate": Case("training.warm_learning_rate", 1e-3, warm_configuration),
    "LearnTrainingSettings.held_out": Case(
        "training.held_out", 4, lambda folder, values: first_request(folder, {**values, "first": {"count": 10}})
    ),
    "LearnTrainingSettings.settings": Case("training.settings", {"model.cutoff": 6.0}, warm_configuration),
    "BudgetSettings.teacher_calls": Case("budget.teacher_calls", 100, end, {"budget.teacher_calls": 101}),
    "BudgetSettings.minutes": Case("budget.minutes", 9.0, end, {"budget.teacher_calls": None}),
    "BudgetSettings.iterations": Case("budget.iterations", 20, end, {"budget.teacher_calls": None}),
    "BudgetSettings.target_error": Case("budget.target_error", 9.0, converged, {"budget.target_error": 11.0}),
    "LearnSettings.starts": Case("starts", ["other.extxyz"], first_request),
    "LearnSettings.known": Case("known", ["known.extxyz"], known_energies),
    "LearnSettings.keys": Case("keys", {"energy": "my_number"}, known_energies, {"known": ["known.extxyz"]}),
    "LearnSettings.teacher": Case("teacher", None, ending, BROKEN),
    "LearnSettings.first": Case("first", {"count": 5}, first_request),
    "LearnSettings.exploration": Case("exploration", {"length": 0.01, "snapshots": 4}, exploration),
    "LearnSettings.training": Case("training", {"first_epochs": 3, "epochs": 1, "final_epochs": 2}, trainings),
    "LearnSettings.budget": Case("budget", {"teacher_calls": 7}, end, {"budget": {"teacher_calls": None}}),
    "LearnSettings.frames_per_iteration": Case("frames_per_iteration", 3, second_request),
    "LearnSettings.random_fraction": Case("random_fraction", 0.5, chosen),
    "LearnSettings.seed": Case("seed", 1, first_request),
    "LearnSettings.n_threads": Case("n_threads", 2, threads_of_torch),
}


def test_every_field_has_a_case():
    fields = {f"{each.__name__}.{name}" for each in CLASSES for name in each.model_fields}
    assert fields == set(CASES)


def assigned(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        *sections, name = key.split(".")
        inside = values
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[name] = value
    return values


@pytest.mark.parametrize("name", CASES)
def test_field_changes_what_it_should(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    ase.io.write("other.extxyz", bulk("Al", "fcc", a=4.1, cubic=True))
    known = bulk("Al", "fcc", a=4.1, cubic=True)
    known.calc = EMT()
    known.get_potential_energy(), known.get_forces()
    known.info["my_number"] = 1.0
    ase.io.write("known.extxyz", known)
    seen = []
    for folder, changes in (("without", {}), ("with", {case.key: case.value})):
        Path(folder).mkdir()
        values = assigned(assigned(content(tmp_path), case.base), changes)
        seen.append(case.observe(Path(folder), values))
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": []}, "`starts` must name at least one structure to explore from"),
        ({"exploration.temperatures": []}, "exploration.temperatures: .*at least 1"),
        ({"exploration.temperature": 300}, "unknown key 'exploration.temperature'; did you mean"),
        ({"exploration.dtype": "float16"}, "exploration.dtype"),
        ({"training.settings": {"model.cutof": 5}}, "training.settings: .*unknown key 'model.cutof'; did you mean"),
        ({"training.settings": {"stages.epochs": 5}}, "'stages.epochs' is set by the loop.*'training.epochs'"),
        ({"training.settings": {"stages[0].epochs": 5}}, "is set by the loop.*'training.epochs'"),
        ({"training.settings": {"stages.full-range.learning_rate": 0.1}}, "loop.*'training.warm_learning_rate'"),
        ({"training.settings": {"seed": 5}}, "'seed' is set by the loop; the key for it is 'seed'"),
        ({"training.settings": {"data.frames.weight": 2}}, "is set by the loop; the key for it is 'known'"),
        ({"training.settings": {"data": "x"}}, "'data' is set by the loop; the key for it is 'known'"),
        ({"teacher": "tblite"}, "expected 'module:Class'"),
        ({"starts": [1]}, r"starts\[0\]: Input should be a valid string"),
        ({"known": [None]}, r"known\[0\]: Input should be a valid string"),
        ({"budget.teacher_calls": 0}, "budget.teacher_calls"),
    ],
)
def test_settings_that_cannot_be_used(changes, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        parse_settings(assigned(content(tmp_path), changes))


def test_settings_are_written_and_read_back(tmp_path):
    parsed = parse_settings(content(tmp_path))
    settings.write_settings(tmp_path / "learn.yaml", parsed)
    assert settings.load_settings(tmp_path / "learn.yaml") == parsed
    with pytest.raises(ConfigurationError, match="cannot read the settings"):
        settings.load_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigurationError, match="expected keys such as 'starts' and 'teacher', got list"):
        parse_settings([])


def test_paths_start_from_the_folder_of_the_file(tmp_path):
    content_of_file = {"starts": "a.cif", "known": ["b.xyz@::2"], "teacher": "teacher.py"}
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump(content_of_file))
    parsed = settings.load_settings(tmp_path / "learn.yaml")
    assert parsed.starts == (str(tmp_path / "a.cif"),)
    assert parsed.known == (str(tmp_path / "b.xyz@::2"),)
    assert parsed.teacher.calculator == str(tmp_path / "teacher.py")
    (tmp_path / "learn.yaml").write_text(yaml.safe_dump({**content_of_file, "teacher": {"calculator": TEACHER}}))
    assert settings.load_settings(tmp_path / "learn.yaml").teacher.calculator == TEACHER


def test_the_template_is_a_file_of_settings_with_the_defaults():
    parsed = parse_settings(yaml.safe_load(settings_template()))
    defaults = parse_settings(
        {"starts": ["start.cif"], "teacher": {"calculator": "tblite.ase:TBLite", "options": {"method": "GFN1-xTB"}}}
    )
    assert parsed == defaults
    assert "# Temperatures, K." in settings_template()
    assert "# Structures labelled at the same time" in settings_template()


def test_keys_of_trainings_may_leave_the_long_range_part_out():
    assert with_keys("f.xyz", {"model.long_range": None}).stages[0].model == "short-range"
    assert with_keys("f.xyz", {"model": {"long_range": None}}).stages[0].model == "short-range"
    assert with_keys("f.xyz", {"model.cutoff": 6}).stages[0].model == "full-range"
