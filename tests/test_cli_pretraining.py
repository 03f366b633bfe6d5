"""Option --pretrain of `lrc-ase train`: weights arrive in the second training, and interruptions lose nothing."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from training_frames import metal_frames
from typer.testing import CliRunner

from lrc_ase.cli import app
from lrc_ase.cli.pretraining import Pretraining
from lrc_ase.dataset import read_frames
from lrc_ase.learning import SampleSummary
from lrc_ase.learning.pretraining import pretraining_configuration
from lrc_ase.training import load_configuration
from lrc_ase.training.assignments import changed_configuration
from lrc_ase.training.data_arguments import default_configuration

SMALL = ["--batch-size", "2", "--epochs", "1", "--threads", "1", "--set", "model.hidden=[8]", "--cutoff", "4.5"]
PRETRAIN = ["--pretrain", "ase.calculators.emt:EMT", "--pretrain-frames", "8", "--pretrain-epochs", "2"]


@pytest.fixture
def frames(tmp_path, monkeypatch):
    """Write frames of an expensive method, whose energies lie far from those of EMT, and go to their folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    labelled = metal_frames(6, seed=3)
    for atoms in labelled:
        energy = atoms.get_potential_energy() - 1000.0 * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=1.1 * atoms.get_forces())
    ase.io.write("frames.extxyz", labelled)
    return tmp_path


def train(*words: str):
    return CliRunner().invoke(app, ["train", "frames.extxyz", "-o", "run", *SMALL, *words])


