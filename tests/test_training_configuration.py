"""Configurations: derived from files, read from YAML, and the mistakes that users make in them."""

from __future__ import annotations

from typing import Literal, get_origin

import pytest
from pydantic import BaseModel

from lrc_ase.training.configuration import (
    ConfigurationError,
    StageConfiguration,
    TrainingConfiguration,
    load_configuration,
    parse_configuration,
    write_configuration,
)
from lrc_ase.training.configuration_errors import _models
from lrc_ase.training.continuation import differences
from lrc_ase.training.data_arguments import default_configuration

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
        (["references"], "isolated", r"references: expected fit, isolated-atoms, or .* by element, got 'isolated'$"),
        (["references"], 3, r"references: expected fit, .* got 3$"),
        (["references"], {"Na": "x"}, r"configuration: references\.Na: Input should be a valid number, .*, got 'x'$"),
        (["references"], {"Xx": 1.0}, r"configuration: references\.Xx\.\[key\]: 'Xx' is no chemical symbol"),
        (["model", "hidden"], 64, r"model\.hidden: Input should be a list, got 64$"),
        (["data"], 3, r"data: Input should be a block of keys and values, got 3$"),
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
    with pytest.raises(ConfigurationError, match="the key 'data' is missing"):
        parse_configuration({"stages": MINIMAL["stages"]})


@pytest.mark.parametrize(
    "data",
    [
        "f.traj",
        ["f.traj"],
        {"train": "f.traj"},
        {"frames": "f.traj"},
        {"frames": ["f.traj"]},
        {"frames": {"train": [{"path": "f.traj"}]}},
    ],
)
def test_data_alone_is_a_configuration(data):
    configuration = parse_configuration({"data": data})
    assert [file.path for file in configuration.data["frames"].train] == ["f.traj"]
    assert [(stage.name, stage.model) for stage in configuration.stages] == [("full-range", "full-range")]


def test_one_file_with_a_weight_stands_for_the_data():
    [(name, data)] = parse_configuration({"data": {"train": {"path": "a.traj", "weight": 2.0}}}).data.items()
    assert name == "frames"
    assert [(file.path, file.weight) for file in data.train] == [("a.traj", 2.0)]


def test_a_set_may_be_called_like_a_key():
    content = {"data": {"train": {"train": "a.traj"}, "validation": {"train": "b.traj"}}}
    assert list(parse_configuration(content).data) == ["train", "validation"]


@pytest.mark.parametrize("name", ["test", "validation", "val", "valid", "watch"])
def test_held_out_frames_are_no_data_set_to_train_on(name):
    with pytest.raises(ConfigurationError, match=f"data: '{name}' would be one more data set to train on"):
        parse_configuration({"data": {"small": "a.xyz", name: "b.xyz"}})
    with pytest.raises(ConfigurationError, match="'test' would be one more"):
        parse_configuration({"data": {"train": "a.xyz", "test": "b.xyz"}})


def test_a_model_without_long_range_part_gets_a_short_range_stage():
    configuration = parse_configuration({"data": "f.traj", "model": {"long_range": None}})
    assert [(stage.name, stage.model) for stage in configuration.stages] == [("short-range", "short-range")]


def test_stages_without_names_are_called_by_their_kind():
    stages = [{"train": "short-range-part"}, {}, {"name": "full-range-2"}, {"model": "full-range"}]
    names = [stage.name for stage in parse_configuration({"data": "f.traj", "stages": stages}).stages]
    assert names == ["short-range-part", "full-range", "full-range-2", "full-range-3"]
    assert [s.name for s in parse_configuration({"data": "f.traj", "stages": {"epochs": 2}}).stages] == ["full-range"]


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
    values = StageConfiguration(name="s", epochs=3).model_dump()
    stored = {**values, "epochs": 4, "data": ("a",)}
    assert list(differences({"stage": {**values, "data": None}}, {"stage": stored})) == ["stage.epochs"]


def nested_aliases(n_levels):
    """YAML text of some hundred bytes whose aliases stand for 10**n_levels values."""
    levels = ["&l0 [a,a,a,a,a,a,a,a,a,a]"]
    levels += [f"&l{level} [{','.join([f'*l{level - 1}'] * 10)}]" for level in range(1, n_levels)]
    return "[" + ", ".join(levels) + "]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: x\nseed: 1\nseed: 2\n", "line 3: the key 'seed' is there twice, first in line 2"),
        ("data: {a: {train: x, train: y}}\n", "the key 'train' is there twice"),
        ("data: " + nested_aliases(12), "aliases stand for more than 200000 values"),
        ("data: &a [*a]", "a value contains itself"),
        ("data: " + 3000 * "[" + 3000 * "]", "is nested too deeply"),
        ("data: x\nseed: " + 5000 * "9", "limit"),
        ("data: 2001-99-99", "month must be"),
        ("data: !!python/object:os.system x", "is no valid YAML"),
        ("", "expected keys such as 'data' and 'stages', got NoneType"),
    ],
)
def test_hostile_yaml_is_refused_in_one_short_line(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_configuration(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_yaml_may_have_aliases_and_merges(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: f.traj\nstages:\n- &a {name: a, epochs: 3}\n- {<<: *a, name: b}\n")
    assert [(stage.name, stage.epochs) for stage in load_configuration(path).stages] == [("a", 3), ("b", 3)]


@pytest.mark.parametrize(
    "content",
    [
        {"data": "f", **{f"key{number}": number for number in range(20_000)}},
        {"data": "f", "x" * 100_000: 1},
        {"data": "f", "stages": [{"epochs": "x" * 100_000}]},
        {"data": "f", "stages": [{"epochs": -1}] * 5000},
        {"data": "f", "seed": [[["x"] * 1000] * 1000] * 1000},
    ],
)
def test_messages_are_one_short_line(content):
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_further_mistakes_are_counted():
    with pytest.raises(ConfigurationError, match=r"stages\[2\]\.epochs: .*; and 4997 more$"):
        parse_configuration({"data": "f", "stages": [{"epochs": -1}] * 5000})


def test_model_copy_validates():
    configuration = parse_configuration(MINIMAL)
    assert configuration.model_copy(update={"ensemble": 4}).ensemble == 4
    assert configuration.model_copy(update={"watch": "old.traj"}).watch == ("old.traj",)
    assert configuration.model_copy(update={"seed": 3}).model_fields_set == {"data", "stages", "seed"}
    with pytest.raises(ValueError, match="TrainingConfiguration has no setting 'ensembel'; did you mean 'ensemble'"):
        configuration.model_copy(update={"ensembel": 4})
    with pytest.raises(ValueError, match=r"TrainingConfiguration\.ensemble: Input should be less than or equal to 64"):
        configuration.model_copy(update={"ensemble": 100})
    with pytest.raises(ValueError, match="uses data sets"):
        configuration.model_copy(update={"stages": [{"name": "s", "data": "absent"}]})


def test_reprs_show_what_differs_from_the_defaults():
    assert repr(StageConfiguration(name="s", epochs=3)) == "StageConfiguration(name='s', epochs=3)"
    assert repr(parse_configuration(MINIMAL)) == (
        "TrainingConfiguration(data={'frames': DataSetConfiguration(train=(TrainFile(path='frames.traj'),))}, "
        "stages=(StageConfiguration(name='only'),))"
    )
