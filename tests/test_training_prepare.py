"""Settings that a configuration leaves open follow from the frames."""

import ase.io
from training_frames import two_stage_configuration, write_frames

from lrc_ase.training.prepare import describe, prepare


def test_stress_is_trained_on_where_there_is_any(tmp_path):
    write_frames(tmp_path)
    configuration = two_stage_configuration(tmp_path)
    assert [stage.loss.stress for stage in configuration.stages] == [None, None]
    assert [stage.loss.stress for stage in prepare(configuration).configuration.stages] == [1.0, 1.0]
    frames = ase.io.read(tmp_path / "large.traj", ":")
    for atoms in frames:
        del atoms.calc.results["stress"]
    ase.io.write(tmp_path / "large.traj", frames)
    assert [stage.loss.stress for stage in prepare(configuration).configuration.stages] == [1.0, 0.0]


def test_references_of_another_level_of_theory_are_remarked(tmp_path):
    write_frames(tmp_path)
    configuration = two_stage_configuration(tmp_path)
    assert not [text for text in prepare(configuration).remarks if "level of theory" in text]
    elements = prepare(configuration).configuration.model.elements
    foreign = configuration.model_copy(update={"references": dict.fromkeys(elements, -45e3)})
    (remark,) = [text for text in prepare(foreign).remarks if "level of theory" in text]
    assert remark.startswith("energies lie +4.5e+04 eV per atom from the element references")
    assert f"note: {remark}" in describe(prepare(foreign))
