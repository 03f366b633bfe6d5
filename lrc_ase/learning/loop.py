"""The loop of active learning: label, train, explore, until explorations meet nothing unknown or a budget ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lrc_ase.dataset import Atoms, read_frames, write_frames
from lrc_ase.files.atomic import replacing, write_atomically
from lrc_ase.files.counted import counted
from lrc_ase.files.potential_file import load_potential
from lrc_ase.learning.exploration import choose_frames, explore, time_step
from lrc_ase.learning.frame_counts import with_counts
from lrc_ase.learning.fresh_errors import AGREEMENT, correction, errors_by_origin
from lrc_ase.learning.goals import budget_end, convergence, target_error, threshold
from lrc_ase.learning.label_store import LabelStore, exact_extxyz
from lrc_ase.learning.labelling import (
    failure_lines,
    label_by_hand,
    label_by_teacher,
    request,
    under_usual_names,
)
from lrc_ase.learning.progress import Observer, log_line
from lrc_ase.learning.settings import LearnSettings, write_settings
from lrc_ase.learning.starts import first_frames, read_starts
from lrc_ase.learning.state import FreshErrors, LearnFolder, LearnState, stored_frames
from lrc_ase.learning.teacher_pool import TeacherPool
from lrc_ase.learning.training_steps import (
    FINAL_STEPS,
    FIRST_STEPS,
    LARGEST_FORCE,
    STEPS,
    divided,
    epochs_of,
    first_member,
    number_held_out,
    train_on,
)

__all__ = ["Loop"]


class Loop:
    """The phases of a run."""

    def __init__(
        self, settings: LearnSettings, folder: LearnFolder, store: LabelStore, observer: Observer, labels: Sequence[str]
    ) -> None:
        self.folder, self.store, self.observer, self.labels = folder, store, observer, labels
        self.asked_settings = settings
        """Settings as the user gave them, which the folder keeps."""
        self.starts = read_starts(settings.starts)
        known = read_frames(list(settings.known)) if settings.known else []
        self.known = [under_usual_names(atoms, settings.keys) for atoms in known]
        self.settings = with_counts(settings, self.starts, len(self.known))
        self.state = LearnState()
        self.began = time.monotonic()
        self.seconds_before = 0.0
        self._stack = ExitStack()
        self._pool: TeacherPool | None = None

    def run(self, *, resume: bool) -> None:
        """Run phases until the end."""
        if resume:
            self.state = self.folder.read()
            self.seconds_before = self.state.seconds
            write_settings(self.folder.settings, self.asked_settings)
            if self.labels and self.state.phase != "label":  # the same command again, after its labels were taken
                self._say(f"{', '.join(self.labels)}: not read, the run does not wait for labels now")
                self.labels = ()
            if self.state.phase in ("final", "done") and self._budget_end() is None and not self.state.converged:
                self._go_on()
        else:
            self._begin()
        with self._stack:  # ends the teacher's processes
            while self.state.phase != "done":
                getattr(self, f"_{self.state.phase}")()

    def _open_pool(self) -> TeacherPool:
        """Return the teacher's processes, which live from the first label to the last."""
        if self._pool is None:
            assert self.settings.teacher is not None
            self._pool = self._stack.enter_context(TeacherPool(self.settings.teacher, self.folder.scratch))
        return self._pool

    @property
    def seconds(self) -> float:
        """Return the wall time of all sessions."""
        return self.seconds_before + time.monotonic() - self.began

    def _budget_end(self) -> str | None:
        return budget_end(self.settings.budget, self.state, out_of_time=self._out_of_time())

    def _out_of_time(self) -> bool:
        minutes = self.settings.budget.minutes
        return minutes is not None and self.seconds > 60 * minutes

    def _write(self, **values: Any) -> None:
        """Write the state with values replaced."""
        self.state = self.state.model_copy(update={**values, "seconds": self.seconds})
        self.folder.write(self.state)

    def _say(self, text: str) -> None:
        log_line(self.folder.log_file, text)
        self.observer.note(text)

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, purpose, self.state.iteration])

    def _begin(self) -> None:
        """Write settings and the first frames."""
        settings = self.settings
        assert settings.first.count is not None
        assert settings.budget.teacher_calls is not None
        count = min(settings.first.count, settings.budget.teacher_calls)
        if count == 0 and not self.known:
            raise ValueError("`first.count` is 0 and there are no known frames: nothing to train on")
        rng = self._rng(0)
        frames = first_frames(self.starts, settings.first, count, rng)
        # at random: copies of the starts stand in turn, and a stride would hold out those of one start alone
        held_out = rng.choice(count, number_held_out(count, settings.training.held_out), replace=False)
        for index, atoms in enumerate(frames):
            atoms.info["held_out"] = index in held_out
        request(self.folder.requested(0), frames, 0)
        write_settings(self.folder.settings, self.asked_settings)
        self._write(phase="label")
        timestep = time_step(self.starts, settings.exploration)
        self._say(
            f"{counted(len(self.starts), 'start')}, {counted(len(self.known), 'frame')} known, {count} to label first; "
            f"walkers of {settings.exploration.length:g} ps in steps of {timestep:g} fs"
        )

    def _label(self) -> None:
        """Label the requested frames, measure the potential's error on them, and decide how to go on."""
        settings, folder, state = self.settings, self.folder, self.state
        frames = stored_frames(folder.requested(state.iteration))
        failed = folder.iteration(state.iteration) / "failed.json"
        self.observer.phase(f"iteration {state.iteration}: labels", len(frames))
        if settings.teacher is None:
            outcome = label_by_hand(
                frames,
                self.store,
                target=folder.by_hand(state.iteration),
                folder=folder.path,
                labels=self.labels,
                keys=settings.keys,
            )
            self.labels = ()  # the next iteration needs others
        else:
            outcome = label_by_teacher(
                frames,
                self.store,
                self._open_pool,
                failed=failed,
                out_of_time=self._out_of_time,
                report=lambda done, total: self.observer.advance(done),
            )
        for line in failure_lines(outcome.failures):
            self._say(line)
        if outcome.skipped:
            self._say(f"{outcome.skipped} frames were not labelled: the time of the budget was over")
        fresh = [label for atoms in frames if (label := self.store.get(atoms)) is not None]
        if not fresh and not self.known and state.iteration == 0:
            reason = next(iter(outcome.failures.values()), "the time of the budget was over")
            failed.unlink(missing_ok=True)  # with another teacher, --resume asks for these frames again
            raise ValueError(f"the teacher labelled none of the {len(frames)} first frames: {reason}")
        errors: dict[str, FreshErrors] = {}
        if state.iteration > 0 and fresh:
            errors = errors_by_origin(load_potential(self._potential(state.iteration - 1)), fresh)
        self.state = state.recorded(
            requested=len(frames),
            labelled=outcome.labelled,
            failed=len(outcome.failures),
            teacher_seconds=outcome.teacher_seconds,
            label_seconds=state.record.label_seconds + outcome.seconds,
            fresh=errors,
        )
        calls = sum(record.labelled + record.failed for record in self.state.records)
        self.state = self.state.model_copy(update={"calls": calls})
        converged = convergence(self.state.records, target_error(settings.budget, self._labelled()))
        end = converged or self._budget_end() or ""
        if not end and not fresh and state.iteration:
            end = "no new frame could be labelled"
        self._write(phase="final" if end else "train", end=end, converged=converged is not None)
        if end:
            self.observer.iteration(self.state.record, self.state)
            self._say(f"end of the loop: {end}")

    def _train(self) -> None:
        """Train the ensemble of the iteration, from the one before it."""
        settings, number = self.settings, self.state.iteration
        training = settings.training
        began = time.monotonic()
        start = None if number == 0 else self._potential(number - 1)
        n_epochs, steps = (training.first_epochs, FIRST_STEPS) if start is None else (training.epochs, STEPS)
        potential = self._run_training(self.folder.training(number), n_epochs, steps, training.ensemble, start)
        errors = errors_by_origin(load_potential(potential), self.held_out()).get("all")
        self.state = self.state.recorded(train_seconds=time.monotonic() - began, held_out=errors)
        self._write(phase="explore")

    def _explore(self) -> None:
        """Explore with the ensemble, and choose the frames of the next iteration."""
        settings, folder, number = self.settings, self.folder, self.state.iteration
        began = time.monotonic()
        potential = load_potential(self._potential(number))
        record, labelled = self.state.record, self._labelled()
        stop = threshold(settings.exploration, record.held_out, target_error(settings.budget, labelled))
        factor = correction(record.fresh.get("all"), record.held_out, stop)
        if factor > AGREEMENT:
            self._say(f"errors on the newest labels were larger than predicted: deviations count {factor:.1f} times")
        previous = stored_frames(folder.walkers(number - 1))
        n_walkers = max(settings.exploration.walkers, len(self.starts))
        self.observer.phase(f"iteration {number}: exploration", 100 * n_walkers)
        exploration = explore(
            potential,
            self.starts,
            settings,
            previous,
            threshold=stop,
            correction=factor,
            iteration=number,
            out_of_time=self._out_of_time,
            report=lambda walker, steps, step: self.observer.advance(100 * walker + 100 * step // steps),
        )
        for reason in exploration.reasons:
            log_line(folder.log_file, f"iteration {number}, {reason}")
        assert settings.frames_per_iteration is not None
        assert settings.budget.teacher_calls is not None
        count = min(settings.frames_per_iteration, settings.budget.teacher_calls - self.state.calls)
        frames = choose_frames(potential, exploration.snapshots, labelled, settings, count, self._rng(1))
        with replacing(folder.walkers(number)) as temporary:
            write_frames(temporary, exploration.walkers)
        write_atomically(folder.explored(number), "".join(map(exact_extxyz, exploration.snapshots)).encode())
        request(folder.requested(number + 1), frames, number + 1)
        self.state = self.state.recorded(
            explore_seconds=time.monotonic() - began,
            threshold=stop,
            correction=factor,
            hottest=max((float(atoms.info["temperature"]) for atoms in exploration.snapshots), default=None),
            picoseconds=exploration.picoseconds,
            runs=exploration.runs,
            alarms=exploration.alarms,
            explosions=exploration.explosions,
            complete=exploration.complete,
        )
        record = self.state.record
        self._write(phase="label", iteration=number + 1)
        self.observer.iteration(record, self.state)

    def _final(self) -> None:
        """Train the final potential on all frames but those held out."""
        self._stack.close()  # no more labels: processes of the teacher may hold much memory
        self._pool = None
        settings, number = self.settings, self.state.iteration
        training = settings.training
        began = time.monotonic()
        start = None if number == 0 else self._potential(number - 1)
        if start is not None and training.final_members == 1:
            start = first_member(start, self.folder.path / "final-start.safetensors")
        potential = self._run_training(
            self.folder.final_training, training.final_epochs, FINAL_STEPS, training.final_members, start
        )
        with replacing(self.folder.potential) as temporary:
            shutil.copyfile(potential, temporary)
        self._write(phase="done", final_seconds=time.monotonic() - began)

    def _go_on(self) -> None:
        """Let a finished run continue whose budget has grown."""
        shutil.rmtree(self.folder.final_training, ignore_errors=True)
        self._write(phase="train", end="")

    def _run_training(self, folder: Path, n_epochs: int | None, steps: int, members: int, start: Path | None) -> Path:
        """Train on all labels but those held out, with progress shown, for `n_epochs` or as many as make `steps`."""
        train_frames, held_out, left_out = self._divided()
        if left_out:
            self._say(f"{len(left_out)} labelled frames are not trained on: forces above {LARGEST_FORCE:g} eV/Angstrom")
        if not train_frames:
            raise ValueError("there is no frame to train on: all labels have forces beyond any use, or failed")
        epochs = epochs_of(n_epochs, steps, train_frames, self.settings)
        is_final = folder == self.folder.final_training
        if is_final:  # minutes of the budget do not count here: without a terminal this would be a long silence
            self._say(f"final training: {counted(len(train_frames), 'frame')}, {counted(epochs, 'epoch')}")
        self.observer.phase(f"{'final' if is_final else folder.parent.name}: training", epochs)
        return train_on(
            train_frames,
            held_out,
            self.settings,
            folder,
            epochs=epochs,
            members=members,
            start=start,
            on_epoch=lambda record: self.observer.advance(record.epoch),
        )

    def _labelled(self) -> list[Atoms]:
        return [*self.store.frames(), *self.known]

    def _divided(self) -> tuple[list[Atoms], list[Atoms], list[Atoms]]:
        return divided(self.store.frames(), self.known, self.settings.training.held_out)

    def held_out(self) -> list[Atoms]:
        """Return the frames that are never trained on."""
        return self._divided()[1]

    def _potential(self, number: int) -> Path:
        return self.folder.training(number) / "potential.safetensors"
