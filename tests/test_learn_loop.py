"""The loop of active learning from the first frame to the potential, and its budgets."""

from __future__ import annotations

import os
import warnings

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT as Reference
from ase.constraints import FixAtoms
from learn_runs import EMT, assert_equal_runs, content, crystal, labels_of

from lrc_ase import LRCCalculator
from lrc_ase.files.potential_file import load_potential
from lrc_ase.learning import TeacherPool, TeacherSettings
from lrc_ase.learning.active_learning import learn
from lrc_ase.learning.fresh_errors import agrees, correction
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.labelling import label_by_teacher
from lrc_ase.learning.loop import Loop
from lrc_ase.learning.progress import Observer
from lrc_ase.learning.settings import load_settings, parse_settings
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnFolder, LearnState
from lrc_ase.learning.training_steps import epochs_of
from lrc_ase.structures.domain import ExtrapolationWarning


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three iterations that used up its teacher calls."""
    folder = tmp_path_factory.mktemp("learn")
    summary = learn(content(folder), folder / "run")
    return folder / "run", summary


def test_budget_of_teacher_calls_is_kept_and_said(finished):
    run, summary = finished
    assert len(labels_of(run)) == summary.teacher_calls == 10
    assert [record.labelled for record in summary.records] == [4, 4, 2]
    assert not summary.converged
    assert summary.end == "the budget of 10 teacher calls is used up"
    assert load_potential(summary.potential).n_members == 1


def test_labels_are_those_of_the_teacher(finished):
    for atoms in labels_of(finished[0]):
        again = atoms.copy()
        again.calc = Reference()
        assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), again.get_forces(), atol=1e-10)
        np.testing.assert_allclose(atoms.get_stress(), again.get_stress(), atol=1e-10)


def test_errors_on_fresh_labels_are_those_of_the_potential_before(finished):
    run, summary = finished
    calculator = LRCCalculator(load_potential(run / "iteration-00/training"), dtype="float32")
    fresh = [atoms for atoms in labels_of(run) if atoms.info["learn_frame"].startswith("1-")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        errors = [calculator.get_forces(atoms.copy()) - atoms.get_forces() for atoms in fresh]
    assert summary.records[1].fresh["all"].n_frames == len(fresh) == 4
    assert summary.records[1].fresh["all"].forces_rmse == pytest.approx(
        1e3 * np.sqrt(np.mean(np.square(errors))), rel=1e-3
    )
    assert not summary.records[0].fresh


def test_held_out_frames_are_never_trained_on(finished):
    run, _ = finished
    held_out = {atoms.info["learn_frame"] for atoms in labels_of(run) if atoms.info["held_out"]}
    assert len(held_out) == 3
    for folder in (run / "iteration-00/training", run / "iteration-01/training", run / "final"):
        trained = {atoms.info["learn_frame"] for atoms in ase.io.read(folder / "train.extxyz", ":")}
        validated = {atoms.info["learn_frame"] for atoms in ase.io.read(folder / "held-out.extxyz", ":")}
        assert not trained & held_out
        assert validated <= held_out
    assert len(trained) + len(validated) == 10


def test_trainings_start_from_the_last_weights(finished):
    run, _ = finished
    first, second = (
        yaml.safe_load((run / f"iteration-0{number}/training/configuration.yaml").read_text()) for number in (0, 1)
    )
    assert first["start"] is None
    assert second["start"].endswith("iteration-00/training/potential.safetensors")
    assert second["stages"][0]["learning_rate"] == 2e-3


def test_trainings_have_a_number_of_steps_whatever_the_number_of_frames(tmp_path):
    """Batches of 64-atom cells hold 4 frames: 500 steps on 14 frames, in 4 batches, are 125 epochs."""
    settings = parse_settings(content(tmp_path))
    large, small = crystal() * (4, 2, 2), crystal()
    assert epochs_of(None, 500, [large] * 14, settings) == 125
    assert epochs_of(None, 500, [large] * 70, settings) == 28  # 18 batches
    assert epochs_of(None, 500, [small] * 400, settings) == 39  # 13 batches of 32
    assert epochs_of(None, 500, [large] * 4000, settings) == 10
    assert epochs_of(None, 500, [large] * 4, settings) == 200
    assert epochs_of(7, 500, [large] * 14, settings) == 7
    settings = parse_settings(content(tmp_path, training__settings={"stages.batch_size": 1}))
    assert epochs_of(None, 500, [large] * 14, settings) == 36
    settings = parse_settings(content(tmp_path, training__settings={"stages[0].batch_size": 1}))
    assert epochs_of(None, 500, [large] * 14, settings) == 36


def test_the_loop_takes_its_numbers_of_steps(tmp_path, monkeypatch):
    asked = []

    def stand_in(n_epochs, steps, frames, settings):
        asked.append((n_epochs, steps))
        return 1

    monkeypatch.setattr("lrc_ase.learning.loop.epochs_of", stand_in)
    epochs = {"training__first_epochs": None, "training__epochs": None, "training__final_epochs": None}
    learn(content(tmp_path, budget__teacher_calls=8, budget__iterations=2, **epochs), tmp_path / "run")
    assert asked == [(None, 500), (None, 400)][: len(asked) - 1] + [(None, 2000)]


def test_a_run_is_not_overwritten(finished, tmp_path):
    with pytest.raises(ValueError, match="already holds a run: choose another folder, or go on with it by --resume"):
        learn(content(tmp_path), finished[0])
    with pytest.raises(ValueError, match="holds no run of `lrc-ase learn` to resume"):
        learn(None, tmp_path / "absent", resume=True)
    with pytest.raises(ValueError, match="None only with resume=True"):
        learn(None, tmp_path / "absent")
    with pytest.raises(ValueError, match="the run has another `seed`: with --resume only teacher, budget, n_threads"):
        learn(content(finished[0].parent, seed=3), finished[0], resume=True)
    with pytest.raises(ValueError, match="`labels` are for runs without a teacher"):
        learn(None, finished[0], resume=True, labels=["labels.extxyz"])
    with pytest.raises(ValueError, match="give them with `resume`"):
        learn(content(tmp_path), tmp_path / "new", labels=["labels.extxyz"])


def test_a_larger_budget_continues_a_finished_run(finished, tmp_path):
    short = content(tmp_path, budget__teacher_calls=4)
    assert learn(short, tmp_path / "run").teacher_calls == 4
    summary = learn(content(tmp_path), tmp_path / "run", resume=True)
    assert summary.teacher_calls == 10
    assert_equal_runs(tmp_path / "run", finished[0])


def test_processes_of_the_teacher_live_from_the_first_label_to_the_last(tmp_path):
    """The teacher counts its starts and its structures; its process has ended when the final training begins."""
    teacher = tmp_path / "teacher.py"
    teacher.write_text(
        "import os, pathlib\n"
        "from ase.calculators.emt import EMT\n"
        f"log = pathlib.Path({str(tmp_path)!r}, 'pids')\n"
        "class Logged(EMT):\n"
        "    def calculate(self, *arguments, **options):\n"
        "        with log.open('a') as file:\n"
        "            file.write(f'{os.getpid()}\\n')\n"
        "        super().calculate(*arguments, **options)\n"
        "def calculator():\n"
        "    return Logged()\n"
    )
    seen = []

    class Watcher(Observer):
        def phase(self, name, total):
            if name == "final: training":
                with pytest.raises(ProcessLookupError):
                    os.kill(int((tmp_path / "pids").read_text().split()[0]), 0)
                seen.append(name)

    settings = content(tmp_path, teacher={"calculator": str(teacher), "check": False})
    summary = learn(settings, tmp_path / "run", observer=Watcher())
    processes = (tmp_path / "pids").read_text().split()
    assert len(processes) == summary.teacher_calls == 10
    assert len(summary.records) == 3
    assert len(set(processes)) == 1
    assert seen == ["final: training"]


def test_frames_that_fail_are_said_and_left_out(tmp_path):
    teacher = tmp_path / "teacher.py"
    teacher.write_text(
        "from ase.calculators.emt import EMT\n"
        "class Moody(EMT):\n"
        "    def calculate(self, atoms=None, properties=('energy',), changes=()):\n"
        "        if atoms.get_volume() > 66.45:\n"
        "            raise ValueError('SCF did not converge')\n"
        "        super().calculate(atoms, properties, changes)\n"
        "def calculator():\n"
        "    return Moody()\n"
    )
    settings = content(tmp_path, teacher={"calculator": str(teacher), "check": False, "retries": 0})
    settings["budget"] = {"teacher_calls": 4}
    summary = learn(settings, tmp_path / "run")
    assert summary.records[0].labelled + summary.records[0].failed == 4
    assert summary.records[0].failed > 0
    assert "SCF did not converge" in (tmp_path / "run/log.txt").read_text()
    assert len(labels_of(tmp_path / "run")) == summary.records[0].labelled
    settings["teacher"]["calculator"] = str(teacher)
    teacher.write_text(teacher.read_text().replace("> 66.45", "> 0"))
    with pytest.raises(ValueError, match=r"labelled none of the 4 first frames: .*SCF did not converge"):
        learn(settings, tmp_path / "other")
    # with a teacher that was mended, the frames are asked for again
    teacher.write_text(teacher.read_text().replace("> 0", "> 1e9"))
    assert learn(None, tmp_path / "other", resume=True).records[0].labelled == 4


def test_time_that_is_over_ends_the_labelling(tmp_path):
    frames = [crystal() for _ in range(3)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=number)
        atoms.info["learn_frame"] = f"0-{number:02d}"
    over = iter([False, True, True, True])
    settings = TeacherSettings(calculator=EMT, check=False)
    with LabelStore(tmp_path / "labels.extxyz") as store, TeacherPool(settings, tmp_path / "scratch") as pool:
        outcome = label_by_teacher(
            frames,
            store,
            lambda: pool,
            failed=tmp_path / "failed.json",
            out_of_time=lambda: next(over),
        )
    assert outcome.labelled == 1
    assert outcome.skipped == 2
    assert not outcome.failures  # they are no calls of the teacher


def test_minutes_and_iterations_are_budgets(finished, tmp_path):
    known = [str(finished[0] / "labels.extxyz")]
    settings = content(tmp_path, known=known, first={"count": 0}, budget={"minutes": 1e-9})
    summary = learn(settings, tmp_path / "short")
    assert summary.end == "the budget of 1e-09 minutes is used up"
    assert summary.teacher_calls == 0
    summary = learn(content(tmp_path, budget={"iterations": 1}), tmp_path / "two")
    assert summary.end == "the budget of 1 iterations is used up"
    assert len(summary.records) == 2


def test_a_loop_converges_where_nothing_is_unknown(tmp_path):
    """A threshold that nothing reaches and a target that everything meets."""
    settings = content(tmp_path, exploration__threshold=1e6, budget={"target_error": 1e6})
    settings["exploration"]["temperatures"] = [10.0]
    summary = learn(settings, tmp_path / "run")
    assert summary.converged, summary
    assert "raised no alarm" in summary.end
    assert summary.records[-2].complete
    assert summary.records[-2].alarms == summary.records[-2].explosions == 0


def test_known_frames_are_trained_on_and_replace_the_first_ones(finished, tmp_path):
    known = finished[0] / "labels.extxyz"
    settings = content(tmp_path, known=[str(known)], budget={"teacher_calls": 2})
    settings["first"] = {}
    summary = learn(settings, tmp_path / "run")
    assert [record.requested for record in summary.records] == [0, 2]
    assert len(ase.io.read(tmp_path / "run/iteration-00/training/train.extxyz", ":")) == 7
    with pytest.raises(ValueError, match="nothing to train on"):
        learn(content(tmp_path, first={"count": 0}), tmp_path / "none")


def test_agreement_of_errors():
    assert agrees(FreshErrors(n_frames=1, forces_rmse=14.9, forces_predicted=10.0))
    assert not agrees(FreshErrors(n_frames=1, forces_rmse=15.1, forces_predicted=10.0))
    assert not agrees(FreshErrors(n_frames=1, forces_rmse=1.0))


@pytest.mark.parametrize(
    ("actual", "predicted", "usual", "factor"),
    [
        (40.0, 10.0, 10.0, 4.0),
        (8.0, 10.0, 10.0, 1.0),  # never trusted more than calibrated
        (200.0, 10.0, 10.0, 5.0),  # 10 meV/Angstrom are usual: five times as much is half of the threshold
        (200.0, 10.0, 80.0, 1.0),
        (200.0, None, 10.0, 1.0),  # a single model predicts no error
    ],
)
def test_deviations_are_corrected_by_the_newest_labels(actual, predicted, usual, factor):
    fresh = FreshErrors(n_frames=1, forces_rmse=actual, forces_predicted=predicted)
    held_out = FreshErrors(n_frames=1, forces_rmse=10.0, forces_predicted=usual)
    assert correction(fresh, held_out, 0.1) == pytest.approx(factor)
    assert correction(None, held_out, 0.1) == 1.0


def test_the_loop_corrects_deviations_in_the_exploration_after_labels_that_were_off(finished, monkeypatch):
    run, summary = finished
    for record in summary.records[:2]:
        assert record.correction == correction(record.fresh.get("all"), record.held_out, record.threshold)
    with LabelStore(run / "labels.extxyz") as store:
        learning = Loop(load_settings(run / "learn.yaml"), LearnFolder(run), store, Observer(), [])
        learning.state = LearnState(iteration=1).recorded(
            fresh={"all": FreshErrors(n_frames=4, forces_rmse=30.0, forces_predicted=10.0)},
            held_out=FreshErrors(n_frames=4, forces_rmse=1e4, forces_predicted=1.0),
        )
        asked = {}
        monkeypatch.setattr("lrc_ase.learning.loop.explore", lambda *_, **options: asked.update(options) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            learning._explore()
    assert asked["correction"] == pytest.approx(3.0)
    assert "larger than predicted: deviations count 3.0 times" in (run / "log.txt").read_text()


def test_state_keeps_one_record_for_each_iteration():
    state = (
        LearnState().recorded(labelled=4).recorded(failed=1).model_copy(update={"iteration": 1}).recorded(labelled=2)
    )
    assert state.records == (
        IterationRecord(iteration=0, labelled=4, failed=1),
        IterationRecord(iteration=1, labelled=2),
    )


def test_a_state_of_another_version_is_refused(tmp_path):
    (tmp_path / "state.json").write_text('{"phase": "dream"}')
    with pytest.raises(ValueError, match=r"state.json: phase: .*; it was edited or is of another version"):
        LearnFolder(tmp_path).read()


def test_molecules_slabs_and_crystals_are_learned_together(tmp_path):
    cluster = molecule("CO2")
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    slab.pbc = (True, True, False)
    slab.set_constraint(FixAtoms([0]))
    starts = [crystal(), cluster, slab]
    for number, atoms in enumerate(starts):
        atoms.write(tmp_path / f"start-{number}.traj")
    settings = content(tmp_path, starts=[str(tmp_path / f"start-{number}.traj") for number in range(3)])
    settings |= {"first": {"count": 6}, "budget": {"teacher_calls": 12}, "frames_per_iteration": 6}
    summary = learn(settings, tmp_path / "run")
    assert summary.teacher_calls == 12
    labels = labels_of(tmp_path / "run")
    assert {str(atoms.symbols) for atoms in labels} == {"Al4", "CO2", "Cu3"}
    explored = ase.io.read(tmp_path / "run/iteration-00/explored.extxyz", ":")
    assert {str(atoms.symbols) for atoms in explored} == {"Al4", "CO2", "Cu3"}
    for atoms in explored:
        if str(atoms.symbols) == "Cu3":
            np.testing.assert_allclose(atoms.cell.array, slab.cell.array)
            np.testing.assert_array_equal(atoms.positions[0], slab.positions[0])
    assert set(load_potential(summary.potential).settings.elements) == {"Al", "C", "O", "Cu"}