def epochs_of(run: Path) -> list[str]:
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def test_one_command_samples_pretrains_and_trains(frames):
    result = train(*PRETRAIN)
    assert result.exit_code == 0, result.output
    assert "the element references were shifted" in result.output
    sampled = ase.io.read("run/pretraining/sampled.extxyz", ":")
    assert len(sampled) == 8
    for atoms in sampled:
        copy = atoms.copy()
        copy.calc = EMT()
        np.testing.assert_allclose(atoms.get_forces(), copy.get_forces(), atol=1e-9)
    first = load_configuration("run/pretraining/run/configuration.yaml")
    second = load_configuration("run/configuration.yaml")
    assert second.start == str(frames / "run/pretraining/run/potential.safetensors")
    for name in ("cutoff", "hidden", "energy_scale", "average_neighbors"):
        assert getattr(first.model, name) == getattr(second.model, name)
    assert (first.model.cutoff, first.model.hidden) == (4.5, (8,))
    assert epochs_of(frames / "run/pretraining/run") == ["1", "2"]
    assert epochs_of(frames / "run") == ["1"]
    again = train(*PRETRAIN)
    assert "run already holds a run" in again.output
    resumed = train(*PRETRAIN, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert len(ase.io.read("run/pretraining/sampled.extxyz", ":")) == 8


def test_an_interrupted_command_goes_on(frames, monkeypatch):
    def give_up(*arguments, **keywords):
        raise ValueError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr("lrc_ase.cli.pretraining.train", give_up)
        assert train(*PRETRAIN[:2], "--pretrain-frames", "3").exit_code == 1
    before = ase.io.read("run/pretraining/sampled.extxyz", ":")
    with monkeypatch.context() as patch:
        patch.setattr("lrc_ase.cli.train.train_potential", give_up)
        assert train(*PRETRAIN).exit_code == 1
    after = ase.io.read("run/pretraining/sampled.extxyz", ":")
    assert (len(before), len(after)) == (3, 8)
    np.testing.assert_array_equal(before[2].positions, after[2].positions)
    log = Path("run/pretraining/run/log.txt").read_text(encoding="utf-8")
    result = train(*PRETRAIN, "--resume")  # the run itself has not begun: nothing is there to resume
    assert result.exit_code == 0, result.output
    assert Path("run/pretraining/run/log.txt").read_text(encoding="utf-8").startswith(log)
    assert epochs_of(frames / "run/pretraining/run") == ["1", "2"]


def test_a_method_is_a_teacher(frames, monkeypatch):
    def record(starts, settings, output, *, quiet):
        raise ValueError(f"{settings.teacher.calculator} {settings.teacher.options}")

    monkeypatch.setattr("lrc_ase.cli.pretraining.sample_visibly", record)
    result = train("--pretrain", "GFN2-xTB", "--teacher-options", "accuracy=0.1")
    assert "tblite.ase:TBLite {'method': 'GFN2-xTB', 'verbosity': 0, 'accuracy': 0.1}" in result.output


def test_frames_of_a_cheap_method_take_the_place_of_a_teacher(frames):
    cheap = metal_frames(5, seed=4)
    ase.io.write("cheap.extxyz", cheap)
    result = train("--pretrain", "cheap.extxyz", "--pretrain-epochs", "1")
    assert result.exit_code == 0, result.output
    [data] = load_configuration("run/pretraining/run/configuration.yaml").data.values()
    assert [file.path for file in data.train] == [str(frames / "cheap.extxyz")]
    assert not Path("run/pretraining/sampled.extxyz").exists()


ARRIVING = {
    "--teacher-options asap_cutoff=true": (lambda settings: settings.teacher.options, {"asap_cutoff": True}),
    "--pretrain-frames 7": (lambda settings: settings.count, 7),
    "--threads 3": (lambda settings: settings.teacher.processes, 3),
    "--time-limit 2": (lambda settings: settings.minutes, 2.0),
    "--seed 9": (lambda settings: settings.seed, 9),
}


@pytest.mark.parametrize("option", ARRIVING)
def test_options_arrive_in_the_sampling(frames, monkeypatch, option):
    seen = []

    def record(starts, settings, output, *, quiet):
        seen.append((starts, settings, output))
        return SampleSummary(n_frames=0)

    monkeypatch.setattr("lrc_ase.cli.pretraining.sample_visibly", record)
    for words in ([], option.split()):
        train("--pretrain", "ase.calculators.emt:EMT", *words)
    value, expected = ARRIVING[option]
    without, changed = (value(settings) for _, settings, _ in seen)
    assert without != expected
    assert changed == expected
    assert seen[0][0] == [str(frames / "frames.extxyz")]
    assert seen[0][2] == Path("run/pretraining/sampled.extxyz")


def test_no_frame_within_the_time_limit_is_an_error(frames):
    result = train(*PRETRAIN, "--time-limit", "1e-9")
    assert result.exit_code == 1
    assert "no frame was labelled in 1e-09 minutes: raise --time-limit" in result.output


def test_mistakes_of_the_second_training_show_before_the_first(frames, monkeypatch):
    def start(*arguments, **keywords):
        raise AssertionError("sampling has begun")

    monkeypatch.setattr("lrc_ase.cli.pretraining.sample_visibly", start)
    unlabelled = read_frames("frames.extxyz")[0]
    unlabelled.calc = None
    ase.io.write("unlabelled.extxyz", unlabelled)
    result = train(*PRETRAIN, "--test", "unlabelled.extxyz")
    assert result.exit_code == 1
    assert "unlabelled.extxyz" in result.output
    assert "sampling has begun" not in result.output
    result = train(*PRETRAIN, "--energy-key", "dft_energy")
    assert result.exit_code == 1
    assert "dft_energy" in result.output


def test_teachers_and_frames_without_dipoles_are_refused_before_the_sampling(frames, monkeypatch):
    def start(*arguments, **keywords):
        raise ValueError("sampling has begun")

    monkeypatch.setattr("lrc_ase.cli.pretraining.sample_visibly", start)
    dipoles = (*PRETRAIN, "--pretrain-dipoles")
    assert "no training frame is a molecule without periodic directions" in train(*dipoles).output
    labelled = read_frames("frames.extxyz")
    for atoms in labelled:
        atoms.pbc = False
    ase.io.write("frames.extxyz", labelled)
    assert "the teacher ase.calculators.emt:EMT gives no dipole: leave the dipoles out" in train(*dipoles).output
    assert "sampling has begun" in train(*PRETRAIN).output
    Path("teacher.py").write_text(TEACHER_WITH_DIPOLES)
    with_dipoles = ["--pretrain", "teacher.py", "--pretrain-dipoles"]
    assert "sampling has begun" in train(*with_dipoles).output
    assert re.search("teacher.py fails on the smallest molecule: .*no luck", train(*with_dipoles, *UNLUCKY).output)


UNLUCKY = ["--teacher-options", "luck=false"]
TEACHER_WITH_DIPOLES = """
import numpy as np
from ase.calculators.emt import EMT

class Polar(EMT):
    implemented_properties = [*EMT.implemented_properties, "dipole"]
    luck = True

    def calculate(self, *arguments):
        if not self.luck:
            raise RuntimeError("no luck")
        super().calculate(*arguments)
        self.results["dipole"] = np.ones(3)

def calculator(luck=True):
    polar = Polar()
    polar.luck = luck
    return polar
"""


def test_doubts_about_the_frames_show_before_the_first_training(frames):
    labelled = read_frames("frames.extxyz")
    for atoms in labelled:
        atoms.calc = SinglePointCalculator(
            atoms, energy=atoms.get_potential_energy(), forces=-atoms.get_forces(apply_constraint=False)
        )
    ase.io.write("frames.extxyz", labelled)
    result = train(*PRETRAIN, "--time-limit", "1e-9")
    assert "warning: " in result.output


REFUSED = {
    "--pretrain-frames 7": "belong to --pretrain TEACHER",
    "--pretrain-epochs 7": "belong to --pretrain TEACHER",
    "--pretrain-dipoles": "belong to --pretrain TEACHER",
    "--teacher-options a=1": "belong to --pretrain TEACHER",
    "--pretrain ase.calculators.emt:EMT --pretrain-dipoles --short-range": "which need latent charges",
    "--pretrain ase.calculators.emt:EMT --pretrain-dipoles --set cache=cache": "and no `cache`",
    "--pretrain frames.extxyz --pretrain-frames 7": "names frames: --teacher-options and --pretrain-frames",
    "--pretrain frames.extxyz --teacher-options a=1": "names frames: --teacher-options and --pretrain-frames",
    "--pretrain ase.calculators.emt:EMT --from nacl": "has learned already: leave pretraining out",
    "--pretrain ase.calculators.emt:EMT --charge-key Q": "under 'Q', where a teacher does not look",
    "--pretrain ase.calculators.emt:EMPTY": "has no 'EMPTY'",
    "--pretrain absent.extxyz": "absent.extxyz",
}


@pytest.mark.parametrize("words", REFUSED)
def test_options_that_contradict_each_other_are_refused(frames, words):
    result = train(*words.split())
    assert result.exit_code == 1
    assert REFUSED[words] in result.output
    assert "Traceback" not in result.output


def test_several_processes_are_refused(frames, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--pretrain runs in one process"):
        Pretraining("ase.calculators.emt:EMT").start(
            default_configuration("frames.extxyz"), Path("run"), quiet=True, resume=False
        )


def test_the_first_training_is_that_of_the_second_with_other_frames(frames):
    second = changed_configuration(
        default_configuration("frames.extxyz", short_range=True),
        {
            "model.preset": "accurate",
            "ensemble": 3,
            "dtype": "float64",
            "seed": 5,
            "references": "isolated-atoms",
            "watch": ["frames.extxyz"],
            "test": ["frames.extxyz"],
            "stages.time_limit": 7.0,
            "stages.epochs": 3,
        },
    )
    first = pretraining_configuration(second, "cheap.extxyz", 40)
    for name in ("model", "ensemble", "dtype", "seed"):
        assert getattr(first, name) == getattr(second, name)
    assert (first.references, first.watch, first.test) == ("fit", (), ())
    [stage] = first.stages
    assert (stage.model, stage.epochs, stage.time_limit, stage.validate_every) == ("short-range", 40, 7.0, 2)


@pytest.mark.parametrize(("n_frames", "epochs"), [(2600, 90), (20, 200)])
def test_the_first_training_takes_nine_thousand_steps(frames, n_frames, epochs):
    # 10 atoms, so that a batch holds 26 frames of 2600, and 4 of 20
    atoms = read_frames("frames.extxyz")[0]
    atoms = atoms[[0] * 10]
    atoms.positions += 3.0 * np.arange(10)[:, None]
    ase.io.write("cheap.extxyz", [atoms] * n_frames)
    [stage] = pretraining_configuration(default_configuration("frames.extxyz"), "cheap.extxyz").stages
    assert stage.epochs == epochs  # 9000 steps / (frames / batch), at most 200
