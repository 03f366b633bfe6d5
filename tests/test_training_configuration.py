"""Configurations: derived from files, read from YAML, and the mistakes that users make in them."""

from __future__ import annotations

from typing import Literal, get_origin

import pytest
from pydantic import BaseModel

from lrc_ase.training.configuration import (
    ConfigurationError,
    StageConfiguration,
    TrainingConfiguration,
    default_configuration,
    differences,
    load_configuration,
    parse_configuration,
    write_configuration,
)
from lrc_ase.training.configuration_errors import _models

MINIMAL = {"data": {"frames": {"train": "frames.traj"}}, "stages": [{"name": "only"}]}


def changed(path, value):
    """MINIMAL with the key at `path` set to `value`."""
    content = {"data": {"frames": {"train": "frames.traj"}}, "stages": [{"name": "only"}]}
    place = content
    for part in path[:-1]:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
    place[path[-1]] = value
    return content


def test_one_file_makes_one_full_range_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration = default_configuration(["frames.traj"])
    (stage,) = configuration.stages
    assert stage.model == "full-range"
    assert configuration.sets_of(stage) == ("frames",)
    assert configuration.data["frames"].train[0].path == str(tmp_path / "frames.traj")
    assert default_configuration(["frames.traj"], short_range=True).stages[0].model == "short-range"


def test_small_and_large_files_make_the_two_scale_strategy():
    configuration = default_configuration(small=["s.traj"], large=["l.traj"], validation=["v.traj"])
    first, second = configuration.stages
    assert (first.train, configuration.sets_of(first)) == ("short-range-part", ("small",))
    assert (second.train, configuration.sets_of(second)) == ("all", ("large",))
    assert configuration.data["large"].validation[0].endswith("v.traj")


def test_files_must_fit_one_strategy():
    with pytest.raises(ConfigurationError, match="either data files, or both small and large"):
        default_configuration([])
    with pytest.raises(ConfigurationError, match="needs small and large files"):
        default_configuration(small=["s.traj"])


def test_written_configuration_reads_back_equal(tmp_path):
    configuration = parse_configuration(
        {
            "data": {
                "a": {"train": ["/x/a.traj", {"path": "/x/b.traj@::2", "weight": 2.5}], "validation": "/x/v.traj"}
            },
            "references": {"Na": -1234.567890123456789, "Cl": 1e-300},
            "model": {"elements": ["Na", "Cl"], "energy_scale": 0.1234567890123456},
            "stages": [{"name": "s", "loss": {"energy": 0, "function": "huber"}, "gradient_clip": None}],
        }
    )
    path = tmp_path / "configuration.yaml"
    write_configuration(path, configuration)
    assert load_configuration(path) == configuration


def test_relative_paths_start_from_the_configuration_file(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("data: {frames: {train: sub/a.traj, validation: [/abs/v.traj]}}\nstages: [{name: s}]\n")
    data = load_configuration(path).data["frames"]
    assert data.train[0].path == str(tmp_path / "sub/a.traj")
    assert data.validation == ("/abs/v.traj",)


def test_numbers_in_scientific_notation_are_numbers():
    # YAML 1.1 takes 1e-3 for text
    assert parse_configuration(changed(["stages", 0, "learning_rate"], "1e-3")).stages[0].learning_rate == 1e-3


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        (["stagess"], "unknown key 'stagess'; did you mean 'stages'?"),
        (
            ["stages", 0, "lerning_rate"],
            r"unknown key 'stages\[0\].lerning_rate'; did you mean 'stages\[0\].learning_rate'?",
        ),
        (["stages", 0, "loss", "force"], r"'stages\[0\].loss.force'; did you mean 'stages\[0\].loss.forces'?"),
        (["data", "frames", "trian"], "unknown key 'data.frames.trian'; did you mean 'data.frames.train'?"),
        (["model", "cut_off"], "unknown key 'model.cut_off'; did you mean 'model.cutoff'?"),
        (["model", "descriptor", "n_radials"], "did you mean 'model.descriptor.n_radial'?"),
        (["model", "long_range", "smering"], "did you mean 'model.long_range.smearing'?"),
        (["learning_rate"], r"unknown key 'learning_rate'; did you mean 'stages\[...\].learning_rate'?"),
        (["cutoff"], "unknown key 'cutoff'; did you mean 'model.cutoff'?"),
        (["xyzzy"], "unknown key 'xyzzy'; known here are .*'stages'"),
    ],
)
def test_unknown_key_is_one_line_with_the_nearest_valid_key(path, suggestion):
    with pytest.raises(ConfigurationError, match=suggestion) as caught:
        parse_configuration(changed(path, 1), source="train.yaml")
    assert str(caught.value).startswith("train.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["stages", 0, "epochs"], -3, r"stages\[0\].epochs: Input should be greater than or equal to 1, got -3"),
        (["model", "cutoff"], "five", "model.cutoff: Input should be a valid number.*got 'five'"),
        (["stages", 0, "model"], "longrange", r"stages\[0\].model: Input should be 'short-range' or 'full-range'"),
        (["stages", 0, "data"], "small", r"stage 'only' uses data sets \['small'\]; known are \['frames'\]"),
        (["stages", 0, "loss"], {"energy": 0, "forces": 0}, "stage 'only' has no loss"),
        (["model", "long_range"], None, "full-range but `model.long_range` is null"),
        (["stages"], [{"name": "a"}, {"name": "a"}], "different names"),
        (["stages"], [{"name": "a"}, {"name": "b", "model": "short-range"}], "'b' cannot be short-range after"),
    ],
)
def test_wrong_values_name_the_key(path, value, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_configuration(changed(path, value))


def test_missing_keys_are_named():
    with pytest.raises(ConfigurationError, match="the key 'stages' is missing"):
        parse_configuration({"data": MINIMAL["data"]})


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration .*absent\.yaml"):
        load_configuration(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("data: [unclosed\nstages: }")
    with pytest.raises(ConfigurationError, match=r"broken\.yaml is no valid YAML: .* line 2") as caught:
        load_configuration(broken)
    assert "\n" not in str(caught.value)
    broken.write_text("just text")
    with pytest.raises(ConfigurationError, match="expected keys such as 'data' and 'stages', got str"):
        load_configuration(broken)


def test_every_key_is_documented():
    undocumented = []

    def visit(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            inner_models = list(_models(field.annotation))
            if not field.description and not inner_models and get_origin(field.annotation) is not Literal:
                undocumented.append(f"{model.__name__}.{name}")
            for inner in inner_models:
                assert inner.__doc__
                visit(inner)

    visit(TrainingConfiguration)
    assert not undocumented


def test_differences_ignore_what_was_left_open():
    given = StageConfiguration(name="s", epochs=3).model_dump()
    stored = {**given, "epochs": 4, "data": ("a",)}
    assert list(differences({"stage": {**given, "data": None}}, {"stage": stored})) == ["stage.epochs"]
