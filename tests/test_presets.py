"""Presets: names for models; what they set, what stays, what the run folder holds."""

from __future__ import annotations

import json

import ase.io
import pytest
import yaml
from test_cli import lrc_ase
from training_frames import TINY_MODEL, metal_frames

from lrc_ase.files.potential_file import load_potential
from lrc_ase.models.settings import SphereSettings
from lrc_ase.training import ConfigurationError, load_configuration, parse_configuration, train
from lrc_ase.training.assignments import changed_configuration, parse_assignment
from lrc_ase.training.configuration import ModelConfiguration
from lrc_ase.training.presets import PRESETS

DATA = {"data": {"a": {"train": "/x/a.traj"}}}


def keys_of(settings, prefix=""):
    """Yield the dotted keys of plain values."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def blocks(model, changes):
    """Return the number of blocks of a configuration whose key `model` and dotted keys are given."""
    configuration = changed_configuration(parse_configuration({**DATA, "model": model}), changes)
    return configuration.model.descriptor.n_blocks


def test_all_presets_set_the_same_keys_to_different_values():
    fast, accurate = PRESETS["fast"], PRESETS["accurate"]
    assert set(keys_of(fast)) == set(keys_of(accurate))
    assert ModelConfiguration.model_validate("fast") == ModelConfiguration()
    assert ModelConfiguration.model_validate("accurate").descriptor == SphereSettings(
        n_blocks=2, neighbor_degree=1, n_neighbor_features=16, compression=4.0
    )


@pytest.mark.parametrize(
    ("model", "changes", "expected"),
    [
        ("accurate", {}, 2),
        ({"preset": "accurate", "cutoff": 6}, {}, 2),
        ({"preset": "accurate", "descriptor": {"n_channels": 8}}, {}, 2),
        ({"preset": "accurate", "descriptor": SphereSettings(n_channels=8)}, {}, 2),
        ({"preset": "accurate", "descriptor": {"n_blocks": 1}}, {}, 1),
        ({"preset": None}, {}, 1),
        ({}, {"model.preset": "accurate"}, 2),
        ({}, {"model": "accurate"}, 2),
        ({}, {"model": {"preset": "accurate", "cutoff": 6}}, 2),
        ("accurate", {"model.preset": "fast"}, 1),
        ({"descriptor": {"n_blocks": 2}}, {"model.preset": "fast"}, 1),
        ({"descriptor": {"name": "ponita", "n_layers": 2}}, {"model.preset": "accurate"}, 2),
        ("fast", {"model.preset": "accurate", "model.descriptor.n_blocks": 1}, 1),
        ("fast", {"model.descriptor": {"n_channels": 8}, "model.preset": "accurate"}, 2),
        ({}, {"model.preset": "accurate", "model": {"hidden": [8]}}, 2),
    ],
)
def test_a_preset_stands_below_other_keys_and_replaces_an_earlier_one(model, changes, expected):
    assert blocks(model, changes) == expected


def test_other_keys_of_the_model_stay_when_a_preset_changes():
    configuration = parse_configuration({**DATA, "model": {"cutoff": 6.0, "descriptor": {"n_channels": 8}}})
    changed = changed_configuration(configuration, {"model.preset": "accurate", "model.hidden": [4]}).model
    assert (changed.cutoff, changed.descriptor.n_channels, changed.hidden) == (6.0, 8, (4,))


def test_naming_the_descriptor_that_is_there_keeps_its_settings():
    configuration = parse_configuration({**DATA, "model": {"descriptor": {"n_channels": 8}}})
    assert changed_configuration(configuration, {"model.descriptor.name": "sphere"}).model.descriptor.n_channels == 8


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model=acurate", "model: there is no preset 'acurate'; did you mean 'accurate'"),
        ("model.preset=large", "model: there is no preset 'large'; presets are fast, accurate"),
        ("model.preset=3", "there is no preset '3'; presets are fast, accurate"),
        ("model.presett=fast", r"unknown key 'model\.presett'; did you mean 'model\.preset'"),
    ],
)
def test_wrong_presets_are_one_line(assignment, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        changed_configuration(parse_configuration(DATA), dict([parse_assignment(assignment)]))
    assert "\n" not in str(caught.value)


def test_a_preset_has_one_descriptor():
    content = {**DATA, "model": {"preset": "accurate", "descriptor": {"name": "ponita"}}}
    with pytest.raises(ConfigurationError, match="the preset 'accurate' has the descriptor 'sphere', not 'ponita'"):
        parse_configuration(content)


def test_the_run_folder_holds_plain_values(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(4))
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump({"data": "frames.traj", "model": {"preset": "accurate", **TINY_MODEL}, "n_threads": 1})
    )
    code, output = lrc_ase("train", tmp_path / "c.yaml", "--epochs", 1, "-o", tmp_path / "yaml", "-q")
    assert code == 0, output
    tiny = [f"--set=model.{key}={json.dumps(value)}" for key, value in TINY_MODEL.items()]
    code, output = lrc_ase(
        "train", tmp_path / "frames.traj", "--model", "accurate", *tiny, "--threads", 1, "--epochs", 1, "-o",
        tmp_path / "command", "-q",
    )  # fmt: skip
    assert code == 0, output
    path = train(
        tmp_path / "frames.traj", tmp_path / "python", model="accurate", settings={"model": TINY_MODEL}, n_threads=1,
        epochs=1, quiet=True,
    )  # fmt: skip
    assert load_potential(path).settings.descriptor.n_blocks == 2
    for name in ("yaml", "command", "python"):
        text = (tmp_path / name / "configuration.yaml").read_text()
        assert "preset" not in text
        model = load_configuration(tmp_path / name / "configuration.yaml").model
        assert (model.descriptor.n_blocks, model.descriptor.n_channels) == (2, 4)
    code, output = lrc_ase("train", "--resume", "--model", "fast", "-o", tmp_path / "command")
    assert code == 1
    assert "--resume alone takes everything from the run folder, 'model.preset' too" in output


def test_a_preset_that_a_potential_does_not_have_is_refused(tmp_path):
    ase.io.write(tmp_path / "frames.traj", metal_frames(4))
    options = {"n_threads": 1, "epochs": 1, "quiet": True}
    start = train(
        tmp_path / "frames.traj", tmp_path / "old", model="accurate", settings={"model": TINY_MODEL}, **options
    )
    message = r"the model is that of the potential, which differs in model\.descriptor\.n_blocks"
    with pytest.raises(ConfigurationError, match=message):
        train(tmp_path / "frames.traj", tmp_path / "new", start=start, model="fast", **options)
    train(tmp_path / "frames.traj", tmp_path / "new", start=start, model="accurate", **options)
    assert load_configuration(tmp_path / "new" / "configuration.yaml").model.cutoff == 4.0
